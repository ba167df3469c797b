"""What one observer knows of one host's record on one datastore, and when that becomes proof.

Two questions are asked of the same reads, and they are not the same question. *Is it fresh?* moves verdicts and may be
wrong. *Is the lease over?* (`lease_is_over`) lets a VM be started elsewhere and may not: it follows rule 5 of design.md
section 2 word by word. The window is counted on the observer's clock from the *completion* of the read that first showed
the record; it is void if reads had a gap, or if the observer's own lease lapsed; the last read must have *started* after
the window elapsed and after the owner's epoch was read.

    what a read found                    freshness                            window
    bytes that decode, changed           fresh                                begins
    bytes that decode, as before         fresh, then stale                    goes on
    bytes that do not decode, changed    fresh: any change is life            void
    bytes that do not decode, as before  fresh while the change is new,       void
                                         then unknown, never stale
    nothing (missing, an error)          unknown                              void

What cannot be decoded (torn, foreign, of another format) may grant a lease of a length that we do not know. A record says
itself how long its window is: while settings are being changed, the longer of the owner's and the observer's counts.
"""

import enum
from collections.abc import Iterator

from outlast.model.ids import Incarnation
from outlast.model.records import HeartbeatRecord, Sighting
from outlast.model.time import Duration, Instant, after


class Freshness(enum.StrEnum):
    """Whether a record's bytes changed lately. Unreadable is UNKNOWN, never STALE."""

    FRESH = "fresh"
    STALE = "stale"
    UNKNOWN = "unknown"


class RecordWatch:
    """One host's record on one datastore, as this observer has seen it."""

    def __init__(self, max_gap: Duration) -> None:
        """`max_gap`: two successful reads further apart than this do not belong to one window."""
        self.max_gap = max_gap
        self._raw: bytes | None = None
        self.record: HeartbeatRecord | None = None
        self.incarnation: Incarnation | None = None
        self.problem = "not read yet"
        self.first_seen: Instant | None = None
        self.changed_at: Instant | None = None
        self.progress_at: Instant | None = None
        self.last_read: Instant | None = None
        self.last_read_started: Instant | None = None
        self.looked_at: Instant | None = None
        """When the last read began that found bytes, whether they decode or not."""

    def observe(self, sighting: Sighting, started: Instant, now: Instant) -> bool:
        """A read that began at `started` and completed at `now`. True if the bytes changed: the host lives."""
        if sighting.incarnation is not None:
            self.incarnation = max(self.incarnation or sighting.incarnation, sighting.incarnation)
        self.problem = sighting.problem
        if sighting.raw is None:
            self.void()
            return False
        self.looked_at = started
        gap = self.last_read is not None and now - self.last_read > self.max_gap
        if sighting.raw == self._raw and sighting.record is not None and self.first_seen is not None and not gap:
            self.last_read, self.last_read_started = now, started
            return False  # As before, and whole: the usual case.
        changed = self._raw is not None and sighting.raw != self._raw
        if changed:
            self.changed_at = now
        self._raw = sighting.raw
        self.last_read = now
        if sighting.record is None:
            self.first_seen, self.last_read_started = None, None
            return changed
        if changed or gap or self.first_seen is None:
            self.first_seen = now
        self.last_read_started = started
        self._note_progress(sighting.record, now)
        self.record = sighting.record
        return changed

    def _note_progress(self, record: HeartbeatRecord, now: Instant) -> None:
        old = self.record
        if old is None or (old.agent_progress, old.boot_id) != (record.agent_progress, record.boot_id):
            self.progress_at = now

    def void(self) -> None:
        """Start the window anew: the observer's own lease lapsed, or the record could not be read."""
        self.first_seen = None
        self.last_read = None
        self.last_read_started = None
        self.looked_at = None

    def freshness(self, now: Instant, stale_after: Duration) -> Freshness:
        """Fresh until the bytes have not changed for `stale_after`; unknown while nothing can be said."""
        if self.last_read is None or now - self.last_read > self.max_gap:
            return Freshness.UNKNOWN
        if self.changed_at is not None and now - self.changed_at < stale_after:
            return Freshness.FRESH
        if self.first_seen is None or now - self.first_seen < self._longest(stale_after):
            return Freshness.UNKNOWN
        return Freshness.STALE

    def standing(self, now: Instant, stale_after: Duration, window: Duration) -> tuple[object, ...]:
        """All that verdicts and proofs ask of it but times, which `turns` and `window_ends` tell."""
        record, since = self.record, self.first_seen
        return (
            record and (record.boot_id, record.incarnation, record.enforcement, record.window, record.ended),
            self.incarnation,
            self.problem,
            since is None,
            self.freshness(now, stale_after),
            self.agent_works(now, window),
            since is not None and self.lease_is_over(since, window),
        )

    def turns(self, stale_after: Duration, window: Duration) -> Iterator[Instant]:
        """When `freshness` and `agent_works` change their answers by time alone, past and to come."""
        if self.last_read is not None:
            yield Instant(self.last_read + self.max_gap + 1)
        if self.changed_at is not None:
            yield after(self.changed_at, stale_after)
        if self.first_seen is not None:
            yield after(self.first_seen, self._longest(stale_after))
        if self.progress_at is not None:
            yield after(self.progress_at, window)

    def _longest(self, window: Duration) -> Duration:
        return window if self.record is None else max(window, self.record.window)

    def window_ends(self, window: Duration) -> Instant | None:
        """When the window (the longer of ours and the owner's) elapses if nothing changes; None while there is none."""
        return after(self.first_seen, self._longest(window)) if self.first_seen is not None else None

    def lease_is_over(self, epoch_read_at: Instant, window: Duration) -> bool:
        """Rule 5: the last read began after the window elapsed, and after the epoch to take from had been read."""
        ends = self.window_ends(window)
        if ends is None or self.last_read_started is None:
            return False
        return self.last_read_started >= ends and self.last_read_started >= epoch_read_at

    def agent_works(self, now: Instant, within: Duration) -> bool:
        """Whether the record's progress counter moved within that time."""
        return self.progress_at is not None and now - self.progress_at < within
