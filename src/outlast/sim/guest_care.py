"""Looking at simulated guests, and resetting them: what `drivers/hypervisor/guests.py` does on a real host.

A hung libvirt answers nothing. QEMU does what it was told when its process goes on: a reset of a frozen VM waits for that.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from outlast.model.events import GuestLookedAt, GuestReset, GuestState
from outlast.model.ids import RequestId, VmId
from outlast.model.time import MILLISECOND, SECOND
from outlast.sim.hypervisor import Process

if TYPE_CHECKING:
    from outlast.sim.host import Host

GUEST_BOOTS = 3 * SECOND
"""From the moment that a guest runs until its guest agent answers."""
GUEST_PATIENCE = 2 * SECOND
"""How long a guest agent is waited for."""
KEEPS_FOR = 300 * MILLISECOND
"""How long it takes to keep what its screen shows."""
LIBVIRT_PATIENCE = 12 * SECOND


class GuestCare:
    """The guests of one host, for one boot."""

    def __init__(self, host: "Host") -> None:
        self._host = host

    def look(self, request: RequestId, vm: VmId, tell: Callable[[GuestLookedAt], None]) -> None:
        """`tell` gets what is found, when the guest has answered, or has been waited for."""
        process = self._host.hypervisor.processes.get(vm)
        answered = self._host.guests.answers(vm)

        def found() -> None:
            if self._host.hypervisor.answers:
                tell(GuestLookedAt(request, vm, *self._found(process, answered)))

        self._host.later(5 * MILLISECOND if answered else GUEST_PATIENCE, found)

    def _found(self, process: Process | None, answered: bool) -> tuple[GuestState, int]:
        if answered:
            return GuestState.ANSWERS, 0
        if process is None or process.paused:
            return GuestState.UNKNOWN, 0
        boots = process.beats_from is None or self._host.now < process.beats_from
        return (GuestState.CLOSED if boots else GuestState.SILENT), process.io

    def reset(self, request: RequestId, vm: VmId, tell: Callable[[GuestReset], None]) -> None:
        """`tell` gets what came of it."""
        process, waits = self._host.hypervisor.processes.get(vm), [True]

        def answer(ok: bool, problem: str) -> None:
            if waits:
                waits.clear()
                tell(GuestReset(request, vm, ok, problem))

        def act() -> None:
            if process is None or self._host.hypervisor.processes.get(vm) is not process:
                answer(False, "no such domain")
            elif process.stopped or not self._host.hypervisor.answers:
                self._host.later(SECOND // 4, act)
            else:
                self._begin_anew(process)
                answer(True, "")

        self._host.later(KEEPS_FOR, act)
        self._host.later(LIBVIRT_PATIENCE, lambda: answer(False, "libvirtd gave no answer"))

    def _begin_anew(self, process: Process) -> None:
        self._host.on_reset(self._host, process)
        process.hung = process.lasting
        process.busy = False
        process.reset_at, process.beats_from = self._host.now, self._host.now + GUEST_BOOTS
