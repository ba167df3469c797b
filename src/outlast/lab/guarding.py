"""Whether a host of a lab is guarded: whether anything on it could have frozen a VM.

*Unguarded* is what docs/safety.md promises nothing for: keeper and agent both dead or stopped, or a host that stands
still as a whole, and an instant after it goes on. If a VM executes twice then, that is a hazard and no violation, as in the
simulated world. The instant is short, so that a keeper that is back and does not freeze is found out.
"""

from __future__ import annotations

from outlast.lab.lab import Lab
from outlast.model.time import MILLISECOND

INSTANT = 500 * MILLISECOND
"""What keeper and agent have, on a busy machine, until they run again and have stopped what they must."""


class Guarding:
    """Of one lab. Times are nanoseconds of any monotonic clock."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._unguarded_at: dict[str, int] = {}

    def look(self, host: str, now: int) -> None:
        """Note whether the host stands still now."""
        if self._lab.stands_still(host):
            self._unguarded_at[host] = now

    def lacks(self, host: str, now: int) -> bool:
        """Whether nothing guards it now, or nothing did an instant ago. Asked of a host on which a VM executes twice."""
        daemons = [self._lab.service_state(host, daemon) for daemon in ("keeper", "agent")]
        if self._lab.is_on(host) and "running" not in daemons:
            self._unguarded_at[host] = now
        at = self._unguarded_at.get(host)
        return at is not None and now - at <= INSTANT
