"""A datastore that is a directory: a plain one, NFS, CephFS, GlusterFS, GFS2, OCFS2.

Runs inside the I/O helper, one request after the other; anything here may take for ever. The identity is checked before
the first request and again whenever something that should exist does not: an unmounted mount point is not a datastore.

Slotted files hold two slots of 1 MiB, written in turn, so that a reader always finds the last complete one.
"""

import collections
import hashlib
import os

from outlast.drivers.datastore import blocks, registers
from outlast.drivers.datastore.identity import DIRECTORY, identity_path, problem_with
from outlast.drivers.datastore.spares import SpareFiles
from outlast.drivers.datastore.wire import (
    UNREADABLE,
    Blocks,
    Done,
    Failed,
    Lasts,
    LinkNext,
    Newest,
    Op,
    Raw,
    ReadBlocks,
    ReadLast,
    ReadSlots,
    Renew,
    Result,
    Slots,
    Surveyed,
    WriteSlot,
)

SLOT_BYTES = 1 << 20
TRIES_KEPT = 512
"""Writes of a heartbeat that are remembered: more than a failed one can be late."""


class _OwnPlace:
    """What this process wrote in a place of its own, as digests."""

    def __init__(self) -> None:
        self.confirmed = b""
        self.tried: collections.deque[bytes] = collections.deque(maxlen=TRIES_KEPT)

    def holds_ours(self, found: bytes) -> bool:
        """Whether these are bytes that we wrote or tried to write."""
        return _digest(found) == self.confirmed or _digest(found) in self.tried


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


class PosixDatastore:
    """`role` keeps the spare files of the keeper's helper and the agent's apart."""

    def __init__(self, root: str, name: str, domain: str, host: str, role: str) -> None:
        self._root = root.rstrip("/")
        self._name = name
        self._domain = domain
        self._base = f"{self._root}/{DIRECTORY}/{domain}"
        self._host_directory = f"{self._base}/hosts/{host}"
        self._spares = SpareFiles(f"{self._host_directory}/spare-{role}")
        self._ready = False
        self._places: dict[str, _OwnPlace] = {}

    def do(self, op: Op) -> Result:
        """The result of one request; every error is in it, in words."""
        try:
            problem = self._check()
            return Failed(problem) if problem else self._do(op)
        except OSError as error:
            self._ready = False
            return Failed(self._words(error))

    def _words(self, error: OSError) -> str:
        name = os.path.relpath(error.filename, self._root) if isinstance(error.filename, str) else self._name
        return f"{self._name}: {name}: {error.strerror or error}"

    def _check(self) -> str:
        if self._ready:
            return ""
        problem = problem_with(self._root, self._name, self._domain)
        if not problem:
            self._make_directory()
            self._ready = True
        return problem

    def _make_directory(self) -> None:
        try:
            os.makedirs(f"{self._host_directory}/incarnation", mode=0o700, exist_ok=True)
            self._spares.fill()
        except OSError:
            # Full or read-only: what exists can be read, and written in place; what does not will say so itself.
            if not os.path.isdir(self._host_directory):
                raise

    def _do(self, op: Op) -> Result:
        match op:
            case Renew():
                return self._renew(op)
            case ReadBlocks():
                return Blocks(tuple(self._read_block(path) for path in op.paths))
            case ReadLast():
                return Lasts(tuple(self._read_last(directory) for directory in op.directories))
            case LinkNext():
                return registers.link_next(f"{self._base}/{op.directory}", op.epoch, op.data, self._spares)
            case WriteSlot():
                return self._write_slot(op)
            case ReadSlots():
                return Slots(tuple(self._read_slots(path) for path in op.paths))
            case _:
                return self._survey()

    def _renew(self, op: Renew) -> Done:
        """Read our place back first (safety rule 9): who finds another's record there has a clone.

        A write that failed may have landed all the same, or land later; so whatever this process tried to write is ours.
        Nothing is compared before a first write was confirmed: until then an earlier helper's or boot's record lies there.
        """
        path = f"{self._base}/{op.path}"
        place = self._places.setdefault(path, _OwnPlace())
        if place.confirmed and not place.holds_ours(blocks.read(path)):
            del self._places[path]
            return Done(ok=False, problem="our record was written over by another process or host", foreign=True)
        place.tried.append(_digest(op.data))
        blocks.write(path, op.data, create=not place.confirmed)
        place.confirmed = _digest(op.data)
        return Done(ok=True)

    def _read_block(self, path: str) -> Raw:
        try:
            data = blocks.read(f"{self._base}/{path}")
        except FileNotFoundError:
            self._ready = False
            return Raw(None)
        except OSError as error:
            return Raw(None, self._words(error))
        return Raw(data)

    def _read_last(self, directory: str) -> Newest:
        try:
            newest = registers.read_last(f"{self._base}/{directory}")
        except OSError as error:
            return Newest(None, b"", self._words(error))
        if newest.epoch is None and not newest.problem:
            problem = problem_with(self._root, self._name, self._domain)
            return Newest(None, b"", problem) if problem else newest
        return newest

    def _write_slot(self, op: WriteSlot) -> Done:
        if len(op.data) > SLOT_BYTES:
            return Done(False, f"{op.path} would be {len(op.data)} bytes, and {SLOT_BYTES} are possible")
        path = f"{self._base}/{op.path}"
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        blocks.write(path, op.data, (op.sequence % 2) * SLOT_BYTES, create=True)
        return Done(True)

    def _read_slots(self, path: str) -> tuple[bytes, ...]:
        full = f"{self._base}/{path}"
        found: list[bytes] = []
        for offset in (0, SLOT_BYTES):
            try:
                first = blocks.read(full, blocks.BLOCK, offset)
                # The length in the header (bytes 16 to 19, see codec/frames.py) says how much more there is to read.
                length = 40 + int.from_bytes(first[16:20], "big") if len(first) >= 20 else 0
                if blocks.BLOCK < length <= SLOT_BYTES:
                    first = blocks.read(full, -(-length // blocks.BLOCK) * blocks.BLOCK, offset)
            except FileNotFoundError:
                continue
            except OSError:
                first = UNREADABLE
            if first:
                found.append(first)
        return tuple(found)

    def _survey(self) -> Result:
        problem = problem_with(self._root, self._name, self._domain)
        if problem:
            self._ready = False
            return Failed(problem)
        filesystem, device, options = _mount_of(os.stat(self._root).st_dev)
        space = os.statvfs(self._root)
        return Surveyed(
            filesystem=filesystem,
            device=device,
            free_bytes=space.f_bavail * space.f_frsize,
            read_only=bool(space.f_flag & os.ST_RDONLY) or "ro" in options.split(","),
            uncached=blocks.is_uncached(identity_path(self._root)),
        )


def _mount_of(device: int) -> tuple[str, str, str]:
    """File-system type, storage device and options of the mount with this device number (proc(5), mountinfo)."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo") as mounts:
        for line in mounts:
            before, _, after = line.rstrip("\n").partition(" - ")
            fields = before.split(" ")
            if fields[2] == wanted:
                filesystem, source, options = after.split(" ", 2)
                return filesystem, source, f"{fields[5]},{options}"
    return "unknown", wanted, ""
