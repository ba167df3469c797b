"""Reading what other hosts write: their records for verdicts and proof, their power-on lists for what they run.

Every agent watches every host's record on every datastore that it has, primary or not, so that a new primary starts with
warm windows. One read of each kind is under way per datastore at most; one that gets no answer in `READ_PATIENCE` counts
as failed, and a window with a gap in it is void (`observation`). When a silent host's window is about to elapse, the read
that proves it is started at that moment and not at the next poll: half a second of somebody's outage. So is the one that
`fencing` waits for.
"""

import msgspec

from outlast.model.effects import ReadPowerOnLists, ReadSightings
from outlast.model.events import PowerOnListsRead, SightingsRead
from outlast.model.ids import DatastoreName, HostId, RequestId
from outlast.model.keeping import Happened, Happening
from outlast.model.records import PowerOnList, Sighting
from outlast.model.time import MILLISECOND, SECOND, Duration, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox

READ_PATIENCE = Duration(3 * SECOND)
LISTS_INTERVAL = Duration(5 * SECOND)
HURRY = Duration(2 * MILLISECOND)
"""How long after the end of a window the proving read starts."""


class _Channel(msgspec.Struct):
    """The polling of one kind of record on one datastore."""

    due: Instant
    request: RequestId | None = None
    started: Instant = Instant(0)
    failed: bool = False


class DatastoreWatch:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._records = {name: _Channel(knowledge.now) for name in knowledge.datastores}
        self._lists = {name: _Channel(knowledge.now) for name in knowledge.datastores}
        self._wanted_sequence: dict[HostId, int] = {}
        self._problems: dict[tuple[HostId, DatastoreName], str] = {}
        self.due = knowledge.now
        """When the next read is to be started, or given up."""

    def tick(self) -> None:
        """Start the reads that are due."""
        now = self._known.now
        for name, channel in self._records.items():
            if self._free(channel) and now >= self._records_due(name, channel):
                channel.request, channel.started = self._out.request(), now
                channel.due = after(now, self._known.settings.datastore_poll_interval)
                self._out.put(ReadSightings(channel.request, name))
        for name, channel in self._lists.items():
            if self._free(channel) and now >= channel.due:
                channel.request, channel.started = self._out.request(), now
                channel.due = after(now, LISTS_INTERVAL)
                self._out.put(ReadPowerOnLists(channel.request, name))
        self.due = self._next_due()

    def _free(self, channel: _Channel) -> bool:
        if channel.request is not None and self._known.now - channel.started >= READ_PATIENCE:
            channel.request = None
        return channel.request is None

    def _records_due(self, name: DatastoreName, channel: _Channel) -> Instant:
        """The next poll, or the read that proves a silent host's end. Where storage refuses, hurrying helps nobody."""
        proving = None if channel.failed else self._proving_read(name)
        return channel.due if proving is None else min(channel.due, proving)

    def _proving_read(self, name: DatastoreName) -> Instant | None:
        """When the window of a silent host ends, if no read has been started after it yet."""
        ends: list[Instant] = []
        for host in self._known.silent:
            watch = self._known.watches[host, name]
            end = watch.window_ends(self._known.settings.window)
            if end is not None and watch.last_read_started is not None and watch.last_read_started < end:
                ends.append(after(end, HURRY))
        return min(ends) if ends else None

    def read_at(self, name: DatastoreName, at: Instant) -> None:
        """Somebody waits for what a read finds that begins then or later: it need not wait for the next poll."""
        channel = self._records[name]
        if not channel.failed and channel.started < at:
            channel.due = min(channel.due, max(at, self._known.now))
            self.due = self._next_due()

    def _next_due(self) -> Instant:
        due: list[Instant] = []
        for name, channel in self._records.items():
            if channel.request is None:
                due.append(self._records_due(name, channel))
            else:
                due.append(after(channel.started, READ_PATIENCE))
        for channel in self._lists.values():
            due.append(channel.due if channel.request is None else after(channel.started, READ_PATIENCE))
        return min(due)

    def sightings_read(self, event: SightingsRead) -> bool:
        """Every host's record on one datastore, read in one go.

        True if storage began or ceased to answer, or if a silent host stands otherwise than before, but for the time.
        """
        channel = self._records[event.datastore]
        if channel.request != event.request:
            return False
        news = channel.failed != (not event.ok)
        channel.request, channel.failed = None, not event.ok
        if event.ok:
            before = self._silent_ones(event.datastore)
            self._observe(event, channel.started)
            news = news or before != self._silent_ones(event.datastore)
        self.due = min(self.due, self._records_due(event.datastore, channel))
        return news

    def _silent_ones(self, datastore: DatastoreName) -> list[tuple[object, ...]]:
        known, settings = self._known, self._known.settings
        times = (known.now, settings.datastore_stale_after, settings.window)
        found: list[tuple[object, ...]] = []
        for host in known.silent:
            watch = known.watches[host, datastore]
            # The change that shows life is news, as is each one of a host that must not show any; the next ones are not.
            found.append((*watch.standing(*times), None if known.lives(host) else watch.changed_at))
        return found

    def _observe(self, event: SightingsRead, started: Instant) -> None:
        watches = self._known.watches
        for host, sighting in event.sightings.items():
            watch = watches.get((host, event.datastore))
            if watch is None:
                continue
            watch.observe(sighting, started, self._known.now)
            if sighting.problem or (host, event.datastore) in self._problems:
                self._report_problem(host, event.datastore, sighting)

    def _report_problem(self, host: HostId, datastore: DatastoreName, sighting: Sighting) -> None:
        """A torn or foreign record is reported once, and never believed."""
        problem = sighting.problem
        if sighting.raw is not None and problem and self._problems.get((host, datastore)) != problem:
            self._out.note("record-undecodable", host=host, datastore=datastore, problem=problem)
        self._problems[host, datastore] = problem

    def lists_read(self, event: PowerOnListsRead) -> bool:
        """The hosts' power-on lists on one datastore. The newest of a host's lists, over all datastores, counts.

        True if any of them is newer than what was known, or tells what an earlier agent of this host wrote.
        """
        channel = self._lists[event.datastore]
        if channel.request != event.request:
            return False
        channel.request, before = None, self._known.who_runs_what
        self.due = min(self.due, channel.due)
        news = event.ok and self._known.look_back(event.lists.get(self._known.me))
        for host, content in event.lists.items():
            if host != self._known.me and host in self._known.members:
                self._take_list(host, content)
        if any(not self._known.live(host) for host in self._known.peers):
            # And as long a break as the read took: slow storage has something more urgent to tell.
            soon = after(channel.started, self._known.settings.datastore_heartbeat_interval)
            channel.due = max(soon, after(self._known.now, Duration(self._known.now - channel.started)))
            self.due = min(self.due, channel.due)
        return news or self._known.who_runs_what != before

    def _take_list(self, host: HostId, content: PowerOnList) -> None:
        old = self._known.power_on.get(host)
        if old is None or content.sequence > old.sequence:
            self._known.take_list(content)

    def list_announced(self, host: HostId, sequence: int) -> None:
        """A heartbeat says that the host's list has changed: read it now, not at the next round."""
        if self._wanted_sequence.get(host) != sequence:
            self._wanted_sequence[host] = sequence
            for channel in self._lists.values():
                channel.due = min(channel.due, self._known.now)
            self.due = self._known.now

    def keeper_did(self, happened: Happened) -> None:
        """Rule 5: an observer's windows are void if its own lease lapsed."""
        if happened.kind is Happening.LEASE_LAPSED and happened.datastore is not None:
            self.void(happened.datastore)

    def void(self, datastore: DatastoreName) -> None:
        """Start every window on this datastore anew."""
        for host in self._known.members:
            self._known.watches[host, datastore].void()
