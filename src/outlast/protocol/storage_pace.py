"""A datastore that answers slowly, but steadily, is told of before it hurts: its lease holds still, no VM is frozen yet.

The keeper measures how long its heartbeat writes take (`lease.Lease.usual`), and calls a datastore slow long before a write
could come too late. Nothing is decided by it; people hear of it when it begins and when it is over.
"""

from outlast.model.ids import DatastoreName
from outlast.model.keeping import LeaseReport
from outlast.model.time import MILLISECOND, in_seconds
from outlast.protocol.knowledge import Knowledge, Outbox


class StoragePace:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._told: set[DatastoreName] = set()

    def tick(self) -> None:
        """Tell of what has become slow, and of what is not any more."""
        for lease in self._known.leases:
            if lease.slow and lease.datastore not in self._told:
                self._told.add(lease.datastore)
                self._note("datastore-slow", lease)
            elif lease.held and not lease.slow and lease.datastore in self._told:
                self._told.remove(lease.datastore)
                self._note("datastore-quick", lease)

    def _note(self, kind: str, lease: LeaseReport) -> None:
        self._out.note(kind, host=self._known.me, datastore=lease.datastore, relay=True, takes=_takes(lease))

    def problems(self) -> list[str]:
        """What this host's datastores are slow at, for its status."""
        length = in_seconds(self._known.settings.lease_duration)
        return [
            f"{lease.datastore} is slow here: a heartbeat write takes {_takes(lease)}, and the lease lasts {length:g} s"
            for lease in self._known.leases
            if lease.slow
        ]


def _takes(lease: LeaseReport) -> str:
    return f"{in_seconds(lease.write_ms * MILLISECOND):.1f} s"
