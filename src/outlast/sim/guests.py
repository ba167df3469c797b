"""The virtual machines of one simulated host, for one boot: how they start, write to their disks, and end.

A start goes the way of a real one: libvirt's hook asks the keeper, and a process exists a while after it let it pass. A
guest writes to its disk all the time while it executes; what it had under way when it stopped, or when its storage was cut,
may reach the storage later (design.md section 2, (a)). A process that was killed is gone only when the kernel has no write
of it under way any more: its pidfd says so, and that is what `renounced` rests on.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from outlast.model.events import StopReason
from outlast.model.ids import DatastoreName, RequestId, VmId
from outlast.model.keeping import AskEnded, AskGate, AskIncoming, AskLaunch, KeeperReply
from outlast.model.time import MILLISECOND, SECOND
from outlast.sim.guest_care import GUEST_BOOTS, LIBVIRT_PATIENCE
from outlast.sim.hypervisor import Process
from outlast.sim.physics import FABRIC, HELD_FOREVER, LIBVIRT_TELLS, QEMU_STARTS, within

if TYPE_CHECKING:
    from outlast.sim.host import Host

HOOK_PATIENCE = 10 * SECOND
LIBVIRTD_RESTARTS = 5 * SECOND
Ended = Callable[[str], None]
OWN_FAULTS = frozenset({"internal error: process exited while connecting to monitor", "the process ended at once"})
"""What a start comes to if the VM itself fails; everything else is its host's fault."""


class _Held(msgspec.Struct):
    """A write that the host's kernel holds while its storage is cut; it gives up at `until`."""

    vm: VmId
    instance: int
    datastore: DatastoreName
    until: int


class Guests:
    """See the top of this file."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self._rng = host.rng
        self._boot = host.boots
        self._hypervisor = host.hypervisor
        self._held: list[_Held] = []
        self._lands: dict[int, int] = {}
        """When the last write of each process lands that is on its way."""
        self._untold: set[VmId] = set()
        """VMs that ended a moment ago: libvirt says so, and starts them again only then."""

    # -- starting -------------------------------------------------------------------------------------------------

    def start(self, vm: VmId, ended: Ended, *, incoming: bool = False) -> None:
        """What `virsh start` does: the gate, then the process. `ended` gets the problem, or an empty string.

        `incoming`: the same for a process that is to receive a migration.
        """
        host, hypervisor = self._host, self._hypervisor
        definition = host.domain.definitions.get(vm)
        if definition is None or hypervisor.mode == "dead":
            ended("libvirt does not answer" if definition is not None else "no such definition")
            return
        if vm in self._untold:
            host.later(LIBVIRT_TELLS[0], lambda: self.start(vm, ended, incoming=incoming))
            return
        ended = _Once(ended)
        host.later(LIBVIRT_PATIENCE, functools.partial(ended, "libvirtd gave no answer"))
        if hypervisor.mode == "hung":
            hypervisor.queued.append(lambda: self.start(vm, ended, incoming=incoming))
            return
        host.definitions[vm] = definition
        if vm in hypervisor.processes:
            there = hypervisor.processes[vm]
            ended("domain is already active" if incoming or (there.incoming and not there.executed) else "")
        elif vm in hypervisor.starting:
            ended("domain is already being started")
        else:
            hypervisor.starting.add(vm)
            told = _Once(ended)
            _Start(self, host, vm, told, incoming=incoming).ask()
            # Whoever asked waits no longer for a daemon that hangs in the middle of it, whatever still comes of it.
            host.later(LIBVIRT_PATIENCE, lambda: told("libvirtd gave no answer") if hypervisor.mode == "hung" else None)

    def process_begins(self, vm: VmId, *, incoming: bool) -> Process:
        """QEMU exists from now on, and its guest writes."""
        process = self._hypervisor.begin(self._host.definitions[vm], self._host.next_instance(), incoming=incoming)
        self._host.keeper.process_appeared(vm)
        self._write_again(process)
        return process

    def receive(self, vm: VmId, ended: Ended) -> None:
        """The libvirt of another host asks for a process that receives a migration."""
        self._host.when_awake(lambda: self.start(vm, ended, incoming=True))

    def pause(self, vm: VmId) -> None:
        """QEMU stops the guest for the last part of its memory."""
        process = self._hypervisor.processes.get(vm)
        if process is not None and not process.paused:
            self.last_write(process)
            self._hypervisor.pause(process)

    def go_on(self, vm: VmId, ended: Ended) -> None:
        """Libvirt is told to let a guest go on."""
        process = self._hypervisor.processes.get(vm)
        if process is None or process.ending is not None or not self._hypervisor.answers:
            ended("no such domain, or no answer")
            return
        self._hypervisor.let_run(process)
        ended("")
        self._host.agent.hypervisor_changed()

    def answers(self, vm: VmId) -> bool:
        """Whether its guest agent answers now, if libvirt asks it."""
        process = self._hypervisor.processes.get(vm)
        if process is None or process.hung or not self._host.executes(vm) or not self._hypervisor.answers:
            return False
        return process.beats_from is not None and self._host.now >= process.beats_from

    # -- writing --------------------------------------------------------------------------------------------------

    def _write_again(self, process: Process) -> None:
        if self._hypervisor.processes.get(process.vm) is not process:
            return
        if process.executing and process.works:
            self._write(process)
        self._host.later((300 + self._rng.randrange(400)) * MILLISECOND, lambda: self._write_again(process))

    def _write(self, process: Process) -> None:
        """Nobody holds a write for longer than the datastore's bound: then it has failed."""
        host, mode, bound = self._host, self._host.storage_mode(process.home), self._bound(process.home)
        until = host.scheduler.now + bound
        if mode == "ok":
            delay = (100 + self._rng.randrange(900)) * 1_000 + host.storage_delay(process.home)
            if delay <= bound:
                lands = host.scheduler.now + delay
                self._lands[process.instance] = max(lands, self._lands.get(process.instance, 0))
                host.scheduler.after(delay, functools.partial(self._land, process, until))
        elif mode == "hang":
            self._hold(process, until)

    def _chance(self) -> bool:
        return self._rng.randrange(1000) < self._host.domain.physics.late

    def _bound(self, datastore: DatastoreName) -> int:
        bound = self._host.domain.stores[datastore].in_flight_bound
        return HELD_FOREVER if bound is None else bound

    def _hold(self, process: Process, until: int) -> None:
        self._held.append(_Held(process.vm, process.instance, process.home, until))

    def _land(self, process: Process, until: int) -> None:
        host, left = self._host, until - self._host.scheduler.now
        if host.boots != self._boot or not host.powered:
            if self._chance():
                self._land_late(process, min(FABRIC, left))
        elif host.storage_mode(process.home) == "ok":
            process.io += 1
            host.on_write(process.vm, process.instance)
        elif host.storage_mode(process.home) == "hang":
            if self._chance():
                self._land_late(process, min(10 * FABRIC, left))
            else:
                self._hold(process, until)

    def _land_late(self, process: Process, within: int) -> None:
        delay = self._rng.randrange(max(1, within))
        self._host.scheduler.after(delay, functools.partial(self._host.on_write, process.vm, process.instance))

    def last_write(self, process: Process) -> None:
        """It is about to be stopped, in the middle of a write; nothing is in one on a host that stands still."""
        if self._host.executes(process.vm) and process.works:
            self._write(process)

    def storage_changed(self, datastore: DatastoreName, mode: str) -> None:
        """What the kernel held goes out when the path is whole again, unless it gave up before."""
        if mode == "hang":
            return
        held, self._held = self._held, [h for h in self._held if h.datastore != datastore]
        for each in held:
            if each.datastore == datastore and mode == "ok" and self._host.scheduler.now <= each.until and self._chance():
                land = functools.partial(self._host.on_write, each.vm, each.instance)
                self._host.scheduler.after(self._rng.randrange(50 * MILLISECOND), land)

    def until_written(self, process: Process) -> int:
        """How long the kernel will have writes of a process under way, as far as can be told; zero if it has none."""
        now = self._host.scheduler.now
        if any(h.instance == process.instance and now < h.until for h in self._held):
            return SECOND // 4
        return max(0, self._lands.get(process.instance, 0) - now)

    # -- ending ---------------------------------------------------------------------------------------------------

    def end(self, vm: VmId, reason: StopReason, delay: int = 5 * MILLISECOND) -> None:
        """The process ends after a while, for this reason; it executes nothing more if it was killed."""
        process = self._hypervisor.processes.get(vm)
        if process is None or process.ending is not None:
            return
        process.ending = reason
        if reason in (StopReason.FAILED, StopReason.DESTROYED):
            self.last_write(process)
            self._hypervisor.stop(vm)
        self._host.later(delay, lambda: self._gone(process, reason))

    def end_process(self, process: Process, reason: StopReason) -> None:
        """The same, for this very process."""
        if self._hypervisor.processes.get(process.vm) is process:
            self.end(process.vm, reason)

    def _gone(self, process: Process, reason: StopReason) -> None:
        if self._hypervisor.processes.get(process.vm) is not process:
            return
        self.last_write(process)
        self._hypervisor.stop(process.vm)
        wait = self.until_written(process)
        if wait:
            self._host.later(wait + 1, lambda: self._gone(process, reason))
            return
        self._hypervisor.end(process.vm, reason)
        self._host.keeper.process_exited(process.vm)
        self._untold.add(process.vm)
        self._host.later(within(self._rng, LIBVIRT_TELLS), lambda: self._libvirt_tells(process, reason))

    def _libvirt_tells(self, process: Process, reason: StopReason) -> None:
        self._untold.discard(process.vm)
        self._host.agent.vm_stopped(process.vm, process.name, reason)

    def power_lost(self) -> None:
        """Everything ends at once; the kernel's writes are gone, and what was sent may still land.

        A host that stood still sent its last when it began to: that has long landed, or never will.
        """
        for process in list(self._hypervisor.processes.values()):
            self.last_write(process)
            self._hypervisor.end(process.vm, StopReason.UNKNOWN)
        self._held.clear()


class _Once:
    """An answer that is given once, whoever gives it first."""

    def __init__(self, answer: Ended) -> None:
        self._answer: Ended | None = answer

    def __call__(self, problem: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(problem)


class _Start:
    """One start that libvirt carries out, also when nobody waits for its answer any more. A hung libvirt does nothing."""

    def __init__(self, guests: Guests, host: "Host", vm: VmId, ended: Ended, *, incoming: bool) -> None:
        self._guests = guests
        self._incoming = incoming
        self._host = host
        self._vm = vm
        self._hypervisor = host.hypervisor
        self._generation = host.hypervisor.generation
        self._ended = ended
        self._over = False

    def ask(self) -> None:
        """The hook asks the keeper; of a migration it asks first whether that may come in."""
        if self._incoming:
            self._question(AskIncoming(RequestId(1), self._vm), self._may_come_in)
        else:
            self._ask_gate()

    def _may_come_in(self, reply: KeeperReply) -> None:
        if reply.allowed:
            self._ask_gate()
        else:
            self._fail(reply.sentence)

    def _ask_gate(self) -> None:
        definition = self._host.definitions[self._vm]
        disks = definition.writes
        self._question(AskGate(RequestId(1), self._vm, definition.name, disks, writes=disks), self._replied)

    def _question(self, question: AskGate | AskIncoming | AskLaunch, answered: Callable[[KeeperReply], None]) -> None:
        host, waiting = self._host, [question]
        if not host.keeper.alive:
            self._fail("the keeper of this host cannot be asked")
            return

        def told(reply: KeeperReply) -> None:
            waiting.clear()
            if not self._is_over():
                answered(reply)

        client = host.keeper.ask(question, told)

        def give_up() -> None:
            if waiting and not self._over:
                host.keeper.client_gone(client)
                self._fail("the keeper of this host cannot be asked: no answer in time")

        host.later(HOOK_PATIENCE, give_up)

    def _is_over(self) -> bool:
        if self._hypervisor.generation != self._generation:
            self._over = True
            self._ended("libvirtd died")
        return self._over

    def _replied(self, reply: KeeperReply) -> None:
        if not reply.allowed:
            self._fail(reply.sentence)
        elif self._host.start_failures(self._vm, self._host.id):
            self._fail("internal error: process exited while connecting to monitor")
        else:
            self._host.later(within(self._host.rng, QEMU_STARTS), self._begin)

    def _fail(self, problem: str) -> None:
        """The domain is let go of, and libvirt's hook says so to the keeper."""
        if self._hypervisor.generation == self._generation:
            self._hypervisor.starting.discard(self._vm)
            self._hypervisor.off[self._vm] = StopReason.FAILED
            if self._host.keeper.alive:
                self._host.keeper.ask(AskEnded(RequestId(1), self._vm), lambda _: None)
        self._over = True
        self._ended(problem)

    def _begin(self) -> None:
        if self._is_over():
            return
        definition, reached = self._host.definitions[self._vm], self._host.reached()
        home = definition.home
        there = home is not None and reached.issuperset(definition.datastores)
        mode = self._host.storage_mode(home) if home is not None and there else "fail"
        if mode == "fail":
            self._fail("Cannot access storage file: No such file or directory")
            return
        if mode == "hang" or self._hypervisor.mode == "hung":
            # libvirt and QEMU wait for the disk; nobody is told anything meanwhile.
            self._host.later(SECOND // 4, self._begin)
            return
        self._question(AskLaunch(RequestId(2), self._vm), self._launch)

    def _launch(self, reply: KeeperReply) -> None:
        """The hook's second question is answered: now, or not at all."""
        if not reply.allowed:
            self._fail(reply.sentence)
            return
        home = self._host.definitions[self._vm].home
        slow = self._host.storage_delay(home) if home is not None else 0
        self._host.later(self._host.rng.randrange(1, 20) * MILLISECOND + slow, self._make)

    def _make(self) -> None:
        """The disks are labelled; then the process exists. Whoever dies before leaves none behind."""
        if self._is_over():
            return
        home = self._host.definitions[self._vm].home
        if self._hypervisor.mode == "hung" or home is None or self._host.storage_mode(home) == "hang":
            self._host.later(SECOND // 4, self._make)
            return
        process = self._guests.process_begins(self._vm, incoming=self._incoming)
        if self._incoming:
            process.beats_from = 0
            self._host.later(LIBVIRT_TELLS[0], lambda: self._started(process))
            return
        process.beats_from = self._host.now + GUEST_BOOTS
        self._host.later((20 + self._host.rng.randrange(30)) * MILLISECOND, lambda: self._let_run(process))
        self._host.later(self._host.start_time(self._vm), lambda: self._started(process))

    def _let_run(self, process: Process) -> None:
        """Libvirt lets the guest run, when it goes on; if it has died, its successor ends what was not fully started."""
        if self._is_over():
            self._host.later(LIBVIRTD_RESTARTS, lambda: self._guests.end_process(process, StopReason.FAILED))
        elif self._hypervisor.mode == "hung":
            self._host.later(SECOND // 4, lambda: self._let_run(process))
        else:
            self._hypervisor.let_run(process)

    def _started(self, process: Process) -> None:
        self._hypervisor.starting.discard(self._vm)
        alive = self._hypervisor.processes.get(self._vm) is process
        self._ended("" if alive else "the process ended at once")
        self._host.agent.hypervisor_changed()
