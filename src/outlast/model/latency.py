"""How long writes take, counted in classes of time: a histogram that only grows, whose differences tell of any while."""

from itertools import accumulate

import msgspec

from outlast.model.time import MILLISECOND, Duration

BOUNDS_MS = (5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000)
"""A class holds what took at most so long, and longer than the class before it; there is one more for what took longer."""


class Latencies(msgspec.Struct, frozen=True):
    """So many writes of each class, and how long all of them took together, in milliseconds."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_MS) + 1)
    total_ms: int = 0

    @property
    def number(self) -> int:
        """How many writes."""
        return sum(self.counts)

    def and_one(self, took: Duration) -> "Latencies":
        """And one more, that took so long."""
        place = next((i for i, bound in enumerate(BOUNDS_MS) if took <= bound * MILLISECOND), len(BOUNDS_MS))
        counts = (*self.counts[:place], self.counts[place] + 1, *self.counts[place + 1 :])
        return Latencies(counts, self.total_ms + took // MILLISECOND)

    def since(self, before: "Latencies") -> "Latencies":
        """Those that came after `before`; all of them if those are not among these: whoever counts has begun anew."""
        counts = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        return self if min(counts) < 0 else Latencies(counts, self.total_ms - before.total_ms)

    def slowest_of(self, percent: int) -> str:
        """The class of the slowest of so many of a hundred."""
        least = self.number * percent / 100
        place = next((i for i, number in enumerate(accumulate(self.counts)) if number >= least), len(BOUNDS_MS))
        return took(place)

    @property
    def sentence(self) -> str:
        """How they are spread: half of them, and the slowest; empty if there are none."""
        if not self.number:
            return ""
        spread = ", ".join(f"{percent} % {self.slowest_of(percent)}" for percent in (50, 95, 99))
        return f"of the last {self.number} writes {spread}"


def took(place: int) -> str:
    """A class of time for people: `within 25 ms`, `longer than 5 s`."""
    bound = BOUNDS_MS[min(place, len(BOUNDS_MS) - 1)]
    text = f"{bound / 1000:g} s" if bound >= 1000 else f"{bound} ms"
    return f"within {text}" if place < len(BOUNDS_MS) else f"longer than {text}"
