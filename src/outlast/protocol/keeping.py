"""The keeper as a pure machine: leases, the VMs that run on them, and whoever asks.

It composes one `Lease` per datastore with one `Ownership` per VM. Its promise: whatever executes on this host is executed
by the owner in its register, on an epoch of the present term, within its lease. It needs no agent: it renews, freezes at
a lapse, re-asserts in the next term, thaws or kills, whether or not anybody asks.

Order inside `handle`: first every lease is judged against `now` and what lapsed is frozen; only then is the event looked
at. So no answer from storage, however late it is handled, can be taken for one that came in time.

One VM has at most one read or link under way (`_tasks`): its purpose says what to do with the answer. Nothing is renewed
before `ProcessesFound` (rule 8) and before this boot's incarnation is won (rule 9). How requests over the socket are
answered is in `gatekeeping.py`, how a frozen VM goes on in `reassertion.py`.
"""

import msgspec

from outlast.model.ids import NO_TERM, DatastoreName, LeaseTerm, RequestId, VmId
from outlast.model.keeper_config import KeeperConfig
from outlast.model.keeper_effects import (
    Changed,
    Freeze,
    KeeperEffect,
    LinkRegister,
    PetWatchdog,
    PublishLease,
    ReadRegister,
    Remember,
    Tell,
    WriteHeartbeat,
)
from outlast.model.keeper_events import (
    Asked,
    ClaimAnswer,
    ClientGone,
    CloseAsked,
    DeviceSeen,
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
from outlast.model.keeping import AskLost, CopyRequest, Happened, Happening, KeeperReport, Progress, UseSettings
from outlast.model.records import (
    Enforcement,
    HeartbeatRecord,
    ProofKind,
    Reason,
    RegisterState,
)
from outlast.model.time import LONG_AGO, Duration, Instant, after
from outlast.protocol.audit import Audit
from outlast.protocol.copies import Copies
from outlast.protocol.disk_claims import DiskClaims
from outlast.protocol.enforcement import enforcement_level, may_pet, works_on_unnoticed
from outlast.protocol.gatekeeping import Gatekeeper
from outlast.protocol.keeper_report import heartbeat_record, keeper_report
from outlast.protocol.lease import Adopted, Lease, Place, Renewal
from outlast.protocol.lease_length import fit
from outlast.protocol.ownership import SOON, Identity, Ownership, Phase, Purpose
from outlast.protocol.reassertion import Reassertion
from outlast.protocol.renouncing import Renouncing, count_refusals
from outlast.protocol.under_way import Task, UnderWay


class KeeperMachine:
    """See the top of this file. `wall_clock_s` and `agent_progress` are published in heartbeats, never decided upon."""

    def __init__(self, config: KeeperConfig, now: Instant, adopted: dict[DatastoreName, Adopted]) -> None:
        """`adopted`: the leases that this boot's previous keeper session published (rule 8); may be empty."""
        self.config = config
        self.settings, self.settings_mark, self.closed = config.settings, config.settings_mark, config.closed
        self.identity = Identity(config.host, config.session)
        self.places = {d.name: Place(Lease(self.settings, now, adopted.get(d.name))) for d in config.datastores}
        self.vms: dict[VmId, Ownership] = {}
        self.agent_progress = self.wall_clock_s = 0
        self._agent_told_at, self._isolated = LONG_AGO, False
        self.closing = self.said_last_word = False
        self._audit = Audit(now)
        self.now, self.idle = now, Duration(0)
        self._ready = False
        self._requests, self._fitted = 0, False
        self._tasks = UnderWay()
        self._retry_at: dict[VmId, Instant] = {}
        self.gate = Gatekeeper(self)
        self.reassertion = Reassertion(self)
        self.renouncing = Renouncing(self)
        self.copies = Copies(self)
        self.claims = DiskClaims(self)

    # -- the two calls of every machine ---------------------------------------------------------------------------

    def handle(self, event: KeeperEvent, now: Instant) -> list[KeeperEffect]:
        """What to do about `event`, in order. See the top of this file for why leases are judged first."""
        self.idle, self.now = Duration(now - self.now), now
        effects = self._judge_leases()
        match event:
            case HeartbeatWritten():
                effects += self._heartbeat_written(event)
            case RegisterRead():
                effects += self._register_read(event)
            case Linked():
                effects += self._linked(event)
            case _ if isinstance(event, ClaimAnswer):
                effects += self.claims.answered(event)
            case IncarnationWon():
                # The agent needs it too: without it no primary register can be taken.
                self.places[event.datastore].incarnation = event.incarnation
                effects.append(Changed())
            case ProcessesFound():
                effects += self._adopt(event.found)
            case ProcessAppeared():
                effects += self._appeared(event.process)
            case DeviceSeen():
                effects += self._device_seen(event)
            case ProcessMissing():
                effects += self.gate.missing(event)
            case ProcessExited():
                effects += self._exited(event.vm)
            case Asked(_, AskLost() as told):
                effects += self.reassertion.told_lost(told)
            case Asked(client, request) if isinstance(request, CopyRequest):
                effects += self.copies.asked(client, request)
            case Asked():
                effects += self.gate.asked(event.client, event.request)
            case ClientGone():
                self.gate.client_gone(event.client)
            case CloseAsked():
                self.closing = True
                effects += self.gate.close()
            case Woken():
                pass
        effects += [*self.gate.expire(), *self.copies.expire(), *self.claims.expire()]
        effects += self._work()
        return effects

    def deadline(self) -> Instant | None:
        """When to be called again with `Woken`."""
        due = [t for place in self.places.values() if (t := self._lease_deadline(place)) is not None]
        due += [*self._retry_at.values(), *self.gate.deadlines(), *self.copies.deadlines(), *self.claims.deadlines()]
        if any(v.phase is Phase.RUNNING for v in self.vms.values()):
            due.append(self._audit.due)
        return min(due) if due else None

    def _lease_deadline(self, place: Place) -> Instant | None:
        return place.lease.next_deadline() if self._ready and place.incarnation is not None else place.lease.deadline

    # -- leases ---------------------------------------------------------------------------------------------------

    def term(self, home: DatastoreName) -> LeaseTerm | None:
        """The present unbroken term on a datastore, None while lapsed."""
        lease = self.places[home].lease
        return lease.term if lease.held else None

    def _judge_leases(self) -> list[KeeperEffect]:
        effects: list[KeeperEffect] = []
        for name, place in self.places.items():
            if place.lease.lapse(self.now):
                effects += self._lapsed(name, "no heartbeat write was confirmed in time")
        return effects

    def _lapsed(self, name: DatastoreName, why: str) -> list[KeeperEffect]:
        effects: list[KeeperEffect] = []
        told = list[KeeperEffect]()
        for ownership in self._homed(name):
            frozen = ownership.lapse()
            effects += frozen
            if any(isinstance(effect, Freeze) for effect in frozen):
                told.append(self.tell(Happening.FROZEN, ownership, "its lease lapsed"))
                if works_on_unnoticed(ownership, self.config, self.places[name]):
                    effects += ownership.kill()
                    told.append(self.tell(Happening.KILLED, ownership, "a freeze does not stop its device"))
            elif frozen:
                told.append(self.tell(Happening.KILLED, ownership, "its lease lapsed before it had arrived"))
            elif ownership.phase is Phase.VOID:
                told.append(self.tell(Happening.START_VOIDED, ownership, "its lease lapsed while it was starting"))
        lapsed = Happened(kind=Happening.LEASE_LAPSED, at=self.now, datastore=name, detail=why)
        return [*effects, self._publish(name), Tell(lapsed), *told, Changed()]

    def _publish(self, name: DatastoreName) -> PublishLease:
        lease = self.places[name].lease
        return PublishLease(name, lease.deadline or Instant(0), lease.term, lease.granted_for)

    def use_settings(self, request: UseSettings) -> list[KeeperEffect]:
        """The fault domain's settings are others now. What is older than what we use comes from somebody who is late."""
        if request.mark < self.settings_mark:
            return []
        self.settings, self.settings_mark, self.closed = request.settings, request.mark, request.closed
        self._fitted = False
        return [*self._fit_leases(), Changed()]

    def _fit_leases(self) -> list[KeeperEffect]:
        """Make each lease as long as it may be. One that is over by that lapses at once."""
        wanted = self.settings.lease_duration
        moved = [name for name, place in self.places.items() if fit(place, self.settings, self._homed(name))]
        self._fitted = all(place.lease.length == wanted for place in self.places.values())
        return [*self._judge_leases(), *(self._publish(name) for name in moved)] if moved else []

    def _heartbeat_written(self, event: HeartbeatWritten) -> list[KeeperEffect]:
        name, place = event.datastore, self.places[event.datastore]
        place.problem = event.problem
        if event.ok:
            place.published = place.writing
        if event.foreign:
            place.lease.end_write(event.sequence, False, self.now)
            return self._foreign(name, event.problem)
        renewal = place.lease.end_write(event.sequence, event.ok, self.now)
        fails_now = count_refusals(place, event, self.settings.datastore_heartbeat_interval)
        if renewal is Renewal.NOTHING or place.lease.deadline is None:
            return [Changed()] if fails_now else []
        effects: list[KeeperEffect] = [self._publish(name)]
        if renewal is Renewal.NEW_TERM:
            began = Happened(kind=Happening.LEASE_BEGAN, at=self.now, datastore=name, detail=f"term {place.lease.term}")
            effects += [Tell(began), Changed()]
            for ownership in self._homed(name):
                self._retry_at.pop(ownership.vm, None)
        return effects

    def _foreign(self, name: DatastoreName, problem: str) -> list[KeeperEffect]:
        """Rule 9: a foreign record in our own place means a cloned host: a lapse and an alarm.

        Nothing is written any more before storage has said anew which boot of this host counts.
        """
        self.places[name].incarnation = None
        alarm = Tell(Happened(kind=Happening.CLONED_HOST, at=self.now, datastore=name, detail=problem))
        if self.places[name].lease.void(self.now):
            return [*self._lapsed(name, problem), alarm]
        return [alarm]

    # -- processes ------------------------------------------------------------------------------------------------

    def _adopt(self, found: tuple[FoundProcess, ...]) -> list[KeeperEffect]:
        effects: list[KeeperEffect] = []
        for process in found:
            ownership = self.ensure(process)
            by_right = process.by_right if self.term(process.home) is not None else None
            effects += ownership.adopt(process.pid, process.stopped, by_right, process.session)
            effects.append(self.tell(Happening.ADOPTED, ownership, f"process {process.pid}, {ownership.phase}"))
        self._ready = True
        return [*effects, Changed()]

    def _appeared(self, process: FoundProcess) -> list[KeeperEffect]:
        ownership = self.ensure(process)
        if ownership.phase is Phase.IDLE:
            # It did not come through the gate (no hook, or libvirtd not restarted since): it may run only once asserted.
            effects = ownership.adopt(process.pid, process.stopped, None, process.session)
            return [*effects, self.tell(Happening.ADOPTED, ownership, "it did not pass the gate"), Changed()]
        effects = ownership.process_appeared(process.pid, incoming=process.incoming)
        if ownership.phase is Phase.KILLING:
            effects.append(self.tell(Happening.KILLED, ownership, "it appeared when its start was void"))
        return [*effects, Changed()]

    def _exited(self, vm: VmId) -> list[KeeperEffect]:
        ownership = self.vms.get(vm)
        if ownership is None:
            return []
        ownership.process_exited()
        effects = [*self._without_right(ownership), self.tell(Happening.EXITED, ownership, ""), Changed()]
        if ownership.phase is Phase.IDLE and not self.gate.is_waited_for(vm):
            self.forget(vm)
        return effects

    def _without_right(self, ownership: Ownership) -> list[KeeperEffect]:
        """For a successor: what it finds of this VM in this very term, a copy that comes back, is not what ran by right."""
        return [Remember(ownership.vm, ownership.home, NO_TERM, Duration(0))]

    def _device_seen(self, event: DeviceSeen) -> list[KeeperEffect]:
        """Rule 6: until that VM has ended, the end of our lease on its home is proof to nobody."""
        if (ownership := self.vms.get(event.vm)) is None or ownership.unfreezable:
            return []
        ownership.unfreezable = True
        self.places[ownership.home].lease.hurry(self.now)
        return [self.tell(Happening.DEVICE_SEEN, ownership, event.device)]

    # -- reads and links ------------------------------------------------------------------------------------------

    def read(self, ownership: Ownership, purpose: Purpose) -> list[KeeperEffect]:
        """Read the VM's register; the answer goes on with `purpose`.

        Who would make its first epoch looks on every other datastore too: a definition whose disks stand in another order
        has another home, and must not get a second register.
        """
        first = purpose in (Purpose.ASSERT, Purpose.START)
        others = tuple(name for name in sorted(self.places) if name != ownership.home) if first else ()
        return self._read_at(ownership, purpose, ownership.home, others)

    def _read_at(
        self, ownership: Ownership, purpose: Purpose, place: DatastoreName, left: tuple[DatastoreName, ...]
    ) -> list[KeeperEffect]:
        request = self._begin(Task(ownership.vm, purpose, place, left))
        return [ReadRegister(request, place, ownership.vm)]

    def link(
        self,
        ownership: Ownership,
        purpose: Purpose,
        state: RegisterState,
        reason: Reason,
        proof: ProofKind | None = None,
    ) -> list[KeeperEffect]:
        """Create the VM's next epoch. Only a link issued within a held lease can ever grant anything (rule 3)."""
        place = self.places[ownership.home]
        if place.incarnation is None:
            return self._settle_failed(ownership, purpose, "this boot has no incarnation on that datastore yet")
        record = ownership.link(place.incarnation, place.lease.term, self.settings.span, state, reason, proof=proof)
        effects = [LinkRegister(self._begin(Task(ownership.vm, purpose, ownership.home)), ownership.home, record)]
        # Whoever succeeds this keeper must not count on more than what this link may come to name.
        return [self.remember(ownership), *effects] if self.runs_by_right(ownership.vm) else [*effects]

    def busy(self, vm: VmId) -> bool:
        """Whether a read or link for this VM is under way."""
        return self._tasks.busy(vm)

    def may_begin(self, ownership: Ownership) -> bool:
        """Whether something may be read or linked for this VM now."""
        return self._tasks.may_begin(ownership)

    def _begin(self, task: Task) -> RequestId:
        self._requests += 1
        request = RequestId(self._requests)
        self._tasks[request] = task
        self._retry_at.pop(task.vm, None)
        return request

    def _register_read(self, event: RegisterRead) -> list[KeeperEffect]:
        task = self._tasks.pop(event.request, None)
        if task is None:
            return []
        ownership = self.vms[task.vm]
        if not event.ok:
            problem = f"its register on {task.place} cannot be read: {event.problem}"
            return self._settle_failed(ownership, task.purpose, problem)
        if event.last is None and task.left:
            return self._read_at(ownership, task.purpose, task.left[0], task.left[1:])
        if task.purpose is Purpose.AUDIT:
            return self.reassertion.audited(ownership, event.last)
        if event.last is not None:
            ownership.home = task.place
        incarnation = self.places[ownership.home].incarnation
        if event.last is not None and incarnation is not None and ownership.is_ours(event.last, incarnation):
            ownership.epoch = event.last.epoch
        match task.purpose:
            case Purpose.ASSERT:
                return self.reassertion.after_read(ownership, event.last)
            case Purpose.START:
                return self.gate.start_after_read(ownership, event.last)
            case Purpose.RELEASE:
                return self.gate.release_after_read(ownership, event.last)
            case Purpose.INHERIT:
                return self.copies.after_read(ownership, event.last)
            case _:
                return self.gate.takeover_after_read(ownership, event.last)

    def _linked(self, event: Linked) -> list[KeeperEffect]:
        task = self._tasks.pop(event.request, None)
        if task is None:
            return []
        ownership = self.vms[task.vm]
        record = ownership.linking
        granted = ownership.linked(event.outcome, self.term(ownership.home))
        if event.outcome is not LinkOutcome.WON or record is None:
            ownership.failed_link = (record.epoch if record is not None else None, event.problem)
            # Lost, or unknown: look who is there. It may be our own earlier link that landed late.
            return self.read(ownership, task.purpose)
        match task.purpose:
            case Purpose.ASSERT:
                return self.reassertion.won(ownership, record) if granted else []
            case Purpose.START | Purpose.TAKE_OVER:
                return self.gate.won(ownership, record, granted)
            case Purpose.INHERIT:
                return self.copies.won(ownership, record, granted)
            case _:
                return self.gate.released(ownership, record)

    def _settle_failed(self, ownership: Ownership, purpose: Purpose, problem: str) -> list[KeeperEffect]:
        self.not_before_long(ownership)
        if purpose in (Purpose.START, Purpose.TAKE_OVER):
            return self.gate.refuse(ownership, problem)
        return []

    # -- what is due ----------------------------------------------------------------------------------------------

    def _work(self) -> list[KeeperEffect]:
        """What is due now: heartbeats, re-assertions, releases, the watchdog."""
        if not self._ready:
            return []
        effects = [] if self._fitted else self._fit_leases()
        for name, place in self.places.items():
            if place.incarnation is None:
                continue
            sequence = place.lease.begin_write(self.now)
            if sequence is not None:
                record = self._record(name, sequence)
                place.writing = record.enforcement
                effects.append(WriteHeartbeat(name, record))
        for ownership in list(self.vms.values()):
            if self._may_work_on(ownership.vm):
                effects += [*self.reassertion.begin(ownership), *self.copies.begin(ownership)]
                effects += self.gate.release_if_asked(ownership)
        audited = self._audit.next(self.vms, self.now)
        if audited is not None and self._may_work_on(audited.vm):
            effects += self.read(audited, Purpose.AUDIT)
        if self.config.watchdog_device and self._may_pet():
            effects.append(PetWatchdog())
        return effects

    # -- enforcement (rule 6) -------------------------------------------------------------------------------------

    def agent_tells(self, progress: Progress) -> None:
        """The agent works, and says whether it hears anybody."""
        self.agent_progress, self._isolated, self._agent_told_at = progress.counter, progress.isolated, self.now

    def _may_pet(self) -> bool:
        lately = self.now - self._agent_told_at < self.settings.lease_duration
        return may_pet(self.places, self.vms.values(), isolated=self._isolated and lately)

    def is_published_as_unfreezable(self, home: DatastoreName) -> bool:
        """Whether observers of our record know that the end of our lease there is no proof (or a watchdog makes it one)."""
        return self.config.enforcement is not Enforcement.KEEPER or self.places[home].published is Enforcement.NONE

    def not_before_long(self, ownership: Ownership) -> None:
        """What has failed for this VM is not tried again at once."""
        self.not_before(ownership, self.settings.datastore_heartbeat_interval)

    def not_before(self, ownership: Ownership, wait: Duration) -> None:
        """Nothing is done for this VM for so long."""
        self._retry_at[ownership.vm] = after(self.now, wait)

    def _may_work_on(self, vm: VmId) -> bool:
        if vm not in self.vms or not self.may_begin(self.vms[vm]):
            return False
        if self._retry_at.get(vm, LONG_AGO) > self.now:
            return False
        self._retry_at.pop(vm, None)
        return True

    def remember(self, ownership: Ownership) -> Remember:
        """For a successor: this VM runs by right in the present term."""
        lease = self.places[ownership.home].lease
        named = ownership.span.lease if ownership.span is not None else lease.length
        return Remember(ownership.vm, ownership.home, lease.term, named)

    def runs_by_right(self, vm: VmId) -> bool:
        """Whether this VM executes, as far as the keeper is concerned: if its process is stopped, it was somebody else."""
        known = self.vms.get(vm)
        return known is not None and known.runs_by_right(self.term(known.home))

    # -- what others see ------------------------------------------------------------------------------------------

    def _record(self, name: DatastoreName, sequence: int) -> HeartbeatRecord:
        nothing_left = not any(v.pid is not None or v.phase in SOON for v in self.vms.values())
        # Once said, it stays said: what appears after it was never let pass, and will not be asserted.
        self.said_last_word = self.said_last_word or (self.closing and nothing_left)
        level = enforcement_level(self.config, self.settings, self._homed(name))
        record = heartbeat_record(self.config, self.settings, self.places[name], sequence, level)
        return msgspec.structs.replace(
            record, agent_progress=self.agent_progress, wall_clock_s=self.wall_clock_s, ended=self.said_last_word
        )

    def report(self) -> KeeperReport:
        """How things stand, for the agent and for people."""
        return keeper_report(self.config, self.settings_mark, self.places, self.vms.values())

    def tell(self, kind: Happening, ownership: Ownership, detail: str) -> Tell:
        """One line about a VM for subscribers and the log."""
        return Tell(
            Happened(
                kind=kind,
                at=self.now,
                vm=ownership.vm,
                datastore=ownership.home,
                epoch=ownership.epoch,
                detail=detail,
            )
        )

    def ensure(self, process: FoundProcess) -> Ownership:
        """The machine of this VM, made if it is new."""
        known = self.vms.get(process.vm)
        if known is None:
            known = Ownership(process.vm, process.name, process.home, self.identity)
            self.vms[process.vm] = known
        known.meet(process)
        return known

    def forget(self, vm: VmId) -> None:
        """Nothing of this VM is ours any more."""
        self.vms.pop(vm, None)
        self._retry_at.pop(vm, None)
        self._tasks.forget(vm)

    def _homed(self, name: DatastoreName) -> list[Ownership]:
        return [ownership for ownership in self.vms.values() if ownership.home == name]
