"""What is said of this host's hardware: taken, written down for later agents, and said on in every heartbeat.

What it means for placements is in `host_condition.py`. It holds until something else is said, also after a reboot: a
memory that fails is none the better for it, and a monitor that sees it work says so.
"""

import msgspec

from outlast.model.commands import Outcome, ReportHealth
from outlast.model.effects import RememberHealth
from outlast.model.health import Health
from outlast.protocol.knowledge import Knowledge, Outbox


class HealthWork(msgspec.Struct):
    """One report. It is carried out in the next turn, and never dropped."""

    command: ReportHealth
    by: str
    at_ms: int
    outcome: Outcome | None = None
    dropped: bool = False


class HealthDesk:
    """See the top of this file. `changed`: this host says something else of itself since it was last set to False."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._works: list[HealthWork] = []
        self.changed = False

    def take(self, command: ReportHealth, by: str, at_ms: int) -> HealthWork:
        """A report to take."""
        work = HealthWork(command, by, at_ms)
        self._works.append(work)
        return work

    def tick(self) -> None:
        """Take what has come."""
        for work in self._works:
            work.outcome = self._taken(work)
        self._works.clear()

    def _taken(self, work: HealthWork) -> Outcome:
        known, before = self._known, self._known.health
        level, reason = work.command.level, work.command.reason
        if (level, reason) == (before.level, before.reason):
            return Outcome(ok=True, sentences=(f"nothing to change: of {known.name(known.me)} {before.sentence}",))
        # A monitor repeats itself in other words: since when a host is in this state decides who is kept empty.
        since_ms = before.since_ms if level == before.level else work.at_ms
        known.health = Health(level, reason, work.by, since_ms)
        self.changed = True
        self._out.put(RememberHealth(known.health))
        if level != before.level:
            told = reason or "no reason given"
            self._out.note("host-health", host=known.me, relay=True, level=level, reason=told, by=work.by)
        return Outcome(ok=True, sentences=(f"{known.name(known.me)}: {known.health.sentence}",))
