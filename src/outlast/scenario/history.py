"""When each VM executed, stood still, and was started anew, and which step stopped it: what expectations look back on.

A world tells every change (the lab: every look). A *cause* is a step that stopped a VM or cut it off; the way back is
counted from the last one: to the first moment at which the VM executes again after it first stopped. A VM that a cause
did not stop has recovered at once. Times are nanoseconds from the start of the scenario.
"""

from collections.abc import Mapping

import msgspec

from outlast.model.time import Duration, in_seconds
from outlast.scenario.result import Recovered


class Span(msgspec.Struct):
    """The VM executed from `begin` to `end`; None: it does so still."""

    begin: int
    end: int | None = None


class WayBack(msgspec.Struct, frozen=True):
    """The last cause, when the VM first stood still after it, when it executed again. None: not (yet)."""

    cause: int
    stopped: int | None
    running: int | None

    @property
    def length(self) -> Duration | None:
        """From the cause until it executed again; nothing if it never stopped; None if it is not back."""
        if self.stopped is None:
            return Duration(0)
        return Duration(self.running - self.cause) if self.running is not None else None


class History:
    """Of one VM. It does not run until a world says so."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self._spans: list[Span] = []
        self._causes: list[int] = []
        self._frozen_since: int | None = None
        self._frozen = 0

    def changed(self, at: int, *, executes: bool, frozen: bool) -> None:
        """From `at` on it executes somewhere, or has a process that stands still and none that executes, or neither."""
        open_span = self._spans[-1] if self._spans and self._spans[-1].end is None else None
        if executes and open_span is None:
            self._spans.append(Span(at))
        elif not executes and open_span is not None:
            open_span.end = at
        if frozen and not executes:
            self._frozen_since = at if self._frozen_since is None else self._frozen_since
        elif self._frozen_since is not None:
            self._frozen += at - self._frozen_since
            self._frozen_since = None

    def started(self, at: int) -> None:
        """A new process of it began."""
        self.starts.append(at)

    def caused(self, at: int) -> None:
        """A step stopped it, or cut it off."""
        self._causes.append(at)

    def frozen_for(self, now: int) -> Duration:
        """How long it stood still, all in all."""
        return Duration(self._frozen + (now - self._frozen_since if self._frozen_since is not None else 0))

    def way_back(self) -> WayBack | None:
        """From the last cause; None if there was none."""
        return self._way_back(self._causes[-1]) if self._causes else None

    def ways_back(self) -> list[WayBack]:
        """From every cause after which it stopped, as far as no later cause came before the stop."""
        found: dict[int | None, WayBack] = {}
        for cause in self._causes:
            way = self._way_back(cause)
            if way.stopped is not None:
                found[way.stopped] = way
        return list(found.values())

    def _way_back(self, cause: int) -> WayBack:
        stopped: int | None = cause
        for span in self._spans:
            if span.begin <= cause and (span.end is None or span.end >= cause):
                stopped = span.end
        if stopped is None:
            return WayBack(cause, None, None)
        return WayBack(cause, stopped, next((span.begin for span in self._spans if span.begin >= stopped), None))


def recoveries(histories: Mapping[str, History]) -> tuple[Recovered, ...]:
    """Every way back that has come to its end, by VM and time."""
    found = []
    for vm, history in histories.items():
        for way in history.ways_back():
            if way.running is not None and way.length is not None:
                cause_at, running_at, length = (round(in_seconds(at), 3) for at in (way.cause, way.running, way.length))
                found.append(Recovered(vm, cause_at, running_at, length))
    return tuple(found)
