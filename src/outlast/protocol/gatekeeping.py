"""Who may start a VM on this host: the gate of safety rule 7, takeovers (rule 5) and releases.

Whoever starts a VM (virsh, virt-manager, autostart, our own agent) comes through `AskGate`. A start needs an epoch that
this keeper session won in the present term (rule 3): either one that the agent had taken over a moment ago, or one that
is won here and now. Whom the register names decides how:

    the register's last record            what the gate does
    none                                  makes epoch 0: only the host on which a VM runs may (rule 1)
    ours, this boot                       the next epoch; the process is known to be gone
    ours, an earlier boot                 the next epoch: our own higher incarnation is the proof (rebooted)
    another host's, released              the next epoch, from exactly that one (renounced)
    another host's, owned                 refuses, and names the owner
    unreadable                            refuses, and says so

A start that is really new (no register yet, or switched off on purpose) may also be refused because the agent said so a
moment ago: too little would be left for failures (`admission`). What is to run again is never refused for that, and an
agent that says nothing refuses nothing. On a host that is kept empty only those starts pass for which
its agent has taken the register, as the domain asked it to, and copies that it expects: an operator's word for that lasts,
its agent's (failing hardware) as long as the other one does.

Whoever may start by that passes when nobody else writes to its disks (`disk_claims.py`); a copy that comes in by a
migration has its source's claims. A copy whose source has died is ended for a takeover, if the register allows it
(`copies.py`), and nothing is linked before that.

An asker waits `GATE_PATIENCE` for the epoch, and as long again for the claims, whatever storage does; what storage does
later finds nobody waiting, and an epoch won for nobody is owned, not running, until it is released.
"""

import msgspec

from outlast.model.claims import Disk
from outlast.model.ids import DatastoreName, RequestId, VmId, VmName
from outlast.model.keeper_effects import Changed, KeeperEffect, LookForProcess, WatchForProcess
from outlast.model.keeper_events import FoundProcess, ProcessMissing
from outlast.model.keeping import (
    Admission,
    AskClaim,
    AskDropped,
    AskEnded,
    AskExpect,
    AskForgotten,
    AskGate,
    AskGivenUp,
    AskIncoming,
    AskInherit,
    AskKill,
    AskLaunch,
    AskLost,
    AskRelease,
    AskResumed,
    AskTakeover,
    Happening,
    KeeperRequest,
    Progress,
    Subscribe,
    UseSettings,
)
from outlast.model.records import Proof, ProofKind, Reason, RegisterRecord, RegisterState
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after
from outlast.protocol.keeper_books import KeeperBooks
from outlast.protocol.keeper_replies import no, yes
from outlast.protocol.ownership import SOON, Ownership, Phase, Purpose

GATE_PATIENCE = Duration(4 * SECOND)
"""How long an asker waits for each of the two before it is refused; the hook waits for both, and libvirt for the hook."""
GRANT_PATIENCE = Duration(15 * SECOND)
"""How long a takeover waits to be used; then its agent is gone or its libvirt hangs, and another host may be better."""
ADMISSION_LASTS = Duration(15 * SECOND)
"""How long what the agent said of new starts holds."""
LAUNCH_PATIENCE = Duration(60 * SECOND)
"""How long libvirt may take from the gate to the process. Later it would be refused at the launch (`AskLaunch`)."""


class Waiting(msgspec.Struct):
    """One asker whose answer depends on storage. `proof` None: a start; otherwise a takeover.

    `disks`: what the start writes to. `refused`: with what reason its epoch is given back if it may not go on.
    """

    client: int
    request: RequestId
    deadline: Instant
    proof: Proof | None
    begun: bool = False
    disks: tuple[Disk, ...] = ()
    refused: Reason = Reason.HOST_FAULT


class Gatekeeper:
    """See the top of this file. Works on the keeper machine that it belongs to."""

    def __init__(self, keeper: KeeperBooks) -> None:
        self._keeper = keeper
        self._waiting: dict[VmId, Waiting] = {}
        self._pending: dict[VmId, Instant] = {}
        self._not_admitted: tuple[Admission, Instant] = (Admission({}), LONG_AGO)

    # -- requests -------------------------------------------------------------------------------------------------

    def asked(self, client: int, request: KeeperRequest) -> list[KeeperEffect]:
        """A request came in."""
        match request:
            case AskGate():
                return self._ask_gate(client, request)
            case AskTakeover():
                return self._ask_takeover(client, request)
            case AskRelease():
                return self._ask_release(client, request)
            case AskKill():
                return self._ask_kill(client, request)
            case AskClaim():
                return self._keeper.claims.asked(client, request)
            case AskLost() | AskExpect() | AskInherit() | AskDropped() | AskIncoming() | AskResumed():
                return []  # No question of the gate: `reassertion` and `copies` have them.
            case AskGivenUp():
                return self._keeper.renouncing.asked(client, request)
            case AskLaunch():
                return [self._launch(client, request)]
            case AskEnded():
                return [*self._let_go(request.vm), Changed(), yes(client, request.request)]
            case AskForgotten():
                return [*self._look_for(request), yes(client, request.request)]
            case Progress():
                self._keeper.agent_tells(request)
                return []
            case UseSettings():
                return self._keeper.use_settings(request)
            case Admission():
                self._not_admitted = (request, after(self._keeper.now, ADMISSION_LASTS))
                return []
            case Subscribe():
                return [Changed()]

    def _let_go(self, vm: VmId) -> list[KeeperEffect]:
        known = self._keeper.vms.get(vm)
        if known is None:
            return []
        return self._keeper.copies.expect_no_more(known) if known.phase is Phase.ARRIVING else known.start_ended()

    def _ask_gate(self, client: int, ask: AskGate) -> list[KeeperEffect]:
        home = self._keeper.config.home_of(ask.disks)
        if home is None:
            return [yes(client, ask.request, "none of its disks is on a datastore of Outlast")]
        comes_in = self._keeper.copies.comes_in(ask.vm)
        refusal = self.refusal(ask.vm, ask.name, home) or self._copy_alone(ask, comes_in=comes_in) or self._kept_empty(ask)
        if refusal:
            return [no(client, ask.request, refusal)]
        ownership = self._keeper.ensure(FoundProcess(ask.vm, ask.name, home, 0, False, ask.unfreezable))
        if comes_in:
            return self._keeper.copies.let_pass(ownership, client, ask.request)
        told = not ownership.unfreezable or self._keeper.is_published_as_unfreezable(home)
        waiting = self._waits(ownership, client, ask.request, None)
        waiting.disks = self._keeper.config.disks_at(ask.writes)
        if told and ownership.holds_grant(self._keeper.term(home)):
            waiting.begun = True
            return self._keeper.claims.begin(ownership, waiting.disks)
        ownership.release_reason = None
        return self.begin(ownership)

    def _copy_alone(self, ask: AskGate, *, comes_in: bool) -> str:
        """Without an epoch passes what is to receive the copy, and nothing else: any other process executes at once."""
        known = self._keeper.vms.get(ask.vm)
        expected = known is not None and known.phase is Phase.EXPECTED
        return f"{ask.name} may not start: it is about to migrate here" if expected and not comes_in else ""

    def _kept_empty(self, ask: AskGate) -> str:
        known = self._keeper.vms.get(ask.vm)
        if known is not None and known.phase in (Phase.GRANTED, Phase.EXPECTED):
            return ""
        told, until = self._not_admitted
        closed = self._keeper.closed or (told.closed if self._keeper.now < until else "")
        name = self._keeper.config.name
        remedy = f"`outlast vm start {ask.name}` starts it on another host"
        return f"{ask.name} may not be started on {name}: {closed}; {remedy}" if closed else ""

    def _ask_takeover(self, client: int, ask: AskTakeover) -> list[KeeperEffect]:
        if ask.home not in self._keeper.places:
            return [no(client, ask.request, f"this host has no datastore {ask.home}")]
        refusal = self.refusal(ask.vm, ask.name, ask.home, takes_over=True)
        if not refusal and ask.proof.kind is ProofKind.OWN and ask.proof.owner != self._keeper.config.host:
            refusal = f"only its owner may start {ask.name} anew on the proof 'own', and that is not this host"
        if refusal:
            return [no(client, ask.request, refusal)]
        ownership = self._keeper.ensure(FoundProcess(ask.vm, ask.name, ask.home, 0, False))
        if ownership.phase is Phase.EXPECTED:
            ownership.expect_no_more()  # Its source is proven gone before it had sent anything.
        if ownership.phase is Phase.GRANTED and ownership.epoch == ask.proof.epoch + 1:
            return [yes(client, ask.request, epoch=ownership.epoch)]
        ownership.release_reason = None
        self._waits(ownership, client, ask.request, ask.proof)
        return self.begin(ownership)

    def refusal(self, vm: VmId, name: VmName, home: DatastoreName, *, takes_over: bool = False) -> str:
        """Why nothing can be started at all just now, or an empty string."""
        keeper = self._keeper
        lease = keeper.places[home].lease
        if keeper.closing:
            return f"{name} may not start: this host is shutting down"
        if not lease.held:
            return (
                f"{name} may not start: {keeper.config.name} holds no lease on its home datastore {home} "
                f"({keeper.places[home].problem or 'no heartbeat has been confirmed yet'}); see 'outlast status'"
            )
        if lease.left(keeper.now) < lease.length // 3:
            return f"{name} may not start now: the lease on {home} is about to end; try again in a few seconds"
        known = keeper.vms.get(vm)
        makes_way = takes_over and known is not None and known.may_make_way()
        if known is not None and not makes_way and (known.pid is not None or known.phase in SOON):
            return f"{name} is {known.phase} on this host already"
        if vm in self._waiting:
            return f"{name} is being started on this host already"
        return ""

    def _ask_release(self, client: int, ask: AskRelease) -> list[KeeperEffect]:
        if ask.home not in self._keeper.places:
            return [no(client, ask.request, f"this host has no datastore {ask.home}")]
        known = self._keeper.vms.get(ask.vm)
        if ask.heir is not None and (known is None or known.ended != ask.pid):
            # What has been owned since then may have written to the disk: the copy is older than that (decision 19).
            return [no(client, ask.request, f"{ask.name} cannot be handed over: what ended here last is not what migrated")]
        ownership = self._keeper.ensure(FoundProcess(ask.vm, ask.name, ask.home, 0, False))
        busy = ownership.pid is not None or ask.vm in self._waiting
        unused: list[KeeperEffect] = []
        if ask.given_up and not busy and self._pending.pop(ask.vm, None) is not None:
            # Whoever wanted it waits no longer, and the gate's last word will be no: it is not launched.
            unused = self._unused(ask.vm)
        if busy or ownership.phase in SOON:
            return [no(client, ask.request, f"{ask.name} is {ownership.phase} on this host: it cannot be renounced")]
        ownership.release_reason = ask.reason
        ownership.release_to = (ask.heir, ask.handover) if ask.heir is not None else None
        return [*unused, yes(client, ask.request)]

    def _ask_kill(self, client: int, ask: AskKill) -> list[KeeperEffect]:
        ownership = self._keeper.vms.get(ask.vm)
        if ownership is None or ownership.pid is None:
            return [no(client, ask.request, "no process of that VM runs on this host")]
        ownership.release_reason, ownership.release_to = ask.reason, None
        told = self._keeper.tell(Happening.KILLED, ownership, str(ask.reason))
        return [*ownership.kill(), told, Changed(), yes(client, ask.request)]

    # -- askers who wait ------------------------------------------------------------------------------------------

    def _waits(self, ownership: Ownership, client: int, request: RequestId, proof: Proof | None) -> Waiting:
        waiting = Waiting(client, request, after(self._keeper.now, GATE_PATIENCE), proof)
        self._waiting[ownership.vm] = waiting
        return waiting

    def begin(self, ownership: Ownership) -> list[KeeperEffect]:
        """Start the work for whoever waits for this VM, unless a read or link of it is still under way."""
        waiting = self._waiting.get(ownership.vm)
        if waiting is None or waiting.begun or not self._keeper.may_begin(ownership):
            return []
        if ownership.pid is not None:
            return self._wait_for_its_end(ownership)
        if ownership.unfreezable and not self._keeper.is_published_as_unfreezable(ownership.home):
            # Rule 6: before it runs, every observer must be able to read that our lease's end proves nothing.
            return []
        waiting.begun = True
        ownership.phase = Phase.CLAIMING
        if waiting.proof is None:
            return self._keeper.read(ownership, Purpose.START)
        # Rule 5: compare-and-swap from exactly the epoch that was read before the last read of the owner's record.
        ownership.epoch, ownership.owned_elsewhere = waiting.proof.epoch, False
        return self._keeper.link(ownership, Purpose.TAKE_OVER, RegisterState.OWNED, Reason.TAKEN_OVER, waiting.proof.kind)

    def _wait_for_its_end(self, ownership: Ownership) -> list[KeeperEffect]:
        """A copy is here of what is to be taken over. Whether it may be ended for that, its register has to say now."""
        if ownership.phase is Phase.KILLING:
            return []
        if not ownership.may_make_way():
            return self.refuse(ownership, f"{ownership.name} is {ownership.phase} on this host already")
        return self._keeper.read(ownership, Purpose.TAKE_OVER)

    def takeover_after_read(self, ownership: Ownership, last: RegisterRecord | None) -> list[KeeperEffect]:
        """The register was read for a takeover: its link was not won, or a copy has to make way for it (`copies.py`)."""
        waiting = self._waiting.get(ownership.vm)
        if waiting is None or waiting.proof is None or waiting.begun:
            return self.refuse(ownership, "another host won its register at the same moment")
        if ownership.pid is None or ownership.phase is Phase.KILLING:
            return []  # It has ended by itself, or is about to.
        if self._keeper.term(ownership.home) is None:
            return self.refuse(ownership, "the lease lapsed while it was being claimed; try again")
        stays = self._keeper.copies.why_it_stays(ownership, last, waiting.proof.epoch)
        gone = "its source is gone, and it is started afresh here"
        return self.refuse(ownership, stays) if stays else self._keeper.copies.end(ownership, gone)

    def start_after_read(self, ownership: Ownership, last: RegisterRecord | None) -> list[KeeperEffect]:
        """The register was read for a start: see the table at the top."""
        keeper, proof = self._keeper, None
        if ownership.vm not in self._waiting:
            return self._settle(ownership, last)
        not_admitted = self._not_admitted[0].refused.get(ownership.vm, "") if keeper.now < self._not_admitted[1] else ""
        if last is None or last.reason is Reason.SWITCHED_OFF:
            if not_admitted:
                return self.refuse(ownership, not_admitted)
            # Nobody had wanted it to run before this start: if that comes to nothing, nobody else is to try.
            self._waiting[ownership.vm].refused = Reason.SWITCHED_OFF
        if last is None:
            ownership.epoch = None
        elif last.owner == keeper.config.host:
            incarnation = keeper.places[ownership.home].incarnation
            if incarnation is None or last.incarnation > incarnation:
                return self.refuse(ownership, f"a later boot with this host's id owns {ownership.name}: was it cloned?")
            if last.incarnation < incarnation:
                proof = ProofKind.REBOOTED
            ownership.epoch = last.epoch
        elif last.state is RegisterState.RELEASED:
            proof = ProofKind.RENOUNCED
            ownership.epoch = last.epoch
        else:
            owner = keeper.config.host_name(last.owner)
            return self.refuse(
                ownership,
                f"{ownership.name} is owned by {owner} (epoch {last.epoch}), where it runs or will be recovered from; "
                f"it can start here only after {owner} has stopped it",
            )
        if ownership.failed_again():
            return self.refuse(ownership, f"its next epoch cannot be made: {ownership.failed_link[1] or 'storage refuses'}")
        return keeper.link(ownership, Purpose.START, RegisterState.OWNED, Reason.STARTED, proof)

    def won(self, ownership: Ownership, record: RegisterRecord, granted: bool) -> list[KeeperEffect]:
        """The epoch of a start or takeover was won; `granted` if within one unbroken term (rule 3)."""
        waiting = self._waiting.get(ownership.vm)
        claimed = self._keeper.tell(Happening.CLAIMED, ownership, f"epoch {record.epoch}, {record.reason}")
        if waiting is None or not granted:
            ownership.phase = Phase.ENDED
            return [*self._lapsed(ownership), claimed, Changed()]
        ownership.grant()
        if waiting.proof is not None:
            del self._waiting[ownership.vm]
            self._pending[ownership.vm] = after(self._keeper.now, GRANT_PATIENCE)
            return [yes(waiting.client, waiting.request, epoch=ownership.epoch), claimed, Changed()]
        waiting.deadline = after(self._keeper.now, GATE_PATIENCE)
        return [*self._keeper.claims.begin(ownership, waiting.disks), claimed]

    def claimed(self, ownership: Ownership) -> list[KeeperEffect]:
        """Nobody else writes to its disks: the start passes, if its epoch still allows it (rule 3)."""
        if not ownership.use_grant(self._keeper.term(ownership.home)):
            return self._lapsed(ownership)
        waiting = self._waiting.pop(ownership.vm)
        return self._pass(ownership, waiting.client, waiting.request)

    def not_claimed(self, ownership: Ownership, sentence: str) -> list[KeeperEffect]:
        """Somebody else writes to one of its disks, or may: the epoch that it has is given back."""
        waiting = self._waiting.pop(ownership.vm)
        self._pending.pop(ownership.vm, None)
        told = self._keeper.tell(Happening.REFUSED, ownership, sentence)
        return [*self._unused(ownership.vm, waiting.refused), no(waiting.client, waiting.request, sentence), told]

    def _lapsed(self, ownership: Ownership) -> list[KeeperEffect]:
        waiting = self._waiting.pop(ownership.vm, None)
        sentence = "the lease lapsed while it was being claimed; try again"
        return [no(waiting.client, waiting.request, sentence)] if waiting is not None else []

    def _pass(self, ownership: Ownership, client: int, request: RequestId) -> list[KeeperEffect]:
        """Let a start pass. The keeper looks for the process before libvirt can have made it (rule 7)."""
        self._pending[ownership.vm] = after(self._keeper.now, LAUNCH_PATIENCE)
        watch = WatchForProcess(ownership.vm, ownership.name, ownership.home)
        return [self._keeper.remember(ownership), watch, yes(client, request, epoch=ownership.epoch), Changed()]

    def _launch(self, client: int, ask: AskLaunch) -> KeeperEffect:
        """The second question, a moment before the process: minutes may lie between, if libvirt or its storage hung."""
        known = self._keeper.vms.get(ask.vm)
        if known is None:
            return no(client, ask.request, "this start did not pass the keeper, or took too long; start it again")
        if not known.may_launch(self._keeper.term(known.home)):
            return no(client, ask.request, f"{known.name} may not start any more: the lease lapsed meanwhile; try again")
        # From now on the process may come at any moment: this start is not given up by time, but by libvirt's word alone.
        self._pending.pop(ask.vm, None)
        self._keeper.copies.launched(ask.vm)
        return yes(client, ask.request)

    def _look_for(self, ask: AskForgotten) -> list[KeeperEffect]:
        """Nobody carries this start out any more; a process that was begun for it may still be about to show itself."""
        known = self._keeper.vms.get(ask.vm)
        if known is None or not known.is_awaited(ask.epoch, ask.handover):
            return []
        return [LookForProcess(ask.vm, known.name, ask.epoch, ask.handover)]

    def missing(self, event: ProcessMissing) -> list[KeeperEffect]:
        """No process of that start exists, and none can come: it is given back, or expected no more."""
        known = self._keeper.vms.get(event.vm)
        if known is None or not known.is_awaited(event.epoch, event.handover):
            return []
        return [*self._keeper.copies.expect_no_more(known), *self._unused(event.vm)]

    def refuse(self, ownership: Ownership, sentence: str) -> list[KeeperEffect]:
        """Tell whoever waits for this VM that it may not start."""
        waiting = self._waiting.pop(ownership.vm, None)
        effects: list[KeeperEffect] = []
        if waiting is not None:
            effects.append(no(waiting.client, waiting.request, sentence))
            effects.append(self._keeper.tell(Happening.REFUSED, ownership, sentence))
        if ownership.pid is not None:
            return effects  # A copy, or what has become of it, goes on as if nobody had asked.
        ownership.phase = Phase.ENDED
        if ownership.release_reason is None and not self._keeper.busy(ownership.vm):
            # Whether the register calls us its owner is found out by the release that the agent asks for, if it does.
            self._keeper.forget(ownership.vm)
        return [*effects, Changed()]

    def client_gone(self, client: int) -> None:
        """A connection ended: its askers wait no longer."""
        for vm in [vm for vm, waiting in self._waiting.items() if waiting.client == client]:
            self._abandon(vm)

    def expire(self) -> list[KeeperEffect]:
        """Refuse whoever has waited too long, and begin for whoever can be begun for now."""
        effects: list[KeeperEffect] = []
        for vm, waiting in list(self._waiting.items()):
            if waiting.deadline <= self._keeper.now:
                copy = self._keeper.vms[vm].phase is Phase.KILLING
                late = "its copy on this host did not end" if copy else "storage did not answer"
                sentence = f"{late} within {GATE_PATIENCE // SECOND} seconds; see 'outlast status'"
                effects.append(no(waiting.client, waiting.request, sentence))
                self._abandon(vm)
            else:
                effects += self.begin(self._keeper.vms[vm])
        for vm in [vm for vm, deadline in self._pending.items() if deadline <= self._keeper.now]:
            del self._pending[vm]
            effects += self._unused(vm)
        return effects

    def _unused(self, vm: VmId, reason: Reason = Reason.HOST_FAULT) -> list[KeeperEffect]:
        """A takeover that nobody used, or a start whose process never came: given back, so that others may try."""
        ownership = self._keeper.vms.get(vm)
        if ownership is None or ownership.phase not in (Phase.GRANTED, Phase.STARTING, Phase.VOID):
            return []
        effects = ownership.start_ended()
        ownership.phase = Phase.ENDED
        ownership.release_reason, ownership.release_to = reason, None
        return [*effects, Changed()]

    def close(self) -> list[KeeperEffect]:
        """Nothing starts any more: refuse whoever waits. An epoch that is won for them later is won for nobody."""
        effects: list[KeeperEffect] = []
        for vm, waiting in list(self._waiting.items()):
            effects.append(no(waiting.client, waiting.request, "it may not start: this host is shutting down"))
            self._abandon(vm)
        return effects

    def _abandon(self, vm: VmId) -> None:
        waiting = self._waiting.pop(vm)
        self._keeper.claims.drop(vm)
        ownership = self._keeper.vms[vm]
        if ownership.phase is Phase.CLAIMING:
            ownership.phase = Phase.ENDED
        elif ownership.phase is Phase.GRANTED:
            self._pending.pop(vm, None)
            self._unused(vm, waiting.refused)
        elif ownership.phase is Phase.IDLE:
            self._keeper.forget(vm)

    def is_waited_for(self, vm: VmId) -> bool:
        """Whether somebody waits to start this VM, or to take it over."""
        return vm in self._waiting

    def deadlines(self) -> list[Instant]:
        """When the askers' patience ends."""
        return [waiting.deadline for waiting in self._waiting.values()] + list(self._pending.values())

    # -- releases (the proof `renounced`) -------------------------------------------------------------------------

    def release_if_asked(self, ownership: Ownership) -> list[KeeperEffect]:
        """Renounce an epoch whose process is known to be gone, once the agent has said why it ended."""
        idle = ownership.phase in (Phase.IDLE, Phase.ENDED, Phase.GRANTED, Phase.RELEASING)
        if ownership.release_reason is None or ownership.pid is not None or not idle:
            return []
        ownership.phase = Phase.RELEASING
        if ownership.epoch is None:
            return self._keeper.read(ownership, Purpose.RELEASE)
        return self._keeper.link(ownership, Purpose.RELEASE, RegisterState.RELEASED, ownership.release_reason)

    def release_after_read(self, ownership: Ownership, last: RegisterRecord | None) -> list[KeeperEffect]:
        """Whether there is anything of ours to renounce."""
        if last is None or last.owner != self._keeper.config.host or last.state is RegisterState.RELEASED:
            return self._settle(ownership, last)
        if ownership.release_reason is None:
            ownership.phase = Phase.ENDED
            return []
        ownership.epoch = last.epoch
        return self._keeper.link(ownership, Purpose.RELEASE, RegisterState.RELEASED, ownership.release_reason)

    def released(self, ownership: Ownership, record: RegisterRecord) -> list[KeeperEffect]:
        """The release is written: others may take the VM from this epoch."""
        told = self._keeper.tell(Happening.RELEASED, ownership, str(record.reason))
        if ownership.vm in self._waiting:
            ownership.release_reason = None
            ownership.phase = Phase.ENDED
        else:
            self._keeper.forget(ownership.vm)
        return [told, Changed()]

    def _settle(self, ownership: Ownership, last: RegisterRecord | None) -> list[KeeperEffect]:
        """Nobody waits and nothing is pending: forget the VM, unless the register calls us its owner."""
        ours = last is not None and last.owner == self._keeper.config.host and last.state is RegisterState.OWNED
        ownership.phase = Phase.ENDED
        if not ours and ownership.vm not in self._waiting:
            self._keeper.forget(ownership.vm)
        return [Changed()]
