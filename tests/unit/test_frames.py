"""Records on a datastore: what is written is read back, and nothing else is ever believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.codec import frames, records
from outlast.codec.frames import FrameError, open_frame, seal
from outlast.model.ids import (
    BootId,
    DatastoreName,
    ElectionTerm,
    Epoch,
    HostId,
    Incarnation,
    KeeperSession,
    LeaseTerm,
    Nonce,
    VmId,
    VmName,
)
from outlast.model.policy import PRIORITIES, Ready, VmPolicy
from outlast.model.records import (
    Attempts,
    Enforcement,
    HeartbeatRecord,
    PoweredVm,
    PowerOnList,
    ProofKind,
    ProtectedList,
    ProtectedVm,
    Reason,
    RegisterRecord,
    RegisterState,
)
from outlast.model.time import Duration

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
counts = st.integers(0, 2**63 - 1)
texts = st.text(max_size=40)
heartbeats = st.builds(
    HeartbeatRecord,
    host=texts.map(HostId),
    boot_id=texts.map(BootId),
    incarnation=counts.map(Incarnation),
    session=texts.map(KeeperSession),
    sequence=counts,
    term=counts.map(LeaseTerm),
    enforcement=st.sampled_from(Enforcement),
    agent_progress=counts,
    wall_clock_s=counts,
    lease=counts.map(Duration),
    window=counts.map(Duration),
    ended=st.booleans(),
)
registers = st.builds(
    RegisterRecord,
    subject=texts,
    epoch=counts.map(Epoch),
    owner=texts.map(HostId),
    incarnation=counts.map(Incarnation),
    session=texts,
    nonce=texts.map(Nonce),
    state=st.sampled_from(RegisterState),
    reason=st.sampled_from(Reason),
    proof=st.none() | st.sampled_from(ProofKind),
)
policies = st.builds(
    VmPolicy,
    priority=st.sampled_from(PRIORITIES),
    after=st.lists(texts.map(VmName), max_size=3).map(tuple),
    ready=st.builds(Ready, st.sampled_from(["powered-on", "guest-heartbeat", "delay"]), counts.map(Duration)),
    max_restarts=st.integers(-1, 9),
    max_relocations=st.integers(-1, 9),
    isolation_response=st.none() | st.just("power-off"),
)
attempts = st.builds(
    Attempts,
    tries=counts,
    hosts=st.lists(texts.map(HostId), max_size=3).map(tuple),
    counted=st.none() | counts.map(Epoch),
    failed=st.booleans(),
    problem=texts,
)
powered = st.builds(
    PoweredVm,
    vm=texts.map(VmId),
    name=texts.map(VmName),
    home=st.none() | texts.map(DatastoreName),
    epoch=st.none() | counts.map(Epoch),
    state=texts,
    memory_mib=counts,
    protected=st.booleans(),
    policy=st.none() | policies,
    ready=st.booleans(),
    note=texts,
)
power_on_lists = st.builds(
    PowerOnList,
    host=texts.map(HostId),
    boot_id=texts.map(BootId),
    sequence=counts,
    isolated=st.booleans(),
    vms=st.lists(powered, max_size=4).map(tuple),
)
protected_lists = st.builds(
    ProtectedList,
    datastore=texts.map(DatastoreName),
    sequence=counts,
    writer=texts.map(HostId),
    primary_epoch=counts.map(Epoch),
    term=counts.map(ElectionTerm),
    vms=st.lists(
        st.builds(ProtectedVm, texts.map(VmId), texts.map(VmName), counts, texts.map(HostId), policies, attempts=attempts),
        max_size=4,
    ).map(tuple),
)


@given(heartbeats)
def test_a_heartbeat_is_one_block_and_read_back_whole(record: HeartbeatRecord) -> None:
    raw = records.seal_heartbeat(record, KEY)
    assert len(raw) == frames.BLOCK
    assert records.open_heartbeat(raw, KEY) == record


@given(registers)
def test_a_register_record_is_read_back_whole(record: RegisterRecord) -> None:
    assert records.open_register(records.seal_register(record, KEY), KEY) == record


@given(power_on_lists)
def test_a_power_on_list_is_read_back_whole(content: PowerOnList) -> None:
    assert records.open_power_on_list(records.seal_power_on_list(content, KEY), KEY) == content


@given(protected_lists)
def test_a_protected_list_is_read_back_whole(content: ProtectedList) -> None:
    assert records.open_protected_list(records.seal_protected_list(content, KEY), KEY) == content


@given(st.binary(max_size=200), st.binary(max_size=5000))
def test_arbitrary_bytes_are_refused_in_words(kind: bytes, raw: bytes) -> None:
    with pytest.raises(FrameError, match=r"^it "):
        open_frame(kind[:4].ljust(4, b"?"), raw, KEY)
    for opener in (records.open_heartbeat, records.open_register, records.open_power_on_list, records.open_definition):
        with pytest.raises(FrameError, match=r"^it "):
            opener(raw, KEY)


@given(st.binary(min_size=1, max_size=9000), st.data())
def test_one_changed_byte_is_noticed(content: bytes, data: st.DataObject) -> None:
    raw = bytearray(seal(b"list", content, KEY))
    place = data.draw(st.integers(0, frames.HEADER_BYTES + len(content) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FrameError):
        open_frame(b"list", bytes(raw), KEY)


@given(st.integers(4200, 20_000), st.integers(1, 255), st.data())
def test_a_torn_write_is_called_torn(length: int, byte: int, data: st.DataObject) -> None:
    """The first blocks are of the new record, the last ones of the old."""
    new, old = seal(b"list", bytes([byte]) * length, KEY), seal(b"list", bytes(length), KEY)
    cut = data.draw(st.integers(1, len(new) // frames.BLOCK - 1)) * frames.BLOCK
    with pytest.raises(FrameError, match="it is torn"):
        open_frame(b"list", new[:cut] + old[cut:], KEY)


def test_what_cannot_be_believed_says_why() -> None:
    good = seal(b"beat", b"content", KEY)
    newer = bytearray(good)
    newer[13] = frames.VERSION + 1
    for raw, words in (
        (b"", "it is empty"),
        (bytes(4096), "it is empty"),
        (good[:20], "cut short after 20 bytes"),
        (b"something else" * 300, "not a record of Outlast"),
        (bytes(newer), "format version 2, and this Outlast reads version 1: run the same release on all hosts"),
        (seal(b"list", b"content", KEY), "a record of another kind"),
        (seal(b"beat", b"content", OTHER_KEY), "sealed with another cluster key"),
    ):
        with pytest.raises(FrameError, match=words):
            open_frame(b"beat", raw, KEY)


def test_a_valid_frame_with_foreign_content_is_no_record() -> None:
    with pytest.raises(FrameError, match="it cannot be decoded"):
        records.open_heartbeat(seal(records.HEARTBEAT, b"\x93\x01\x02\x03", KEY), KEY)
