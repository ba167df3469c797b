"""The keeper's part of a live migration at its destination: a copy is let in, kept from executing, and owned (decision 19).

    phase      until                                                    then
    expected   a start passes the gate for it, or EXPECT_PATIENCE       arriving, or forgotten
    arriving   its process is seen, and receives (`-incoming`)          copy; anything else is killed
    copy       the agent says that all memory is here                   heir, and frozen
               it ends, or our lease on its home lapses (killed)        forgotten: its source goes on
    heir       its register says `released` to us, of this migration    the next epoch is linked from exactly that record
               that link is won within one unbroken term                thawed: it runs, as soon as libvirt lets it
               it is won in a term that broke                           frozen: it is asserted like any other VM
               the register says anything else but its source           killed: it is the memory of a moment that is over
               HEIR_PATIENCE                                            killed
    both       this host is to take the VM over, and its register       killed; the takeover goes on once it has ended
               says the epoch to take it from, and does not name it

A copy has no right of its own. What it may become is written by the host that owns the VM, after that one's process has
ended; no other proof makes it go on, because its source may have written to the disk since. A keeper that is started anew
knows of no copy: it finds a process that its register does not name, and kills it.

The last line is what follows when a source dies on the way: its VM is often placed on the very host that has its copy.
Feared are a takeover that makes its epoch while the copy is there, which a new keeper would take for what runs on that
epoch; one that waits while the copy becomes the VM, and then ends it or counts it as ended; a late order that costs a guest
its memory, whose source has just released it to the copy; and a copy that does not end: the asker is refused in time.
"""

from outlast.model.ids import NO_TERM, Epoch, HostId, Incarnation, RequestId, VmId
from outlast.model.keeper_effects import Changed, KeeperEffect, Remember, WatchForProcess
from outlast.model.keeper_events import FoundProcess
from outlast.model.keeping import (
    AskDropped,
    AskExpect,
    AskIncoming,
    AskInherit,
    AskResumed,
    CopyRequest,
    Happening,
)
from outlast.model.records import ProofKind, Reason, RegisterRecord, RegisterState
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after
from outlast.protocol.keeper_books import KeeperBooks
from outlast.protocol.keeper_replies import no, yes
from outlast.protocol.ownership import Ownership, Phase, Purpose

EXPECT_PATIENCE = Duration(60 * SECOND)
"""How long a copy is expected, and how long libvirt may take from the gate to its process."""
HEIR_PATIENCE = Duration(60 * SECOND)
"""How long a whole copy waits for its release. Its source has ended it long before that, or will not."""

COMES_IN = Duration(5 * SECOND)
"""How long libvirt may take from its word that a migration comes in to the gate. Nothing but disks is looked at between."""
LOOKS_AGAIN = Duration(SECOND // 10)
"""How soon the register is read again by a copy that waits for its release; a guest stands still meanwhile."""


class Copies:
    """See the top of this file. Works on the keeper machine that it belongs to."""

    def __init__(self, keeper: KeeperBooks) -> None:
        self._keeper = keeper
        self._sources: dict[VmId, HostId] = {}
        self._until: dict[VmId, Instant] = {}
        self._coming_in: dict[VmId, Instant] = {}

    def asked(self, client: int, request: CopyRequest) -> list[KeeperEffect]:
        """The agent carries a migration on."""
        match request:
            case AskExpect():
                return self._expect(client, request)
            case AskInherit():
                return self._is_whole(client, request)
            case AskDropped():
                return [*self._drop(request), yes(client, request.request)]
            case AskIncoming():
                return [self._may_come_in(client, request)]
            case AskResumed():
                known = self._keeper.vms.get(request.vm)
                if known is not None:
                    known.inherited = False
                return [Changed(), yes(client, request.request)]

    def _expect(self, client: int, ask: AskExpect) -> list[KeeperEffect]:
        known = self._keeper.vms.get(ask.vm)
        if known is not None and known.phase is Phase.EXPECTED and known.handover == ask.handover:
            return [yes(client, ask.request)]
        if ask.home not in self._keeper.places:
            return [no(client, ask.request, f"this host has no datastore {ask.home}")]
        refusal = self._keeper.gate.refusal(ask.vm, ask.name, ask.home)
        if not refusal and known is not None and (known.phase is not Phase.IDLE or self._keeper.busy(ask.vm)):
            refusal = f"{ask.name} is {known.phase} on this host"
        if refusal:
            return [no(client, ask.request, refusal)]
        ownership = self._keeper.ensure(FoundProcess(ask.vm, ask.name, ask.home, 0, False))
        ownership.expect(ask.handover)
        self._sources[ask.vm] = ask.source
        self._until[ask.vm] = after(self._keeper.now, EXPECT_PATIENCE)
        return [yes(client, ask.request), Changed()]

    def _may_come_in(self, client: int, ask: AskIncoming) -> KeeperEffect:
        """Whoever migrates it by another way than ours has asked nobody for a place."""
        known = self._keeper.vms.get(ask.vm)
        if known is not None and known.phase is Phase.EXPECTED:
            self._coming_in[ask.vm] = after(self._keeper.now, COMES_IN)
            return yes(client, ask.request)
        name = known.name if known is not None else ask.vm
        here = self._keeper.config.name
        sentence = f"{name} is not expected here: its ownership goes with it by `outlast vm migrate {name} {here}` alone"
        return no(client, ask.request, sentence)

    def comes_in(self, vm: VmId) -> bool:
        """Whether the start that asks the gate is the one that libvirt has just told of. Asked once, and then forgotten."""
        known, until = self._keeper.vms.get(vm), self._coming_in.pop(vm, LONG_AGO)
        return known is not None and known.phase is Phase.EXPECTED and self._keeper.now < until

    def let_pass(self, ownership: Ownership, client: int, request: RequestId) -> list[KeeperEffect]:
        """The one start that may pass for a copy. Its process is looked for before libvirt can have made it (rule 7).

        That a start of this VM has passed here before, perhaps in this very term, says nothing about what comes now: a
        keeper that is started anew must not take it for its own (rule 8).
        """
        ownership.phase = Phase.ARRIVING
        self._until[ownership.vm] = after(self._keeper.now, EXPECT_PATIENCE)
        no_right = Remember(ownership.vm, ownership.home, NO_TERM, Duration(0))
        watch = WatchForProcess(ownership.vm, ownership.name, ownership.home)
        return [no_right, watch, yes(client, request), Changed()]

    def launched(self, vm: VmId) -> None:
        """Its process may come at any moment: it is not given up by time any more."""
        known = self._keeper.vms.get(vm)
        if known is not None and known.phase is Phase.ARRIVING:
            self._until.pop(vm, None)

    def _is_whole(self, client: int, ask: AskInherit) -> list[KeeperEffect]:
        known = self._keeper.vms.get(ask.vm)
        if known is None or known.handover != ask.handover or known.pid is None:
            return [no(client, ask.request, "no copy of that migration is on this host")]
        if known.phase is not Phase.COPY:
            return [yes(client, ask.request)]
        self._until[ask.vm] = after(self._keeper.now, HEIR_PATIENCE)
        return [*known.is_whole(), yes(client, ask.request), Changed(), *self.begin(known)]

    def _drop(self, ask: AskDropped) -> list[KeeperEffect]:
        known = self._keeper.vms.get(ask.vm)
        if known is None or known.handover != ask.handover:
            return []
        if known.phase in (Phase.COPY, Phase.HEIR):
            return self.end(known, "its migration has come to nothing")
        return self.expect_no_more(known)

    def expect_no_more(self, known: Ownership) -> list[KeeperEffect]:
        """No process has come, and none will: the VM is forgotten, which runs elsewhere."""
        if known.phase not in (Phase.EXPECTED, Phase.ARRIVING):
            return []
        effects = [*known.start_ended(), Changed()]
        self._forget(known.vm)
        self._keeper.forget(known.vm)
        return effects

    # -- the register ---------------------------------------------------------------------------------------------

    def begin(self, ownership: Ownership) -> list[KeeperEffect]:
        """Go on with what waits for its epoch, if there is a term to do it in."""
        keeper, home = self._keeper, ownership.home
        if ownership.phase is not Phase.HEIR or keeper.said_last_word or not keeper.may_begin(ownership):
            return []
        if keeper.term(home) is None or keeper.places[home].incarnation is None:
            return []
        if ownership.unfreezable and not keeper.is_published_as_unfreezable(home):
            return []  # Rule 6: observers must be able to read first that our lease's end proves nothing.
        return keeper.read(ownership, Purpose.INHERIT)

    def after_read(self, ownership: Ownership, last: RegisterRecord | None) -> list[KeeperEffect]:
        """A read may only refuse, or tell which epoch to link from."""
        keeper, incarnation = self._keeper, self._keeper.places[ownership.home].incarnation
        if ownership.phase is not Phase.HEIR or incarnation is None or keeper.term(ownership.home) is None:
            return []
        if last is None:
            return self.end(ownership, "its register has no epoch")
        if names(last, keeper.config.host, ownership) or is_inherited(last, ownership, incarnation):
            if ownership.failed_again():
                keeper.not_before_long(ownership)
                return []
            ownership.epoch, ownership.owned_elsewhere = last.epoch, False
            return keeper.link(ownership, Purpose.INHERIT, RegisterState.OWNED, Reason.MIGRATED, ProofKind.RENOUNCED)
        if last.state is RegisterState.OWNED and last.owner == self._sources.get(ownership.vm):
            keeper.not_before(ownership, LOOKS_AGAIN)
            return []
        return self.end(ownership, f"its register says {last.owner} ({last.state}, epoch {last.epoch})")

    def why_it_stays(self, ownership: Ownership, last: RegisterRecord | None, taken_from: Epoch) -> str:
        """Why a copy may not be ended for a takeover from that epoch, as its register is now, or an empty string.

        An order is as old as the way that it came. Since it was given, the source may have released the VM to this very
        copy, whose memory is then the only one that there is; or the VM may be somebody else's business altogether.
        """
        if last is None or last.epoch != taken_from:
            return f"{ownership.name} was to be taken from epoch {taken_from}, and its register says another one by now"
        if names(last, self._keeper.config.host, ownership):
            return f"{ownership.name} has a copy on this host, and its source has released it to that"
        return ""

    def end(self, ownership: Ownership, why: str) -> list[KeeperEffect]:
        """Its process is killed, and then forgotten, unless it is waited for."""
        lost = self._keeper.tell(Happening.LOST, ownership, why)
        return [*ownership.lost(), lost, Changed()]

    def won(self, ownership: Ownership, record: RegisterRecord, granted: bool) -> list[KeeperEffect]:
        """The epoch is ours. Within one unbroken term it goes on; else it is asserted as any frozen VM is (rule 3)."""
        if ownership.phase is not Phase.HEIR:
            return [Changed()]  # Its process has ended meanwhile: the agent has the epoch released.
        self._forget(ownership.vm)
        ownership.inherit()
        claimed = self._keeper.tell(Happening.CLAIMED, ownership, f"epoch {record.epoch}, its copy is whole and may go on")
        if not granted:
            return [claimed, Changed()]
        return [self._keeper.remember(ownership), *ownership.thaw(), claimed, Changed()]

    # -- waits ----------------------------------------------------------------------------------------------------

    def expire(self) -> list[KeeperEffect]:
        """Whom nobody sends is expected no more, and a copy that is not released in time is of no use."""
        effects: list[KeeperEffect] = []
        for vm in [vm for vm, until in self._until.items() if until <= self._keeper.now]:
            self._forget(vm)
            known = self._keeper.vms.get(vm)
            if known is not None and known.phase is Phase.HEIR:
                effects += self.end(known, "nobody has released it to its copy")
            elif known is not None:
                effects += self.expect_no_more(known)
        return effects

    def _forget(self, vm: VmId) -> None:
        self._until.pop(vm, None)
        self._sources.pop(vm, None)

    def deadlines(self) -> list[Instant]:
        """The ends of all waits."""
        return list(self._until.values())


def names(last: RegisterRecord, host: HostId, ownership: Ownership) -> bool:
    """Whether a register's last record is the release to this very copy."""
    released = last.state is RegisterState.RELEASED and last.heir == host
    return released and last.handover == ownership.handover


def is_inherited(last: RegisterRecord, ownership: Ownership, incarnation: Incarnation) -> bool:
    """Whether it is what we made of that release ourselves, in a term that broke or in a link that landed unheard."""
    ours = last.state is RegisterState.OWNED and ownership.is_ours(last, incarnation)
    return ours and last.handover == ownership.handover
