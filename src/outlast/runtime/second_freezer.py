"""The agent as second freezer (safety rule 4): should the keeper die or hang, its VMs still stop at their lease's end.

The keeper publishes each lease's deadline in shared memory and takes it back when it lapses. A deadline that has passed
and still stands there means that nobody froze: the agent does, through pidfds, and never thaws; that is the keeper's alone.

An agent that was started while the keeper was dead or hung already has no report of it. So what runs here is looked for as
well, as a keeper that starts does: each guest's home is what a keeper of this boot wrote down, else where its disks lie.
"""

import contextlib
import os
import signal
from pathlib import Path

from outlast.keeper.homes import Homes
from outlast.keeper.lease_file import read_leases
from outlast.keeper.processes import every_guest, inspect
from outlast.model.ids import BootId
from outlast.model.keeper_config import KeeperConfig
from outlast.model.keeping import KeeperReport, KeptVm
from outlast.model.time import MILLISECOND, Duration, Instant

GRACE = Duration(250 * MILLISECOND)
"""How long after the deadline the keeper may still be about to do it itself."""


class SecondFreezer:
    """Remembers the keeper's last report, since a dead keeper gives none."""

    def __init__(self, config: KeeperConfig, boot_id: BootId) -> None:
        self._config = config
        self._boot_id = boot_id
        self._homes = Homes(Path(config.run_dir) / "homes", tuple(d.name for d in config.datastores))
        self._vms: tuple[KeptVm, ...] = ()

    def remember(self, report: KeeperReport) -> None:
        """What the keeper guards now."""
        self._vms = report.vms

    def look(self, now: Instant) -> list[KeptVm]:
        """Freeze what executes past its lease; returns what was frozen. May wait for a process that hangs."""
        leases = read_leases(Path(self._config.run_dir) / "leases", self._boot_id)
        passed = {name for name, lease in leases.items() if now > lease.deadline + GRACE}
        if not passed:
            return []
        frozen = [vm for vm in self._vms if vm.home in passed and vm.pid is not None and _freeze(vm, vm.pid)]
        done = {vm.pid for vm in frozen}  # A stop takes a moment to show.
        for qemu in every_guest():
            memory = self._homes.recall(qemu.vm)
            home = memory.home if memory is not None else self._config.home_of(qemu.disks)
            if home is not None and home in passed and not qemu.stopped and qemu.pid not in done:
                vm = KeptVm(vm=qemu.vm, name=qemu.name, home=home, epoch=None, phase="unknown", pid=qemu.pid)
                if _freeze(vm, qemu.pid):
                    frozen.append(vm)
        return frozen


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
