"""A datastore that answers slowly, but steadily, is told of before it hurts: its lease holds still, no VM is frozen yet.

The keeper measures how long its heartbeat writes take (`lease.Lease.usual`), and calls a datastore slow long before a write
could come too late. Nothing is decided by it; people hear of it when it begins and when it is over, with how the writes of
the last ten minutes were spread: a few that take long are another trouble than many that take a little longer.
"""

from collections import defaultdict, deque

from outlast.model.ids import DatastoreName
from outlast.model.keeping import LeaseReport
from outlast.model.latency import Latencies, took
from outlast.model.time import MILLISECOND, SECOND, Duration, Instant, in_seconds
from outlast.protocol.knowledge import Knowledge, Outbox

MARK_EVERY = Duration(60 * SECOND)
MARKS = 10


class StoragePace:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._told: set[DatastoreName] = set()
        self._marks: defaultdict[DatastoreName, deque[tuple[Instant, Latencies]]] = defaultdict(lambda: deque(maxlen=MARKS))
        """What was counted at the end of each of the last minutes, the oldest first."""

    def tick(self) -> None:
        """Tell of what has become slow, and of what is not any more."""
        for lease in self._known.leases:
            if lease.slow and lease.datastore not in self._told:
                self._told.add(lease.datastore)
                self._note("datastore-slow", lease)
            elif lease.held and not lease.slow and lease.datastore in self._told:
                self._told.remove(lease.datastore)
                self._note("datastore-quick", lease)

    def counted(self) -> None:
        """The keeper has reported: also when nothing else is news."""
        for lease in self._known.leases:
            marks = self._marks[lease.datastore]
            if not marks or self._known.now - marks[-1][0] >= MARK_EVERY:
                marks.append((self._known.now, lease.writes))

    def recent(self, lease: LeaseReport) -> Latencies:
        """How long the writes of the last ten minutes took; all that the keeper counted, if this agent has seen none."""
        marks = self._marks.get(lease.datastore)
        recent = lease.writes.since(marks[0][1]) if marks else lease.writes
        return recent if recent.number else lease.writes

    def _note(self, kind: str, lease: LeaseReport) -> None:
        host, recent = self._known.me, self.recent(lease).sentence
        self._out.note(kind, host=host, datastore=lease.datastore, relay=True, takes=_takes(lease), writes=recent)

    def problems(self) -> list[str]:
        """What this host's datastores are slow at, for its status."""
        length = in_seconds(self._known.settings.lease_duration)
        return [
            f"{lease.datastore} is slow here: a heartbeat write takes {_takes(lease)}, and the lease lasts {length:g} s; "
            f"{self.recent(lease).sentence}"
            for lease in self._known.leases
            if lease.slow
        ]

    def explain(self, name: DatastoreName) -> list[str]:
        """How many of this host's writes took how long."""
        lease = self._known.lease(name)
        recent = self.recent(lease) if lease is not None else Latencies()
        if not recent.number:
            return []
        spread = ", ".join(f"{count} {took(i)}" for i, count in enumerate(recent.counts) if count)
        return [f"Its last {recent.number} heartbeat writes from here: {spread}."]


def _takes(lease: LeaseReport) -> str:
    return f"{in_seconds(lease.write_ms * MILLISECOND):.1f} s"
