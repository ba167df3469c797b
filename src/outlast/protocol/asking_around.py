"""Which VM an operator means, when the host on which the command is given knows none of that name.

A VM that was switched off on purpose stands on no list, and is defined only where it ran: so the other hosts are asked.

    asked, again and again        until every host that can be talked to has answered, or PATIENCE is over
    one VM is meant               the command goes its way as if it had been known here
    several, or none              refused, with what the others said, and who said nothing

It is only a name that is looked up. The host that knows the VM sees to it that its definition is on storage, as it would
for a command of its own.
"""

import msgspec

from outlast.model.commands import Outcome, WantVm
from outlast.model.effects import Send
from outlast.model.ids import HostId
from outlast.model.messages import CommandRequest, VmMeant, WhichVm
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox

PATIENCE = Duration(3 * SECOND)
RESEND = Duration(SECOND // 2)


class _Search(msgspec.Struct):
    """`answers`: what each host said."""

    request: CommandRequest
    command: WantVm
    deadline: Instant
    answers: dict[HostId, VmMeant]
    sent_at: Instant = LONG_AGO


class AskingAround:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._searches: dict[int, _Search] = {}

    def ask(self, request: CommandRequest, command: WantVm) -> None:
        """Nobody here knows the VM of this command: that of `request`, as the operator wrote it."""
        self._searches[request.number] = _Search(request, command, after(self._known.now, PATIENCE), {})

    def answered(self, sender: HostId, answer: VmMeant) -> None:
        """Another host says which VM that is, or that it knows none."""
        search = self._searches.get(answer.number)
        if search is not None:
            search.answers[sender] = answer

    def ended(self) -> list[tuple[int, CommandRequest | Outcome]]:
        """Ask whoever has not answered; and what came of those that are over, by their numbers: each is told once."""
        over: list[tuple[int, CommandRequest | Outcome]] = []
        for number, search in list(self._searches.items()):
            silent = [host for host in self._known.peers if self._known.live(host) and host not in search.answers]
            if not silent or self._known.now >= search.deadline:
                del self._searches[number]
                over.append((number, self._found(search, silent)))
            elif self._known.now - search.sent_at >= RESEND:
                search.sent_at = self._known.now
                for host in silent:
                    self._out.put(Send(host, WhichVm(number, search.command)))
        return over

    def _found(self, search: _Search, silent: list[HostId]) -> CommandRequest | Outcome:
        word = search.command.vm
        meant = {answer.command.vm: answer.command for answer in search.answers.values() if answer.command is not None}
        refusals = sorted({answer.sentence for answer in search.answers.values() if answer.sentence})
        if len(meant) == 1 and not refusals:
            ((_, command),) = meant.items()
            return msgspec.structs.replace(search.request, command=command)
        if len(meant) > 1:
            sentence = f"{len(meant)} VMs are called {word}: name one by its uuid ({', '.join(sorted(meant))})"
        elif refusals:
            sentence = "; ".join(refusals)
        else:
            names = ", ".join(self._known.name(host) for host in silent)
            doubt = f"; {names} gave no answer" if names else ""
            sentence = f"no VM {word} is known on any host that can be asked: define it on one first{doubt}"
        return Outcome(ok=False, sentences=(sentence,), try_again=bool(silent))

    def next_deadline(self) -> Instant | None:
        """When somebody is to be asked again, or it is given up."""
        due = [min(each.deadline, after(each.sent_at, RESEND)) for each in self._searches.values()]
        return min(due) if due else None
