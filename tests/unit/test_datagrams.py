"""Datagrams: authentic, new and for us, or dropped and counted. Nothing that arrives raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.codec.datagrams import Opener, Sealer
from outlast.codec.keys import parse_key
from outlast.model.ids import HostId
from outlast.model.messages import OrderReport

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
A, B, C = HostId("a"), HostId("b"), HostId("c")


def sealer(session: int = 1, key: bytes = KEY, me: HostId = A, random: bytes = b"01234567") -> Sealer:
    return Sealer(key, me, session, random)


def opener() -> Opener:
    return Opener(KEY, B, frozenset({A, B}))


def message(number: int = 1) -> OrderReport:
    return OrderReport(order=number, vm="vm", stage="owned")  # type: ignore[arg-type]


def test_what_is_sealed_is_opened_once() -> None:
    one, two = sealer(), opener()
    datagram = one.seal(B, message(7))
    assert two.open(datagram) == (A, message(7))
    assert two.open(datagram) is None
    assert two.dropped == {"replayed": 1}


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "not of Outlast"),
        (b"x" * 400, "not of Outlast"),
        (sealer().seal(B, message())[:20], "not of Outlast"),
        (sealer().seal(B, message())[:-1], "not authentic"),
        (sealer(key=OTHER_KEY).seal(B, message()), "another key"),
        (sealer().seal(C, message()), "not a member"),
        (sealer(me=C).seal(B, message()), "not a member"),
        (sealer(me=B).seal(B, message()), "not a member"),
    ],
)
def test_anything_else_is_counted_and_dropped(datagram: bytes, reason: str) -> None:
    two = opener()
    assert two.open(datagram) is None
    assert two.dropped == {reason: 1}


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_dropped(datagram: bytes) -> None:
    two = opener()
    assert two.open(datagram) is None
    assert two.open(b"OLD1" + datagram) is None


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    datagram = bytearray(sealer().seal(B, message()))
    datagram[place % len(datagram)] ^= change
    assert opener().open(bytes(datagram)) is None


@given(st.permutations(range(40)))
def test_reordered_datagrams_are_each_believed_once(order: list[int]) -> None:
    one, two = sealer(), opener()
    sent = [one.seal(B, message(number)) for number in range(40)]
    for number in order:
        assert two.open(sent[number]) == (A, message(number))
    for datagram in sent:
        assert two.open(datagram) is None


def test_what_fell_out_of_the_window_is_dropped() -> None:
    one, two = sealer(), opener()
    sent = [one.seal(B, message(number)) for number in range(200)]
    assert two.open(sent[199]) is not None
    assert two.open(sent[10]) is None
    assert two.open(sent[150]) is not None
    assert two.dropped == {"too old": 1}


def test_nothing_of_an_earlier_session_is_believed() -> None:
    old, new, two = sealer(1), sealer(2), opener()
    recorded = [old.seal(B, message(number)) for number in range(3)]
    assert two.open(recorded[0]) is not None
    assert two.open(new.seal(B, message(9))) is not None
    assert two.open(recorded[1]) is None
    assert two.dropped == {"old session": 1}


def test_sessions_never_share_a_key_stream() -> None:
    """The same counter under the same key would be the same nonce."""
    header = 32
    first, second = sealer(1).seal(B, message()), sealer(1, random=b"76543210").seal(B, message())
    assert first[header:] != second[header:]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "64 hexadecimal digits, not 0"), ("xyz", "hexadecimal digits only"), ("00" * 31, "not 62")],
)
def test_a_bad_key_file_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_key(text)


def test_a_good_key_file_may_end_in_a_newline() -> None:
    assert parse_key(KEY.hex() + "\n") == KEY
