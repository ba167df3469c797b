"""What really executes on one simulated host: QEMU processes, and libvirt around them.

libvirt may be dead or hang; processes go on without it, and what it was asked while it hung it does when it goes on.
"""

from collections.abc import Callable

import msgspec

from outlast.model.events import StopReason
from outlast.model.ids import DatastoreName, VmId, VmName
from outlast.model.inventory import VmDefinition


class Process(msgspec.Struct):
    """One QEMU process. `stopped`: by SIGSTOP. `paused`: by -S, with which libvirt starts QEMU until all is ready.

    `executed`: whether its guest ever ran. `hung`: its guest neither answers nor shuts down when asked to; `busy`: though
    it does, it reads and writes on; `lasting`: no reset helps. `io`: what its disks have done. `reset_at`: the last time.
    `instance`: its number among all processes of a world. `beats_from`: when its guest agent begins to answer.
    `incoming`: it was begun to receive a migration; `whole`: it has; `stale`: the guest has executed elsewhere since.
    `left_paused`: a migration has failed, and nobody was there to let its guest go on.
    """

    vm: VmId
    name: VmName
    home: DatastoreName
    pid: int
    instance: int
    paused: bool = True
    stopped: bool = False
    executed: bool = False
    hung: bool = False
    busy: bool = False
    lasting: bool = False
    io: int = 0
    reset_at: int | None = None
    ending: StopReason | None = None
    beats_from: int | None = None
    incoming: bool = False
    whole: bool = False
    stale: bool = False
    left_paused: bool = False

    @property
    def executing(self) -> bool:
        """Whether its guest runs."""
        return not self.stopped and not self.paused

    @property
    def works(self) -> bool:
        """Whether its guest does anything, while it executes."""
        return self.busy or not self.hung


class Hypervisor:
    """libvirt and the processes of one host, for one boot. `changed(vm)` is called whenever something executes or stops.

    `mode` is up, dead or hung. `off`: why the domains that are off are, as far as libvirt knows. `generation` rises with
    each death of libvirt: what it had begun is then nobody's.
    """

    def __init__(self, changed: Callable[[VmId], None]) -> None:
        self._changed = changed
        self.processes: dict[VmId, Process] = {}
        self.definitions: dict[VmId, VmDefinition] = {}
        self.off: dict[VmId, StopReason] = {}
        self.mode = "up"
        self.generation = 0
        self.starting: set[VmId] = set()
        self.queued: list[Callable[[], None]] = []
        self._pids = 100

    @property
    def answers(self) -> bool:
        """Whether libvirt answers."""
        return self.mode == "up"

    def set_mode(self, mode: str) -> None:
        """up, dead or hung."""
        if mode == "dead":
            self.generation += 1
            self.starting.clear()
            self.queued.clear()
        self.mode = mode
        if mode == "up":
            queued, self.queued = self.queued, []
            for work in queued:
                work()

    def begin(self, definition: VmDefinition, instance: int, *, incoming: bool = False) -> Process:
        """The process of a start that passed the gate comes into being; its guest does not run yet."""
        if definition.home is None:
            raise ValueError(f"{definition.name} has no home datastore")
        self._pids += 1
        process = Process(definition.vm, definition.name, definition.home, self._pids, instance, incoming=incoming)
        self.processes[definition.vm] = process
        self.off.pop(definition.vm, None)
        self._changed(definition.vm)
        return process

    def let_run(self, process: Process) -> None:
        """What libvirt calls `cont`: the guest runs, unless the process is stopped or dying."""
        process.paused = process.left_paused = False
        if process.executing:
            self._changed(process.vm)

    def pause(self, process: Process) -> None:
        """What QEMU itself does at the end of a migration: the guest stands still."""
        process.paused = True
        self._changed(process.vm)

    def stop(self, vm: VmId) -> None:
        """SIGSTOP."""
        process = self.processes.get(vm)
        if process is not None and not process.stopped:
            process.stopped = True
            self._changed(vm)

    def resume(self, vm: VmId) -> None:
        """SIGCONT."""
        process = self.processes.get(vm)
        if process is not None and process.stopped and process.ending is None:
            process.stopped = False
            self._changed(vm)

    def end(self, vm: VmId, reason: StopReason) -> None:
        """The process is gone. A dead libvirt never learns why."""
        if self.processes.pop(vm, None) is not None:
            self.off[vm] = StopReason.UNKNOWN if self.mode == "dead" else reason
            self._changed(vm)
