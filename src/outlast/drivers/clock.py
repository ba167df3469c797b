"""The one clock that decides: CLOCK_BOOTTIME, which goes on while the machine sleeps. And the boot id, and wall time.

Wall time is for people and logs alone.
"""

import time
from pathlib import Path

from outlast.model.ids import BootId
from outlast.model.time import Instant

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def now() -> Instant:
    """Now, on this host's CLOCK_BOOTTIME."""
    return Instant(time.clock_gettime_ns(time.CLOCK_BOOTTIME))


def wall_ms() -> int:
    """Wall clock, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def boot_id() -> BootId:
    """The kernel's id of this boot."""
    return BootId(_BOOT_ID.read_text().strip())
