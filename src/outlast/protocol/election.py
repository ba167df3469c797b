"""Who is primary, among agents that hear each other. Elections may be wrong: no VM's safety rests on them.

Every heartbeat carries its sender's rank, the highest term it knows, and whom it takes for primary. An agent follows the
primary of the highest term that it hears. When it has heard none for `election_timeout`, and no agent that it hears has a
better rank or still follows a primary, it makes itself primary in a new, higher term. Two primaries that hear each other:
the better rank stays, whichever has the higher term. All heartbeats carry the highest term known, so a primary may learn of
the other's from a secondary before it hears the other, and who stays must not depend on that. A secondary goes with the
higher term, and in one term with the better rank. An agent that hears nobody at all waits until it knows that it is not
isolated, and one that comes back from a silence listens first.

    I am       what happens                                        then I am
    secondary  the primary is heard                                secondary
    secondary  no primary for election_timeout, I rank best        primary, term + 1
    secondary  the primary says that it leaves                     the timeout counts as passed
    primary    another primary, of better rank, is heard           secondary of that one
    primary    isolated                                            secondary of nobody
    primary    for election_timeout somebody heard reaches more    secondary of nobody: what is homed on a datastore
               datastores than I do                                that I have lost could not be recovered by me
"""

from collections.abc import Callable

import msgspec

from outlast.model.ids import ElectionTerm, HostId
from outlast.model.messages import Heartbeat, Rank
from outlast.model.settings import Settings
from outlast.model.time import Duration, Instant, after


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
        self._outreached_since: Instant | None = None

    def use(self, settings: Settings) -> None:
        """Judge by these settings from now on."""
        self._settings = settings

    @property
    def am_primary(self) -> bool:
        """Whether this agent takes itself for the primary."""
        return self.primary == self._me

    def heard(self, beat: Heartbeat, my_rank: Callable[[], Rank], now: Instant) -> None:
        """A heartbeat of another agent. `my_rank` is asked only where two primaries meet."""
        if beat.leaving:
            self._heard.pop(beat.sender, None)
            if self.primary == beat.sender:
                self._follow(None, now)
                self._primary_heard = Instant(now - self._settings.election_timeout)
            return
        self._heard[beat.sender] = _Heard(now, beat.rank, beat.term, beat.primary)
        claims = beat.primary == beat.sender
        if claims and (beat.rank > my_rank() if self.am_primary else self._not_behind_mine(beat)):
            self._follow(beat.sender, now)
        if claims and self.primary == beat.sender:
            self._primary_heard = now
        self.term = max(self.term, beat.term)

    def _not_behind_mine(self, claim: Heartbeat) -> bool:
        mine = self._heard.get(self.primary) if self.primary is not None else None
        return mine is None or (claim.term, claim.rank) >= (mine.term, mine.rank)

    def judge(self, my_rank: Rank, may_lead: bool, now: Instant) -> bool:
        """Judge again; True if the primary changed. `may_lead`: not isolated, and not in doubt about it."""
        before = self.primary
        if self.am_primary:
            if not my_rank.not_isolated or self._outreached_for_long(my_rank, now):
                self._follow(None, now)
                self._primary_heard = now
            return self.primary != before
        if not may_lead:
            # When it may again, it first listens for a heartbeat and a half: there may well be a primary.
            listen = Duration(3 * self._settings.heartbeat_interval // 2)
            self._primary_heard = max(self._primary_heard, Instant(now - self._settings.election_timeout + listen))
        if now - self._primary_heard < self._settings.election_timeout:
            if not may_lead and self.primary is not None and not self._hears_primary(now):
                self._follow(None, now)
            return self.primary != before
        self._follow(None, now)
        heard = self._within_hearing(now)
        if any(other.primary not in (None, self._me) for other in heard):
            # Somebody whom we hear still follows a primary: after a silence of ours, or where we alone do not hear it.
            return self.primary != before
        if all(my_rank > other.rank for other in heard):
            self.term = ElectionTerm(self.term + 1)
            self._follow(self._me, now)
        return self.primary != before

    def _outreached_for_long(self, my_rank: Rank, now: Instant) -> bool:
        if not any(h.rank.not_isolated and h.rank.datastores > my_rank.datastores for h in self._within_hearing(now)):
            self._outreached_since = None
            return False
        if self._outreached_since is None:
            self._outreached_since = now
        return now - self._outreached_since >= self._settings.election_timeout

    def _hears_primary(self, now: Instant) -> bool:
        heard = self._heard.get(self.primary) if self.primary is not None else None
        return heard is not None and now - heard.at < self._settings.election_timeout

    def _within_hearing(self, now: Instant) -> list[_Heard]:
        return [h for h in self._heard.values() if now - h.at < self._settings.unreachable_after]

    def _follow(self, primary: HostId | None, now: Instant) -> None:
        if primary != self.primary:
            self._outreached_since = None
            self.primary = primary
            self.since = now

    def next_deadline(self, now: Instant) -> Instant | None:
        """When somebody's silence or better reach would lead to an election; once it has, when to judge again."""
        since = self._outreached_since if self.am_primary else self._primary_heard
        if since is None:
            return None
        timeout = after(since, self._settings.election_timeout)
        due = timeout if now < timeout else after(now, Duration(self._settings.heartbeat_interval // 4))
        heard = self._heard.get(self.primary) if self.primary is not None else None
        silent = after(heard.at, self._settings.election_timeout) if heard is not None else due
        return min(due, silent) if silent > now else due
