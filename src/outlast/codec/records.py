"""Datastore records as bytes: heartbeats, registers, incarnations, lists, definitions. The frame is `frames.py`'s.

Everything that a reader cannot believe raises `FrameError` with the reason; callers report it and go on.
"""

from typing import TypeVar

import msgspec

from outlast.codec.frames import BLOCK, FrameError, open_frame, seal
from outlast.model.claims import DiskClaim
from outlast.model.ids import BootId, Incarnation
from outlast.model.records import HeartbeatRecord, PowerOnList, ProtectedList, RegisterRecord
from outlast.model.settings import StoredSettings

_Value = TypeVar("_Value")
_encode = msgspec.msgpack.Encoder().encode

HEARTBEAT, REGISTER, INCARNATION, LIST, PROTECTED, DEFINITION = b"beat", b"regi", b"inca", b"list", b"prot", b"defi"
SETTINGS, CLAIM = b"sett", b"clai"


class BootRecord(msgspec.Struct, frozen=True):
    """What the creator of an incarnation wrote there: which boot it stands for, and of which machine (empty: unknown)."""

    boot_id: BootId
    incarnation: Incarnation
    machine: str


class Definition(msgspec.Struct, frozen=True):
    """A VM's domain XML, as libvirt on its host had it."""

    sequence: int
    xml: str


def _open(kind: bytes, raw: bytes, key: bytes, type_: type[_Value]) -> _Value:
    try:
        return msgspec.msgpack.decode(open_frame(kind, raw, key), type=type_)
    except msgspec.DecodeError as error:
        raise FrameError(f"it cannot be decoded: {error}") from None


def seal_heartbeat(record: HeartbeatRecord, key: bytes) -> bytes:
    """Exactly one block of 4096 bytes."""
    raw = seal(HEARTBEAT, _encode(record), key)
    if len(raw) != BLOCK:
        raise ValueError(f"a heartbeat record of {len(raw)} bytes does not fit into {BLOCK}")
    return raw


def open_heartbeat(raw: bytes, key: bytes) -> HeartbeatRecord:
    """Raises FrameError."""
    return _open(HEARTBEAT, raw, key, HeartbeatRecord)


def seal_register(record: RegisterRecord, key: bytes) -> bytes:
    """One epoch of a register."""
    return seal(REGISTER, _encode(record), key)


def open_register(raw: bytes, key: bytes) -> RegisterRecord:
    """Raises FrameError."""
    return _open(REGISTER, raw, key, RegisterRecord)


def seal_claim(claim: DiskClaim, key: bytes) -> bytes:
    """One claim of a disk."""
    return seal(CLAIM, _encode(claim), key)


def open_claim(raw: bytes, key: bytes) -> DiskClaim:
    """Raises FrameError."""
    return _open(CLAIM, raw, key, DiskClaim)


def seal_incarnation(record: BootRecord, key: bytes) -> bytes:
    """One boot of a host."""
    return seal(INCARNATION, _encode(record), key)


def open_incarnation(raw: bytes, key: bytes) -> BootRecord:
    """Raises FrameError."""
    return _open(INCARNATION, raw, key, BootRecord)


def seal_power_on_list(content: PowerOnList, key: bytes) -> bytes:
    """For one slot of a slotted file."""
    return seal(LIST, _encode(content), key)


def open_power_on_list(raw: bytes, key: bytes) -> PowerOnList:
    """Raises FrameError."""
    return _open(LIST, raw, key, PowerOnList)


def seal_protected_list(content: ProtectedList, key: bytes) -> bytes:
    """For one slot of a slotted file."""
    return seal(PROTECTED, _encode(content), key)


def open_protected_list(raw: bytes, key: bytes) -> ProtectedList:
    """Raises FrameError."""
    return _open(PROTECTED, raw, key, ProtectedList)


def seal_settings(content: StoredSettings, key: bytes) -> bytes:
    """For one slot of a slotted file."""
    return seal(SETTINGS, _encode(content), key)


def open_settings(raw: bytes, key: bytes) -> StoredSettings:
    """Raises FrameError."""
    return _open(SETTINGS, raw, key, StoredSettings)


def seal_definition(content: Definition, key: bytes) -> bytes:
    """For one slot of a slotted file."""
    return seal(DEFINITION, _encode(content), key)


def open_definition(raw: bytes, key: bytes) -> Definition:
    """Raises FrameError."""
    return _open(DEFINITION, raw, key, Definition)
