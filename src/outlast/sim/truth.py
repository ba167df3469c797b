"""What is true about one boot's leases, judged from its heartbeat writes alone and not by what its keeper believes.

A lease is good until the start of the last write that was confirmed in time + the lease that its record names, on the
host's own clock (safety rule 2). As soon as a record begins to be written that names a shorter one, somebody may read it:
from then on the shorter one counts for the last write too. `terms` counts the unbroken runs of such renewals, whichever
keeper sessions made them; `began` is when the last one began, `lapsed` when the one before it ended.
"""

from outlast.model.ids import DatastoreName, Nonce
from outlast.model.time import Instant


class LeaseTruth:
    """See the top of this file."""

    def __init__(self) -> None:
        self._started: dict[tuple[DatastoreName, int], tuple[Instant, int]] = {}
        self._granted_from: dict[DatastoreName, Instant] = {}
        self.deadlines: dict[DatastoreName, Instant] = {}
        self.terms: dict[DatastoreName, int] = {}
        self.began: dict[DatastoreName, Instant] = {}
        self.lapsed: dict[DatastoreName, Instant] = {}
        self._issued: dict[Nonce, int] = {}

    def keeper_began(self) -> None:
        """A new keeper session numbers its writes anew; what an earlier one asked for is confirmed to nobody."""
        self._started.clear()

    def write_began(self, datastore: DatastoreName, sequence: int, clock: Instant, lease: int) -> None:
        """The keeper asks for a heartbeat write, of a record that names a lease of that length."""
        self._started[datastore, sequence] = (clock, lease)
        if self.holds(datastore, clock):
            self.deadlines[datastore] = min(self.deadlines[datastore], Instant(self._granted_from[datastore] + lease))

    def write_ended(self, datastore: DatastoreName, sequence: int, ok: bool, clock: Instant) -> bool:
        """The keeper hears how it ended. True if the lease is good for longer than before."""
        started, lease = self._started.pop((datastore, sequence), (None, 0))
        if started is None or not ok or started + lease <= clock:
            return False
        if not self.holds(datastore, clock):
            self.terms[datastore] = self.terms.get(datastore, 0) + 1
            self.began[datastore] = clock
            if datastore in self.deadlines:
                self.lapsed[datastore] = self.deadlines[datastore]
        self._granted_from[datastore] = started
        self.deadlines[datastore] = Instant(started + lease)
        return True

    def void(self, datastore: DatastoreName, clock: Instant) -> None:
        """A foreign record lay in our place (safety rule 9): the lease is over."""
        if self.holds(datastore, clock):
            self.deadlines[datastore] = clock

    def holds(self, datastore: DatastoreName, clock: Instant) -> bool:
        """Whether the lease is good."""
        deadline = self.deadlines.get(datastore)
        return deadline is not None and clock < deadline

    def link_began(self, datastore: DatastoreName, nonce: Nonce, clock: Instant) -> None:
        """The keeper asks for a link: remembered with the term, 0 while there is none."""
        self._issued[nonce] = self.term(datastore) if self.holds(datastore, clock) else 0

    def grants(self, datastore: DatastoreName, nonce: Nonce, clock: Instant) -> bool:
        """Whether that link was issued within the present unbroken term (safety rule 3)."""
        return self.holds(datastore, clock) and self._issued.get(nonce) == self.term(datastore)

    def term(self, datastore: DatastoreName) -> int:
        """The number of the last term; 0 before the first."""
        return self.terms.get(datastore, 0)
