"""One VM in the keeper's care: who owns it, whether it may execute, and what is to be done about its process.

The register on the VM's home datastore is the truth about who owns it; this machine is the truth about *this host's*
process. It follows safety rules 3, 4 and 7 of design.md; each is cited where it is enforced.

    phase        process  meaning
    idle         none     nothing of ours is running or pending
    claiming     none     a link for a start or a takeover is under way, or the register is being read for it
    granted      none     this session won the epoch in the present term; one start may use it
    starting     soon     the gate let a start pass; the process is looked for
    void         soon     a lapse came before the process was found: it will be killed when it appears
    running      yes      executes
    frozen       yes      stopped at a lapse; waits for a new term and for its re-assertion
    killing      yes      SIGKILL was sent; waits for the exit
    ended        none     the process is gone; the register may still call us the owner
    releasing    none     the release is being written
    expected     none     a copy of it is to arrive from the host on which it runs (`copies.py`); one start may pass for it
    arriving     soon     that start has passed; the process is looked for
    copy         yes      receives the memory; executes nothing, and has no right to
    heir         yes      whole, and frozen; waits for the release that names it, and for the epoch that it makes of that

What a lapse does to each phase is `lapse`; what a new term does is `new_term`. Links are never assumed: WON counts only
if the term in which it was issued is still unbroken when the confirmation arrives; LOST and UNKNOWN lead to a read of
the register, and a read may only refuse, or tell which epoch to compare-and-swap from next.
"""

import enum

from outlast.model.ids import (
    NO_HANDOVER,
    DatastoreName,
    Epoch,
    Handover,
    HostId,
    Incarnation,
    LeaseTerm,
    Nonce,
    VmId,
    VmName,
)
from outlast.model.keeper_effects import Freeze, KeeperEffect, Kill, StopWatching, Thaw
from outlast.model.keeper_events import FoundProcess, LinkOutcome
from outlast.model.records import ProofKind, Reason, RegisterRecord, RegisterState
from outlast.model.settings import LeaseSpan
from outlast.model.time import Duration


class Phase(enum.StrEnum):
    """See the table at the top of this file."""

    IDLE = "idle"
    CLAIMING = "claiming"
    GRANTED = "granted"
    STARTING = "starting"
    VOID = "void"
    RUNNING = "running"
    FROZEN = "frozen"
    KILLING = "killing"
    ENDED = "ended"
    RELEASING = "releasing"
    EXPECTED = "expected"
    ARRIVING = "arriving"
    COPY = "copy"
    HEIR = "heir"


SOON = frozenset({Phase.STARTING, Phase.VOID, Phase.ARRIVING})
"""A process may appear at any moment."""


class Purpose(enum.Enum):
    """Why a VM's register is being read or linked."""

    ASSERT = enum.auto()
    START = enum.auto()
    TAKE_OVER = enum.auto()
    RELEASE = enum.auto()
    INHERIT = enum.auto()
    AUDIT = enum.auto()


class Identity:
    """Who writes: this host, its boot as counted on the VM's home datastore, this keeper session. Makes the nonces."""

    def __init__(self, host: HostId, session: str) -> None:
        self.host = host
        self.session = session
        self._links = 0

    def next_nonce(self) -> Nonce:
        """A nonce that no other link ever had: the session is random, the counter rises."""
        self._links += 1
        return Nonce(f"{self.session}-{self._links}")


class Ownership:
    """See the top of this file. `keeping.KeeperMachine` feeds it and does the reading and linking that it asks for."""

    def __init__(self, vm: VmId, name: VmName, home: DatastoreName, identity: Identity) -> None:
        self.vm = vm
        self.name = name
        self.home = home
        self.phase = Phase.IDLE
        self.epoch: Epoch | None = None
        """The last epoch that is known to be ours, or that we compare-and-swap from."""
        self.pid: int | None = None
        self.ended: int | None = None
        """The process that ended last; None as soon as the VM is to be owned anew, for another process."""
        self.unfreezable = False
        """Whether a freeze does not stop all of it (rule 6): its host's lease is then no proof to anybody."""
        self.owned_elsewhere = False
        self.adopted_from = ""
        """The keeper session of this boot that let the process run that was found; whatever it made is ours to renounce."""
        self.span: LeaseSpan | None = None
        """What the epoch that it runs on names, and no more than what one under way or of unknown outcome does."""
        self.release_reason: Reason | None = None
        self.release_to: tuple[HostId, Handover] | None = None
        """Whose copy may go on after the release, and of which migration."""
        self.handover = NO_HANDOVER
        """The migration by which it comes here, or came."""
        self.inherited = False
        """Whether libvirt has yet to let the guest go on that came here."""
        self.incoming = False
        """Whether its process was begun to receive a migration: no epoch speaks for it but those that bear its number."""
        self.failed_link: tuple[Epoch | None, str] = (None, "")
        """The last epoch that we tried to make and did not win, and what the storage said."""
        self._identity = identity
        self._granted_in: LeaseTerm | None = None
        self._linking: tuple[RegisterRecord, LeaseTerm, LeaseSpan] | None = None

    # -- what the world did to the process ------------------------------------------------------------------------

    def meet(self, process: FoundProcess) -> None:
        """What is to be seen of its process, or of its definition while there is none."""
        self.unfreezable = self.unfreezable or process.unfreezable
        if process.pid:
            self.incoming = process.incoming

    def process_appeared(self, pid: int, *, incoming: bool) -> list[KeeperEffect]:
        """The process of a start was found. In `void` it must never run: rule 3, a lapse voids every pending start.

        What passed as a copy must be one: it is let in without an epoch because it cannot execute by itself.
        """
        self.pid = pid
        if self.phase is Phase.STARTING:
            self.phase = Phase.RUNNING
            return [StopWatching(self.vm)]
        if self.phase is Phase.ARRIVING and incoming:
            self.phase = Phase.COPY
            return [StopWatching(self.vm)]
        return [StopWatching(self.vm), *self.kill()]

    def process_exited(self) -> None:
        """The pidfd reported the exit. The epoch that it ran on is used up (rule 3: after a crash, a new epoch)."""
        self.ended, self.pid = self.pid, None
        self._granted_in = None
        self.inherited, self.incoming, self.handover = False, False, NO_HANDOVER
        self.phase = Phase.IDLE if self.owned_elsewhere else Phase.ENDED

    def start_ended(self) -> list[KeeperEffect]:
        """Libvirt let go of a start whose process was never seen."""
        if self.phase is Phase.ARRIVING:
            self.phase = Phase.IDLE
            return [StopWatching(self.vm)]
        if self.phase not in (Phase.STARTING, Phase.VOID):
            return []
        self.phase = Phase.ENDED
        self._granted_in = None
        return [StopWatching(self.vm)]

    def kill(self) -> list[KeeperEffect]:
        """End the process, if there is one."""
        self.phase = Phase.KILLING
        return [Kill(self.vm)]

    def adopt(self, pid: int, stopped: bool, by_right: Duration | None, session: str = "") -> list[KeeperEffect]:
        """A process was found that this session did not let start (rule 8). It is frozen at once, unless it runs by right:

        an unexpired lease was adopted, and the session before us had asserted this VM in that very term, for a lease of
        `by_right`. `session`: the one of this boot that let it run last, if that is known.
        """
        self.pid, self.adopted_from = pid, session
        if by_right is not None and not stopped:
            self.phase = Phase.RUNNING
            self.span = LeaseSpan(by_right, by_right)
            return []
        self.phase = Phase.FROZEN
        return [Freeze(self.vm)]

    # -- the lease ------------------------------------------------------------------------------------------------

    def lapse(self) -> list[KeeperEffect]:
        """The lease on the home datastore lapsed: freeze first (rule 4), void everything pending (rule 3)."""
        self._granted_in = None
        match self.phase:
            case Phase.RUNNING:
                self.phase = Phase.FROZEN
                return [Freeze(self.vm)]
            case Phase.STARTING:
                self.phase = Phase.VOID
            case Phase.GRANTED:
                self.phase = Phase.ENDED
            case Phase.ARRIVING:
                self.phase = Phase.VOID
            case Phase.COPY:
                # What it has received so far is nobody's loss: its source goes on.
                return self.kill()
            case _:
                pass
        return []

    def doubt(self) -> list[KeeperEffect]:
        """Its register does not say what it runs on: it may go on only on an epoch that is won from what is there."""
        self._granted_in, self.epoch, self.phase = None, None, Phase.FROZEN
        return [Freeze(self.vm)]

    def needs_assertion(self, term: LeaseTerm, span: LeaseSpan) -> bool:
        """Whether a process of ours waits for an epoch of this session and term: frozen, or adopted while running.

        And whether it runs on one that names another lease than ours is to be now.
        """
        return self.phase in (Phase.FROZEN, Phase.RUNNING) and (self._granted_in != term or self.span != span)

    def named_lease(self) -> Duration | None:
        """The lease that its epochs allow its host; None while it neither executes nor may do so on any of them."""
        may_execute = self.phase in (Phase.GRANTED, Phase.STARTING, Phase.RUNNING)
        claims = self.linking is not None and self.linking.state is RegisterState.OWNED
        return self.span.lease if self.span is not None and (may_execute or claims) else None

    # -- links ----------------------------------------------------------------------------------------------------

    def link(
        self,
        incarnation: Incarnation,
        term: LeaseTerm,
        span: LeaseSpan,
        state: RegisterState,
        reason: Reason,
        *,
        proof: ProofKind | None = None,
    ) -> RegisterRecord:
        """The record to create next, from `self.epoch` (None: the first epoch), remembered until `linked`."""
        owned = state is RegisterState.OWNED
        if owned:
            self.ended = None
            # What runs is bound by the shorter of both until this link is won: then nothing else can turn up there.
            runs_for = self.span.lease if self.phase is Phase.RUNNING and self.span is not None else span.lease
            self.span = LeaseSpan(min(runs_for, span.lease), Duration(0))
        record = RegisterRecord(
            subject=self.vm,
            epoch=Epoch(0) if self.epoch is None else Epoch(self.epoch + 1),
            owner=self._identity.host,
            incarnation=incarnation,
            session=self._identity.session,
            nonce=self._identity.next_nonce(),
            state=state,
            reason=reason,
            proof=proof,
            window=span.window,
            heir=self.release_to[0] if self.release_to is not None and not owned else None,
            handover=self._handover_of(owned=owned),
        )
        self._linking = (record, term, span)
        return record

    def _handover_of(self, *, owned: bool) -> Handover:
        if owned:
            return self.handover if self.incoming else NO_HANDOVER
        return self.release_to[1] if self.release_to is not None else NO_HANDOVER

    @property
    def linking(self) -> RegisterRecord | None:
        """The record whose creation is under way."""
        return self._linking[0] if self._linking is not None else None

    def linked(self, outcome: LinkOutcome, term: LeaseTerm | None) -> bool:
        """A link ended; `term` is the lease's present term, None when lapsed. True: won, within one unbroken term.

        Won after a lapse, the epoch is ours but gives no right to execute (rule 3): the next one will be linked from it.
        """
        if self._linking is None:
            return False
        record, issued_in, span = self._linking
        self._linking = None
        if outcome is not LinkOutcome.WON:
            return False
        self.epoch = record.epoch
        if record.state is RegisterState.RELEASED:
            return True
        self.span = span
        if issued_in != term:
            return False
        self._granted_in = term
        return True

    def thaw(self) -> list[KeeperEffect]:
        """Re-asserted: this session holds the newest epoch in the present term (rules 3 and 4).

        Also what is taken for running is thawed: the second freezer may have stopped it a moment ago.
        """
        if self.phase not in (Phase.FROZEN, Phase.RUNNING):
            return []
        self.phase = Phase.RUNNING
        return [Thaw(self.vm)]

    # -- a copy that arrives by a migration (`copies.py`) -----------------------------------------------------------

    def expect(self, handover: Handover) -> None:
        """A copy may arrive. The register names another host, and a copy changes nothing about that."""
        self.phase, self.handover, self.owned_elsewhere, self.epoch = Phase.EXPECTED, handover, True, None

    def expect_no_more(self) -> None:
        """Nobody is sent."""
        self.phase, self.handover, self.owned_elsewhere = Phase.IDLE, NO_HANDOVER, False

    def is_whole(self) -> list[KeeperEffect]:
        """All memory is here: it is frozen, so that it obeys nobody's order to go on before it is ours."""
        self.phase = Phase.HEIR
        return [Freeze(self.vm)]

    def may_make_way(self) -> bool:
        """Whether its process has no right, and gets none once its register is taken over: it may be ended for that."""
        return self.phase in (Phase.COPY, Phase.HEIR) or (self.phase is Phase.KILLING and self.owned_elsewhere)

    def came_by(self, last: RegisterRecord | None) -> bool:
        """Whether our register's last record is an epoch of the migration by which its process came, as far as is known.

        A keeper that was started anew learns the number from there: the chain of such epochs begins with the release that
        named the copy, and ends with its process.
        """
        if last is None:
            return True  # Whoever migrated it did so before Outlast was here: a copy of ours has its source's register.
        if last.state is RegisterState.RELEASED or last.handover == NO_HANDOVER:
            return False
        if self.handover == NO_HANDOVER:
            self.handover = last.handover
        return self.handover == last.handover

    def inherit(self) -> None:
        """Its next epoch was made of the release that names it; from here on it is a frozen VM like any other."""
        self.phase, self.owned_elsewhere, self.inherited, self.release_reason = Phase.FROZEN, False, True, None

    # -- what may begin, and go on ----------------------------------------------------------------------------------

    def may_launch(self, term: LeaseTerm | None) -> bool:
        """Whether the start that the gate let pass is good still, now that libvirt is about to make the process."""
        if self.phase is Phase.ARRIVING:
            return term is not None
        return self.phase is Phase.STARTING and term is not None and self._granted_in == term

    def is_awaited(self, epoch: Epoch | None, handover: Handover) -> bool:
        """Whether the process of that very start is looked for; a copy's start has no epoch."""
        return self.phase in SOON and (self.epoch, self.handover) == (epoch, handover)

    def runs_by_right(self, term: LeaseTerm | None) -> bool:
        """Whether it executes on an epoch of the present term: whoever has stopped it was not us."""
        return self.phase is Phase.RUNNING and term is not None and self._granted_in == term

    def grant(self) -> None:
        """A start or takeover was won: one start may use the epoch."""
        self.phase = Phase.GRANTED

    def holds_grant(self, term: LeaseTerm | None) -> bool:
        """Whether one start may use the epoch."""
        return self.phase is Phase.GRANTED and term is not None and self._granted_in == term

    def use_grant(self, term: LeaseTerm | None) -> bool:
        """The gate lets the one start pass that the epoch allows. False: there is none, link a new epoch (rule 3)."""
        if not self.holds_grant(term):
            return False
        self.phase = Phase.STARTING
        return True

    def failed_again(self) -> bool:
        """Whether the epoch to be made next is the one that we have just failed to make. True once."""
        wanted = Epoch(0) if self.epoch is None else Epoch(self.epoch + 1)
        failed, self.failed_link = self.failed_link[0], (None, self.failed_link[1])
        return failed == wanted

    # -- reads ----------------------------------------------------------------------------------------------------

    def is_of_this_boot(self, session: str) -> bool:
        """Whether a keeper session made its epochs on this very machine, in this very boot; "no" if that is not known."""
        return bool(session) and session in (self._identity.session, self.adopted_from)

    def is_ours(self, last: RegisterRecord, incarnation: Incarnation) -> bool:
        """Whether the register's last record was written by this boot of this host (any keeper session of it)."""
        return last.owner == self._identity.host and last.incarnation == incarnation

    def lost(self) -> list[KeeperEffect]:
        """Another host owns it: our process is stale, and is killed before it can run or write again (rule 4)."""
        self.owned_elsewhere = True
        self.epoch = None
        if self.pid is None:
            self.phase = Phase.IDLE
            return []
        return self.kill()
