"""The agent between the one who asks this host to give a VM up, and its keeper, which decides (`storage_loss.py`).

The agent remembers nothing but whose question is with the keeper: whoever asks repeats it until it is answered, and the
keeper gives the same answer as often as it is asked.
"""

import msgspec

from outlast.model.effects import AskKeeper, Send
from outlast.model.events import KeeperAnswered
from outlast.model.ids import HostId, RequestId
from outlast.model.keeping import AskGivenUp
from outlast.model.messages import GivenUp, GiveUp
from outlast.protocol.knowledge import Knowledge, Outbox

MOST_OPEN = 64
"""Questions with the keeper at one time; of more, the oldest are forgotten, and asked again."""


class _Open(msgspec.Struct, frozen=True):
    sender: HostId
    question: GiveUp


class GivingUp:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._open: dict[RequestId, _Open] = {}

    def asked(self, sender: HostId, question: GiveUp) -> None:
        """Another host asks this one to give a VM up."""
        if self._known.keeper is None:
            self._answer(sender, question, False, "its keeper does not answer")
            return
        while len(self._open) >= MOST_OPEN:
            del self._open[next(iter(self._open))]
        request = self._out.request()
        self._open[request] = _Open(sender, question)
        ask = AskGivenUp(
            request=request, vm=question.vm, home=question.home, epoch=question.epoch, session=question.session
        )
        self._out.put(AskKeeper(ask))

    def keeper_answered(self, event: KeeperAnswered) -> None:
        """The keeper gives its word, or says why not."""
        found = self._open.pop(event.reply.request, None)
        if found is not None:
            done = event.reply.allowed and event.reply.epoch == found.question.epoch
            self._answer(found.sender, found.question, done, event.reply.sentence)

    def _answer(self, sender: HostId, question: GiveUp, done: bool, sentence: str) -> None:
        answer = GivenUp(
            vm=question.vm,
            home=question.home,
            epoch=question.epoch,
            session=question.session,
            done=done,
            sentence=sentence,
        )
        self._out.put(Send(sender, answer))
