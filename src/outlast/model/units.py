"""Lengths of time and sizes as people write them: "6s", "500ms", "2min", "32GiB". Settings files and scenarios share them.

Only the edges read and write these words; everything else counts nanoseconds and MiB. What is written by
`duration_text` and `size_text` reads back as exactly the same number.
"""

import re
from decimal import Decimal

from outlast.model.time import Duration, seconds

_TIME_UNITS = {"ms": 1_000_000, "s": 1_000_000_000, "min": 60_000_000_000, "h": 3_600_000_000_000}
_SIZE_UNITS = {"MiB": 1, "GiB": 1 << 10, "TiB": 1 << 20}


def parse_duration(value: object) -> Duration:
    """A duration in nanoseconds from "6s", "500ms", "2min" or a number of seconds. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError('is not a duration: write it like "6s" or "500ms"')
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h)", value.strip())
        if match is None:
            raise ValueError(f'{value!r} is not a duration: write it like "6s" or "500ms"')
        return Duration(round(Decimal(match[1]) * _TIME_UNITS[match[2]]))
    return seconds(float(value))


def duration_text(value: int) -> str:
    """A duration as people write it, exact: "6s", "500ms", "1.5s". Negative ones begin with a minus."""
    sign, value = ("-", -value) if value < 0 else ("", value)
    unit = "ms" if 0 < value < _TIME_UNITS["s"] else "s"
    number = Decimal(value) / _TIME_UNITS[unit]
    return f"{sign}{number:f}{unit}"


def parse_size(value: object) -> int:
    """A size in MiB from "32GiB" or "512MiB". Raises ValueError."""
    match = re.fullmatch(r"(\d+)\s*(MiB|GiB|TiB)", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'{value!r} is not a size: write it like "32GiB" or "512MiB"')
    return int(match[1]) * _SIZE_UNITS[match[2]]


def size_text(mib: int) -> str:
    """A size as people write it."""
    return f"{mib >> 10}GiB" if mib and mib % 1024 == 0 else f"{mib}MiB"
