"""The keeper's word that it gave a VM up whose storage is lost to this host: proof without storage (rule 5).

`storage_loss.py` tells the whole story. Here it is decided what a keeper may say. It is asked about one epoch, which
somebody has just read in the register, and answers for that epoch alone:

    what it knows                                           what it does and says
    it holds its lease there                                no: whatever ended is released on storage
    its lease has lapsed a moment ago, and not by errors    no: it may have stood still itself, or be new
    its storage has confirmed a write a moment ago,         no: it is not lost, and the next write begins a term; what the
      however late, or it has just stood still itself         keeper knows is of the time before
    another keeper session made that epoch, and not the     no: it may be a clone of this host, or a process of a
      one that let the process run that it found              predecessor may still appear
    it owns a later epoch                                   no: the question is an old one
    its process is frozen                                   kills it; not yet
    the kill was sent, or a process may come                not yet
    it ended, and the agent has not said why                not yet: if it was meant, nobody is to start it
    it was switched off on purpose                          no
    it ended                                                yes

"Yes" stays true for ever, like a release: it is given only once the pidfd reported the exit, the lapse has voided every
link that could have let anything start (rule 3), and whatever starts later makes an epoch of its own. A link that is under
way when the word is given, or whose outcome nobody knows, may still land: it makes the next epoch, and whoever wants to
take the VM from this one loses, reads it, and asks again. It is of the same session, and the same holds for it.

A datastore is *failing* if its lease lapsed while the storage answered every write with an error at once. A storage that
hangs says nothing, and may come back; an error that took long is a client's that lost its patience with one that hangs.
"""

from outlast.model.keeper_effects import Changed, KeeperEffect, Reply
from outlast.model.keeper_events import HeartbeatWritten
from outlast.model.keeping import AskGivenUp, Happening, KeeperReply
from outlast.model.records import Reason
from outlast.model.time import Duration
from outlast.protocol.keeper_books import KeeperBooks
from outlast.protocol.lease import Place
from outlast.protocol.ownership import Ownership, Phase

REFUSALS = 3
"""How many errors in a row are more than a moment's trouble."""
_MEANT = (Reason.SWITCHED_OFF, Reason.AS_WISHED)


def count_refusals(place: Place, event: HeartbeatWritten, at_once: Duration) -> bool:
    """A heartbeat write ended, and the lease knows how long it took. True if that makes the datastore a failing one."""
    if event.ok or not event.refused or place.lease.took > at_once:
        place.refusals = 0
    else:
        place.refusals += 1
    return is_failing(place) and place.refusals == REFUSALS


def is_failing(place: Place) -> bool:
    """Whether the lease has lapsed, and by errors."""
    return not place.lease.held and place.refusals >= REFUSALS


class Renouncing:
    """See the top of this file. Works on the keeper machine that it belongs to."""

    def __init__(self, keeper: KeeperBooks) -> None:
        self._keeper = keeper

    def asked(self, client: int, ask: AskGivenUp) -> list[KeeperEffect]:
        """Somebody waits for the word about this epoch."""
        known = self._keeper.vms.get(ask.vm)
        if known is None:
            return [_answer(client, ask, "this keeper knows of no process of that VM, and cannot tell what became of it")]
        refusal = self._refusal(known, ask)
        if not refusal and known.phase is Phase.FROZEN:
            return [*self._end(known), _answer(client, ask, f"{known.name} is being ended")]
        return [_answer(client, ask, refusal or self._not_yet(known))]

    def _refusal(self, known: Ownership, ask: AskGivenUp) -> str:
        """Why nothing is done at all, or an empty string."""
        if known.home != ask.home:
            return f"the home of {known.name} is {known.home}"
        place, name = self._keeper.places[ask.home], self._keeper.config.name
        if place.lease.held:
            return f"{name} holds its lease on {ask.home} again"
        if self._keeper.idle >= self._keeper.settings.lease_duration:
            return f"the keeper of {name} has stood still itself, and has not looked since"
        if self._keeper.now - place.lease.lapsed_at < self._keeper.settings.storage_loss_after and not is_failing(place):
            return f"{name} has not been without {ask.home} for long enough, as far as its keeper knows"
        if not known.is_of_this_boot(ask.session):
            return f"nobody here can tell who made epoch {ask.epoch} of {known.name}"
        if known.epoch is not None and ask.epoch < known.epoch:
            return f"{known.name} was owned here at epoch {known.epoch}, later than that one"
        return ""

    def _not_yet(self, known: Ownership) -> str:
        """Why the word cannot be given, or an empty string: then it is."""
        if known.phase is Phase.KILLING:
            return "its process was killed, and has not ended: its kernel may hold I/O of it"
        if known.pid is not None or known.phase not in (Phase.ENDED, Phase.RELEASING):
            return f"{known.name} is {known.phase}"
        if known.release_reason is None:
            return f"{known.name} has ended, and it is not known why"
        return f"{known.name} was switched off on purpose" if known.release_reason in _MEANT else ""

    def _end(self, known: Ownership) -> list[KeeperEffect]:
        """It stands frozen, and its storage is gone: all that is lost is the guest's memory."""
        known.release_reason, known.release_to = Reason.HOST_FAULT, None
        told = self._keeper.tell(Happening.KILLED, known, f"{known.home} is lost to this host; it is given up to others")
        return [*known.kill(), told, Changed()]


def _answer(client: int, ask: AskGivenUp, refusal: str) -> Reply:
    return Reply(client, KeeperReply(ask.request, not refusal, refusal, ask.epoch))
