"""An operator asks for a VM to be tried once more (`outlast vm retry`): one that has failed, or is never restarted.

Any host may be asked; the primary does it. The request is repeated until it is answered, and doing it twice is doing it
once. Whoever asked looks for the answer by the token that he gave (`outcome`); nobody waits here.
"""

import msgspec

from outlast.model.effects import Send
from outlast.model.events import RetryAsked
from outlast.model.ids import HostId
from outlast.model.messages import RetryAnswer, RetryRequest
from outlast.model.time import SECOND, Duration, Instant, after
from outlast.protocol.election import Election
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.recovery import Recovery

PATIENCE = Duration(4 * SECOND)
RESEND = Duration(SECOND // 2)
KEPT = 32


class _Asked(msgspec.Struct):
    vm: str
    deadline: Instant
    send_at: Instant
    outcome: RetryAnswer | None = None


class Retrying:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox, election: Election, recovery: Recovery) -> None:
        self._known = knowledge
        self._out = outbox
        self._election = election
        self._recovery = recovery
        self._asked: dict[str, _Asked] = {}

    def asked(self, event: RetryAsked) -> None:
        """Somebody on this host asks."""
        now = self._known.now
        if event.token not in self._asked:
            while len(self._asked) >= KEPT:
                del self._asked[next(iter(self._asked))]
            self._asked[event.token] = _Asked(event.vm, after(now, PATIENCE), now)

    def outcome(self, token: str) -> RetryAnswer | None:
        """What came of it, if that is known by now."""
        asked = self._asked.get(token)
        return asked.outcome if asked is not None else None

    def requested(self, sender: HostId, request: RetryRequest) -> None:
        """Another host passes the request on to the primary."""
        self._out.put(Send(sender, self._answer(request.token, request.vm)))

    def answered(self, answer: RetryAnswer) -> None:
        """The primary has done it, or says why not."""
        asked = self._asked.get(answer.token)
        if asked is not None and asked.outcome is None:
            asked.outcome = answer

    def _answer(self, token: str, vm: str) -> RetryAnswer:
        if not self._election.am_primary:
            return RetryAnswer(token=token, done=False, sentence=f"{self._known.name(self._known.me)} is not primary")
        sentence = self._recovery.retry(vm)
        return RetryAnswer(token=token, done=sentence == "", sentence=sentence)

    def tick(self) -> None:
        """Pass on what is not answered yet."""
        now = self._known.now
        for token, asked in self._asked.items():
            if asked.outcome is not None:
                continue
            primary = self._election.primary
            if primary == self._known.me:
                asked.outcome = self._answer(token, asked.vm)
            elif now >= asked.deadline:
                why = "there is no primary" if primary is None else f"{self._known.name(primary)} does not answer"
                asked.outcome = RetryAnswer(
                    token=token, done=False, sentence=f"{why}: try again when `outlast status` has one"
                )
            elif primary is not None and now >= asked.send_at:
                asked.send_at = after(now, RESEND)
                self._out.put(Send(primary, RetryRequest(token=token, vm=asked.vm)))

    def next_deadline(self) -> Instant | None:
        """The next repetition."""
        due = [min(a.deadline, max(a.send_at, self._known.now)) for a in self._asked.values() if a.outcome is None]
        return min(due) if due else None
