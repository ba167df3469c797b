"""What is done about VMs that should run and do not: each `restart.Restart` is moved along.

Only for datastores that this agent is responsible for, elected or not. A VM becomes a case when its host is presumed dead
(so that the register is read while the window still runs), when its host lives and has let go of it (crash, isolation
response), or when it stands on nobody's list; not one that has failed, or whose priority is `disabled`, unless an operator
asks for it. What happens then depends on its register, read afresh:

    the register says                           then
    nothing, and an operator asked for the VM   whoever is told to start it makes its first epoch (proof `first`)
    released, switched off                      not wanted any more: off the protected list, unless an operator has asked
                                                for it since (then proof `renounced`)
    released, the VM itself failed              counted (`attempts`); then proof `renounced`, or it is given up
    released to a copy that has migrated        waits for that for HEIR_GRACE, if its host can be talked to
    released, anything else                     proof `renounced`
    owned, and `proving` finds proof            that proof
    owned by a host that lives, and has lost    it is asked to give it up (`storage_loss`); then proof `renounced`
      its home for good, as it says
    owned by a host that lives and lists it     settled: it runs there
    owned by a host that lives, not listed      after a while that host is told to start it anew (proof `own`)

With proof at hand it waits until `doubt` lets it go, then for its turn (`sequence`) and for a host (`placement`). Storage
that gives no answer is waited for, and is no attempt. While recovery is paused nothing is ordered but what an operator asks
for himself: registers are read, proofs found and failures counted all the same, and what waits begins anew when recovery is
resumed.
"""

from outlast.model.effects import ReadRegisters, Send
from outlast.model.events import RegistersRead
from outlast.model.ids import PRIMARY_REGISTER, DatastoreName, HostId, VmId
from outlast.model.messages import OrderReport, RestartOrder
from outlast.model.records import ProofKind, ProtectedVm, Reason, RegisterRecord, RegisterState
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after
from outlast.protocol import attempts as counting
from outlast.protocol.dependencies import Dependencies
from outlast.protocol.domain_snapshot import why_refused
from outlast.protocol.doubt import Doubt
from outlast.protocol.fencing import Fencing
from outlast.protocol.host_condition import going_down
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.orders import OrderDesk
from outlast.protocol.peers import Peers
from outlast.protocol.placement import Placement
from outlast.protocol.proving import NotYet, OwnerLives, Proven, Prover
from outlast.protocol.responsibility import Responsibility
from outlast.protocol.restart import LIST_PATIENCE, LOOK_AGAIN, ORDER_PATIENCE, READ_PATIENCE, Restart, Stage
from outlast.protocol.sequence import Slots, turns
from outlast.protocol.shared_settings import SharedSettings
from outlast.protocol.storage_loss import StorageLoss
from outlast.protocol.trials import Trials
from outlast.protocol.verdict import SUSPECT, Verdict

IDLE_GRACE = Duration(5 * SECOND)
"""How long a live owner may be without the VM on its list before it is told to start it anew."""
RESEND = Duration(SECOND // 2)
TURNS_EVERY = Duration(SECOND // 5)
"""How often it is looked whose turn it is, while somebody waits and nothing happens that asks for a look at once."""
SETTLED_FOR = Duration(SECOND)
"""How long a settled case is left alone: the list that shows the VM's place is on its way."""
_FOR_EVER = frozenset({ProofKind.RENOUNCED, ProofKind.REBOOTED, ProofKind.CLEAN_SHUTDOWN, ProofKind.OWN})
"""What has been written or has ended stays so, whatever its host does later."""
_COMING = frozenset({Stage.READING, Stage.PROVING, Stage.QUEUED})
_UNDER_WAY = frozenset({Stage.CONFIRMING, Stage.ORDERED, Stage.STARTING})
_ORDERED = frozenset({Stage.ORDERED, Stage.STARTING, Stage.STARTED})


class Recovery:
    """See the top of this file."""

    def __init__(
        self,
        knowledge: Knowledge,
        outbox: Outbox,
        *,
        peers: Peers,
        responsibility: Responsibility,
        shared: SharedSettings,
        desk: OrderDesk,
        fencing: Fencing,
        doubt: Doubt,
    ) -> None:
        self._shared = shared
        self._known = knowledge
        self._out = outbox
        self._prover = Prover(knowledge, peers)
        self.dependencies = Dependencies(knowledge, responsibility)
        self._responsible = responsibility
        self._desk = desk
        self._fencing = fencing
        self._doubt = doubt
        self._turns_due = knowledge.now
        self.cases: dict[VmId, Restart] = {}
        self.placement = Placement(knowledge, self.cases)
        self._trials = Trials(knowledge, outbox, responsibility)
        self.loss = StorageLoss(
            knowledge,
            outbox,
            responsibility=responsibility,
            shared=shared,
            placement=self.placement,
            cases=self.cases,
        )
        self._settled: dict[VmId, Instant] = {}
        """Until when each settled case is left alone."""

    # -- turns ----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Open new cases, and move the open ones along."""
        self.loss.look()
        for vm in [vm for vm, until in self._settled.items() if self._known.now >= until]:
            del self._settled[vm]
        at_rest: list[tuple[DatastoreName, ProtectedVm]] = []
        for datastore in self._responsible.held_datastores():
            for entry in list(self._responsible.protection(datastore).vms.values()):
                if entry.vm in self.cases or entry.vm in self._settled:
                    continue
                if self._is_a_case(entry):
                    self._open(entry, datastore)
                else:
                    at_rest.append((datastore, entry))
        self._trials.forget_what_is_stable(at_rest)
        for vm in self.placement.found_room():
            self._reopen(self.cases[vm])
        for case in list(self.cases.values()):
            under_way = case.stage in _ORDERED or case.vm in self._responsible.protection(case.home).vms
            if self._responsible.holds(case.home) is None or not under_way:
                del self.cases[case.vm]
                continue
            self._move(case)
            if case.stage is Stage.SETTLED:
                self._settled[case.vm] = after(self._known.now, SETTLED_FOR)
                del self.cases[case.vm]
        self._give_turns()
        self.loss.tick()

    def _is_a_case(self, entry: ProtectedVm) -> bool:
        if entry.attempts.failed or (entry.policy.priority == "disabled" and not entry.attempts.asked):
            return False
        if (lister := self._known.lister(entry.vm)) is not None:
            return not self._is_settled_on(lister, entry.vm)
        # On nobody's list. Its host may not have been heard of yet: give everybody the time that a verdict takes.
        verdict = self._known.verdict(entry.last_host)
        return verdict is not Verdict.UNKNOWN and verdict is not Verdict.UNREACHABLE

    def _open(self, entry: ProtectedVm, datastore: DatastoreName) -> None:
        case = Restart(entry, datastore, self._known.now)
        self.cases[entry.vm] = case
        self._read(case)

    def _read(self, case: Restart) -> None:
        request = self._out.request()
        case.read(request, self._known.now)
        self._out.put(ReadRegisters(request, case.home, (case.vm,)))

    def _move(self, case: Restart) -> None:
        now = self._known.now
        match case.stage:
            case Stage.WAITING:
                gone = case.only is not None and self._known.verdict(case.only) in SUSPECT
                if now >= case.deadline or gone or (case.held and self._known.pause is None):
                    self._reopen(case)
            case Stage.READING | Stage.CONFIRMING:
                if now >= case.deadline:
                    self._trials.hold(case, f"storage gives no answer on {case.home}")
            case Stage.PROVING:
                self._prove(case)
            case Stage.QUEUED:
                if self.lists_it(case.vm) is not None:
                    self._reopen(case)
            case Stage.ORDERED | Stage.STARTING:
                self._follow_order(case)
            case Stage.STARTED:
                gone = case.target is not None and self._known.verdict(case.target) in SUSPECT
                if self.lists_it(case.vm) is not None or gone or now >= case.deadline:
                    self._reopen(case)
            case Stage.SETTLED:
                pass

    def lists_it(self, vm: VmId) -> HostId | None:
        """The host on whose list it stands, if that one is not suspect, nor is to give it up."""
        lister = self._known.lister(vm)
        return lister if lister is not None and self._is_settled_on(lister, vm) else None

    def _is_settled_on(self, lister: HostId, vm: VmId) -> bool:
        return self._known.verdict(lister) not in SUSPECT and not self.loss.calls_for(vm, lister)

    def _reopen(self, case: Restart) -> None:
        found, lister = self._responsible.protected_vm(case.vm), self.lists_it(case.vm)
        if found is None:
            case.settle("it is not protected any more", self._known.now)
        elif lister is not None:
            case.settle(f"it is on the list of {self._known.name(lister)}", self._known.now)
        elif case.held and self._known.pause is not None and not counting.is_asked_for(found[1].attempts):
            case.hold(self._known.pause.sentence, self._known.now)
        else:
            case.policy = found[1].policy
            self._read(case)

    # -- the register ---------------------------------------------------------------------------------------------

    def registers_read(self, event: RegistersRead) -> bool:
        """Whether this answers one of our reads."""
        case = next((c for c in self.cases.values() if c.request == event.request), None)
        if case is None:
            return self.loss.registers_read(event)
        case.request = None
        if self._known.now >= case.deadline:
            # This agent stood still meanwhile: the answer tells how things were, and the turn that follows backs off.
            return True
        if case.stage is Stage.CONFIRMING:
            self._confirmed(case, event)
        elif case.stage is Stage.READING:
            self._register_known(case, event)
        return True

    def _register_known(self, case: Restart, event: RegistersRead) -> None:
        now = self._known.now
        if not event.ok or case.vm not in event.last:
            self._trials.hold(case, f"its register on {case.home} cannot be read: {event.problem}")
            return
        last = case.last = event.last[case.vm]
        case.epoch_read_at, case.by_wish = now, self._is_asked_for(case)
        asked = self._responsible.protection(case.home).asked(case.vm)
        if last is None and asked is None:
            case.settle("it has no register: it never ran under Outlast", now)
        elif last is None:
            self._have_proof(case, ProofKind.FIRST)
        elif last.state is RegisterState.RELEASED:
            if last.reason is Reason.SWITCHED_OFF and (asked is None or last.epoch > asked):
                self._responsible.protection(case.home).drop(case.vm)
                self._out.note("vm-switched-off", vm=case.vm, host=last.owner, relay=True)
                case.settle("it was switched off on purpose", now)
                return
            if (heir := self._prover.heir(last, case.opened)) is not None:
                case.wait(f"{self._known.name(heir)} has a copy of it that goes on", now, LOOK_AGAIN)
                return
            faulty = last.reason in (Reason.HOST_FAULT, Reason.ISOLATED, Reason.HOST_SHUTDOWN)
            if faulty and not self._prover.has_rebooted(last, case.home):
                case.failed_on.add(last.owner)
            if self._may_go_on(case, last):
                case.by_wish = self._is_asked_for(case)  # Not what has failed since.
                self._have_proof(case, ProofKind.RENOUNCED)
        else:
            case.enter(Stage.PROVING, now, READ_PATIENCE)
            self._prove(case)

    def _may_go_on(self, case: Restart, last: RegisterRecord) -> bool:
        return self._trials.may_go_on(case, last)

    def _is_asked_for(self, case: Restart) -> bool:
        return counting.is_asked_for(self._trials.of(case))

    def _prove(self, case: Restart) -> None:
        if case.last is None:
            return
        case.in_doubt = False
        match self._prover.look(case.last, case.home, case.epoch_read_at):
            case Proven(kind, first_seen, last_read):
                self._have_proof(case, kind, first_seen, last_read)
            case OwnerLives(owner):
                self._owner_lives(case, owner)
            case NotYet(why, silent):
                case.why = why
                if silent is not None:
                    self._fencing.want(silent, case.home, case.epoch_read_at)

    def _owner_lives(self, case: Restart, owner: HostId) -> None:
        known, now = self._known, self._known.now
        if self.loss.calls_for(case.vm, owner):
            why = self.loss.ask(case)
            if why is None:
                case.wait("its register has changed", now, LOOK_AGAIN)
            else:
                case.why = why
        elif known.lister(case.vm) == owner:
            case.settle(f"it is on the list of its owner {known.name(owner)}", now)
        else:
            self._owner_is_idle(case, owner)

    def _owner_is_idle(self, case: Restart, owner: HostId) -> None:
        known, now = self._known, self._known.now
        if case.owned_idle_since is None:
            case.owned_idle_since = now
        reachable = (owner == known.me or known.live(owner)) and owner not in going_down(known)
        if reachable and now - case.owned_idle_since >= IDLE_GRACE:
            self._have_proof(case, ProofKind.OWN)
        else:
            case.wait(f"its owner {known.name(owner)} lives, but does not list it", now, LOOK_AGAIN)

    def _have_proof(self, case: Restart, kind: ProofKind, first_seen: int = 0, last_read: int = 0) -> None:
        last = case.last
        owner, booted = None, False
        if last is not None:
            owner, booted = last.owner, self._prover.has_rebooted(last, case.home)
            why = self._doubt.planned.why_held(last, kind, case.home)
            why = why or self._doubt.why_held(owner, kind, case.home, booted=booted)
            if why and self.lists_it(case.vm) is None and not self._is_asked_for(case):
                case.doubt(why, self._known.now)
                return
        case.proven(kind, self._known.me, first_seen, last_read)
        case.back_on = owner if booted else None
        case.failed_on -= {owner} if booted else set()
        self._out.note("restart-proof", vm=case.vm, host=owner, datastore=case.home, relay=True, proof=kind)
        case.queue(self._known.now)
        self._turns_due = self._known.now

    # -- its turn -------------------------------------------------------------------------------------------------

    def _give_turns(self) -> None:
        """Let those go whose turn it is, as far as there are places for them."""
        now, settings = self._known.now, self._known.settings
        queued = [case for case in self.cases.values() if case.stage is Stage.QUEUED and not self._is_held(case)]
        if not queued or now < self._turns_due:
            return
        self._turns_due = after(now, TURNS_EVERY)
        waiters = [case.waiter() for case in self.cases.values() if case.stage in _COMING]
        names = (name for waiter in waiters for name in waiter.after)
        found = turns(waiters, self.dependencies.look(names, self.cases), settings.dependency_timeout, now)
        for case in queued:
            case.wait_counts(case.vm not in found.standing_still, now)
        for vm, why in found.held.items():
            self.cases[vm].why = why
        for vm, tier in found.ranks.items():
            self.cases[vm].tier = tier
        for each in found.unheeded:
            case = self.cases[each.vm]
            if case.stage is Stage.QUEUED:
                case.unheeded.add(each.dependency)
                self._out.note("dependency-unheeded", vm=each.vm, relay=True, dependency=each.dependency, why=each.why)
        under_way = [case for case in self.cases.values() if case.stage in _UNDER_WAY]
        slots = Slots(
            settings.starts_at_once_per_host,
            settings.starts_at_once_per_datastore,
            [(case.target, case.home) for case in under_way if case.target is not None],
        )
        for vm in found.go:
            self._place(self.cases[vm], slots)

    def _place(self, case: Restart, slots: Slots) -> None:
        """Choose a host; if it and the datastore have a place for one more start, the VM is on its way."""
        proof = case.proof
        refusal = slots.refusal_of_datastore(case.home)
        if proof is None or refusal:
            case.why = refusal
            return
        if self._is_good_still(case) and case.chosen is not None:
            refusal = slots.refusal_of_host(case.chosen, self._known.name(case.chosen))
            if refusal:
                case.why = refusal
                return
        if not self._is_proof_still(case):
            return
        attempts = self._trials.of(case)
        case.again = counting.same_host_again(attempts, case.last) if case.last is not None else None
        case.avoid = frozenset(attempts.hosts) - {case.again}
        case.only = proof.owner if proof.kind is ProofKind.OWN else None
        choice = self.placement.choose(case)
        case.chosen = choice.host
        if choice.host is None:
            why = "; ".join(f"{name}: {reason}" for name, reason in choice.explanation.refused()) or "no host is left"
            self._out.note("restart-failed", vm=case.vm, relay=True, problem=f"no host can take it ({why})")
            case.roomless += 1  # Nothing was tried in vain: the pace of attempts stays as it was.
            case.wait(f"no host can take it ({why})", self._known.now, counting.pause(case.roomless))
            return
        refusal = slots.refusal_of_host(choice.host, self._known.name(choice.host))
        if refusal:
            case.why = refusal
            return
        slots.take(choice.host, case.home)
        case.target = choice.host
        # `one-responsible-primary`: checked on storage before each act, and so is whether somebody has paused recovery.
        # What the proof is about may have changed, too, if it has waited: then the order would only be lost.
        self._shared.look_before_act(case.home)
        case.request = self._out.request()
        case.enter(Stage.CONFIRMING, self._known.now, READ_PATIENCE)
        self._out.put(ReadRegisters(case.request, case.home, (PRIMARY_REGISTER, case.vm)))

    def _is_proof_still(self, case: Restart) -> bool:
        """Found anew, if it has waited: it may rest on silence (rule 6), or be void at any sign of life (rule 5)."""
        if case.proof is None or case.last is None or case.proof.kind in _FOR_EVER:
            return case.proof is not None
        found = self._prover.look(case.last, case.home, case.epoch_read_at)
        if isinstance(found, Proven):
            case.proven(found.kind, self._known.me, found.first_seen, found.last_read)
            return True
        case.proof = None
        case.enter(Stage.PROVING, self._known.now, READ_PATIENCE)
        self._prove(case)
        return False

    def _is_good_still(self, case: Restart) -> bool:
        """Whether the host that was chosen for it, and had no place then, could start it still."""
        host = case.chosen
        return host is not None and not why_refused(self._known, host) and case.home in self._known.leases_of(host)

    # -- the order ------------------------------------------------------------------------------------------------

    def _confirmed(self, case: Restart, event: RegistersRead) -> None:
        now, last = self._known.now, event.last.get(PRIMARY_REGISTER)
        if not event.ok or last is None or case.vm not in event.last:
            self._trials.hold(case, f"the registers on {case.home} cannot be read: {event.problem}")
            return
        if not self._responsible.rests_on(case.home, last):
            self._responsible.read_soon()
            case.settle(f"this host is not responsible for {case.home} any more", now)
        elif event.last[case.vm] != case.last:
            case.wait("its register has changed", now, LOOK_AGAIN)
        elif not self._is_held(case):
            self._order(case)

    def _is_held(self, case: Restart) -> bool:
        """Hold it while recovery is paused, unless an operator asked for this very start.

        What waits goes on when recovery is resumed: its register is read anew then, and its proof found anew.
        """
        pause = self._known.pause
        if pause is None or case.by_wish:
            return False
        self._out.note("restart-held", vm=case.vm, relay=True, why=pause.sentence)
        case.hold(pause.sentence, self._known.now)
        return True

    def _order(self, case: Restart) -> None:
        proof = case.proof
        if proof is None:
            return
        case.order, case.order_sent, case.owned_idle_since = self._out.order(), None, None
        self._trials.ordered(case, proof.epoch)
        self._out.note("restart-ordered", vm=case.vm, host=case.target, relay=True, proof=proof.kind)
        case.enter(Stage.ORDERED, self._known.now, ORDER_PATIENCE)
        self._follow_order(case)

    def _follow_order(self, case: Restart) -> None:
        now = self._known.now
        if case.target is None or case.proof is None:
            return
        if now >= case.deadline or (case.target != self._known.me and self._known.verdict(case.target) in SUSPECT):
            self._trials.in_vain(case, f"{self._known.name(case.target)} did not answer in time")
            return
        if now - (case.order_sent or LONG_AGO) >= RESEND:
            # Also while it starts: an agent that is new there goes on with what its predecessor's keeper has claimed,
            # and one whose report was lost repeats it.
            case.order_sent = now
            order = RestartOrder(
                order=case.order, vm=case.vm, name=case.name, home=case.home, proof=case.proof, entry=case.entry
            )
            if case.target == self._known.me:
                self._desk.ordered(self._known.me, order)
            else:
                self._out.put(Send(case.target, order))

    def reported(self, sender: HostId, report: OrderReport) -> None:
        """The target says how far it is."""
        case = self.cases.get(report.vm)
        if case is None or case.order != report.order or case.target != sender:
            return
        now = self._known.now
        match report.stage:
            case "accepted":
                pass
            case "owned":
                if case.stage is Stage.ORDERED:
                    case.enter(Stage.STARTING, now, self._known.settings.start_timeout)
            case "started":
                self._out.note("restart-done", vm=case.vm, host=sender, relay=True)
                self._trials.started(case)
                case.why = f"it runs on {self._known.name(sender)}"
                case.enter(Stage.STARTED, now, LIST_PATIENCE)
            case "failed":
                self._out.note("restart-failed", vm=case.vm, host=sender, relay=True, problem=report.detail)
                self._trials.told(case, report.detail)
                if case.last is None:
                    self._trials.in_vain(case, report.detail)  # No register may tell of it, and so set the pace.
                else:
                    case.wait(report.detail, now, LOOK_AGAIN)
            case _:
                case.failed_on.add(sender)
                self._out.note("restart-failed", vm=case.vm, host=sender, relay=True, problem=report.detail)
                self._trials.in_vain(case, report.detail)
        self._turns_due = now

    def next_deadline(self) -> Instant | None:
        """When the next case has to be moved by time alone."""
        looks = (self.placement.next_deadline(), self.loss.next_deadline())
        due = [*self._settled.values(), *(look for look in looks if look is not None)]
        for case in self.cases.values():
            match case.stage:
                case Stage.PROVING:
                    due.append(after(self._known.now, RESEND))
                case Stage.QUEUED:
                    due.append(self._turns_due)
                case _:
                    due.append(case.deadline)
            if case.stage in (Stage.ORDERED, Stage.STARTING) and case.order_sent is not None:
                due.append(after(case.order_sent, RESEND))
        stable = self._trials.next_deadline()
        if stable is not None:
            due.append(stable)
        return min(due) if due else None
