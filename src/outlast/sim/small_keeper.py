"""The keeper of the small world: the real `KeeperMachine`, turned into a table as it is met.

An exhaustive search visits millions of states, but one keeper by itself has only thousands. So the keeper's memory is taken
out of the real machine as a tuple of small values, with everything that cannot matter made the same: times count from now
in ticks, epochs from the register's newest, terms from the present one, sequences and request numbers always begin anew.
`Keepers.handle` builds the real machine from such a tuple, hands it one event, and remembers what came of it. No rule is
written here a second time: what a state does is whatever `protocol/` does.

Left out is the audit, by which an owner looks whether storage has lost its register: this storage loses nothing, and all
that an audit can do is freeze.

The keeper calls its own host 0 and the other one 1, so that both hosts share one table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from outlast.model.ids import (
    BootId,
    DatastoreName,
    Epoch,
    HostId,
    HostName,
    Incarnation,
    KeeperSession,
    LeaseTerm,
    Nonce,
    RequestId,
    VmId,
    VmName,
)
from outlast.model.inventory import DatastoreMember, HostMember
from outlast.model.keeper_config import KeeperConfig
from outlast.model.keeper_effects import (
    Freeze,
    KeeperEffect,
    Kill,
    LinkRegister,
    PublishLease,
    ReadRegister,
    Remember,
    Reply,
    Thaw,
    WriteHeartbeat,
)
from outlast.model.keeper_events import (
    Asked,
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
    RegisterRead,
    Woken,
)
from outlast.model.keeping import AskEnded, AskGate, AskKill, AskLaunch, AskLost, AskRelease, AskTakeover
from outlast.model.records import Proof, ProofKind, Reason, RegisterRecord, RegisterState
from outlast.model.settings import Settings
from outlast.model.time import SECOND, Duration, Instant
from outlast.protocol.gatekeeping import Waiting
from outlast.protocol.keeping import KeeperMachine
from outlast.protocol.lease import Adopted
from outlast.protocol.ownership import Ownership, Phase, Purpose
from outlast.protocol.under_way import Task

TICK = Duration(4 * SECOND)
"""The gate's patience: whoever asks waits for one tick."""
NOW = Instant(1000 * TICK)
"""Every machine is built and called at this instant; what it remembers lies as far before or after it as it should."""
NEWEST = 100
"""The epoch that stands for the register's newest one."""
OLD_EPOCH = -1
"""Every epoch before the newest is the same: whatever is linked from it is lost."""

HOSTS = (HostId("me"), HostId("peer"))
VM, NAME, HOME = VmId("vm"), VmName("vm"), DatastoreName("store")
HOOK, AGENT = 2, 1
ONE = RequestId(1)
_TERM = LeaseTerm(5)
_FAR_AWAY = 1000


class Rec(NamedTuple):
    """A register's record. `epoch`: from the newest (0); `owner`: 0 or 1; `session`: which keeper of that boot, from 0.

    Keepers only write their session, and ask for nobody's: what they read and link has session 0 here until it is stored.
    """

    epoch: int
    owner: int
    incarnation: int
    released: bool
    session: int = 0


class Evidence(NamedTuple):
    """A proof, as it travels in an order. `owner` matters to the proof `own` alone."""

    kind: ProofKind
    owner: int
    epoch: int


def order_from(epoch: int) -> Evidence:
    """An order to take the VM from that epoch. For which of the other proofs it is given is nothing a keeper asks."""
    return Evidence(ProofKind.LEASE_EXPIRED, 0, epoch)


class LinkMemory(NamedTuple):
    """A link under way, as the ownership machine remembers it. `term`: 0 the present one, -1 an earlier one."""

    epoch: int
    released: bool
    term: int


class VmMemory(NamedTuple):
    """An `Ownership`. `failed`: the epoch that it did not win; one that is not to be made any more cannot fail again."""

    phase: Phase
    epoch: int | None
    pid: bool
    owned_elsewhere: bool
    releasing: bool
    granted: int | None
    linking: LinkMemory | None
    failed: int | None


class Asker(NamedTuple):
    """Whoever waits at the gate; `evidence` None: a start."""

    client: int
    deadline: int
    evidence: Evidence | None
    begun: bool


class KeeperMemory(NamedTuple):
    """A `KeeperMachine` on one datastore. Times in ticks from now. A heartbeat may be written again at any time.

    How long a grant or a launch has been waiting is not remembered: patience may end at any time ("unused").
    """

    ready: bool
    closing: bool
    said: bool
    incarnation: int | None
    writing: int | None
    deadline: int | None
    task: Purpose | None
    retry_at: int | None
    vm: VmMemory | None
    asker: Asker | None


class Handled(NamedTuple):
    """What an event led to. `kept`: the read or link under way before is still waited for; `effects`: what matters here."""

    memory: KeeperMemory
    kept: bool
    effects: tuple[tuple[Any, ...], ...]


def small_settings(lease: int, margin: int) -> Settings:
    """Settings whose every time is a number of ticks."""
    window = Duration((lease + margin) * TICK)
    return Settings(
        datastore_heartbeat_interval=TICK,
        datastore_poll_interval=TICK,
        lease_duration=Duration(lease * TICK),
        lease_margin=Duration(margin * TICK),
        datastore_stale_after=window,
    )


def older(epoch: int) -> int:
    """The same epoch, seen from a register that has grown by one."""
    return max(epoch - 1, OLD_EPOCH)


def at(ticks: int) -> Instant:
    """An instant, from ticks from now."""
    return Instant(NOW + ticks * TICK)


def ticks(instant: Instant) -> int:
    """Ticks from now, rounded up: what is due in half a tick is due at the next one."""
    return -((NOW - instant) // TICK)


def record_of(rec: Rec) -> RegisterRecord:
    """The real record. Who it is from is in the nonce, so that no two records are ever equal by chance."""
    return RegisterRecord(
        subject=VM,
        epoch=Epoch(NEWEST + rec.epoch),
        owner=HOSTS[rec.owner],
        incarnation=Incarnation(rec.incarnation),
        session=str(rec.session),
        nonce=Nonce(f"{rec.owner}-{rec.incarnation}-{rec.session}-{rec.epoch}"),
        state=RegisterState.RELEASED if rec.released else RegisterState.OWNED,
        reason=Reason.CRASHED if rec.released else Reason.STARTED,
    )


class Keepers:
    """The table of all keepers met so far, for one pair of settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lease = settings.lease_duration // TICK
        self.margin = settings.lease_margin // TICK
        self._config = KeeperConfig(
            domain="small",
            host=HOSTS[0],
            name=HostName("me"),
            hosts=tuple(HostMember(host, HostName(host), "192.0.2.1", 7710) for host in HOSTS),
            datastores=(DatastoreMember(HOME, "/srv/store", SECOND),),
            settings=settings,
            datastore_key="",
            run_dir="",
            state_dir="",
            boot_id=BootId("boot"),
            session=KeeperSession("session"),
        )
        self._known: dict[tuple[KeeperMemory, tuple[Any, ...]], Handled] = {}

    # -- events ---------------------------------------------------------------------------------------------------

    def handle(self, memory: KeeperMemory, *event: Any) -> Handled:
        """What the real machine does in that state with that event (see `_event` for the shapes)."""
        key = (memory, event)
        found = self._known.get(key)
        if found is None:
            machine = self._build(memory)
            if event == ("unused",):
                machine.gate._pending[VM] = NOW
            effects = machine.handle(self._event(event), NOW)
            found = self._known[key] = Handled(self._take(machine), ONE in machine._tasks, tuple(_effects(effects)))
        return found

    def started(self, published: int | None) -> KeeperMemory:
        """A keeper process that has just begun, and was told what its predecessor published."""
        length = self.settings.lease_duration
        adopted = {HOME: Adopted(at(published), length)} if published is not None else {}
        return self._take(KeeperMachine(self._config, NOW, adopted))

    def running(self, incarnation: int) -> KeeperMemory:
        """A keeper that holds a fresh lease and guards a VM that it started as the newest epoch."""
        vm = VmMemory(Phase.RUNNING, 0, True, False, False, 0, None, None)
        return self.idle(incarnation)._replace(vm=vm)

    def idle(self, incarnation: int) -> KeeperMemory:
        """A keeper that holds a fresh lease, and no VM."""
        return KeeperMemory(True, False, False, incarnation, None, self.lease, None, None, None, None)

    def _event(self, event: tuple[Any, ...]) -> KeeperEvent:
        match event:
            case ("woken",) | ("unused",):
                return Woken()
            case ("written", bool(ok)):
                return HeartbeatWritten(HOME, 1, ok)
            case ("read", Rec() as rec):
                return RegisterRead(ONE, True, record_of(rec))
            case ("unread",):
                return RegisterRead(ONE, False, None, "lost")
            case ("linked", LinkOutcome() as outcome):
                return Linked(ONE, outcome)
            case ("found", bool(there), bool(stopped), bool(by_right)):
                found = _process(stopped, self.settings.lease_duration if by_right else None)
                return ProcessesFound((found,) if there else ())
            case ("appeared", bool(stopped)):
                return ProcessAppeared(_process(stopped))
            case ("exited",):
                return ProcessExited(VM)
            case ("number", int(number)):
                return IncarnationWon(HOME, Incarnation(number))
            case ("close",):
                return CloseAsked()
            case ("gone",):
                return ClientGone(HOOK)
            case _:
                return self._request(event)

    def _request(self, event: tuple[Any, ...]) -> KeeperEvent:
        match event:
            case ("gate",):
                return Asked(HOOK, AskGate(ONE, VM, NAME, ("/srv/store/disk",)))
            case ("launch",):
                return Asked(HOOK, AskLaunch(ONE, VM))
            case ("ended",):
                return Asked(AGENT, AskEnded(ONE, VM))
            case ("release",):
                return Asked(AGENT, AskRelease(ONE, VM, NAME, HOME, Reason.CRASHED))
            case ("kill",):
                return Asked(AGENT, AskKill(ONE, VM, Reason.ISOLATED))
            case ("lost",):
                return Asked(AGENT, AskLost(ONE, VM, HOME, HOSTS[1], Epoch(NEWEST)))
            case ("takeover", Evidence() as evidence):
                return Asked(AGENT, AskTakeover(ONE, VM, NAME, HOME, _proof(evidence)))
            case _:
                raise ValueError(f"no such event: {event!r}")

    # -- a machine from its memory, and back ----------------------------------------------------------------------

    def _build(self, memory: KeeperMemory) -> KeeperMachine:
        machine = KeeperMachine(self._config, NOW, {})
        place = machine.places[HOME]
        lease = place.lease
        place.incarnation = Incarnation(memory.incarnation) if memory.incarnation is not None else None
        lease._writing = (1, at(memory.writing)) if memory.writing is not None else None
        lease._written_for = self.settings.lease_duration
        lease._write_due = NOW
        lease.sequence, lease.term = 1, _TERM
        lease.deadline = at(memory.deadline) if memory.deadline is not None else None
        machine._ready, machine.closing, machine._requests = memory.ready, memory.closing, 1
        machine._fitted = True
        machine.said_last_word, machine._audit.due = memory.said, at(_FAR_AWAY)
        if memory.task is not None:
            machine._tasks[ONE] = Task(VM, memory.task, HOME)
        if memory.retry_at is not None:
            machine._retry_at[VM] = at(memory.retry_at)
        if memory.vm is not None:
            machine.vms[VM] = self._ownership(machine, memory.vm, memory.incarnation or 0)
        if memory.asker is not None:
            asker = memory.asker
            proof = _proof(asker.evidence) if asker.evidence is not None else None
            machine.gate._waiting[VM] = Waiting(asker.client, ONE, at(asker.deadline), proof, asker.begun)
        return machine

    def _ownership(self, machine: KeeperMachine, memory: VmMemory, incarnation: int) -> Ownership:
        vm = Ownership(VM, NAME, HOME, machine.identity)
        vm.phase = memory.phase
        vm.span = self.settings.span
        vm.epoch = Epoch(NEWEST + memory.epoch) if memory.epoch is not None else None
        vm.pid = 1 if memory.pid else None
        vm.owned_elsewhere = memory.owned_elsewhere
        vm.release_reason = Reason.CRASHED if memory.releasing else None
        vm._granted_in = LeaseTerm(_TERM + memory.granted) if memory.granted is not None else None
        if memory.failed is not None:
            vm.failed_link = (Epoch(NEWEST + memory.failed), "")
        if memory.linking is not None:
            link = memory.linking
            record = record_of(Rec(link.epoch, 0, incarnation, link.released))
            vm._linking = (record, LeaseTerm(_TERM + link.term), self.settings.span)
        return vm

    def _take(self, machine: KeeperMachine) -> KeeperMemory:
        place = machine.places[HOME]
        lease = place.lease
        vm, task = machine.vms.get(VM), next(iter(machine._tasks.values()), None)
        waiting, retry_at = machine.gate._waiting.get(VM), machine._retry_at.get(VM)
        return KeeperMemory(
            ready=machine._ready,
            closing=machine.closing,
            said=machine.said_last_word,
            incarnation=place.incarnation,
            writing=max(ticks(lease._writing[1]), -self.lease) if lease._writing is not None else None,
            deadline=max(ticks(lease.deadline), -self.margin) if lease.deadline is not None else None,
            task=task.purpose if task is not None else None,
            retry_at=ticks(retry_at) if retry_at is not None and retry_at > NOW else None,
            vm=_vm_memory(vm, lease.term) if vm is not None else None,
            asker=_asker(waiting) if waiting is not None else None,
        )

    # -- what changes from outside --------------------------------------------------------------------------------

    def tick(self, memory: KeeperMemory) -> KeeperMemory:
        """The same keeper, one tick later."""
        asker = memory.asker
        return memory._replace(
            writing=max(memory.writing - 1, -self.lease) if memory.writing is not None else None,
            deadline=max(memory.deadline - 1, -self.margin) if memory.deadline is not None else None,
            retry_at=memory.retry_at - 1 if memory.retry_at is not None and memory.retry_at > 1 else None,
            asker=asker._replace(deadline=max(asker.deadline - 1, 0)) if asker is not None else None,
        )

    def lapsed(self, memory: KeeperMemory) -> Handled:
        """Judge the lease, and nothing else. Whatever happens next does this first, so it may as well be done now."""
        key = (memory, ("lapsed",))
        found = self._known.get(key)
        if found is None:
            machine = self._build(memory)
            effects = machine._judge_leases()
            found = self._known[key] = Handled(self._take(machine), True, tuple(_effects(effects)))
        return found

    def overtaken(self, memory: KeeperMemory) -> KeeperMemory:
        """The same keeper, when the register has a newer epoch."""
        vm, asker = memory.vm, memory.asker
        if vm is not None:
            epoch = older(vm.epoch) if vm.epoch is not None else None
            link = vm.linking._replace(epoch=older(vm.linking.epoch)) if vm.linking is not None else None
            failed = vm.failed - 1 if vm.failed else None
            vm = vm._replace(epoch=epoch, linking=link, failed=failed)
        if asker is not None and asker.evidence is not None:
            asker = asker._replace(evidence=asker.evidence._replace(epoch=older(asker.evidence.epoch)))
        return memory._replace(vm=vm, asker=asker)


def _vm_memory(vm: Ownership, term: LeaseTerm) -> VmMemory:
    link, failed = vm._linking, vm.failed_link[0]
    return VmMemory(
        phase=vm.phase,
        epoch=max(vm.epoch - NEWEST, OLD_EPOCH) if vm.epoch is not None else None,
        pid=vm.pid is not None,
        owned_elsewhere=vm.owned_elsewhere,
        releasing=vm.release_reason is not None,
        granted=(0 if vm._granted_in == term else -1) if vm._granted_in is not None else None,
        linking=LinkMemory(
            max(link[0].epoch - NEWEST, OLD_EPOCH),
            link[0].state is RegisterState.RELEASED,
            0 if link[1] == term else -1,
        )
        if link is not None
        else None,
        failed=failed - NEWEST if failed is not None and failed >= NEWEST else None,
    )


def _asker(waiting: Waiting) -> Asker:
    proof = waiting.proof
    # Once an order is accepted, nobody asks any more what its proof was.
    evidence = order_from(max(proof.epoch - NEWEST, OLD_EPOCH)) if proof is not None else None
    return Asker(waiting.client, max(ticks(waiting.deadline), 0), evidence, waiting.begun)


def _process(stopped: bool, by_right: Duration | None = None) -> FoundProcess:
    return FoundProcess(VM, NAME, HOME, 1, stopped, by_right=by_right)


def _proof(evidence: Evidence) -> Proof:
    return Proof(
        kind=evidence.kind,
        owner=HOSTS[evidence.owner],
        incarnation=Incarnation(0),
        epoch=Epoch(NEWEST + evidence.epoch),
        observer=HOSTS[0],
    )


def _effects(effects: list[KeeperEffect]) -> list[tuple[Any, ...]]:
    """The effects that change anything in the small world."""
    found: list[tuple[Any, ...]] = []
    for effect in effects:
        match effect:
            case WriteHeartbeat():
                found.append(("write", effect.record.incarnation, effect.record.ended))
            case ReadRegister():
                found.append(("read",))
            case LinkRegister(_, _, record):
                epoch = max(record.epoch - NEWEST, OLD_EPOCH)
                found.append(("link", Rec(epoch, 0, record.incarnation, record.state is RegisterState.RELEASED)))
            case Freeze():
                found.append(("freeze",))
            case Thaw():
                found.append(("thaw",))
            case Kill():
                found.append(("kill",))
            case PublishLease():
                published = ticks(effect.deadline) if effect.deadline else None
                found.append(("publish", published, effect.term != _TERM))
            case Remember():
                found.append(("remember",))
            case Reply() if effect.client == HOOK:
                found.append(("gate", effect.reply.allowed))
            case _:
                pass
    return found
