"""Virtual time: a heap of things to do, by time and then by the order in which they were asked for.

Integer nanoseconds, no real clock: a run is a function of its seed.
"""

import heapq
from collections.abc import Callable

Action = Callable[[], None]


class Timer:
    """One thing to do later; `cancel` makes it nothing."""

    __slots__ = ("action",)

    def __init__(self, action: Action) -> None:
        self.action: Action | None = action

    def cancel(self) -> None:
        """Do nothing when the time comes."""
        self.action = None


class Scheduler:
    """`now` is true time, which no machine ever sees: hosts have clocks of their own."""

    def __init__(self) -> None:
        self.now = 0
        self.events = 0
        self._heap: list[tuple[int, int, Timer]] = []
        self._sequence = 0

    def at(self, when: int, action: Action) -> Timer:
        """Do `action` at `when`, not before now."""
        timer = Timer(action)
        self._sequence += 1
        heapq.heappush(self._heap, (max(when, self.now), self._sequence, timer))
        return timer

    def after(self, delay: int, action: Action) -> Timer:
        """Do `action` after `delay` nanoseconds."""
        return self.at(self.now + delay, action)

    def run_until(self, end: int) -> None:
        """Do everything that is due until `end`, which is now afterwards."""
        heap = self._heap
        while heap and heap[0][0] <= end:
            when, _, timer = heapq.heappop(heap)
            if timer.action is None:
                continue
            self.now = when
            self.events += 1
            timer.action()
        self.now = end
