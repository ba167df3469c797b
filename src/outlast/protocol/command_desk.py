"""What an operator asks of the fault domain: taken on any host, carried out by one, answered where it was given.

    a command about            is carried out by
    settings, and a pause      the primary (`settings_changing.py`)
    hosts kept empty           likewise
    a host's hardware          that host (`health_desk.py`)
    a VM                       whoever is responsible for its home datastore (`wish_keeping.py`)
    where a VM runs            the host on which it runs (`migration.py`)

    on the host where it was given            until
    of a VM that nobody knows here            another host says which one is meant (`asking_around.py`)
    sent to that host, again and again        it answers, or GIVE_UP: then nobody knows, and it is to be tried again

    on the host that carries it out           until
    under way                                 it is on storage, or refused
    answered                                  kept for repeats: a command that arrives twice is carried out once

A host that is lost meanwhile leaves a command unanswered; its successor gets it next, and may do it a second time. Every
command says how things are to be, not what is to be done, so the second time changes nothing.
"""

from typing import Protocol

import msgspec

from outlast.model.commands import DrainHost, MoveVm, Outcome, ReportHealth, UndrainHost, WantVm
from outlast.model.effects import AnswerOperator, Send, StoreDefinition
from outlast.model.events import CommandGiven
from outlast.model.ids import DatastoreName, HostId, VmId
from outlast.model.messages import CommandAnswer, CommandRequest, VmMeant, WhichVm
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after
from outlast.protocol.asking_around import AskingAround
from outlast.protocol.health_desk import HealthDesk
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.migration import Migrations
from outlast.protocol.naming import NeverHeardOfError, UnknownNameError, host_meant, meant, move_meant
from outlast.protocol.responsibility import Responsibility
from outlast.protocol.settings_changing import SettingsChanger
from outlast.protocol.wish_keeping import WishKeeper

GIVE_UP = Duration(12 * SECOND)
RESEND = Duration(SECOND // 2)
KEPT = 64


class Work(Protocol):
    """A command under way. `dropped`: whoever had begun it is not to carry it out any more, and says nothing."""

    outcome: Outcome | None
    dropped: bool


class _Given(msgspec.Struct):
    """A command that was given on this host. `why`: what it waits for; `looked_at`: when nobody was there to send it to."""

    request: CommandRequest
    deadline: Instant
    sent_at: Instant = LONG_AGO
    looked_at: Instant = LONG_AGO
    why: str = "there is no primary"


class CommandDesk:
    """See the top of this file."""

    def __init__(
        self,
        knowledge: Knowledge,
        outbox: Outbox,
        *,
        responsibility: Responsibility,
        settings: SettingsChanger,
        wishes: WishKeeper,
        health: HealthDesk,
        migrations: Migrations,
    ) -> None:
        self._known = knowledge
        self._out = outbox
        self._responsible = responsibility
        self._settings = settings
        self._wishes = wishes
        self._health = health
        self._migrations = migrations
        self.around = AskingAround(knowledge, outbox)
        self._given: dict[int, _Given] = {}
        self._works: dict[tuple[HostId, int], Work] = {}
        self._open: set[tuple[HostId, int]] = set()
        """Those of them that are not answered yet."""
        self._primary: HostId | None = None

    # -- on the host where it was given ---------------------------------------------------------------------------

    def given(self, event: CommandGiven) -> None:
        """An operator gave a command here."""
        command = event.command
        request = CommandRequest(number=event.number, by=event.by, at_ms=event.at_ms, command=command)
        try:
            if isinstance(command, WantVm):
                command = meant(self._known, self._responsible, command)
                self._store_definition(command)
            elif isinstance(command, MoveVm):
                command = move_meant(self._known, self._responsible, command)
            elif isinstance(command, DrainHost | UndrainHost | ReportHealth):
                host = host_meant(self._known, command.host) if command.host else self._known.me
                command = msgspec.structs.replace(command, host=host)
        except UnknownNameError as error:
            if isinstance(command, WantVm) and isinstance(error, NeverHeardOfError):
                self.around.ask(request, command)
            else:
                self._out.put(AnswerOperator(event.number, Outcome(ok=False, sentences=(str(error),))))
            return
        self._set_out(msgspec.structs.replace(request, command=command))

    def _set_out(self, request: CommandRequest) -> None:
        self._given[request.number] = _Given(request, after(self._known.now, GIVE_UP))

    def which(self, sender: HostId, asked: WhichVm) -> None:
        """A command was given elsewhere, of a VM that nobody knows there."""
        answer = VmMeant(number=asked.number)
        try:
            command = meant(self._known, self._responsible, asked.command)
            self._store_definition(command)
            answer = VmMeant(number=asked.number, command=command)
        except NeverHeardOfError:
            pass
        except UnknownNameError as error:
            answer = VmMeant(number=asked.number, sentence=str(error))
        self._out.put(Send(sender, answer))

    def _store_definition(self, command: WantVm) -> None:
        """A VM that never ran under Outlast has no definition on storage yet, and could be started by nobody else."""
        definition = self._known.definitions.get(VmId(command.vm))
        if command.wanted != "running" or definition is None or definition.home is None:
            return
        if definition.home in self._known.datastores:  # A definition may name what this host does not have.
            self._out.put(StoreDefinition(self._out.request(), definition.home, definition.vm, definition.xml, first=True))

    def answered(self, answer: CommandAnswer) -> None:
        """Whoever carried it out says what came of it."""
        if self._given.pop(answer.number, None) is not None:
            self._out.put(AnswerOperator(answer.number, answer.outcome))

    def _pass_on(self) -> None:
        now = self._known.now
        for number, found in self.around.ended():
            if isinstance(found, Outcome):
                self._out.put(AnswerOperator(number, found))
            else:
                self._set_out(found)
        for number, given in list(self._given.items()):
            to, why = self._whose(given.request)
            if now >= given.deadline:
                del self._given[number]
                sentence = f"nobody could carry it out: {given.why}"
                self._out.put(AnswerOperator(number, Outcome(ok=False, sentences=(sentence,), try_again=True)))
            elif to == self._known.me:
                given.looked_at, given.why = now, "this host did not come to it in time"
                self.requested(self._known.me, given.request)
            elif to is None:
                given.looked_at, given.why = now, why
            elif now - given.sent_at >= RESEND:
                given.sent_at, given.why = now, f"{self._known.name(to)} does not answer"
                self._out.put(Send(to, given.request))

    def _whose(self, request: CommandRequest) -> tuple[HostId | None, str]:
        """Who is to carry it out; None: nobody now, and why."""
        if isinstance(request.command, ReportHealth):
            return HostId(request.command.host), ""
        if isinstance(request.command, MoveVm):
            return self._known.lister(VmId(request.command.vm)), "it runs nowhere, as far as this host knows"
        if not isinstance(request.command, WantVm):
            return self._primary, "there is no primary"
        home = request.command.home
        if home is None or home not in self._known.datastores:
            return None, f"this host has no datastore {home}"
        holder = self._responsible.responsible_host(home)
        return holder, f"nobody is responsible for {home} now"

    # -- on the host that carries it out --------------------------------------------------------------------------

    def requested(self, sender: HostId, request: CommandRequest) -> None:
        """A command is to be carried out; one that came before is answered again once it is done.

        Who is not to carry it out says nothing: the sender asks whoever is, as soon as it knows.
        """
        key = (sender, request.number)
        work = self._works.get(key)
        if work is None:
            taken = self._take(request)
            if taken is not None:
                answered = [key for key, old in self._works.items() if old.outcome is not None]
                for old in answered[: max(0, len(self._works) - KEPT)]:
                    del self._works[old]
                self._works[key] = taken
                self._open.add(key)
        elif work.outcome is not None:
            self._answer(key, work.outcome)

    def _take(self, request: CommandRequest) -> Work | None:
        command = request.command
        if isinstance(command, ReportHealth):
            mine = command.host == self._known.me
            return self._health.take(command, request.by, request.at_ms) if mine else None
        if isinstance(command, WantVm):
            home = command.home
            if home is None or not self._wishes.holds(home):
                return None
            return self._wishes.take(command, DatastoreName(home), request.by, request.at_ms)
        if isinstance(command, MoveVm):
            return self._migrations.take(command) if self._known.lister(VmId(command.vm)) == self._known.me else None
        return self._settings.take(request) if self._primary == self._known.me else None

    def _answer(self, key: tuple[HostId, int], outcome: Outcome) -> None:
        answer = CommandAnswer(key[1], outcome)
        if key[0] == self._known.me:
            self.answered(answer)
        else:
            self._out.put(Send(key[0], answer))

    def tick(self, primary: HostId | None) -> None:
        """Pass commands on, and answer what is done."""
        self._primary = primary
        self._pass_on()
        self._settings.tick(primary=primary == self._known.me)
        self._wishes.tick()
        self._health.tick()
        for key, work in list(self._works.items()):
            if work.dropped:
                del self._works[key]
                self._open.discard(key)
            elif work.outcome is not None and key in self._open:
                self._open.remove(key)
                self._answer(key, work.outcome)

    def next_deadline(self) -> Instant | None:
        """When something is to be sent again, given up, or looked at again."""
        due = [min(g.deadline, after(max(g.sent_at, g.looked_at), RESEND)) for g in self._given.values()]
        if any(work.outcome is None for work in self._works.values()):
            due.append(after(self._known.now, Duration(RESEND // 5)))
        due += [t for t in (self.around.next_deadline(), self._wishes.next_deadline()) if t is not None]
        return min(due) if due else None
