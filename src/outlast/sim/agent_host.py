"""The agent of one simulated host: carries out what the `AgentMachine` asks for, and tells it what happens.

What `runtime/executor.py` and the drivers do on a real host, with the same deadlines and refusals.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from outlast.model.commands import Command, Outcome
from outlast.model.effects import (
    AnswerOperator,
    AskKeeper,
    CancelFence,
    Effect,
    FenceHost,
    FenceStatus,
    KeepSettings,
    LinkPrimary,
    LookAtGuest,
    LookAtVm,
    MigrateVm,
    Note,
    Ping,
    ProbeGuest,
    ReadPowerOnLists,
    ReadProtectedList,
    ReadRegisters,
    ReadSettings,
    ReadSightings,
    RememberHealth,
    RememberTold,
    ResetGuest,
    ResumeVm,
    Send,
    ShutDownVm,
    StartVm,
    StopVm,
    StoreDefinition,
    WritePowerOnList,
    WriteProtectedList,
    WriteSettings,
)
from outlast.model.events import (
    CommandGiven,
    DatastoreSurveyed,
    Event,
    FenceEnded,
    FenceStatusEnded,
    GuestProbed,
    HypervisorState,
    InventoryChanged,
    KeeperGone,
    PowerOnListsRead,
    PrimaryLinked,
    ProtectedListRead,
    RegistersRead,
    SettingsRead,
    SightingsRead,
    StopReason,
    Stored,
    VmLookedAt,
    VmMigrationEnded,
    VmResumed,
    VmStartEnded,
    VmStopped,
    Woken,
)
from outlast.model.ids import DatastoreName, RequestId, VmId, VmName
from outlast.model.inventory import DatastoreReach
from outlast.model.keeper_events import LinkOutcome
from outlast.model.records import PowerOnList, Sighting
from outlast.model.time import MILLISECOND, SECOND, Instant
from outlast.protocol.agent import AgentMachine
from outlast.protocol.own_host import LAST_WORDS
from outlast.sim.alarm import Alarm
from outlast.sim.datastore import Datastore, Slots
from outlast.sim.guest_care import GUEST_PATIENCE
from outlast.sim.guests import OWN_FAULTS
from outlast.sim.machine_host import HostServices
from outlast.sim.physics import DAEMON_STARTS, RESTART_AFTER, within
from outlast.sim.way import Way

STORAGE_DEADLINE = 2500 * MILLISECOND
SURVEY_EVERY = 5 * SECOND
FREEZER_LOOKS = SECOND // 2
LOOKS_FOR_WORDS = 50 * MILLISECOND
FREEZER_GRACE = SECOND // 4


_NO_RECORD = Sighting(None, None, "it has no heartbeat record yet")


class AgentHost:
    """One host's agent, for one boot of the host."""

    def __init__(self, services: HostServices) -> None:
        self._host = services
        self._alive = False
        self._stopped = False
        self._machine: AgentMachine | None = None
        self._ways: dict[DatastoreName, Way] = {}
        self._overdue: set[DatastoreName] = set()
        self._alarm = Alarm(services, lambda: self.happen(Woken()))
        self._backlog: list[Event] = []
        self._life = 0
        self._sessions = 0
        self._running: dict[VmId, VmName] = {}
        self._commands: dict[int, Callable[[Outcome], None]] = {}
        self._fencing: dict[RequestId, Callable[[], None]] = {}
        self._told: dict[VmId, Instant] = {}
        self.works_since = 0

    @property
    def works(self) -> bool:
        """Whether an agent process exists and is not stopped."""
        return self._alive and not self._stopped

    def is_in(self, life: int) -> bool:
        """Whether the process that lived then lives still."""
        return self._alive and self._life == life

    @property
    def machine(self) -> AgentMachine | None:
        """The machine of the agent that exists now."""
        return self._machine if self._alive else None

    # -- its life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """An agent process begins."""
        self._alive, self._stopped = True, False
        self._life += 1
        self._sessions += 1
        self._overdue.clear()
        self._fencing.clear()
        self._running.clear()
        self.works_since = self._host.now
        config = self._host.agent_config(f"{self._host.boot_id}-a{self._sessions}", self._told)
        self._machine = AgentMachine(config, self._host.clock())
        self._ways = {d.name: self._host.way(d.name) for d in config.datastores}
        self.happen(Woken())
        self._host.agent_connects()
        self.hypervisor_changed()
        for name in self._ways:
            self._survey(name, self._life)
        self._look_as_freezer(self._life)

    def kill(self, *, restart: bool = True) -> None:
        """SIGKILL; its service manager starts it again after a while."""
        if not self._alive:
            return
        self._alive = False
        self._life += 1
        self._backlog.clear()
        self._commands.clear()
        self._alarm.cancel()
        for way in self._ways.values():
            way.end()
        if restart:
            life = self._life
            delay = RESTART_AFTER + within(self._host.rng, DAEMON_STARTS)
            self._host.later(delay, lambda: self.start() if self._life == life else None)

    def leave(self, *, restart: bool = True, patience: int = LAST_WORDS) -> None:
        """SIGTERM: the agent ends in good order, and is started again (an upgrade), or not."""
        if self._machine is not None and self.works:
            life = self._life
            if self._machine.own.owes_words and patience > 0:
                left = patience - LOOKS_FOR_WORDS
                again = partial(self.leave, restart=restart, patience=left)
                self._host.later(LOOKS_FOR_WORDS, lambda: again() if self._life == life else None)
                return
            for effect in self._machine.leave(self._host.clock()):
                self._do(effect)
            ends_in = self._host.rng.randrange(SECOND // 2)
            self._host.later(ends_in, lambda: self.kill(restart=restart) if self._life == life else None)

    def stop(self) -> None:
        """SIGSTOP."""
        self._stopped = True
        self._alarm.cancel()

    def resume(self) -> None:
        """SIGCONT."""
        if not self._alive or not self._stopped:
            return
        self._stopped = False
        self.works_since = self._host.now
        backlog, self._backlog = self._backlog, []
        for event in backlog:
            self.happen(event)
        self.happen(Woken())

    # -- what happens ---------------------------------------------------------------------------------------------

    def happen(self, event: Event) -> None:
        """Feed the machine, if it lives; a stopped one finds it later."""
        if not self._alive or self._machine is None:
            return
        if self._stopped:
            if not isinstance(event, Woken):
                self._backlog.append(event)
            return
        for effect in self._machine.handle(event, self._host.clock()):
            self._do(effect)
        self._alarm.set(self._machine.deadline())

    def give_command(self, number: int, command: Command, answer: Callable[[Outcome], None]) -> None:
        """An operator gives a command on this host. A dead agent never answers."""
        self._commands[number] = answer
        self.happen(CommandGiven(number, f"root@{self._host.id}", self._host.wall_clock_s() * 1000, command))

    def keeper_gone(self) -> None:
        """The connection to the keeper broke; it is made again every half second."""
        life = self._life
        self.happen(KeeperGone())

        def again() -> None:
            if self._life == life and self._alive and not self._host.agent_connects():
                self._host.later(SECOND // 2, again)

        self._host.later(SECOND // 2, again)

    def hypervisor_changed(self) -> None:
        """Libvirt has news, if it answers."""
        hypervisor = self._host.hypervisor
        if not hypervisor.answers:
            self.happen(HypervisorState(False, f"libvirtd is {hypervisor.mode}"))
            return
        self.happen(HypervisorState(True))
        processes = hypervisor.processes
        for vm in [vm for vm in self._running if vm not in processes]:
            # It ended while nobody could tell us.
            self.happen(VmStopped(vm, self._running.pop(vm), hypervisor.off.get(vm, StopReason.UNKNOWN)))
        self._running = {vm: process.name for vm, process in processes.items()}
        definitions = tuple(hypervisor.definitions.values())
        off = {vm: reason for vm, reason in hypervisor.off.items() if vm not in processes}
        left_paused = frozenset(vm for vm, process in processes.items() if process.left_paused)
        self.happen(InventoryChanged(definitions, frozenset(processes), self._host.capacity(), off, left_paused))

    def vm_stopped(self, vm: VmId, name: VmName, reason: StopReason) -> None:
        """A process ended, and libvirt says so if it answers."""
        if self._host.hypervisor.answers:
            if self._alive:
                self._running.pop(vm, None)
            self.happen(VmStopped(vm, name, reason))
            self.hypervisor_changed()

    def _survey(self, name: DatastoreName, life: int) -> None:
        if self._life != life:
            return
        store = self._ways[name].datastore
        reach = DatastoreReach(name, True, store.filesystem, store.device, 1 << 40)
        self._request(
            name,
            lambda _: reach,
            DatastoreSurveyed,
            lambda problem: DatastoreSurveyed(DatastoreReach(name, False, problem=problem)),
        )
        self._host.later(SURVEY_EVERY, lambda: self._survey(name, life))

    def _look_as_freezer(self, life: int) -> None:
        """Safety rule 4, the second freezer: `runtime/second_freezer.py` on a real host."""
        if self._life != life:
            return
        if self.works:
            self._host.freeze_overdue(FREEZER_GRACE)
        self._host.later(FREEZER_LOOKS, lambda: self._look_as_freezer(life))

    # -- what it asks for -----------------------------------------------------------------------------------------

    def _do(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._host.send(effect.to, effect.message)
            case Ping():
                self._host.ping(effect.host, effect.address)
            case AskKeeper():
                self._host.ask_keeper(effect.request)
            case StartVm():
                self._start_vm(effect)
            case MigrateVm():
                life = self._life
                self._host.migrate(
                    effect.vm,
                    effect.destination,
                    life,
                    lambda problem: self._tell(life, VmMigrationEnded(effect.request, effect.vm, not problem, problem)),
                )
            case ResumeVm():
                life = self._life
                self._host.let_guest_go_on(
                    effect.vm, lambda problem: self._hear(life, VmResumed(effect.request, effect.vm, not problem, problem))
                )
            case RememberTold():
                self._told = effect.told
            case ShutDownVm() | StopVm():
                self._host.shut_down_guest(effect.vm)
            case LookAtVm():
                self._look_at(effect)
            case LookAtGuest():
                self._host.care.look(effect.request, effect.vm, partial(self._tell, self._life))
            case ResetGuest():
                self._host.care.reset(effect.request, effect.vm, partial(self._tell, self._life))
            case ProbeGuest():
                life, answered = self._life, self._host.guests.answers(effect.vm)
                patience = 5 * MILLISECOND if answered else GUEST_PATIENCE
                self._host.later(patience, lambda: self._tell(life, GuestProbed(effect.request, effect.vm, answered)))
            case Note():
                self._host.note(effect)
            case KeepSettings():
                self._host.keep_settings(effect.record)
            case RememberHealth():
                self._host.keep_health(effect.health)
            case AnswerOperator():
                answer = self._commands.pop(effect.number, None)
                if answer is not None:
                    answer(effect.outcome)
            case FenceHost() | FenceStatus() | CancelFence():
                self._fence(effect)
            case _:
                self._store(effect)

    def _fence(self, effect: FenceHost | FenceStatus | CancelFence) -> None:
        """A command that is on its way to a device reaches it also when this agent dies."""
        life = self._life
        match effect:
            case FenceHost(request, host):
                self._fencing[request] = self._host.fence_device_of(host).switch_off(
                    lambda problem: self._hear(life, FenceEnded(request, host, not problem, problem))
                )
            case FenceStatus(request, host):
                self._host.fence_device_of(host).status(
                    lambda state, problem: self._hear(life, FenceStatusEnded(request, host, state, problem))
                )
            case CancelFence(request):
                self._fencing.pop(request, lambda: None)()

    def _hear(self, life: int, event: Event) -> None:
        """What comes from outside this host: it hears nothing while it stands still or has no power."""
        self._host.later(0, lambda: self._tell(life, event))

    def _look_at(self, effect: LookAtVm) -> None:
        life, hypervisor = self._life, self._host.hypervisor

        def answer() -> None:
            if hypervisor.answers:
                off = effect.vm not in hypervisor.processes and effect.vm not in hypervisor.starting
                self._tell(life, VmLookedAt(effect.request, effect.vm, off))

        self._host.later(MILLISECOND, answer)

    def _request(
        self,
        name: DatastoreName,
        work: Callable[[Datastore], Any],
        done: Callable[[Any], Event],
        failed: Callable[[str], Event],
        torn: Callable[[Datastore], None] | None = None,
    ) -> None:
        """One request with the agent's deadline; while an overdue one is out, new ones are refused at once."""
        way, life = self._ways[name], self._life
        if name in self._overdue:
            self._host.later(MILLISECOND, lambda: self._tell(life, failed("its storage hangs")))
            return
        pending = [True]

        def answer(event: Event) -> None:
            self._overdue.discard(name)
            if pending[0]:
                pending[0] = False
                self._tell(life, event)

        def give_up() -> None:
            if pending[0] and self._life == life:
                pending[0] = False
                self._overdue.add(name)
                self._tell(life, failed("no answer in time: its storage hangs"))

        way.ask(work, lambda result: answer(done(result)), lambda problem: answer(failed(problem)), torn)
        self._host.later(STORAGE_DEADLINE, give_up)

    def _tell(self, life: int, event: Event) -> None:
        if self._life == life:
            self.happen(event)

    def _store(self, effect: Effect) -> None:
        match effect:
            case ReadSightings(request, name):
                hosts = self._host.members()
                self._request(
                    name,
                    lambda store: {host: store.sightings.get(host, _NO_RECORD) for host in hosts},
                    lambda found: SightingsRead(request, name, True, found),
                    lambda problem: SightingsRead(request, name, False, {}, problem),
                )
            case ReadPowerOnLists(request, name):
                self._request(
                    name,
                    lambda store: store.power_on_lists(),
                    lambda found: PowerOnListsRead(request, name, True, found),
                    lambda problem: PowerOnListsRead(request, name, False, {}, problem),
                )
            case ReadRegisters(request, name, subjects):
                self._request(
                    name,
                    lambda store: {subject: self._host.read_register(store, subject) for subject in subjects},
                    lambda found: RegistersRead(request, name, True, found),
                    lambda problem: RegistersRead(request, name, False, {}, problem),
                )
            case LinkPrimary(request, name, record):
                self._request(
                    name,
                    lambda store: store.link(record),
                    lambda outcome: PrimaryLinked(request, name, outcome),
                    lambda problem: PrimaryLinked(request, name, LinkOutcome.UNKNOWN, problem),
                )
            case ReadProtectedList(request, name):
                self._request(
                    name,
                    lambda store: store.newest_protected(),
                    lambda found: ProtectedListRead(request, name, True, found),
                    lambda problem: ProtectedListRead(request, name, False, None, problem),
                )
            case ReadSettings(request, name):
                self._request(
                    name,
                    lambda store: store.newest_settings(),
                    lambda found: SettingsRead(request, name, True, found),
                    lambda problem: SettingsRead(request, name, False, None, problem),
                )
            case WriteProtectedList() | WritePowerOnList() | StoreDefinition() | WriteSettings():
                self._write(effect)
            case _:
                raise TypeError(f"the simulated world does not know the effect {effect!r}")

    def _write(self, effect: WriteProtectedList | WritePowerOnList | StoreDefinition | WriteSettings) -> None:
        request, name = effect.request, effect.datastore

        def work(store: Datastore) -> None:
            match effect:
                case WriteProtectedList():
                    store.put_protected(effect.content)
                case WritePowerOnList():
                    _slots(store, effect.content).write(effect.content.sequence, effect.content)
                case StoreDefinition():
                    if not effect.first or effect.vm not in store.definitions:
                        store.definitions[effect.vm] = effect.xml
                case WriteSettings():
                    store.put_settings(effect.content)

        def torn(store: Datastore) -> None:
            match effect:
                case WriteProtectedList():
                    store.protected.tear(effect.content.sequence)
                case WritePowerOnList():
                    _slots(store, effect.content).tear(effect.content.sequence)
                case WriteSettings():
                    store.settings.tear(effect.content.sequence)

        self._request(
            name,
            work,
            lambda _: Stored(request, name, True),
            lambda problem: Stored(request, name, False, problem),
            torn,
        )

    def _start_vm(self, effect: StartVm) -> None:
        life = self._life

        def defined(xml: str | None) -> Event:
            if xml is None:
                return _start_ended(effect, "its definition cannot be read: there is none")
            self._host.start_process(effect.vm, lambda problem: self._tell(life, _start_ended(effect, problem)))
            return Woken()

        self._request(
            effect.home,
            lambda store: store.definitions.get(effect.vm),
            defined,
            lambda problem: _start_ended(effect, f"its definition cannot be read: {problem}"),
        )


def _start_ended(effect: StartVm, problem: str) -> VmStartEnded:
    host_fault = bool(problem) and problem not in OWN_FAULTS
    return VmStartEnded(effect.request, effect.vm, not problem, problem, host_fault)


def _slots(store: Datastore, content: PowerOnList) -> Slots[PowerOnList]:
    return store.power_on.setdefault(content.host, Slots())
