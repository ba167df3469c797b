"""What the fault domain can lose now, and whether that is as much as it should: looked at by the primary.

It begins anew when anything has changed that placements depend on, after a moment of quiet, and goes on in small steps
between other events, so that nobody waits for it. What it found goes out with every heartbeat, for all screens. Only what
is set counts here, not what hosts measure as free: that changes all the time.
"""

from collections.abc import Iterator

import msgspec

from outlast.model.planning import Outlook, Snapshot
from outlast.model.time import MILLISECOND, NEVER, SECOND, Duration, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.placement import Placement
from outlast.protocol.planning.admission import outlook, policy_of
from outlast.protocol.planning.problem import Problem
from outlast.protocol.planning.worst import Survival, survival

QUIET = Duration(2 * SECOND)
"""How long nothing must have changed before the look begins: in a failover, changes come one after the other."""
STEP = Duration(20 * MILLISECOND)
LOOKS_A_STEP = 4
MOST_LOOKS = 3000
"""Losses that are looked at for one answer; if there are more of them, the answer says what is known."""


class CapacityWatch:
    """See the top of this file. `outlook` None: this agent is not primary, or has not finished its first look."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox, placement: Placement) -> None:
        self._known = knowledge
        self._out = outbox
        self._placement = placement
        self._snapshot: Snapshot | None = None
        self._is_new = False
        self._look: Iterator[Survival] | None = None
        self._looks = 0
        self._hold = knowledge.now
        """Nothing is done before."""
        self._due: Instant | None = None
        self._short = ""
        self.outlook: Outlook | None = None

    def tick(self, am_primary: bool) -> None:
        """Something may have changed: look whether it has, or go a step on with the look that is under way."""
        now = self._known.now
        if not am_primary:
            self._snapshot, self._look, self._due, self.outlook, self._short = None, None, None, None, ""
        elif now < self._hold:
            self._due = self._hold
        elif self._look is not None:
            self._go_on(self._look)
        else:
            self._see_what_changed()

    @property
    def due(self) -> Instant:
        """When to go on."""
        return NEVER if self._due is None else self._due

    def _wait(self, length: Duration) -> None:
        self._due = self._hold = after(self._known.now, length)

    def _see_what_changed(self) -> None:
        snapshot = self._placement.whole()
        if snapshot != self._snapshot:
            self._snapshot, self._is_new = snapshot, True
            if self.outlook is not None:
                self.outlook = msgspec.structs.replace(self.outlook, stale=True)
            self._wait(QUIET)
        elif self._is_new:
            self._is_new, self._looks = False, 0
            self._look = survival(Problem(snapshot), self._known.settings.admission_host_failures + 1)
            self._wait(STEP)
        else:
            self._wait(QUIET)
            self._due = None

    def _go_on(self, look: Iterator[Survival]) -> None:
        self._wait(STEP)
        for _ in range(LOOKS_A_STEP):
            found = next(look, None)
            self._looks += 1
            if found is None or found.done or self._looks >= MOST_LOOKS:
                self._look = None
                # What has changed meanwhile is seen then.
                self._wait(QUIET)
                if found is not None and self._snapshot is not None:
                    self._found(self._snapshot, found)
                return

    def _found(self, snapshot: Snapshot, found: Survival) -> None:
        settings = self._known.settings
        self.outlook = outlook(snapshot, found, policy_of(settings), settings.admission_mode)
        short, before = self.outlook.short, self._short
        self._short = short
        if short and not before:
            self._out.note("capacity-short", relay=True, problem=short)
        elif before and not short:
            self._out.note("capacity-enough", relay=True, policy=policy_of(settings))
