"""How a VM goes on after a lapse, or under a new keeper (rules 3, 4, 8), and what becomes of one that is lost.

what is known of it                 what is done
frozen, in a new term               its next epoch is linked; while its last one is not known, the register is read first
running, for another lease than     the same, while it runs on (`lease_length.py`)
  the settings want
that link is won within the term    thawed
the link is lost, or nobody knows   the register is read: a read may only refuse, or tell which epoch to link from
the register names another host     killed: the process is stale
it was begun to receive a copy, and the same: no other epoch speaks for a copy, also not our own (decision 19)
  the register's last record is no
  epoch of ours by that migration
the owner of a later epoch says so  the same, while it stands frozen (`lost_copies.py`)
it runs on what an audit misses     frozen, and asserted anew (`audit.py`)
"""

from outlast.model.keeper_effects import Changed, KeeperEffect
from outlast.model.keeping import AskLost, Happening
from outlast.model.records import Reason, RegisterRecord, RegisterState
from outlast.protocol.audit import mismatch
from outlast.protocol.keeper_books import KeeperBooks
from outlast.protocol.ownership import Ownership, Phase, Purpose


class Reassertion:
    """See the top of this file. Works on the keeper machine that it belongs to."""

    def __init__(self, keeper: KeeperBooks) -> None:
        self._keeper = keeper

    def begin(self, ownership: Ownership) -> list[KeeperEffect]:
        """Assert what waits for it, if there is a term to do it in."""
        keeper = self._keeper
        term = keeper.term(ownership.home)
        if term is None or not ownership.needs_assertion(term, keeper.settings.span) or keeper.said_last_word:
            return []
        if keeper.places[ownership.home].incarnation is None:
            # A keeper that has just started on an adopted lease: without its boot's number it cannot tell its own
            # record from an earlier boot's, and must not take its own VM for lost.
            return []
        if ownership.epoch is None:
            return keeper.read(ownership, Purpose.ASSERT)
        return keeper.link(ownership, Purpose.ASSERT, RegisterState.OWNED, Reason.REASSERTED)

    def after_read(self, ownership: Ownership, last: RegisterRecord | None) -> list[KeeperEffect]:
        """A read may only refuse: it kills, or tells which epoch to link from; it never thaws."""
        keeper = self._keeper
        if ownership.phase not in (Phase.FROZEN, Phase.RUNNING):
            return []
        incarnation = keeper.places[ownership.home].incarnation
        if incarnation is None:
            return []
        if last is not None and not ownership.is_ours(last, incarnation):
            owner = keeper.config.host_name(last.owner)
            return self._lost(ownership, f"{owner} owns it since epoch {last.epoch}")
        if ownership.incoming and not ownership.came_by(last):
            return self._lost(ownership, "it is a copy, and its register knows nothing of its migration")
        term = keeper.term(ownership.home)
        if term is None or not ownership.needs_assertion(term, keeper.settings.span):
            return []
        # None: a VM that ran here before Outlast did; only the host on which it runs may make its first epoch (rule 1).
        ownership.epoch = last.epoch if last is not None else None
        if ownership.failed_again():
            # Nobody won that epoch, nor could we make it (a full datastore): not again at once.
            keeper.not_before_long(ownership)
            return []
        return keeper.link(ownership, Purpose.ASSERT, RegisterState.OWNED, Reason.REASSERTED)

    def told_lost(self, ask: AskLost) -> list[KeeperEffect]:
        """The owner of a later epoch says so over the network (`lost_copies.py`): that is final, storage or not."""
        keeper, known = self._keeper, self._keeper.vms.get(ask.vm)
        if known is None or known.phase is not Phase.FROZEN or ask.owner == keeper.config.host:
            return []
        if known.home != ask.home or known.epoch is None or ask.epoch <= known.epoch:
            return []
        return self._lost(known, f"{keeper.config.host_name(ask.owner)} owns it since epoch {ask.epoch}, as it says itself")

    def _lost(self, ownership: Ownership, why: str) -> list[KeeperEffect]:
        lost = self._keeper.tell(Happening.LOST, ownership, why)
        return [*ownership.lost(), lost, Changed()]

    def won(self, ownership: Ownership, record: RegisterRecord) -> list[KeeperEffect]:
        """The epoch is ours in the present term: it goes on."""
        keeper = self._keeper
        kind = Happening.THAWED if ownership.phase is Phase.FROZEN else Happening.CLAIMED
        effects = [keeper.remember(ownership), *ownership.thaw()]
        return [*effects, keeper.tell(kind, ownership, f"re-asserted as epoch {record.epoch}"), Changed()]

    def audited(self, ownership: Ownership, last: RegisterRecord | None) -> list[KeeperEffect]:
        """Its register was looked at while it ran."""
        problem = mismatch(ownership, last, self._keeper.places[ownership.home].incarnation)
        if not problem:
            return []
        return [*ownership.doubt(), self._keeper.tell(Happening.FROZEN, ownership, problem), Changed()]
