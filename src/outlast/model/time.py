"""Time inside Outlast is an integer number of nanoseconds, never a float.

`Instant` is a point on the observer's own CLOCK_BOOTTIME: it goes on while the machine sleeps, is not moved by wall
clock changes, and means nothing on another host. `Duration` is a length. Only the edges (settings files, screens)
speak of seconds, and then the unit is the last part of the name: `lease_duration_s`.
"""

from typing import NewType

Instant = NewType("Instant", int)
Duration = NewType("Duration", int)

MILLISECOND = Duration(1_000_000)
SECOND = Duration(1_000_000_000)
LONG_AGO = Instant(-(2**62))
NEVER = Instant(2**62)


def seconds(value: float) -> Duration:
    """The duration of `value` seconds, rounded to a whole nanosecond."""
    return Duration(round(value * 1_000_000_000))


def in_seconds(value: int) -> float:
    """A duration (or a difference of two instants) as seconds, for people and for JSON."""
    return value / 1_000_000_000


def after(start: Instant, length: Duration) -> Instant:
    """The instant `length` after `start`."""
    return Instant(start + length)


def backed_off(first: Duration, last: Duration, attempts: int) -> Duration:
    """How long to wait after so many failed attempts before this one: twice as long each time, up to `last`."""
    return Duration(min(first << min(attempts, 6), last))


def since(start: Instant, now: Instant) -> Duration:
    """How long ago `start` was, seen from `now`."""
    return Duration(now - start)
