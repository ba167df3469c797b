"""What is done about VMs that should run and do not: each `restart.Restart` is moved along.

Only for datastores that this agent is responsible for, elected or not. A VM becomes a case when its host is presumed dead
(so that the register is read while the window still runs), when its host lives and has let go of it (crash, isolation
response), or when it stands on nobody's list. What happens then depends on its register, read afresh:

    the register says                           then
    nothing, and an operator asked for the VM   whoever is told to start it makes its first epoch (proof `first`)
    released, switched off                      not wanted any more: off the protected list, unless an operator has asked
                                                for it since (then proof `renounced`)
    released, anything else                     proof `renounced`
    owned by a host with a higher incarnation   proof `rebooted`
    owned, its keeper session's last word       proof `clean_shutdown`
      was the end
    owned by a host that is presumed dead,      proof `lease_expired`, once `observation.lease_is_over`; or
      dead or unresponsive                      `power_fenced`, `operator_confirmed`, if that comes first (`fencing`)
    owned by a host that lives and lists it     settled: it runs there
    owned by a host that lives, not listed      after a while that host is told to start it anew (proof `own`)
"""

from outlast.model.effects import ReadRegisters, Send
from outlast.model.events import RegistersRead
from outlast.model.ids import PRIMARY_REGISTER, DatastoreName, HostId, VmId
from outlast.model.messages import OrderReport, RestartOrder
from outlast.model.records import (
    Enforcement,
    HeartbeatRecord,
    ProofKind,
    ProtectedVm,
    Reason,
    RegisterRecord,
    RegisterState,
)
from outlast.model.settings import Pause
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after
from outlast.protocol.fencing import Fencing
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.observation import RecordWatch
from outlast.protocol.orders import OrderDesk
from outlast.protocol.peers import Peers
from outlast.protocol.placement import Placement
from outlast.protocol.responsibility import Responsibility
from outlast.protocol.restart import ORDER_PATIENCE, READ_PATIENCE, Restart, Stage
from outlast.protocol.shared_settings import SharedSettings
from outlast.protocol.verdict import SUSPECT, Verdict

IDLE_GRACE = Duration(5 * SECOND)
"""How long a live owner may be without the VM on its list before it is told to start it anew."""
RESEND = Duration(SECOND // 2)
SETTLED_FOR = Duration(SECOND)
"""How long a settled case is left alone: the list that shows the VM's new place is on its way."""


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
    ) -> None:
        self._shared = shared
        self._known = knowledge
        self._out = outbox
        self._peers = peers
        self._responsible = responsibility
        self._desk = desk
        self._fencing = fencing
        # Higher than every number of an earlier agent of this host, whose targets may still report.
        self._orders = knowledge.config.first_sequence
        self.cases: dict[VmId, Restart] = {}
        self.placement = Placement(knowledge, self.cases)
        self.restarts: dict[VmId, int] = {}
        self._settled: dict[VmId, Instant] = {}
        """Until when each settled case is left alone."""

    # -- turns ----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Open new cases, and move the open ones along."""
        for vm in [vm for vm, until in self._settled.items() if self._known.now >= until]:
            del self._settled[vm]
        for datastore in self._responsible.held_datastores():
            for entry in list(self._responsible.protection(datastore).vms.values()):
                if entry.vm not in self.cases and entry.vm not in self._settled and self._is_a_case(entry):
                    self._open(entry, datastore)
        for vm in self.placement.found_room():
            self._reopen(self.cases[vm])
        for case in list(self.cases.values()):
            not_wanted = case.target is None and case.vm not in self._responsible.protection(case.home).vms
            if self._responsible.holds(case.home) is None or not_wanted:
                del self.cases[case.vm]
                continue
            self._move(case)
            if case.stage is Stage.SETTLED:
                self._settled[case.vm] = after(self._known.now, SETTLED_FOR)
                del self.cases[case.vm]

    def _is_a_case(self, entry: ProtectedVm) -> bool:
        lister = self._known.lister(entry.vm)
        if lister is not None:
            return self._known.verdict(lister) in SUSPECT
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
                if now >= case.deadline:
                    self._reopen(case)
            case Stage.READING | Stage.CONFIRMING:
                if now >= case.deadline:
                    case.back_off(f"storage gives no answer on {case.home}", now)
            case Stage.PROVING:
                self._prove(case)
            case Stage.ORDERED | Stage.STARTING:
                self._follow_order(case)
            case Stage.SETTLED:
                pass

    def _reopen(self, case: Restart) -> None:
        found = self._responsible.protected_vm(case.vm)
        case.asked = found[1].asked if found is not None else None
        lister = self._known.lister(case.vm)
        if found is None:
            case.settle("it is not protected any more", self._known.now)
        elif lister is not None and self._known.verdict(lister) not in SUSPECT:
            case.settle(f"it is on the list of {self._known.name(lister)}", self._known.now)
        elif case.held and self._known.pause is not None:
            case.hold(self._known.pause.sentence, self._known.now)
        else:
            self._read(case)

    # -- the register ---------------------------------------------------------------------------------------------

    def registers_read(self, event: RegistersRead) -> None:
        """An answer to one of our reads, if it is one."""
        case = next((c for c in self.cases.values() if c.request == event.request), None)
        if case is None:
            return
        case.request = None
        if self._known.now >= case.deadline:
            # This agent stood still meanwhile: the answer tells how things were, and the turn that follows backs off.
            return
        if case.stage is Stage.CONFIRMING:
            self._confirmed(case, event)
        elif case.stage is Stage.READING:
            self._register_known(case, event)

    def _register_known(self, case: Restart, event: RegistersRead) -> None:
        now = self._known.now
        if not event.ok or case.vm not in event.last:
            case.back_off(f"its register on {case.home} cannot be read: {event.problem}", now)
            return
        case.last, case.epoch_read_at = event.last[case.vm], now
        last = case.last
        asked = case.asked
        if last is None and asked is None:
            case.settle("it has no register: it never ran under Outlast", now)
        elif last is None:
            case.by_wish = True
            self._have_proof(case, ProofKind.FIRST)
        elif last.state is RegisterState.RELEASED:
            case.by_wish = last.reason is Reason.SWITCHED_OFF and asked is not None and last.epoch <= asked
            if last.reason is Reason.SWITCHED_OFF and not case.by_wish:
                self._responsible.protection(case.home).drop(case.vm)
                self._out.note("vm-switched-off", vm=case.vm, host=last.owner, relay=True)
                case.settle("it was switched off on purpose", now)
                return
            if last.reason in (Reason.START_FAILED, Reason.ISOLATED, Reason.HOST_SHUTDOWN):
                case.failed_on.add(last.owner)
            self._have_proof(case, ProofKind.RENOUNCED)
        else:
            case.enter(Stage.PROVING, now, READ_PATIENCE)
            self._prove(case)

    def _prove(self, case: Restart) -> None:
        known, last = self._known, case.last
        if last is None:
            return
        watch = known.watches.get((last.owner, case.home))
        if watch is not None and watch.incarnation is not None and watch.incarnation > last.incarnation:
            self._have_proof(case, ProofKind.REBOOTED)
        elif watch is not None and watch.record is not None and _ended(watch.record, last):
            self._have_proof(case, ProofKind.CLEAN_SHUTDOWN)
        elif last.owner == known.me or (known.lives(last.owner) and known.verdict(last.owner) not in SUSPECT):
            self._owner_lives(case, last.owner)
        elif known.verdict(last.owner) in SUSPECT and watch is not None:
            self._wait_for_proof(case, last, watch)
        else:
            case.why = f"it waits for a verdict about {known.name(last.owner)}"

    def _wait_for_proof(self, case: Restart, last: RegisterRecord, watch: RecordWatch) -> None:
        """Whichever comes first: somebody says that the owner is off, or its lease is over."""
        said_off = self._known.said_off(last, case.home, case.epoch_read_at)
        if said_off is not None:
            self._have_proof(case, said_off)
            return
        self._wait_for_expiry(case, last.owner, watch)
        if case.stage is Stage.PROVING:
            self._fencing.want(last.owner, case.home, case.epoch_read_at)

    def _wait_for_expiry(self, case: Restart, owner: HostId, watch: RecordWatch) -> None:
        known = self._known
        name = known.name(owner)
        over = watch.lease_is_over(case.epoch_read_at, case.window(known.settings.window))
        if not known.expiry_may_prove(owner, case.home, self._peers.answers(owner)):
            case.why = f"the end of {name}'s lease on {case.home} is no proof: {self._why_no_proof(owner, case.home)}"
        elif not known.holds_lease(case.home):
            case.why = f"this host holds no lease on {case.home} itself"
        elif over:
            self._have_proof(case, ProofKind.LEASE_EXPIRED, watch.first_seen or 0, watch.last_read_started or 0)
        elif watch.problem:
            case.why = f"the record of {name} on {case.home} is not believed ({watch.problem}); it waits for its next boot"
        else:
            case.why = f"it waits for the end of {name}'s lease on {case.home}"

    def _why_no_proof(self, owner: HostId, home: DatastoreName) -> str:
        record = self._known.watches[owner, home].record
        if record is None:
            return "it never had a record there"
        if record.enforcement is Enforcement.NONE:
            return "a freeze does not stop its guests (vfio or vhost-user)"
        if record.enforcement is Enforcement.KEEPER and self._peers.answers(owner):
            unsent = self._peers.problem(owner)
            return f"it cannot be pinged ({unsent})" if unsent else "it answers ping"
        return "writes may be in flight, and accept_in_flight_risk is false"

    def _owner_lives(self, case: Restart, owner: HostId) -> None:
        known, now = self._known, self._known.now
        if known.lister(case.vm) == owner:
            case.settle(f"it is on the list of its owner {known.name(owner)}", now)
            return
        if case.owned_idle_since is None:
            case.owned_idle_since = now
        reachable = owner == known.me or known.live(owner)
        if reachable and now - case.owned_idle_since >= IDLE_GRACE:
            self._have_proof(case, ProofKind.OWN)
        else:
            case.look_again(f"its owner {known.name(owner)} lives, but does not list it", now)

    def _have_proof(self, case: Restart, kind: ProofKind, first_seen: int = 0, last_read: int = 0) -> None:
        case.proven(kind, self._known.me, first_seen, last_read)
        owner = case.last.owner if case.last is not None else None
        self._out.note("restart-proof", vm=case.vm, host=owner, datastore=case.home, relay=True, proof=kind)
        # `one-responsible-primary`: checked on storage before each act; so is whether somebody has paused recovery.
        self._shared.look_before_act(case.home)
        case.request = self._out.request()
        case.enter(Stage.CONFIRMING, self._known.now, READ_PATIENCE)
        self._out.put(ReadRegisters(case.request, case.home, (PRIMARY_REGISTER,)))

    # -- the order ------------------------------------------------------------------------------------------------

    def _confirmed(self, case: Restart, event: RegistersRead) -> None:
        now, last = self._known.now, event.last.get(PRIMARY_REGISTER)
        if not event.ok or last is None:
            case.back_off(f"the primary register of {case.home} cannot be read: {event.problem}", now)
            return
        if not self._responsible.rests_on(case.home, last):
            self._responsible.read_soon()
            case.settle(f"this host is not responsible for {case.home} any more", now)
            return
        if self._known.pause is not None and not case.by_wish:
            self._hold(case, self._known.pause)
            return
        self._place(case)

    def _hold(self, case: Restart, pause: Pause) -> None:
        """What waits goes on when recovery is resumed: its register is read anew then, and its proof found anew."""
        if not case.held:
            self._out.note("restart-held", vm=case.vm, relay=True, why=pause.sentence)
        case.hold(pause.sentence, self._known.now)

    def _place(self, case: Restart) -> None:
        proof, now = case.proof, self._known.now
        if proof is None:
            return
        choice = self.placement.choose(case)
        if choice.host is None:
            why = "; ".join(f"{name}: {reason}" for name, reason in choice.explanation.refused()) or "no host is left"
            self._out.note("restart-failed", vm=case.vm, relay=True, problem=f"no host can take it ({why})")
            case.back_off(f"no host can take it ({why})", now)
            return
        self._orders += 1
        case.target, case.order, case.order_sent = choice.host, self._orders, None
        self._out.note("restart-ordered", vm=case.vm, host=choice.host, relay=True, proof=proof.kind)
        case.enter(Stage.ORDERED, now, ORDER_PATIENCE)
        self._follow_order(case)

    def _follow_order(self, case: Restart) -> None:
        now = self._known.now
        if case.target is None or case.proof is None:
            return
        if now >= case.deadline or (case.target != self._known.me and self._known.verdict(case.target) in SUSPECT):
            case.back_off(f"{self._known.name(case.target)} did not answer in time", now)
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
                self.restarts[case.vm] = self.restarts.get(case.vm, 0) + 1
                self._out.note("restart-done", vm=case.vm, host=sender, relay=True)
                case.settle(f"it runs on {self._known.name(sender)}", now)
            case _:
                case.failed_on.add(sender)
                self._out.note("restart-failed", vm=case.vm, host=sender, relay=True, problem=report.detail)
                case.back_off(report.detail, now)

    def next_deadline(self) -> Instant | None:
        """When the next case has to be moved by time alone."""
        look = self.placement.next_deadline()
        due = [*self._settled.values(), *([look] if look is not None else [])]
        for case in self.cases.values():
            due.append(case.deadline if case.stage is not Stage.PROVING else after(self._known.now, RESEND))
            if case.stage in (Stage.ORDERED, Stage.STARTING) and case.order_sent is not None:
                due.append(after(case.order_sent, RESEND))
        return min(due) if due else None


def _ended(record: HeartbeatRecord, last: RegisterRecord) -> bool:
    """Whether the keeper session that won this epoch has said its last word: it runs nothing and never will again.

    Another session of the same boot proves nothing: a last word of a keeper that ended may land late, when its successor
    has long begun anew (a shutdown that was called off).
    """
    return record.ended and (record.incarnation, record.session) == (last.incarnation, last.session)
