"""Is it me? A host that hears nobody, and whom no isolation address answers, is isolated (design.md section 4).

Pings to the isolation addresses begin at the first silence, so that the answer is there when `isolation_after` has
passed. Without any isolation address a host that hears nobody must take itself for isolated.
"""

from outlast.model.settings import Settings
from outlast.model.time import NEVER, Duration, Instant, after


class Isolation:
    """One host's judgement of itself."""

    def __init__(self, settings: Settings, peers: int, addresses: int, now: Instant) -> None:
        self._settings = settings
        self._peers = peers
        self._addresses = addresses
        self._peer_heard = now
        self._address_answered: Instant | None = None
        self.isolated = False
        self.since: Instant | None = None
        self._asking = False

    def use(self, settings: Settings) -> None:
        """Judge by these settings from now on."""
        self._settings = settings

    def heard_peer(self, now: Instant) -> None:
        """Any authentic datagram, or a ping answered by a host of the domain."""
        self._peer_heard = now

    def address_answered(self, now: Instant) -> None:
        """An isolation address answered a ping."""
        self._address_answered = now

    def silent(self, now: Instant) -> bool:
        """Whether the silence is long enough to start asking the isolation addresses."""
        return self._peers > 0 and now >= self._silence_begins

    @property
    def silence_due(self) -> Instant:
        """When `silent` becomes true if nobody is heard; NEVER once that has been judged. Each heartbeat puts it off."""
        if self._asking or not self._peers:
            return NEVER
        return self._silence_begins

    @property
    def _silence_begins(self) -> Instant:
        return Instant(self._peer_heard + 3 * self._settings.heartbeat_interval // 2 + 1)

    def hears_peers(self, now: Instant) -> bool:
        """Whether any peer was heard lately."""
        return now - self._peer_heard < self._settings.unreachable_after

    def connected_to_something(self, now: Instant) -> bool:
        """Whether an isolation address answered lately, although no peer is heard."""
        answered = self._address_answered
        return answered is not None and now - answered < self._settings.ping_timeout + self._settings.heartbeat_interval

    def judge(self, now: Instant) -> bool:
        """Judge again; True if the judgement changed."""
        was = self.isolated
        self._asking = self.silent(now)
        silent_for_long = now - self._peer_heard >= self._settings.isolation_after
        self.isolated = self._peers > 0 and silent_for_long and not self.connected_to_something(now)
        if self.isolated != was:
            self.since = now if self.isolated else None
        return self.isolated != was

    def next_deadline(self, now: Instant) -> Instant | None:
        """When time alone may change an answer given here, but for `silence_due`; None while only an event can."""
        if self._peers and not self.silent(now):
            return None
        for silent_for in (self._settings.unreachable_after, self._settings.isolation_after):
            if now < after(self._peer_heard, silent_for):
                return after(self._peer_heard, silent_for)
        if self._address_answered is None or self.isolated:
            return None
        return after(self._address_answered, Duration(self._settings.ping_timeout + self._settings.heartbeat_interval))
