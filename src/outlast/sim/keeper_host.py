"""The keeper of one simulated host: carries out what the `KeeperMachine` asks for, and tells it what happens.

What `keeper/process.py` and `keeper/storage.py` do on a real host. A keeper may be killed (its service manager starts it
again), stopped and resumed; what it published in /run outlives it, for the same boot.
"""

from collections.abc import Callable
from functools import partial

from outlast.model.ids import DatastoreName, Incarnation, KeeperSession, VmId
from outlast.model.keeper_effects import (
    BarClaimant,
    Changed,
    Freeze,
    KeeperEffect,
    Kill,
    LinkClaim,
    LinkRegister,
    LookForProcess,
    PetWatchdog,
    PublishLease,
    ReadClaimant,
    ReadClaims,
    ReadRegister,
    Remember,
    Reply,
    StopWatching,
    Tell,
    Thaw,
    WatchForProcess,
    WriteHeartbeat,
)
from outlast.model.keeper_events import (
    Asked,
    ClaimantBarred,
    ClaimantRead,
    ClaimLinked,
    ClaimsRead,
    ClientGone,
    CloseAsked,
    FoundProcess,
    HeartbeatWritten,
    IncarnationWon,
    KeeperEvent,
    Linked,
    LinkOutcome,
    ProcessAppeared,
    ProcessesFound,
    ProcessExited,
    ProcessMissing,
    RegisterRead,
    Woken,
)
from outlast.model.keeping import KeeperReply, KeeperReport, KeeperRequest, Subscribe
from outlast.model.records import HeartbeatRecord, RegisterRecord
from outlast.model.time import MILLISECOND, SECOND, Duration, Instant
from outlast.protocol.keeping import KeeperMachine
from outlast.protocol.lease import Adopted
from outlast.sim.alarm import Alarm
from outlast.sim.datastore import Datastore
from outlast.sim.machine_host import HostServices
from outlast.sim.physics import DAEMON_STARTS, RESTART_AFTER, within
from outlast.sim.way import Way

AGENT = 1
SAFETY_LOOK = SECOND
PET_EVERY = SECOND // 4
Answer = Callable[[KeeperReply], None]


class KeeperHost:
    """`services` is the host that it runs on; `to_agent` carries its messages, None while no agent is connected."""

    def __init__(self, services: HostServices, published: dict[DatastoreName, Adopted]) -> None:
        self._host = services
        self._published = published
        self._sessions = 0
        self._session = KeeperSession("")
        self._alive = False
        self._stopped = False
        self._machine: KeeperMachine | None = None
        self._ways: dict[DatastoreName, Way] = {}
        self._alarm = Alarm(services, lambda: self.happen(Woken()))
        self._backlog: list[KeeperEvent] = []
        self._answers: dict[int, Answer] = {}
        self._clients = AGENT
        self._watched: dict[VmId, WatchForProcess] = {}
        self._report_due = False
        self._life = 0
        self._terms: dict[DatastoreName, tuple[str, int]] = {}
        self._remembered: dict[VmId, tuple[DatastoreName, tuple[str, int], Duration]] = {}
        self._written: dict[DatastoreName, HeartbeatRecord] = {}
        self._pet_at = 0
        self.works_since = 0

    @property
    def alive(self) -> bool:
        """Whether a keeper process exists."""
        return self._alive

    @property
    def works(self) -> bool:
        """Whether it exists and is not stopped."""
        return self._alive and not self._stopped

    @property
    def machine(self) -> KeeperMachine | None:
        """The machine of the keeper that exists now."""
        return self._machine if self._alive else None

    # -- its life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """A keeper process begins: it finds what runs, and then its incarnations."""
        self._alive, self._stopped = True, False
        self._life += 1
        self._sessions += 1
        self.works_since = self._host.now
        self._host.truth.keeper_began()
        self._written.clear()
        session = KeeperSession(f"{self._host.boot_id}-k{self._sessions}")
        self._session = session
        config = self._host.keeper_config(session)
        self._machine = KeeperMachine(config, self._host.clock(), dict(self._published))
        for name, place in self._machine.places.items():
            self._published[name] = Adopted(place.lease.deadline or Instant(0), place.lease.granted_for)
        self._ways = {d.name: self._host.way(d.name) for d in config.datastores}
        before, self._terms = self._terms, {}
        found = [
            FoundProcess(
                process.vm,
                process.name,
                home,
                process.pid,
                process.stopped,
                by_right=lease if (where, term) == (home, before.get(home)) else None,
                session=term[0] if term is not None else "",
                incoming=process.incoming,
            )
            for process in self._host.hypervisor.processes.values()
            if (home := self._host.home_of(process.vm)) is not None and process.ending is None
            for where, term, lease in (self._remembered.get(process.vm, (None, None, None)),)
        ]
        self.happen(ProcessesFound(tuple(found)))
        for name in self._ways:
            self._ask_incarnation(name)
        self._look_for_strangers(self._life)
        if self._host.watchdog:
            self._pet_at = self._host.now
            self._host.pet_watchdog()
            self._turn(self._life)

    def kill(self, *, restart: bool = True) -> None:
        """SIGKILL; its service manager starts it again after a while."""
        if not self._alive:
            return
        self._alive = False
        self._life += 1
        self._backlog.clear()
        self._answers.clear()
        self._watched.clear()
        self._alarm.cancel()
        for way in self._ways.values():
            way.end()
        self._host.keeper_gone()
        if restart:
            life = self._life
            delay = RESTART_AFTER + within(self._host.rng, DAEMON_STARTS)
            self._host.later(delay, lambda: self.start() if self._life == life else None)

    def stop(self) -> None:
        """SIGSTOP."""
        self._stopped = True
        self._alarm.cancel()

    def resume(self) -> None:
        """SIGCONT: what happened meanwhile is handled now, the oldest first."""
        if not self._alive or not self._stopped:
            return
        self._stopped = False
        self.works_since = self._host.now
        backlog, self._backlog = self._backlog, []
        for event in backlog:
            self.happen(event)
        self.happen(Woken())

    def close(self) -> None:
        """The host shuts down in order."""
        self.happen(CloseAsked())

    def _turn(self, life: int) -> None:
        """With a watchdog, the loop turns once in a while even if nothing happens."""
        if self._life == life:
            self.happen(Woken())
            self._host.later(PET_EVERY, lambda: self._turn(life))

    # -- what happens ---------------------------------------------------------------------------------------------

    def happen(self, event: KeeperEvent) -> None:
        """Feed the machine, if it lives; a stopped one finds it later."""
        if not self._alive or self._machine is None:
            return
        if self._stopped:
            if not isinstance(event, Woken):
                self._backlog.append(event)
            return
        if type(event) is HeartbeatWritten:
            self._written_in_truth(event)
        self._machine.wall_clock_s = self._host.wall_clock_s()
        for effect in self._machine.handle(event, self._host.clock()):
            self._do(effect)
        if self._alive:
            self._alarm.set(self._machine.deadline())

    def _written_in_truth(self, event: HeartbeatWritten) -> None:
        truth, clock = self._host.truth, self._host.clock()
        if event.foreign:
            truth.void(event.datastore, clock)
        if truth.write_ended(event.datastore, event.sequence, event.ok, clock):
            self._host.lease_extended(event.datastore)

    def ask(self, request: KeeperRequest, answer: Answer) -> int:
        """Somebody on this host asks, over a connection whose number is returned. A dead keeper never answers."""
        self._clients += 1
        client = self._clients
        self._answers[client] = answer
        self._later_if_same_life(lambda: self.happen(Asked(client, request)))
        return client

    def client_gone(self, client: int) -> None:
        """Whoever asked has hung up."""
        self._answers.pop(client, None)
        self._later_if_same_life(lambda: self.happen(ClientGone(client)))

    def agent_asks(self, request: KeeperRequest) -> None:
        """The agent asks over its connection."""
        self._later_if_same_life(lambda: self.happen(Asked(AGENT, request)))

    def agent_connects(self) -> None:
        """The agent subscribes."""
        self.agent_asks(Subscribe())

    def _later_if_same_life(self, work: Callable[[], None]) -> None:
        life = self._life
        self._host.later(MILLISECOND // 5, lambda: work() if self._life == life else None)

    def process_appeared(self, vm: VmId) -> None:
        """A process came into being; who looks for it finds it soon."""
        if vm in self._watched:
            self._later_if_same_life(lambda: self._found(vm))

    def _found(self, vm: VmId) -> None:
        process, home = self._host.hypervisor.processes.get(vm), self._host.home_of(vm)
        known = self._machine.vms.get(vm) if self._machine is not None else None
        if process is None or home is None or (known is not None and known.pid == process.pid):
            return
        _, term, _ = self._remembered.get(vm, (None, None, None))
        found = FoundProcess(
            vm,
            process.name,
            home,
            process.pid,
            process.stopped,
            session=term[0] if term is not None else "",
            incoming=process.incoming,
        )
        self.happen(ProcessAppeared(found))

    def process_exited(self, vm: VmId) -> None:
        """A pidfd reports an exit."""
        known = self._machine.vms.get(vm) if self._machine is not None else None
        if known is not None and known.pid is not None:
            self._later_if_same_life(lambda: self.happen(ProcessExited(vm)))

    def _look_for_strangers(self, life: int) -> None:
        if self._life != life:
            return
        if not self._stopped:
            for vm in list(self._host.hypervisor.processes):
                self._found(vm)
            self._report()
        self._host.later(SAFETY_LOOK, lambda: self._look_for_strangers(life))

    # -- what it asks for -----------------------------------------------------------------------------------------

    def _do(self, effect: KeeperEffect) -> None:
        match effect:
            case WriteHeartbeat():
                self._write_heartbeat(effect)
            case ReadRegister():
                self._read_register(effect)
            case LinkRegister():
                self._link_register(effect)
            case ReadClaims():
                self._read_claims(effect)
            case LinkClaim():
                self._link_claim(effect)
            case ReadClaimant():
                self._read_claimant(effect)
            case BarClaimant():
                self._bar_claimant(effect)
            case Freeze():
                self._host.freeze(effect.vm)
            case Thaw():
                self._host.thaw(effect.vm)
            case Kill():
                self._host.kill_process(effect.vm)
            case WatchForProcess():
                self._watched[effect.vm] = effect
                self._later_if_same_life(lambda: self._found(effect.vm))
            case LookForProcess():
                if effect.vm not in self._host.hypervisor.processes:
                    self._later_if_same_life(lambda: self.happen(ProcessMissing(effect.vm, effect.epoch, effect.handover)))
            case StopWatching():
                self._watched.pop(effect.vm, None)
            case Reply():
                self._reply(effect)
            case Tell():
                self._host.keeper_did(effect.happened)
            case PublishLease():
                self._published[effect.datastore] = Adopted(effect.deadline, effect.length)
                self._terms[effect.datastore] = (self._session, effect.term)
            case Remember():
                self._remembered[effect.vm] = (effect.home, (self._session, effect.term), effect.lease)
            case Changed():
                self._report()
            case PetWatchdog():
                self._pet()

    def _pet(self) -> None:
        if self._host.now >= self._pet_at:
            self._pet_at = self._host.now + PET_EVERY
            self._host.pet_watchdog()

    def _reply(self, effect: Reply) -> None:
        if effect.client == AGENT:
            self._later_if_same_life(lambda: self._host.keeper_answered(effect.reply))
            return
        answer = self._answers.pop(effect.client, None)
        if answer is not None:
            self._later_if_same_life(lambda: answer(effect.reply))

    def _report(self) -> None:
        if self._report_due:
            return
        self._report_due = True

        def tell() -> None:
            self._report_due = False
            if self._machine is not None and self.works:
                self._host.keeper_reported(self._machine.report())

        self._host.later(MILLISECOND, tell)

    def report(self) -> KeeperReport | None:
        """How things stand, as the keeper itself would say."""
        return self._machine.report() if self._machine is not None and self.works else None

    def _ask_incarnation(self, name: DatastoreName) -> None:
        """As the keeper's storage does it on a machine that finds its own earlier boots: the next one counts at once."""
        host, boot_id, life = self._host.id, self._host.boot_id, self._life

        def failed(_: str) -> None:
            self._host.later(SECOND, lambda: self._ask_incarnation(name) if self._life == life else None)

        def done(number: Incarnation) -> None:
            self.happen(IncarnationWon(name, number))

        self._ways[name].ask(lambda store: Incarnation(store.boot(host, boot_id)), done, failed)

    def _write_heartbeat(self, effect: WriteHeartbeat) -> None:
        """As the I/O helper does it: our place is read back first, and what lies there must be what we wrote last."""
        record, name, host, written = effect.record, effect.datastore, self._host.id, self._written
        life = self._life
        self._host.truth.write_began(name, record.sequence, self._host.clock(), record.lease)
        if record.ended:
            self._host.says_last_word()
        begun = [False]

        def begin(store: Datastore) -> bool:
            begun[0] = True
            before = written.pop(name, None)
            return before is None or store.holds(before)

        def half(store: Datastore) -> None:
            if begin(store):
                store.damage_heartbeat(host)
            else:
                begun[0] = False
                written[name] = record  # It is found to be foreign when the rest of the request is carried out.

        def work(store: Datastore) -> bool:
            if not begun[0] and not begin(store):
                return False
            store.put_heartbeat(record)
            written[name] = record
            return True

        def done(ours: bool) -> None:
            problem = "" if ours else "our record was written over by another process or host"
            self.happen(HeartbeatWritten(name, record.sequence, ours, not ours, problem))
            if not ours and self._life == life:
                self._ask_incarnation(name)  # Which boot of this host counts is found out anew.

        def failed(problem: str) -> None:
            # It may have been written, or half of it: the next write does not look for what lay there.
            written.pop(name, None)
            self.happen(HeartbeatWritten(name, record.sequence, False, problem=problem, refused=True))

        self._ways[name].ask(work, done, failed, half)

    def _read_register(self, effect: ReadRegister) -> None:
        self._ways[effect.datastore].ask(
            lambda store: self._host.read_register(store, effect.subject),
            lambda last: self.happen(RegisterRead(effect.request, True, last)),
            lambda problem: self.happen(RegisterRead(effect.request, False, None, problem)),
        )

    def _link_register(self, effect: LinkRegister) -> None:
        record = effect.record
        self._host.truth.link_began(effect.datastore, record.nonce, self._host.clock())
        self._link(effect.datastore, lambda store: store.link(record), partial(Linked, effect.request))

    def _link(
        self,
        datastore: DatastoreName,
        work: Callable[[Datastore], LinkOutcome],
        ended: Callable[[LinkOutcome, str], KeeperEvent],
    ) -> None:
        self._ways[datastore].ask(
            work,
            lambda outcome: self.happen(ended(outcome, "")),
            lambda problem: self.happen(ended(LinkOutcome.UNKNOWN, problem)),
        )

    def _read_claims(self, effect: ReadClaims) -> None:
        self._ways[effect.datastore].ask(
            lambda store: tuple(self._host.read_claim(store, disk.id) for disk in effect.disks),
            lambda found: self.happen(ClaimsRead(effect.request, True, found)),
            lambda problem: self.happen(ClaimsRead(effect.request, False, problem=problem)),
        )

    def _link_claim(self, effect: LinkClaim) -> None:
        claim = effect.claim
        self._link(effect.datastore, lambda store: store.link_claim(claim), partial(ClaimLinked, effect.request))

    def _read_claimant(self, effect: ReadClaimant) -> None:
        def look(store: Datastore) -> tuple[RegisterRecord | None, bool]:
            last = self._host.read_register(store, effect.claimant.vm)
            return last, last is not None and len(store.incarnations.get(last.owner, ())) > last.incarnation

        self._ways[effect.claimant.home].ask(
            look,
            lambda found: self.happen(ClaimantRead(effect.request, True, *found)),
            lambda problem: self.happen(ClaimantRead(effect.request, False, problem=problem)),
        )

    def _bar_claimant(self, effect: BarClaimant) -> None:
        record = effect.record
        self._link(effect.claimant.home, lambda store: store.link(record), partial(ClaimantBarred, effect.request))
