"""What an operator asks of the whole fault domain: taken on any host, carried out by the primary, answered where it was
given.

    on the host where it was given          until
    sent to the primary, again and again    it answers, or GIVE_UP: then nobody knows, and it is to be tried again

    at the primary                          until
    waiting                                 it can be carried out: the settings can be changed, the VM's register is known
    being written                           every datastore has said how it went, or gives no answer
    answered                                kept for repeats: a command that arrives twice is carried out once

A primary that is lost meanwhile leaves a command unanswered; its successor gets it next, and may do it a second time. Every
command says how things are to be, not what is to be done, so the second time changes nothing.
"""

import msgspec

from outlast.model.commands import ChangeSettings, Command, Outcome, PauseRecovery, ResumeRecovery, SettingChange
from outlast.model.effects import AnswerOperator, Send
from outlast.model.events import CommandGiven
from outlast.model.ids import ElectionTerm, HostId
from outlast.model.messages import CommandAnswer, CommandRequest
from outlast.model.settings import Pause, Settings, SettingsRecord, problems, setting_text
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after, in_seconds
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.shared_settings import Change, SharedSettings

GIVE_UP = Duration(12 * SECOND)
JOB_PATIENCE = Duration(9 * SECOND)
SLOW_STORAGE = Duration(4 * SECOND)
RESEND = Duration(SECOND // 2)
KEPT = 64


class _Given(msgspec.Struct):
    """A command that was given on this host."""

    request: CommandRequest
    deadline: Instant
    sent_at: Instant = LONG_AGO
    why: str = "there is no primary"


class _Job(msgspec.Struct):
    """A command that this agent carries out as primary. `outcome`: it is answered."""

    sender: HostId
    request: CommandRequest
    since: Instant
    change: Change | None = None
    changes: tuple[SettingChange, ...] = ()
    outcome: Outcome | None = None


class CommandDesk:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox, settings: SharedSettings) -> None:
        self._known = knowledge
        self._out = outbox
        self._settings = settings
        self._given: dict[int, _Given] = {}
        self._jobs: dict[tuple[HostId, int], _Job] = {}
        self._primary = False

    # -- on the host where it was given ---------------------------------------------------------------------------

    def given(self, event: CommandGiven) -> None:
        """An operator gave a command here."""
        request = CommandRequest(number=event.number, by=event.by, at_ms=event.at_ms, command=event.command)
        self._given[event.number] = _Given(request, after(self._known.now, GIVE_UP))

    def answered(self, answer: CommandAnswer) -> None:
        """The primary says what came of it."""
        if self._given.pop(answer.number, None) is not None:
            self._out.put(AnswerOperator(answer.number, answer.outcome))

    def _pass_on(self, primary: HostId | None) -> None:
        now = self._known.now
        for number, given in list(self._given.items()):
            if now >= given.deadline:
                del self._given[number]
                self._out.put(AnswerOperator(number, _not_now(f"nobody could carry it out: {given.why}")))
            elif primary == self._known.me:
                self.requested(self._known.me, given.request)
            elif primary is not None and now - given.sent_at >= RESEND:
                given.sent_at, given.why = now, f"the primary {self._known.name(primary)} does not answer"
                self._out.put(Send(primary, given.request))

    # -- at the primary -------------------------------------------------------------------------------------------

    def requested(self, sender: HostId, request: CommandRequest) -> None:
        """A command is to be carried out; one that came before is answered again once it is done.

        Who is not primary says nothing: the sender asks whoever is, as soon as it knows.
        """
        job = self._jobs.get((sender, request.number))
        if job is None and self._primary:
            answered = [key for key, old in self._jobs.items() if old.outcome is not None]
            for key in answered[: max(0, len(self._jobs) - KEPT)]:
                del self._jobs[key]
            self._jobs[sender, request.number] = _Job(sender, request, self._known.now)
        elif job is not None and job.outcome is not None:
            self._send(job, job.outcome)

    def _send(self, job: _Job, outcome: Outcome) -> None:
        job.outcome = outcome
        answer = CommandAnswer(job.request.number, outcome)
        if job.sender == self._known.me:
            self.answered(answer)
        else:
            self._out.put(Send(job.sender, answer))

    def tick(self, primary: HostId | None, term: ElectionTerm) -> None:
        """Pass commands on, and carry them out one after the other while we are primary."""
        self._primary = primary == self._known.me
        if not self._primary:
            self._jobs = {key: job for key, job in self._jobs.items() if job.outcome is not None or job.change is not None}
        self._pass_on(primary)
        for job in list(self._jobs.values()):
            if job.outcome is None:
                self._carry_out(job, term)

    def _carry_out(self, job: _Job, term: ElectionTerm) -> None:
        waited = Duration(self._known.now - job.since)
        if job.change is not None:
            if not job.change.waiting:
                self._send(job, self._written(job, job.change))
            return
        why = self._settings.why_not_now(waited=waited >= SLOW_STORAGE)
        if not why:
            outcome = self._begin(job, term)
            if outcome is not None:
                self._send(job, outcome)
        elif waited >= JOB_PATIENCE:
            self._send(job, _not_now(f"it could not be carried out: {why}"))

    def _begin(self, job: _Job, term: ElectionTerm) -> Outcome | None:
        """Begin a change of the settings record; an outcome if there is nothing to change, or it may not be."""
        known, request = self._known, job.request
        settings, pause = known.settings, known.pause
        match request.command:
            case ChangeSettings():
                changed = _changed(settings, request.command)
                if isinstance(changed, str):
                    return _refused([changed])
                found = [*problems(changed), *self._watchdog_problems(changed)]
                if found:
                    return _refused(found)
                job.changes, settings = _differences(settings, changed), changed
                if not job.changes:
                    return self._nothing("every one of them has that value already")
            case PauseRecovery():
                if pause is not None:
                    return self._nothing(pause.sentence)
                pause = Pause(request.by, request.at_ms, request.command.reason)
            case ResumeRecovery():
                if pause is None:
                    return self._nothing("automatic recovery is not paused")
                pause = None
        mark = self._settings.next_mark(term)
        record = SettingsRecord(mark=mark, settings=settings, pause=pause, by=request.by, at_ms=request.at_ms)
        job.change = self._settings.begin(record)
        return None

    def _nothing(self, sentence: str) -> Outcome:
        return Outcome(ok=True, sentences=(f"nothing to change: {sentence}",), version=self._known.mark.version)

    def _watchdog_problems(self, settings: Settings) -> list[str]:
        """Rule 6: a margin in which a host's watchdog could not reset it would take its level of enforcement from it."""
        known = self._known
        needs = {host: seen.beat.least_margin for host, seen in known.beats.items()} | {known.me: known.config.least_margin}
        return [
            f"lease_margin is {in_seconds(settings.lease_margin):g}s, but the watchdog of {known.name(host)} and the reset "
            f"need {in_seconds(need):g}s: leave it longer, or lower [watchdog] timeout in that host's file first"
            for host, need in sorted(needs.items())
            if need > settings.lease_margin
        ]

    def _written(self, job: _Job, change: Change) -> Outcome:
        problem = "; ".join(f"{name}: {why}" for name, why in sorted(change.problems.items()))
        if not change.stored:
            return _not_now(f"it could not be written on any datastore ({problem}); nothing is changed")
        mark, command = change.record.mark, job.request.command
        self._tell(job, command, mark.version)
        sentences = [f"the settings have version {mark.version} now, written on {', '.join(sorted(change.stored))}"]
        if problem:
            sentences.append(f"not written yet on {problem}")
        return Outcome(ok=True, sentences=tuple(sentences), version=mark.version, changes=job.changes)

    def _tell(self, job: _Job, command: Command, version: int) -> None:
        by, out = job.request.by, self._out
        match command:
            case PauseRecovery():
                out.note("paused", host=self._known.me, relay=True, by=by, reason=command.reason or "no reason given")
            case ResumeRecovery():
                out.note("resumed", host=self._known.me, relay=True, by=by)
            case ChangeSettings():
                told = ", ".join(f"{each.name} {each.old} -> {each.new}" for each in job.changes)
                out.note("settings-changed", host=self._known.me, relay=True, by=by, changes=told, version=version)

    def next_deadline(self) -> Instant | None:
        """When something is to be sent again, or given up."""
        due = [min(given.deadline, after(given.sent_at, RESEND)) for given in self._given.values()]
        due = [max(instant, after(self._known.now, Duration(RESEND // 5))) for instant in due]
        due += [after(self._known.now, Duration(RESEND // 5)) for job in self._jobs.values() if job.outcome is None]
        return min(due) if due else None


def _changed(settings: Settings, command: ChangeSettings) -> Settings | str:
    """The settings with the changes made, or what is wrong with one of them."""
    unknown = sorted(set(command.changes) - set(Settings.__struct_fields__))
    if unknown:
        return f"the primary knows no setting {unknown[0]}: it runs an older release"
    try:
        return msgspec.convert(msgspec.structs.asdict(settings) | command.changes, Settings)
    except msgspec.ValidationError as error:
        return f"that is not a value of this setting: {error}"


def _differences(old: Settings, new: Settings) -> tuple[SettingChange, ...]:
    before, now = msgspec.structs.asdict(old), msgspec.structs.asdict(new)
    return tuple(
        SettingChange(name, setting_text(name, before[name]), setting_text(name, now[name]))
        for name in before
        if before[name] != now[name]
    )


def _refused(sentences: list[str]) -> Outcome:
    return Outcome(ok=False, sentences=tuple(sentences))


def _not_now(sentence: str) -> Outcome:
    return Outcome(ok=False, sentences=(sentence,), try_again=True)
