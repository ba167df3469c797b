"""The agent as second freezer (safety rule 4): should the keeper die or hang, its VMs still stop at their lease's end.

The keeper publishes each lease's deadline in shared memory and takes it back when it lapses. A deadline that has passed
and still stands there means that nobody froze: the agent does, through pidfds, and never thaws; that is the keeper's alone.
"""

import contextlib
import os
import signal
from pathlib import Path

from outlast.keeper.lease_file import read_leases
from outlast.keeper.processes import inspect
from outlast.model.ids import BootId
from outlast.model.keeping import KeeperReport, KeptVm
from outlast.model.time import MILLISECOND, Duration, Instant

GRACE = Duration(250 * MILLISECOND)
"""How long after the deadline the keeper may still be about to do it itself."""


class SecondFreezer:
    """Remembers the keeper's last report, since a dead keeper gives none."""

    def __init__(self, path: Path, boot_id: BootId) -> None:
        self._path = path
        self._boot_id = boot_id
        self._vms: tuple[KeptVm, ...] = ()

    def remember(self, report: KeeperReport) -> None:
        """What the keeper guards now."""
        self._vms = report.vms

    def look(self, now: Instant) -> list[KeptVm]:
        """Freeze what executes past its lease; returns what was frozen."""
        leases = read_leases(self._path, self._boot_id)
        passed = {name for name, lease in leases.items() if now > lease.deadline + GRACE}
        return [vm for vm in self._vms if vm.home in passed and vm.pid is not None and _freeze(vm, vm.pid)]


def _freeze(vm: KeptVm, pid: int) -> bool:
    with contextlib.suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            qemu = inspect(pid)
            if qemu is not None and qemu.vm == vm.vm and not qemu.stopped:
                signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
                return True
        finally:
            os.close(pidfd)
    return False
