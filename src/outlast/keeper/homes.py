"""On which datastore each VM of this boot has its home, for a keeper that starts anew.

Whoever passes the gate has its home from its definition. A successor of this keeper sees only command lines, and must not
come to another answer, which would be another register. The files lie in /run and do not outlive the boot.
"""

import contextlib
from pathlib import Path

from outlast.model.ids import DatastoreName, VmId


class Homes:
    """One small file a VM, named by its uuid."""

    def __init__(self, directory: Path, datastores: tuple[DatastoreName, ...]) -> None:
        self._directory = directory
        self._datastores = datastores

    def remember(self, vm: VmId, home: DatastoreName) -> None:
        """Write it down. What cannot be (a full /run) leaves the command line, which says the same for plain disks."""
        with contextlib.suppress(OSError):
            self._directory.mkdir(mode=0o700, exist_ok=True)
            temporary = self._directory / f".{vm}.new"
            temporary.write_text(home)
            temporary.replace(self._directory / vm)

    def recall(self, vm: VmId) -> DatastoreName | None:
        """What was written in this boot, if it is one of our datastores still."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            home = (self._directory / vm).read_text()
            return next((name for name in self._datastores if name == home), None)
        return None
