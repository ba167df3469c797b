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

from typing import Any

from outlast.model.ids import (
    BootId,
    Epoch,
    HostName,
    Incarnation,
    KeeperSession,
    LeaseTerm,
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
from outlast.model.keeping import (
    AskDropped,
    AskEnded,
    AskExpect,
    AskGate,
    AskGivenUp,
    AskIncoming,
    AskInherit,
    AskKill,
    AskLaunch,
    AskLost,
    AskRelease,
    AskTakeover,
)
from outlast.model.records import Proof, Reason, RegisterState
from outlast.model.settings import Settings
from outlast.model.time import LONG_AGO, SECOND, Duration
from outlast.protocol.gatekeeping import Waiting
from outlast.protocol.keeping import KeeperMachine
from outlast.protocol.lease import Adopted
from outlast.protocol.ownership import Ownership, Phase
from outlast.protocol.under_way import Task
from outlast.sim.small_parts import (
    AGENT,
    ARRIVES,
    GIVES_UP,
    HANDOVER,
    HOME,
    HOOK,
    HOSTS,
    LEAVES,
    NAME,
    NEWEST,
    NOW,
    OLD_EPOCH,
    ONE,
    PLACES,
    PLAIN,
    TERM,
    TICK,
    VM,
    Asker,
    Evidence,
    Handled,
    KeeperMemory,
    LinkMemory,
    Rec,
    VmMemory,
    at,
    older,
    order_from,
    record_of,
    ticks,
)

_FAR_AWAY = 1000


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
            if event == ("unsent",):
                machine.copies._until[VM] = NOW
            effects = list[tuple[Any, ...]]()
            if event == ("receive",):
                # libvirt says that a migration comes in, and then asks as it does about any start.
                effects += _effects(machine.handle(Asked(PLACES, AskIncoming(ONE, VM)), NOW))
            if ("place", False) in effects:
                effects.append(("gate", False))
            else:
                effects += _effects(machine.handle(self._event(event), NOW))
            found = self._known[key] = Handled(self._take(machine), ONE in machine._tasks, tuple(effects))
        return found

    def started(self, published: int | None) -> KeeperMemory:
        """A keeper process that has just begun, and was told what its predecessor published."""
        length = self.settings.lease_duration
        adopted = {HOME: Adopted(at(published), length)} if published is not None else {}
        return self._take(KeeperMachine(self._config, NOW, adopted))

    def running(self, incarnation: int, kind: int = PLAIN) -> KeeperMemory:
        """A keeper that holds a fresh lease and guards a VM that it started as the newest epoch."""
        vm = VmMemory(Phase.RUNNING, 0, kind, False, False, 0, None, None)
        return self.idle(incarnation)._replace(vm=vm)

    def idle(self, incarnation: int) -> KeeperMemory:
        """A keeper that holds a fresh lease, and no VM."""
        return KeeperMemory(True, False, False, incarnation, None, self.lease, None, None, None, None)

    def _event(self, event: tuple[Any, ...]) -> KeeperEvent:
        match event:
            case ("woken",) | ("unused",) | ("unsent",):
                return Woken()
            case ("written", bool(ok)):
                return HeartbeatWritten(HOME, 1, ok)
            case ("read", Rec() as rec):
                return RegisterRead(ONE, True, record_of(rec))
            case ("unread",):
                return RegisterRead(ONE, False, None, "lost")
            case ("linked", LinkOutcome() as outcome):
                return Linked(ONE, outcome)
            case ("found", int(kind), bool(stopped), bool(by_right)):
                found = _process(kind, stopped, self.settings.lease_duration if by_right else None)
                return ProcessesFound((found,) if kind else ())
            case ("appeared", int(kind), bool(stopped)):
                return ProcessAppeared(_process(kind, stopped))
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
            case ("gate",) | ("receive",):
                return Asked(HOOK, AskGate(ONE, VM, NAME, ("/srv/store/disk",)))
            case ("launch",):
                return Asked(HOOK, AskLaunch(ONE, VM))
            case ("ended",):
                return Asked(AGENT, AskEnded(ONE, VM))
            case ("release",):
                return Asked(AGENT, AskRelease(ONE, VM, NAME, HOME, Reason.CRASHED))
            case ("hand over",):
                release = AskRelease(ONE, VM, NAME, HOME, Reason.MIGRATED, heir=HOSTS[1], handover=HANDOVER, pid=LEAVES)
                return Asked(AGENT, release)
            case ("expect",):
                return Asked(PLACES, AskExpect(ONE, VM, NAME, HOME, HOSTS[1], HANDOVER))
            case ("inherit",):
                return Asked(AGENT, AskInherit(ONE, VM, HANDOVER))
            case ("drop",):
                return Asked(AGENT, AskDropped(ONE, VM, HANDOVER))
            case ("kill",):
                return Asked(AGENT, AskKill(ONE, VM, Reason.ISOLATED))
            case ("give up", bool(mine)):
                session = self._config.session if mine else "another"
                return Asked(GIVES_UP, AskGivenUp(ONE, VM, HOME, Epoch(NEWEST), session))
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
        lease.sequence, lease.term, lease.lapsed_at = 1, TERM, LONG_AGO
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
        vm.pid, vm.incoming = memory.pid or None, memory.pid == ARRIVES
        vm.owned_elsewhere = memory.owned_elsewhere
        vm.release_reason = Reason.CRASHED if memory.releasing else None
        vm.ended = LEAVES if memory.ended else None
        vm.release_to = (HOSTS[1], HANDOVER) if memory.heir else None
        if memory.handover:
            vm.handover = HANDOVER
            machine.copies._sources[VM] = HOSTS[1]
        vm._granted_in = LeaseTerm(TERM + memory.granted) if memory.granted is not None else None
        if memory.failed is not None:
            vm.failed_link = (Epoch(NEWEST + memory.failed), "")
        if memory.linking is not None:
            link = memory.linking
            record = record_of(Rec(link.epoch, 0, incarnation, link.released))
            vm._linking = (record, LeaseTerm(TERM + link.term), self.settings.span)
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
        pid=vm.pid or 0,
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
        heir=vm.release_to is not None and vm.release_reason is not None,
        handover=vm.handover == HANDOVER,
        ended=vm.ended == LEAVES,
    )


def _asker(waiting: Waiting) -> Asker:
    proof = waiting.proof
    # Once an order is accepted, nobody asks any more what its proof was.
    evidence = order_from(max(proof.epoch - NEWEST, OLD_EPOCH)) if proof is not None else None
    return Asker(waiting.client, max(ticks(waiting.deadline), 0), evidence, waiting.begun)


def _process(kind: int, stopped: bool, by_right: Duration | None = None) -> FoundProcess:
    return FoundProcess(VM, NAME, HOME, kind, stopped, by_right=by_right, incoming=kind == ARRIVES)


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
                released, handed = record.state is RegisterState.RELEASED, record.handover == HANDOVER
                found.append(("link", Rec(epoch, 0, record.incarnation, released, handed=handed)))
            case Freeze():
                found.append(("freeze",))
            case Thaw():
                found.append(("thaw",))
            case Kill():
                found.append(("kill",))
            case PublishLease():
                published = ticks(effect.deadline) if effect.deadline else None
                found.append(("publish", published, effect.term != TERM))
            case Remember():
                found.append(("remember", bool(effect.lease)))
            case Reply() if effect.client == HOOK:
                found.append(("gate", effect.reply.allowed))
            case Reply() if effect.client == GIVES_UP and effect.reply.allowed:
                found.append(("word",))
            case Reply() if effect.client == PLACES:
                found.append(("place", effect.reply.allowed))
            case _:
                pass
    return found
