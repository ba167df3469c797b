"""The leases' deadlines in shared memory (a file in /run): for the agent as second freezer, and for the keeper's successor.

Text would be torn; each number is one aligned 8-byte store into a mapped page. Layout: the boot id (64 bytes), the keeper's
session (64 bytes), then for each datastore its name (56 bytes), the term, the length and the deadline (8 bytes each;
nanoseconds, the deadline of CLOCK_BOOTTIME, 0 while lapsed). A term changes only while the deadline is 0; a length that is
read beside another deadline makes the successor start as lapsed, or with a shorter lease. A file of another boot is worth
nothing, since that boot's clock is not ours.
"""

import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import msgspec

from outlast.model.ids import BootId, DatastoreName, KeeperSession, LeaseTerm
from outlast.model.time import Duration, Instant

_TEXT_BYTES = 64
_HEADER_BYTES = 2 * _TEXT_BYTES
_NAME_BYTES = 56
_ENTRY_BYTES = _NAME_BYTES + 24


class Published(msgspec.Struct, frozen=True):
    """One lease as a keeper session published it last. `deadline`: in the past if nobody froze at it."""

    deadline: Instant
    term: LeaseTerm
    session: KeeperSession
    length: Duration


def _packed(text: str, length: int) -> bytes:
    return text.encode()[:length].ljust(length, b"\0")


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


class LeaseFile:
    """The keeper's side: it alone writes."""

    def __init__(
        self,
        path: Path,
        boot_id: BootId,
        session: KeeperSession,
        datastores: tuple[DatastoreName, ...],
        before: Mapping[DatastoreName, Published],
    ) -> None:
        """Raises OSError. The deadlines of `before` (the predecessor's) stand until this keeper publishes its own:

        one that has passed tells the second freezer to look, which a zero would not.
        """
        self._offsets = {name: _HEADER_BYTES + i * _ENTRY_BYTES + _NAME_BYTES for i, name in enumerate(datastores)}
        content = _packed(boot_id, _TEXT_BYTES) + _packed(session, _TEXT_BYTES)
        for name in datastores:
            old = before.get(name)
            numbers = (old.length, old.deadline) if old is not None else (0, 0)
            content += _packed(name, _NAME_BYTES) + struct.pack("=qqq", 0, *numbers)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(content)
        temporary.replace(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(descriptor, len(content))
        finally:
            os.close(descriptor)

    def publish(self, datastore: DatastoreName, deadline: Instant, term: LeaseTerm, length: Duration) -> None:
        """The lease on `datastore` is good until `deadline` in this term; 0: it has lapsed."""
        offset = self._offsets[datastore]
        for i, number in enumerate((term, length, deadline)):
            struct.pack_into("=q", self._map, offset + 8 * i, number)


def read_leases(path: Path, boot_id: BootId) -> dict[DatastoreName, Published]:
    """What a keeper of this boot published last, lapsed leases left out; empty if none did."""
    try:
        content = path.read_bytes()
    except OSError:
        return {}
    if content[:_TEXT_BYTES] != _packed(boot_id, _TEXT_BYTES):
        return {}
    session = KeeperSession(_text(content[_TEXT_BYTES:_HEADER_BYTES]))
    found: dict[DatastoreName, Published] = {}
    for start in range(_HEADER_BYTES, len(content) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
        term, length, deadline = struct.unpack_from("=qqq", content, start + _NAME_BYTES)
        if deadline > 0:
            name = DatastoreName(_text(content[start : start + _NAME_BYTES]))
            found[name] = Published(Instant(deadline), LeaseTerm(term), session, Duration(length))
    return found
