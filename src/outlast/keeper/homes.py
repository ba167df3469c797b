"""What a keeper writes down about each VM of this boot for its successor: its home, and in which term it runs by right.

Whoever passes the gate has its home from its definition. A successor of this keeper sees only command lines, and must not
come to another answer, which would be another register. And it must not let go on what its predecessor had not let start:
a start that a lapse has voided may bring its process into being just when the keeper changes (safety rules 3 and 8).
The files lie in /run and do not outlive the boot.
"""

import contextlib
from pathlib import Path

import msgspec

from outlast.model.ids import DatastoreName, KeeperSession, LeaseTerm, VmId
from outlast.model.time import Duration


class Memory(msgspec.Struct, frozen=True):
    """One VM: its home, and the lease term of a keeper session in which it was started or re-asserted last.

    `lease`: how long a lease the epoch on which it runs allows (`protocol/lease_length.py`), in nanoseconds.
    """

    home: DatastoreName
    session: KeeperSession
    term: LeaseTerm
    lease: Duration


class Homes:
    """One small file a VM, named by its uuid."""

    def __init__(self, directory: Path, datastores: tuple[DatastoreName, ...]) -> None:
        self._directory = directory
        self._datastores = datastores

    def remember(self, vm: VmId, memory: Memory) -> None:
        """Write it down. What cannot be (a full /run) makes the successor careful: it freezes, and asserts anew."""
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            temporary = self._directory / f".{vm}.new"
            temporary.write_bytes(msgspec.json.encode(memory))
            temporary.replace(self._directory / vm)
        except OSError:
            with contextlib.suppress(OSError):
                (self._directory / vm).unlink()

    def recall(self, vm: VmId) -> Memory | None:
        """What was written in this boot, if its home is one of our datastores still."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            memory = msgspec.json.decode((self._directory / vm).read_bytes(), type=Memory)
            return memory if memory.home in self._datastores else None
        return None
