"""Who is primary, among agents that hear each other. Elections may be wrong: no VM's safety rests on them.

Every heartbeat carries its sender's rank, the highest term it knows, and whom it takes for primary. An agent follows the
primary of the highest term that it hears. When it has heard none for `election_timeout`, and no agent that it hears has a
better rank, it makes itself primary in a new, higher term. Two primaries that hear each other: the higher term stays; in
one term, the better rank. An agent that hears nobody at all waits until it knows that it is not isolated.

    I am       what happens                                        then I am
    secondary  the primary is heard                                secondary
    secondary  no primary for election_timeout, I rank best        primary, term + 1
    secondary  the primary says that it leaves                     the timeout counts as passed
    primary    a primary with a higher term (or better rank) heard secondary
    primary    isolated                                            secondary of nobody
"""

import msgspec

from outlast.model.ids import ElectionTerm, HostId
from outlast.model.messages import Heartbeat, Rank
from outlast.model.settings import Settings
from outlast.model.time import Instant, after


class _Heard(msgspec.Struct):
    at: Instant
    rank: Rank
    term: ElectionTerm
    primary: HostId | None


class Election:
    """One agent's part in it. `primary` is whom it follows, itself included; None while there is none."""

    def __init__(self, settings: Settings, me: HostId, now: Instant) -> None:
        self._settings = settings
        self._me = me
        self._heard: dict[HostId, _Heard] = {}
        self._primary_heard = now
        self.term = ElectionTerm(0)
        self.primary: HostId | None = None
        self.since: Instant = now

    @property
    def am_primary(self) -> bool:
        """Whether this agent takes itself for the primary."""
        return self.primary == self._me

    def heard(self, beat: Heartbeat, my_rank: Rank, now: Instant) -> None:
        """A heartbeat of another agent."""
        if beat.leaving:
            self._heard.pop(beat.sender, None)
            if self.primary == beat.sender:
                self._follow(None, now)
                self._primary_heard = Instant(now - self._settings.election_timeout)
            return
        self._heard[beat.sender] = _Heard(now, beat.rank, beat.term, beat.primary)
        claims = beat.primary == beat.sender
        if claims and self.am_primary:
            if (beat.term, beat.rank) > (self.term, my_rank):
                self._follow(beat.sender, now)
        elif claims and (beat.term >= self.term or self.primary in (None, beat.sender)):
            self._follow(beat.sender, now)
        if claims and self.primary == beat.sender:
            self._primary_heard = now
        self.term = max(self.term, beat.term)

    def judge(self, my_rank: Rank, may_lead: bool, now: Instant) -> bool:
        """Judge again; True if the primary changed. `may_lead`: not isolated, and not in doubt about it."""
        before = self.primary
        if self.am_primary:
            if not my_rank.not_isolated:
                self._follow(None, now)
                self._primary_heard = now
            return self.primary != before
        if now - self._primary_heard < self._settings.election_timeout:
            return False
        self._follow(None, now)
        if may_lead and all(my_rank > other.rank for other in self._within_hearing(now)):
            self.term = ElectionTerm(self.term + 1)
            self._follow(self._me, now)
        return self.primary != before

    def _within_hearing(self, now: Instant) -> list[_Heard]:
        return [h for h in self._heard.values() if now - h.at < self._settings.unreachable_after]

    def _follow(self, primary: HostId | None, now: Instant) -> None:
        if primary != self.primary:
            self.primary = primary
            self.since = now

    def next_deadline(self) -> Instant | None:
        """When the primary's silence would lead to an election."""
        return None if self.am_primary else after(self._primary_heard, self._settings.election_timeout)
