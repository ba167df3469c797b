"""The host lease on one datastore: the right to run the VMs that the host owns there, for a while (safety rule 2).

A timely heartbeat write grants the lease until *the start of that write* + its length, on this host's own CLOCK_BOOTTIME.
The length is `lease_duration`, or less while that setting changes (`lease_length.py`). The start, not the end: an
observer may have seen the record the moment the write began, and counts its window from there. An unbroken run of
renewals is a *term*. A renewal that completes after the deadline extends nothing; it begins a new term, and what was
frozen at the lapse has to be re-asserted in it.

    state    event                                 next     result
    lapsed   write ends in time (start+duration)   held     NEW_TERM
    lapsed   write ends late or fails              lapsed   NOTHING
    held     write ends before the deadline        held     EXTENDED
    held     the deadline passes                   lapsed   (lapse() is True)
    held     write ends after the deadline         the deadline passed first: lapsed, then as above
    held     the length becomes shorter            held     the deadline is counted anew from the same start

The machine has at most one write under way: a second could land before the first and be overwritten by it.
"""

import enum

import msgspec

from outlast.model.ids import Incarnation, LeaseTerm
from outlast.model.latency import Latencies
from outlast.model.records import Enforcement
from outlast.model.settings import Settings
from outlast.model.time import Duration, Instant, after

SLOW = 12
"""A datastore is slow when a write takes this part of the lease, until one takes half of that: long before it is lost."""


class Renewal(enum.Enum):
    """What the end of a heartbeat write meant for the lease."""

    NOTHING = enum.auto()
    EXTENDED = enum.auto()
    NEW_TERM = enum.auto()


class Adopted(msgspec.Struct, frozen=True):
    """A lease that this boot's previous keeper session published (safety rule 8)."""

    deadline: Instant
    length: Duration


class Lease:
    """The lease of this host on one datastore. Time comes in as arguments; nothing is done here, only decided."""

    def __init__(self, settings: Settings, now: Instant, adopted: Adopted | None = None) -> None:
        """`adopted`: if it has not expired, and is not longer than it says, which would be another boot's clock."""
        self._interval = settings.datastore_heartbeat_interval
        self._writing: tuple[int, Instant] | None = None
        self._written_for = Duration(0)
        self._write_due = now
        self.sequence = 0
        self.took = Duration(0)
        """How long the last write took that ended, whatever came of it."""
        self.usual = Duration(0)
        """How long a write takes of late that is confirmed: each one moves it an eighth of the way."""
        self.slow = False
        self.latencies = Latencies()
        """How long all of them took that were confirmed."""
        self.length = settings.lease_duration
        self.deadline: Instant | None = None
        self._granted_from = now
        self.lapsed_at = now
        """When it was found to be over the last time, or its storage to be there; at first, when its holder began."""
        self.term = LeaseTerm(0)
        if adopted is not None and now < adopted.deadline <= after(now, adopted.length):
            self._granted_from = Instant(adopted.deadline - adopted.length)
            self.deadline = min(adopted.deadline, after(self._granted_from, self.length))
            self.term = LeaseTerm(1)

    @property
    def granted_for(self) -> Duration:
        """How long after the start of the write on which it rests the present lease ends."""
        return Duration(self.deadline - self._granted_from) if self.deadline is not None else Duration(0)

    def renew_every(self, interval: Duration) -> None:
        """How often a heartbeat is written from now on."""
        self._interval = interval

    def take_length(self, length: Duration) -> bool:
        """From now on the lease is that long. True if that has brought its end nearer: it may be over; judge it again."""
        self.length = length
        sooner = after(self._granted_from, length)
        if self.deadline is None or self.deadline <= sooner:
            return False
        self.deadline = sooner
        return True

    @property
    def held(self) -> bool:
        """Whether the lease was good when last judged; `lapse` judges it."""
        return self.deadline is not None

    def left(self, now: Instant) -> Duration:
        """How much of the present term is left; zero when lapsed."""
        return Duration(max(0, self.deadline - now)) if self.deadline is not None else Duration(0)

    def lapse(self, now: Instant) -> bool:
        """True once, when the deadline has passed: what runs on this lease must be frozen now (safety rule 4)."""
        if self.deadline is None or now < self.deadline:
            return False
        self.deadline, self.lapsed_at = None, now
        return True

    def void(self, now: Instant) -> bool:
        """Give the lease up at once (our place on the datastore holds a foreign record). True if it was held."""
        if self.deadline is None:
            return False
        self.deadline, self.lapsed_at = None, now
        return True

    def begin_write(self, now: Instant) -> int | None:
        """The sequence number of the write to start now, or None if none is due."""
        if self._writing is not None or now < self._write_due:
            return None
        self.sequence += 1
        self._writing, self._written_for = (self.sequence, now), self.length
        self._write_due = after(now, self._interval)
        return self.sequence

    def hurry(self, now: Instant) -> None:
        """What the record says has changed in a way that observers must know: the next write is due at once."""
        self._write_due = now

    def end_write(self, sequence: int, ok: bool, now: Instant) -> Renewal:
        """A write ended at `now`. `lapse(now)` must have been judged before, so that a late end finds it lapsed."""
        if self._writing is None or self._writing[0] != sequence:
            return Renewal.NOTHING
        started, self._writing = self._writing[1], None
        self.took = Duration(now - started)
        if not ok:
            retry = Duration(self._interval // 2)
            self._write_due = after(now, retry)
            return Renewal.NOTHING
        self.usual = Duration((7 * self.usual + self.took) // 8) if self.usual else self.took
        self.latencies = self.latencies.and_one(self.took)
        self.slow = self.usual * (2 * SLOW if self.slow else SLOW) >= self.length
        granted_until = after(started, min(self.length, self._written_for))
        if granted_until <= now:
            self.lapsed_at = now  # Too late for this write, but the storage is there: whatever was lost is found again.
            return Renewal.NOTHING
        self._granted_from = started
        if self.deadline is None:
            self.term = LeaseTerm(self.term + 1)
            self.deadline = granted_until
            return Renewal.NEW_TERM
        self.deadline = granted_until
        return Renewal.EXTENDED

    def next_deadline(self) -> Instant | None:
        """When to be called again: the lapse, or the next write."""
        due = [t for t in (self.deadline, None if self._writing else self._write_due) if t is not None]
        return min(due) if due else None


class Place(msgspec.Struct):
    """This host's standing on one datastore. `problem`: what the storage said last, empty when it is well.

    `refusals`: how many writes in a row it has answered with an error at once (`protocol/renouncing.py`).
    """

    lease: Lease
    incarnation: Incarnation | None = None
    problem: str = ""
    refusals: int = 0
    writing: Enforcement | None = None
    published: Enforcement | None = None
    """The enforcement level in the write that is under way, and in the last one that was confirmed."""
