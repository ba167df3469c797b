"""Virtual time: a heap of things to do, by time and then by the order in which they were asked for.

Integer nanoseconds, no real clock: a run is a function of its seed. `trace` mixes the time and number of everything that
was done into one integer: two runs with the same trace did the same things at the same times, and the first thing that
differs changes it for good.
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
        self.trace = 0
        self._heap: list[tuple[int, int, Timer]] = []
        self._sequence = 0

    def at(self, when: int, action: Action) -> Timer:
        """Do `action` at `when`, not before now."""
        timer = Timer(action)
        self._sequence += 1
        heapq.heappush(self._heap, (when if when > self.now else self.now, self._sequence, timer))
        return timer

    def after(self, delay: int, action: Action) -> Timer:
        """Do `action` after `delay` nanoseconds. What most of a run is scheduled by, and so in as few calls as can be."""
        timer = Timer(action)
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + delay if delay > 0 else self.now, self._sequence, timer))
        return timer

    def run_until(self, end: int) -> None:
        """Do everything that is due until `end`, which is now afterwards."""
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= end:
            when, sequence, timer = pop(heap)
            action = timer.action
            if action is None:
                continue
            self.now = when
            self.events += 1
            # The hash of a tuple of integers is the same in every process, whatever PYTHONHASHSEED says.
            self.trace = hash((self.trace, when, sequence))
            action()
        self.now = end
