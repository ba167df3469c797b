"""Hosts that fail again and again: after three failures in an hour a host gets no new VMs for two hours, if others can.

A failure is a death that was proven, or a boot that nobody announced; both for one outage are one. Every agent counts what
it sees itself and tells the others, so that a new primary, or an agent that has just been started, knows it as well. At
most a quarter of the hosts are avoided at one time, those that failed last: more than that is not a bad host but a bad day.
"""

from outlast.model.ids import HostId
from outlast.model.time import SECOND, Duration, Instant, after

FAILURES = 3
WITHIN = Duration(3600 * SECOND)
AVOIDED_FOR = Duration(2 * 3600 * SECOND)
WHY = "it failed three times within an hour"


class Flapping:
    """What one agent has seen. `avoided`: until when each host is to be avoided for it."""

    def __init__(self) -> None:
        self.avoided: dict[HostId, Instant] = {}
        self._failures: dict[HostId, list[Instant]] = {}
        self._down: set[HostId] = set()

    def died(self, host: HostId, announced: bool, now: Instant) -> None:
        """A host was proven dead. `announced`: its last word was that it was about to end."""
        if not announced and host not in self._down:
            self._failed(host, now)
        self._down.add(host)

    def booted(self, host: HostId, announced: bool, now: Instant) -> None:
        """A host is heard from a new boot."""
        if not announced and host not in self._down:
            self._failed(host, now)
        self._down.discard(host)

    def back(self, host: HostId) -> None:
        """A host is heard again: what happens to it from now on is another outage."""
        self._down.discard(host)

    def _failed(self, host: HostId, now: Instant) -> None:
        lately = [at for at in self._failures.get(host, []) if now - at < WITHIN]
        self._failures[host] = [*lately, now][-FAILURES:]
        if len(self._failures[host]) == FAILURES:
            self.avoided[host] = after(now, AVOIDED_FOR)

    def left(self, now: Instant) -> dict[HostId, Duration]:
        """For how much longer each host is to be avoided, as this agent has seen it itself."""
        self.avoided = {host: until for host, until in self.avoided.items() if until > now}
        return {host: Duration(until - now) for host, until in self.avoided.items()}


def avoided(told: list[dict[HostId, Duration]], hosts: int) -> dict[HostId, Duration]:
    """The hosts to avoid, by what several agents tell, and for how much longer: at most a quarter of the hosts."""
    longest: dict[HostId, Duration] = {}
    for each in told:
        for host, left in each.items():
            longest[host] = max(left, longest.get(host, Duration(0)))
    last_failed = sorted(longest, key=lambda host: (-longest[host], host))
    return {host: longest[host] for host in last_failed[: hosts // 4]}
