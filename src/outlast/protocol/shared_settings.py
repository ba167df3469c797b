"""The fault domain's settings: which record is the newest, how it reaches every host and datastore, and how it is changed.

One record holds all settings, with a mark that says which of two is newer (`model/settings.py`). It lies on every
datastore, on every host, and in every agent; whoever meets a newer one takes it, and nobody ever takes an older one.

    where it is met                      what happens
    a heartbeat says a newer mark        its sender is asked for the record
    a datastore has a newer one          taken; every agent looks now and then, so also one that nobody can talk to,
                                         and oftener then (`Responsibility.look_every`)
    a datastore has an older one         whoever is responsible for that datastore writes ours there
    our keeper uses older ones           it is told

A change is made by the primary, and by it alone: it has read what lies on the datastores that it is responsible for,
makes the next version, and writes it there. Only what one datastore has confirmed is taken and told to anybody, so that
no host acts on settings that a loss of power could take back. Two primaries that do not hear each other may both make a
version, if each is responsible for a datastore: one of the two records wins everywhere when they meet, and the loss of
the other is told.

That hosts use different settings for a while is nothing that safety rests on; what does is in `lease_length.py`.
"""

import msgspec

from outlast.model.effects import AskKeeper, KeepSettings, ReadSettings, Send, WriteSettings
from outlast.model.events import SettingsRead, Stored
from outlast.model.ids import DatastoreName, ElectionTerm, Epoch, HostId, RequestId
from outlast.model.keeping import KeeperReport, UseSettings
from outlast.model.messages import SettingsNotice, SettingsWanted
from outlast.model.settings import SettingsMark, SettingsRecord, StoredSettings, problems
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.responsibility import Responsibility

PATIENCE = Duration(3 * SECOND)
AS_GOOD_AS_NEW = Duration(2 * SECOND)


class _Copy(msgspec.Struct):
    """What one datastore has. `read_as`: the epoch by which we were responsible for it when we last read it."""

    due: Instant
    mark: SettingsMark = SettingsMark()
    sequence: int = 0
    read_as: Epoch | None = None
    request: RequestId | None = None
    asked_at: Instant = LONG_AGO
    looked_at: Instant = LONG_AGO
    reading_as: Epoch | None = None
    write_after: Instant = LONG_AGO
    problem: str = ""
    writing: SettingsRecord | None = None


class Change(msgspec.Struct):
    """A record that is being written for the first time. `waiting`: the datastores that have not said how it went."""

    record: SettingsRecord
    waiting: set[DatastoreName]
    stored: set[DatastoreName]
    problems: dict[DatastoreName, str]


class SharedSettings:
    """See the top of this file. `taken`: other settings were taken since it was last set to False.

    `due`: when the next look is, or the end of a wait.
    """

    def __init__(self, knowledge: Knowledge, outbox: Outbox, responsibility: Responsibility) -> None:
        self._known = knowledge
        self._out = outbox
        self._responsible = responsibility
        self._copies = {name: _Copy(knowledge.now) for name in knowledge.datastores}
        self._change: Change | None = None
        self.taken = False
        self.due = knowledge.now
        self._refused: SettingsMark | None = None

    # -- turns ----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Read what is due, and write where we are responsible and an older record lies."""
        for name, copy in self._copies.items():
            if copy.request is not None and self._known.now - copy.asked_at >= PATIENCE:
                self._ended(name, copy, "its storage gave no answer in time")
            held = self._responsible.holds(name)
            if held is not None and copy.read_as != held:
                # What lay there before may have been written over by whoever was responsible until now.
                copy.due = min(copy.due, after(copy.asked_at, SECOND))
            if copy.request is not None:
                continue
            copy.due = min(copy.due, after(copy.asked_at, self._responsible.look_every(name)))
            wanted = self._to_write(name, copy, held)
            if wanted is not None:
                self._write(name, copy, wanted)
            elif self._known.now >= copy.due:
                self.look(name)
        self.due = self._next_deadline()

    def look(self, name: DatastoreName) -> None:
        """Read the record of a datastore now, unless something is under way there already."""
        copy = self._copies[name]
        if copy.request is None:
            copy.request, copy.asked_at = self._out.request(), self._known.now
            copy.reading_as = self._responsible.holds(name)
            self._out.put(ReadSettings(copy.request, name))
            self.due = min(self.due, after(self._known.now, PATIENCE))

    def look_before_act(self, name: DatastoreName) -> None:
        """Whoever is about to act asks whether recovery is paused: a look that is as good as new is not made twice.

        Its answer comes before that of whatever is read there next: a datastore's helper does one thing after the other.
        """
        if self._known.now - self._copies[name].looked_at >= AS_GOOD_AS_NEW:
            self.look(name)

    def _to_write(self, name: DatastoreName, copy: _Copy, held: Epoch | None) -> SettingsRecord | None:
        ours = held is not None and copy.read_as == held
        if self._change is not None and name in self._change.waiting:
            if ours:
                return self._change.record
            self._change.waiting.discard(name)
            self._change.problems[name] = "another agent became responsible for it meanwhile"
        record = self._known.record
        old = ours and record is not None and copy.mark < record.mark
        return record if old and self._known.now >= copy.write_after else None

    def _write(self, name: DatastoreName, copy: _Copy, record: SettingsRecord) -> None:
        copy.request, copy.asked_at, copy.writing = self._out.request(), self._known.now, record
        copy.sequence += 1
        self._out.put(WriteSettings(copy.request, name, StoredSettings(copy.sequence, record)))

    def _ended(self, name: DatastoreName, copy: _Copy, problem: str) -> None:
        """A read or a write ended, or is waited for no longer."""
        copy.request, copy.due = None, after(self._known.now, self._responsible.look_every(name))
        written, copy.writing = copy.writing, None
        if written is None:
            return
        if problem:
            copy.write_after = after(self._known.now, SECOND)
        change = self._change
        if change is not None and written is change.record and name in change.waiting:
            change.waiting.discard(name)
            if problem:
                change.problems[name] = problem
            else:
                change.stored.add(name)

    def _next_deadline(self) -> Instant:
        due: list[Instant] = []
        for copy in self._copies.values():
            due.append(after(copy.asked_at, PATIENCE) if copy.request is not None else copy.due)
            if copy.request is None and self._known.now < copy.write_after:
                due.append(copy.write_after)
        return min(due)

    # -- storage answers ------------------------------------------------------------------------------------------

    def settings_read(self, event: SettingsRead) -> bool:
        """What lies on a datastore. Returns whether it is news."""
        copy = self._copies[event.datastore]
        if copy.request != event.request:
            return False
        self._ended(event.datastore, copy, "")
        if not event.ok:
            return True
        copy.looked_at = copy.asked_at
        before = (copy.read_as, copy.mark)
        copy.read_as = copy.reading_as
        copy.mark = event.stored.record.mark if event.stored is not None else SettingsMark()
        copy.sequence = max(copy.sequence, event.stored.sequence if event.stored is not None else 0)
        if event.stored is not None:
            self.take(event.stored.record)
        if event.problem and event.problem != copy.problem:
            self._out.note("settings-unreadable", datastore=event.datastore, problem=event.problem)
        copy.problem = event.problem
        return (copy.read_as, copy.mark) != before or copy.mark != self._known.mark

    def stored(self, event: Stored) -> bool:
        """The record was written on a datastore, or could not be. True if it is about that."""
        copy = self._copies.get(event.datastore)
        if copy is None or copy.request != event.request or copy.writing is None:
            return False
        record = copy.writing
        self._ended(event.datastore, copy, "" if event.ok else event.problem or "it was not written")
        if event.ok:
            copy.mark = record.mark
            self.take(record)
        return True

    # -- other agents, and our keeper -----------------------------------------------------------------------------

    def heard(self, sender: HostId, mark: SettingsMark) -> None:
        """A heartbeat says which settings its sender uses."""
        if mark > self._known.mark:
            self._out.put(Send(sender, SettingsWanted()))

    def wanted_by(self, sender: HostId) -> None:
        """Somebody has older settings than we."""
        if self._known.record is not None:
            self._out.put(Send(sender, SettingsNotice(self._known.record)))

    def keeper_reports(self, report: KeeperReport) -> None:
        """A keeper that has just begun, or did not hear us, uses what its host had kept."""
        if report.settings < self._known.mark:
            self._tell_keeper()

    def take(self, record: SettingsRecord) -> None:
        """A record that may be newer than ours."""
        before = self._known.record
        if record.mark <= self._known.mark:
            return
        found = problems(record.settings)
        if found:
            if record.mark != self._refused:
                self._refused = record.mark
                self._out.note("settings-refused", version=record.mark.version, by=record.by, problem=found[0])
            return
        if before is not None and before.mark.version == record.mark.version:
            self._out.note("settings-superseded", version=before.mark.version, by=before.by, instead=record.by, relay=True)
        self._known.take_record(record)
        self.taken = True
        self._out.put(KeepSettings(record))
        self._tell_keeper()
        self._out.note("settings-taken", host=self._known.me, version=record.mark.version, by=record.by)

    def _closed(self) -> str:
        return self._known.record.closed(self._known.me) if self._known.record is not None else ""

    def _tell_keeper(self) -> None:
        self._out.put(AskKeeper(UseSettings(self._known.settings, self._known.mark, self._closed())))

    # -- changes --------------------------------------------------------------------------------------------------

    def why_not_now(self, *, waited: bool) -> str:
        """Why this primary can change nothing just now, or an empty string. `waited`: long enough for slow storage."""
        held = {name: epoch for name in self._copies if (epoch := self._responsible.holds(name)) is not None}
        if not held:
            return "the primary is not responsible for any datastore yet, so the change would be written nowhere"
        if self._change is not None and self._change.waiting:
            return "another change is being written"
        unread = sorted(name for name, epoch in held.items() if self._copies[name].read_as != epoch)
        if len(unread) == len(held) or (unread and not waited):
            return f"the settings on {', '.join(unread)} cannot be read"
        return ""

    def next_mark(self, term: ElectionTerm) -> SettingsMark:
        """What the next record is to be marked with."""
        highest = max([self._known.mark, *(copy.mark for copy in self._copies.values())])
        return SettingsMark(highest.version + 1, term, self._known.me)

    def begin(self, record: SettingsRecord) -> Change:
        """Write a record that nobody has yet on every datastore that this agent is responsible for and knows."""
        held = {n for n, c in self._copies.items() if c.read_as is not None and c.read_as == self._responsible.holds(n)}
        self._change = Change(record, held, set(), {})
        return self._change
