"""libvirt's live migration between two simulated hosts, as the source's agent has it carried out ("managed direct").

    step       what happens                                                       what may go wrong there
    prepare    the destination's hook asks its keeper twice; QEMU waits for it    a refusal; no answer
    copy       memory is sent while the guest executes                            a host, a daemon or the network is gone
    switch     the guest stops, and its last write lands; then the copy is whole  the same
    finish     the destination says that it has everything, and stays paused      its answer is lost: the source goes on
    confirm    the source's process ends                                          nobody says so any more: it stays paused

The caller is the source's agent: if it dies, both libvirts notice. Before the switch that is a failure like any other;
after it neither knows what the other one did, and the guest is left paused on both hosts.
"""

import random
from typing import TYPE_CHECKING

from outlast.model.events import StopReason
from outlast.model.ids import VmId
from outlast.model.time import MILLISECOND, SECOND
from outlast.sim.guests import Ended
from outlast.sim.hypervisor import Process

if TYPE_CHECKING:
    from outlast.sim.host import Host

LOOKS = 50 * MILLISECOND
COPYING = (500 * MILLISECOND, 4 * SECOND)
KEEPALIVE = 5 * SECOND
"""How long libvirt waits for one that does not answer before it calls the migration off."""
ANSWER_LOST = 30
"""Of a hundred migrations while packets are lost, how many lose the destination's last answer for good."""
ENDS_COPY = (10 * MILLISECOND, 300 * MILLISECOND)
"""From the end of a connection until libvirt has ended what it had let in for it."""


class MigrationRun:
    """See the top of this file. `ended` gets the problem, or an empty string."""

    def __init__(self, source: "Host", target: "Host", vm: VmId, life: int, ended: Ended) -> None:
        self._source = source
        self._target = target
        self._vm = vm
        self._life = life
        self._ended = ended
        self._rng: random.Random = source.rng
        self._boots = (source.boots, target.boots)
        self._generations = (source.hypervisor.generation, target.hypervisor.generation)
        self._left = self._rng.randrange(*COPYING)
        self._silent = 0
        self._process: Process | None = None
        self._copy: Process | None = None

    def begin(self) -> None:
        """Prepare: the destination makes a process that waits for memory."""
        process = self._source.hypervisor.processes.get(self._vm)
        if process is None or process.paused or process.ending is not None or not self._source.hypervisor.answers:
            self._ended("the domain is not running")
            return
        self._process = process
        if self._connected():
            self._source.scheduler.after(self._source.domain.network.latency(), self._ask_for_copy)
        self._source.later(LOOKS, lambda: self._wait_for_copy(KEEPALIVE + 8 * SECOND))

    def _ask_for_copy(self) -> None:
        if self._target.powered and self._target.boots == self._boots[1]:
            self._target.guests.receive(self._vm, self._prepared)

    def _prepared(self, problem: str) -> None:
        if self._copy is None and problem:
            self._left = -1
            self._fail(problem)
            return
        self._copy = self._target.hypervisor.processes.get(self._vm)

    def _wait_for_copy(self, patience: int) -> None:
        if self._left < 0:
            return
        if self._copy is not None:
            self._look()
        elif patience <= 0:
            self._left = -1
            self._fail("the destination's libvirt gives no answer")
        else:
            self._source.later(LOOKS, lambda: self._wait_for_copy(patience - LOOKS))

    # -- copying --------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Memory flows while both processes are there, none is frozen, and packets pass."""
        problem = self._problem()
        if problem:
            self._fail(problem)
            return
        process, copy = self._process, self._copy
        flows = process is not None and copy is not None and not process.stopped and not copy.stopped and self._connected()
        if flows:
            self._silent = 0
            self._left -= LOOKS
        elif not self._connected():
            self._silent += LOOKS
            if self._silent >= KEEPALIVE:
                self._fail("the connection to the destination is lost")
                return
        if self._left > 0:
            self._source.later(LOOKS, self._look)
        else:
            self._switch()

    def _connected(self) -> bool:
        network = self._source.domain.network
        return network.connects(self._source.id, self._target.id) and not self._target.stalled

    def _problem(self) -> str:
        """What makes it fail, while it is not whole."""
        source, target = self._source, self._target
        if self._lost_source():
            return "libvirt or the agent of the source is gone"
        if not target.powered or target.boots != self._boots[1]:
            return "the destination is gone"
        if target.hypervisor.generation != self._generations[1] or target.hypervisor.mode == "dead":
            return "the destination's libvirt has died"
        if source.hypervisor.processes.get(self._vm) is not self._process or self._is_ending(self._process):
            return "the domain is not running any more"
        if target.hypervisor.processes.get(self._vm) is not self._copy or self._is_ending(self._copy):
            return "the copy has ended"
        return ""

    def _is_ending(self, process: Process | None) -> bool:
        return process is None or process.ending is not None

    def _lost_source(self) -> bool:
        source = self._source
        libvirt = source.hypervisor.generation != self._generations[0] or source.hypervisor.mode == "dead"
        return libvirt or not source.agent.is_in(self._life)

    # -- from the switch on -----------------------------------------------------------------------------------------

    def _switch(self) -> None:
        """QEMU itself stops the guest, and goes on when its last write has landed."""
        if self._process is None:
            return
        self._source.guests.pause(self._vm)
        self._source.later(MILLISECOND, self._transfer_the_rest)

    def _transfer_the_rest(self) -> None:
        process, copy = self._process, self._copy
        problem = self._problem()
        if problem or process is None or copy is None:
            self._fail(problem)
            return
        wait = self._source.guests.until_written(process)
        if wait or process.stopped or copy.stopped or not self._connected():
            self._source.later(max(wait, LOOKS), self._transfer_the_rest)
            return
        copy.whole = True
        self._source.later(self._rng.randrange(5, 60) * MILLISECOND, self._finish)

    def _finish(self) -> None:
        """The destination's last word reaches the source, or does not."""
        network = self._source.domain.network
        lost = self._problem() or not self._connected() or (network.loss and self._rng.randrange(100) < ANSWER_LOST)
        if lost:
            self._fail(self._problem() or "the destination's last answer is lost")
            return
        self._source.later(self._rng.randrange(1, 30) * MILLISECOND, self._confirm)

    def _confirm(self) -> None:
        process = self._process
        if self._lost_source() or process is None:
            self._fail("nobody is left to confirm it")
            return
        if self._source.hypervisor.mode == "hung":
            self._source.later(SECOND // 4, self._confirm)
            return
        self._source.guests.end_process(process, StopReason.MIGRATED)
        self._wait_for_end()

    def _wait_for_end(self) -> None:
        if self._source.hypervisor.processes.get(self._vm) is self._process:
            self._source.later(LOOKS, self._wait_for_end)
        elif self._source.hypervisor.answers and not self._lost_source():
            self._ended("")
        else:
            self._ended("libvirt gave no answer")

    def _fail(self, problem: str) -> None:
        """The source goes on, unless nobody is there to let it; the copy is ended by its libvirt, if that hears of it."""
        process = self._process
        if process is not None and process.paused and self._source.hypervisor.processes.get(self._vm) is process:
            if self._lost_source():
                process.left_paused = True
                self._source.agent.hypervisor_changed()
            else:
                self._source.hypervisor.let_run(process)
        self._end_copy()
        self._ended(problem)

    def _end_copy(self) -> None:
        copy, target = self._copy, self._target
        if copy is None or copy.whole or target.boots != self._boots[1] or not target.powered:
            return
        delay = self._rng.randrange(*ENDS_COPY) + (0 if target.hypervisor.answers else KEEPALIVE)
        target.later(delay, lambda: target.guests.end_process(copy, StopReason.FAILED) if not copy.executed else None)
