"""When a record that does not change becomes proof: rule 5 of design.md section 2, word by word."""

import msgspec
import pytest

from outlast.model.ids import BootId, HostId, Incarnation, KeeperSession, LeaseTerm
from outlast.model.records import Enforcement, HeartbeatRecord, Sighting
from outlast.model.settings import Settings
from outlast.model.time import Duration, Instant, seconds
from outlast.protocol.observation import Freshness, RecordWatch

WINDOW = Settings().window
GAP = Duration(seconds(2))


def at(second: float) -> Instant:
    return Instant(seconds(second))


RECORD = HeartbeatRecord(
    host=HostId("a"),
    boot_id=BootId("b"),
    incarnation=Incarnation(1),
    session=KeeperSession("s"),
    sequence=1,
    term=LeaseTerm(1),
    enforcement=Enforcement.KEEPER,
    agent_progress=1,
    wall_clock_s=0,
    lease=Settings().lease_duration,
    window=Settings().window,
)
SAME = Sighting(b"same", RECORD)


def watched(until_s: float, *, step_s: float = 0.5, sighting: Sighting = SAME) -> RecordWatch:
    """Reads of an unchanged record from 0 s on; each takes 10 ms."""
    watch = RecordWatch(GAP)
    moment = 0.0
    while moment <= until_s:
        watch.observe(sighting, at(moment), at(moment + 0.01))
        moment += step_s
    return watch


def test_the_window_counts_from_the_completion_of_the_first_read() -> None:
    watch = watched(0.0)
    assert watch.window_ends(WINDOW) == at(0.01) + WINDOW
    # A read that began a moment too early proves nothing, even if it ended later.
    watch = watched(7.0)
    watch.observe(SAME, at(7.505), at(7.6))
    assert not watch.lease_is_over(at(0), WINDOW)
    watch.observe(SAME, at(7.52), at(7.6))
    assert watch.lease_is_over(at(0), WINDOW)


def test_the_longer_of_both_windows_counts() -> None:
    """While a longer lease is being introduced, its holder runs on when an old observer's window has elapsed."""
    longer = Sighting(b"same", msgspec.structs.replace(RECORD, window=Duration(2 * WINDOW)))
    assert not watched(14.0, sighting=longer).lease_is_over(at(0), WINDOW)
    assert watched(16.0, sighting=longer).lease_is_over(at(0), WINDOW)
    assert watched(8.0, sighting=longer).freshness(at(8.1), WINDOW) is Freshness.UNKNOWN
    shorter = Sighting(b"same", msgspec.structs.replace(RECORD, window=Duration(WINDOW // 2)))
    assert not watched(7.0, sighting=shorter).lease_is_over(at(0), WINDOW)


def test_the_last_read_must_begin_after_the_epoch_was_read() -> None:
    watch = watched(8.0)
    assert watch.lease_is_over(at(7.9), WINDOW)
    assert not watch.lease_is_over(at(8.1), WINDOW)


def test_any_change_of_the_bytes_is_life() -> None:
    watch = watched(8.0)
    assert watch.observe(Sighting(b"another format, which nobody can decode", None, "it has version 9"), at(8.1), at(8.2))
    assert not watch.lease_is_over(at(0), WINDOW)
    assert watch.freshness(at(8.3), WINDOW) is Freshness.FRESH
    watch.observe(Sighting(b"changed", RECORD), at(8.5), at(8.6))
    assert watch.window_ends(WINDOW) == at(8.6) + WINDOW


def test_what_cannot_be_decoded_is_never_stale_and_never_proof() -> None:
    torn = Sighting(b"half of one, half of another", None, "its checksum is wrong")
    watch = watched(20.0, sighting=torn)
    assert watch.freshness(at(20.1), WINDOW) is Freshness.UNKNOWN
    assert not watch.lease_is_over(at(0), WINDOW)
    # The same after a window in which it could be read: what was seen last is torn, and may have granted a lease.
    watch = watched(8.0)
    moment = 8.1
    while moment < 30.0:
        watch.observe(torn, at(moment), at(moment + 0.01))
        assert not watch.lease_is_over(at(0), WINDOW)
        moment += 0.5
    assert watch.freshness(at(30.0), WINDOW) is Freshness.UNKNOWN


def test_a_record_that_cannot_be_read_is_unknown_and_never_stale() -> None:
    watch = watched(8.0)
    watch.observe(Sighting(None, None, "Input/output error"), at(8.1), at(8.2))
    assert watch.freshness(at(8.3), WINDOW) is Freshness.UNKNOWN
    assert not watch.lease_is_over(at(0), WINDOW)


def test_a_gap_in_the_reads_voids_the_window() -> None:
    watch = watched(3.0)
    watch.observe(SAME, at(6.0), at(6.01))
    assert watch.window_ends(WINDOW) == at(6.01) + WINDOW


def test_a_lapse_of_the_observer_voids_the_window() -> None:
    watch = watched(8.0)
    watch.void()
    assert not watch.lease_is_over(at(0), WINDOW)
    watch.observe(SAME, at(8.5), at(8.51))
    assert watch.window_ends(WINDOW) == at(8.51) + WINDOW


@pytest.mark.parametrize(
    ("until_s", "now_s", "expected"),
    [
        (0.0, 0.5, Freshness.UNKNOWN),
        (7.0, 7.2, Freshness.UNKNOWN),
        (8.0, 8.1, Freshness.STALE),
        (8.0, 11.0, Freshness.UNKNOWN),
    ],
)
def test_freshness(until_s: float, now_s: float, expected: Freshness) -> None:
    assert watched(until_s).freshness(at(now_s), WINDOW) is expected


def test_incarnations_only_rise() -> None:
    watch = RecordWatch(GAP)
    watch.observe(Sighting(b"a", None, incarnation=Incarnation(3)), at(0), at(0.01))
    watch.observe(Sighting(b"a", None, incarnation=Incarnation(2)), at(0.5), at(0.51))
    assert watch.incarnation == 3
