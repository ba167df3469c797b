"""The leases' deadlines in shared memory (a file in /run): for the agent as second freezer, and for the keeper's successor.

Text would be torn; each deadline is one aligned 8-byte store into a mapped page. Layout: the boot id (64 bytes), then for
each datastore its name (56 bytes) and its deadline (8 bytes, CLOCK_BOOTTIME in nanoseconds, 0 while lapsed). A file of
another boot is worth nothing, since that boot's clock is not ours.
"""

import mmap
import os
import struct
from pathlib import Path

from outlast.model.ids import BootId, DatastoreName
from outlast.model.time import Instant

_BOOT_BYTES = 64
_NAME_BYTES = 56
_ENTRY_BYTES = _NAME_BYTES + 8


def _packed(text: str, length: int) -> bytes:
    return text.encode()[:length].ljust(length, b"\0")


class LeaseFile:
    """The keeper's side: it alone writes."""

    def __init__(self, path: Path, boot_id: BootId, datastores: tuple[DatastoreName, ...]) -> None:
        """Starts with every lease lapsed; read the predecessor's deadlines (`read_deadlines`) before. Raises OSError."""
        self._offsets = {name: _BOOT_BYTES + i * _ENTRY_BYTES + _NAME_BYTES for i, name in enumerate(datastores)}
        content = _packed(boot_id, _BOOT_BYTES)
        for name in datastores:
            content += _packed(name, _NAME_BYTES) + bytes(8)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(content)
        temporary.replace(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(descriptor, len(content))
        finally:
            os.close(descriptor)

    def publish(self, datastore: DatastoreName, deadline: Instant) -> None:
        """The lease on `datastore` is good until `deadline`; 0: it has lapsed."""
        struct.pack_into("=q", self._map, self._offsets[datastore], deadline)


def read_deadlines(path: Path, boot_id: BootId) -> dict[DatastoreName, Instant]:
    """What a keeper of this boot published last; empty if none did."""
    try:
        content = path.read_bytes()
    except OSError:
        return {}
    if content[:_BOOT_BYTES] != _packed(boot_id, _BOOT_BYTES):
        return {}
    found: dict[DatastoreName, Instant] = {}
    for start in range(_BOOT_BYTES, len(content) - _ENTRY_BYTES + 1, _ENTRY_BYTES):
        name = content[start : start + _NAME_BYTES].rstrip(b"\0").decode(errors="replace")
        (deadline,) = struct.unpack_from("=q", content, start + _NAME_BYTES)
        if deadline > 0:
            found[DatastoreName(name)] = Instant(deadline)
    return found
