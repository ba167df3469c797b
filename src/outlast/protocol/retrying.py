"""An operator asks for a VM to be tried once more (`outlast vm retry`): one that has failed, or is never restarted.

Any host may be asked; whoever is responsible for the VM's datastore does it. The request goes to all hosts and is repeated
until it is answered; doing it twice is doing it once. Whoever asked looks for the answer by the token that he gave
(`outcome`); nobody waits here.

    a host is responsible for a VM of that name    it is tried once more, or the sentence why not: that is the answer
    every host that can be asked knows none        there is none
    some do not answer in time                     that is said
"""

import msgspec

from outlast.model.effects import Send
from outlast.model.events import RetryAsked
from outlast.model.ids import HostId
from outlast.model.messages import RetryAnswer, RetryRequest
from outlast.model.time import SECOND, Duration, Instant, after
from outlast.protocol import attempts as counting
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.recovery import Recovery
from outlast.protocol.responsibility import Responsibility
from outlast.protocol.restart import Stage

PATIENCE = Duration(4 * SECOND)
RESEND = Duration(SECOND // 2)
KEPT = 32


class _Asked(msgspec.Struct):
    """`unknowing`: the hosts that answered that they are not responsible for it."""

    vm: str
    deadline: Instant
    send_at: Instant
    unknowing: set[HostId]
    outcome: RetryAnswer | None = None


class Retrying:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox, recovery: Recovery, responsibility: Responsibility) -> None:
        self._known = knowledge
        self._out = outbox
        self._recovery = recovery
        self._responsible = responsibility
        self._asked: dict[str, _Asked] = {}

    def asked(self, event: RetryAsked) -> None:
        """Somebody on this host asks."""
        now = self._known.now
        if event.token not in self._asked:
            while len(self._asked) >= KEPT:
                del self._asked[next(iter(self._asked))]
            self._asked[event.token] = asked = _Asked(event.vm, after(now, PATIENCE), now, set())
            self._take(asked, self._known.me, self._answer(event.token, event.vm))

    def outcome(self, token: str) -> RetryAnswer | None:
        """What came of it, if that is known by now."""
        asked = self._asked.get(token)
        return asked.outcome if asked is not None else None

    def requested(self, sender: HostId, request: RetryRequest) -> None:
        """Another host passes the request on."""
        self._out.put(Send(sender, self._answer(request.token, request.vm)))

    def answered(self, sender: HostId, answer: RetryAnswer) -> None:
        """A host has done it, says why not, or does not know that VM."""
        asked = self._asked.get(answer.token)
        if asked is not None and asked.outcome is None:
            self._take(asked, sender, answer)

    def _answer(self, token: str, vm: str) -> RetryAnswer:
        sentence = self._retry(vm)
        if sentence is None:
            return RetryAnswer(token=token, known=False, done=False)
        return RetryAnswer(token=token, known=True, done=not sentence, sentence=sentence)

    def _retry(self, vm: str) -> str | None:
        """An operator asks for a VM (by name or id) to be tried once more, at once. An empty string, or why not.

        None: this agent is not responsible for any VM of that name.
        """
        for datastore in self._responsible.held_datastores():
            protection = self._responsible.protection(datastore)
            aside = next((each for each in protection.aside.values() if vm in (each.entry.name, each.entry.vm)), None)
            if aside is not None:
                name = aside.entry.name
                return f"{aside.by} wants {name} to be {aside.wanted}; `outlast vm start {name}` overrules that"
            entry = next((each for each in protection.vms.values() if vm in (each.name, each.vm)), None)
            if entry is None:
                continue
            lister = self._recovery.lists_it(entry.vm)
            if lister is not None:
                return f"{entry.name} is on the list of {self._known.name(lister)} already"
            protection.tried(entry.vm, counting.asked_again(entry.attempts))
            self._out.note("retry-asked", vm=entry.vm, relay=True, name=entry.name)
            case = self._recovery.cases.get(entry.vm)
            if case is not None and case.stage is Stage.WAITING:
                case.deadline = self._known.now
            return ""
        return None

    def _take(self, asked: _Asked, host: HostId, answer: RetryAnswer) -> None:
        if answer.known:
            asked.outcome = answer
        else:
            asked.unknowing.add(host)

    def tick(self) -> None:
        """Pass on what is not answered yet."""
        now = self._known.now
        for token, asked in self._asked.items():
            if asked.outcome is not None:
                continue
            open_hosts = [h for h in self._known.peers if self._known.live(h) and h not in asked.unknowing]
            if not open_hosts or now >= asked.deadline:
                silent = ", ".join(self._known.name(host) for host in open_hosts)
                why = f" as far as can be told: {silent} gave no answer" if silent else ": start it where it belongs"
                sentence = f"nobody is responsible for a VM {asked.vm}{why}"
                asked.outcome = RetryAnswer(token=token, known=False, done=False, sentence=sentence)
            elif now >= asked.send_at:
                asked.send_at = after(now, RESEND)
                for host in open_hosts:
                    self._out.put(Send(host, RetryRequest(token=token, vm=asked.vm)))

    def next_deadline(self) -> Instant | None:
        """The next repetition, or the end of somebody's patience."""
        due = [min(asked.deadline, asked.send_at) for asked in self._asked.values() if asked.outcome is None]
        return min(due) if due else None
