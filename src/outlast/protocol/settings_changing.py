"""The primary's part in a change of the settings record: whether it may be, what it is, and what is said about it.

    a command                                   until
    waits                                       the settings can be changed: one change at a time, and what lies on storage
                                                is known; or JOB_PATIENCE
    its record is being written                 every datastore has said how it went, or gives no answer

How a record is written, and reaches everybody, is in `shared_settings.py`.
"""

from collections.abc import Callable

import msgspec

from outlast.model.commands import (
    ChangeSettings,
    Command,
    DrainHost,
    EndReturn,
    Outcome,
    PauseRecovery,
    ResumeRecovery,
    SettingChange,
    UndrainHost,
)
from outlast.model.ids import ElectionTerm, HostId
from outlast.model.messages import CommandRequest
from outlast.model.settings import Pause, Settings, SettingsRecord, problems, setting_text
from outlast.model.time import SECOND, Duration, Instant, in_seconds
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.maintenance_record import HostsKept, changed_by, hosts_kept
from outlast.protocol.shared_settings import Change, SharedSettings

JOB_PATIENCE = Duration(9 * SECOND)
SLOW_STORAGE = Duration(4 * SECOND)


class SettingsWork(msgspec.Struct):
    """One command. `dropped`: this agent is not primary any more, and its successor will be asked."""

    request: CommandRequest
    since: Instant
    change: Change | None = None
    changes: tuple[SettingChange, ...] = ()
    outcome: Outcome | None = None
    dropped: bool = False


class SettingsChanger:
    """See the top of this file. `term`: the term of the election, as it is then."""

    def __init__(
        self, knowledge: Knowledge, outbox: Outbox, shared: SharedSettings, term: Callable[[], ElectionTerm]
    ) -> None:
        self._known = knowledge
        self._out = outbox
        self._shared = shared
        self._term = term
        self._works: list[SettingsWork] = []

    def take(self, request: CommandRequest) -> SettingsWork:
        """A command to carry out."""
        work = SettingsWork(request, self._known.now)
        self._works.append(work)
        return work

    def tick(self, *, primary: bool) -> None:
        """Go on with every command that is not done."""
        for work in self._works:
            if work.change is not None:
                if not work.change.waiting:
                    work.outcome = self._written(work, work.change)
            elif primary:
                work.outcome = self._try(work)
            else:
                work.dropped = True
        self._works = [work for work in self._works if work.outcome is None and not work.dropped]

    def _try(self, work: SettingsWork) -> Outcome | None:
        waited = Duration(self._known.now - work.since)
        why = self._shared.why_not_now(waited=waited >= SLOW_STORAGE)
        if not why:
            return self._begin(work)
        return _not_now(f"it could not be carried out: {why}") if waited >= JOB_PATIENCE else None

    def _begin(self, work: SettingsWork) -> Outcome | None:
        """Begin to write another record; an outcome if there is nothing to change, or it may not be."""
        known, request = self._known, work.request
        settings, pause, kept = known.settings, known.pause, hosts_kept(known)
        match request.command:
            case ChangeSettings():
                changed = _changed(settings, request.command)
                wrong = [changed] if isinstance(changed, str) else self._problems(changed)
                if wrong or isinstance(changed, str):
                    return Outcome(ok=False, sentences=tuple(wrong))
                work.changes, settings = _differences(settings, changed), changed
                if not work.changes:
                    return self._nothing("every one of them has that value already")
            case PauseRecovery():
                if pause is not None:
                    return self._nothing(pause.sentence)
                pause = Pause(request.by, request.at_ms, request.command.reason)
            case ResumeRecovery():
                if pause is None:
                    return self._nothing("automatic recovery is not paused")
                pause = None
            case DrainHost() | UndrainHost() | EndReturn():
                found = changed_by(known, kept, request)
                if not isinstance(found, HostsKept):
                    return self._nothing(found)
                kept = found
        mark = self._shared.next_mark(self._term())
        work.change = self._shared.begin(
            SettingsRecord(
                mark=mark,
                settings=settings,
                pause=pause,
                maintenance=kept.maintenance,
                returning=kept.returning,
                by=request.by,
                at_ms=request.at_ms,
            )
        )
        return None

    def _nothing(self, sentence: str) -> Outcome:
        return Outcome(ok=True, sentences=(f"nothing to change: {sentence}",), version=self._known.mark.version)

    def _problems(self, settings: Settings) -> list[str]:
        """What does not hold together; also a margin in which some host's watchdog could not reset it (rule 6)."""
        known = self._known
        needs = {host: seen.beat.least_margin for host, seen in known.beats.items()} | {known.me: known.config.least_margin}
        return problems(settings) + [
            f"lease_margin is {in_seconds(settings.lease_margin):g}s, but the watchdog of {known.name(host)} and the reset "
            f"need {in_seconds(need):g}s: leave it longer, or lower [watchdog] timeout in that host's file first"
            for host, need in sorted(needs.items())
            if need > settings.lease_margin
        ]

    def _written(self, work: SettingsWork, change: Change) -> Outcome:
        problem = "; ".join(f"{name}: {why}" for name, why in sorted(change.problems.items()))
        if not change.stored:
            return _not_now(f"it could not be written on any datastore ({problem}); nothing is changed")
        version = change.record.mark.version
        self._tell(work, version)
        sentences = [
            f"{self._done(work.request.command)} (settings version {version}, on {', '.join(sorted(change.stored))})"
        ]
        if problem:
            sentences.append(f"not written yet on {problem}")
        return Outcome(ok=True, sentences=tuple(sentences), version=version, changes=work.changes)

    def _done(self, command: Command) -> str:
        match command:
            case DrainHost(host=host):
                return f"{self._known.name(HostId(host))} is kept empty from now on"
            case UndrainHost(host=host):
                return f"{self._known.name(HostId(host))} may be used again"
            case PauseRecovery():
                return "automatic recovery is paused: nothing is restarted until `outlast resume`"
            case ResumeRecovery():
                return "automatic recovery goes on"
            case _:
                return "the settings are changed"

    def _tell(self, work: SettingsWork, version: int) -> None:
        by, out, me = work.request.by, self._out, self._known.me
        match work.request.command:
            case PauseRecovery(reason):
                out.note("paused", host=me, relay=True, by=by, reason=reason or "no reason given")
            case ResumeRecovery():
                out.note("resumed", host=me, relay=True, by=by)
            case DrainHost(host, reason):
                out.note("host-drained", host=HostId(host), relay=True, by=by, reason=reason or "no reason given")
            case UndrainHost(host):
                out.note("host-undrained", host=HostId(host), relay=True, by=by)
            case EndReturn(host):
                out.note("return-ended", host=HostId(host), relay=True)
            case ChangeSettings():
                told = ", ".join(f"{each.name} {each.old} -> {each.new}" for each in work.changes)
                out.note("settings-changed", host=me, relay=True, by=by, changes=told, version=version)


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


def _not_now(sentence: str) -> Outcome:
    return Outcome(ok=False, sentences=(sentence,), try_again=True)
