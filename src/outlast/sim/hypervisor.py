"""What really executes on one simulated host: QEMU processes, libvirt around them, and the gate in between.

libvirt may be down or hang; processes go on without it. A start asks the keeper through the hook, exactly as libvirt's
`prepare` does, and the process exists a while after the keeper let it pass.
"""

from collections.abc import Callable

import msgspec

from outlast.model.events import StopReason
from outlast.model.ids import Epoch, VmId, VmName
from outlast.model.inventory import VmDefinition


class Process(msgspec.Struct):
    """One QEMU process. `executing` False: stopped by SIGSTOP."""

    vm: VmId
    name: VmName
    pid: int
    executing: bool = True
    epoch: Epoch | None = None
    ending: StopReason | None = None


class Hypervisor:
    """libvirt and the processes of one host, for one boot. `changed(vm)` is called whenever something executes or stops."""

    def __init__(self, changed: Callable[[VmId], None]) -> None:
        self._changed = changed
        self.processes: dict[VmId, Process] = {}
        self.definitions: dict[VmId, VmDefinition] = {}
        self.mode = "up"
        self.starting: set[VmId] = set()
        self._pids = 100

    @property
    def answers(self) -> bool:
        """Whether libvirt answers."""
        return self.mode == "up"

    def begin(self, definition: VmDefinition) -> Process:
        """The process of a start that passed the gate comes into being, executing."""
        self._pids += 1
        process = Process(definition.vm, definition.name, self._pids)
        self.processes[definition.vm] = process
        self._changed(definition.vm)
        return process

    def stop(self, vm: VmId) -> None:
        """SIGSTOP."""
        process = self.processes.get(vm)
        if process is not None and process.executing:
            process.executing = False
            self._changed(vm)

    def resume(self, vm: VmId) -> None:
        """SIGCONT."""
        process = self.processes.get(vm)
        if process is not None and not process.executing and process.ending is None:
            process.executing = True
            self._changed(vm)

    def end(self, vm: VmId) -> None:
        """The process is gone."""
        if self.processes.pop(vm, None) is not None:
            self._changed(vm)
