"""How unkind the simulated world is, as numbers drawn from its seed.

What real storage and networks do now and then without anybody's fault is always possible here, at a rate that each world
draws for itself: most are mild, some are harsh in one respect. What lasts, or is somebody's doing, is a step of a scenario.

How long programs take to start is measured in the lab, on two processors between idle and busy: `outlast lab compare` says
when the two worlds part.
"""

import random

import msgspec

from outlast.model.time import MILLISECOND, SECOND

FABRIC = SECOND
"""How long switches and arrays may hold what a host sent before it lost its power: the host itself holds nothing then."""
STALE_FOR = 2 * SECOND
"""How old the answer of a client's cache can be when a register's directory is listed (negative lookups on NFS)."""
TORN_FOR = 5 * MILLISECOND
"""The longest time in which a reader can meet the first half of a write."""
HELD_FOREVER = 1 << 62
RESTART_AFTER = 2 * SECOND
"""What a service manager waits before it starts a daemon again that has died, as the scenario language has it."""
DAEMON_STARTS = (400 * MILLISECOND, 1200 * MILLISECOND)
"""From the start of a daemon's process until it does anything: an interpreter starts, a keeper's helpers with it."""
QEMU_STARTS = (100 * MILLISECOND, 500 * MILLISECOND)
"""From the hook's first answer until it asks again, from inside the process that is to become QEMU."""
WATCHDOG_TIMEOUT = SECOND
LIBVIRT_TELLS = (50 * MILLISECOND, 400 * MILLISECOND)
"""From the end of a process until libvirt says why it ended."""


def within(rng: random.Random, bounds: tuple[int, int]) -> int:
    """A length between the two."""
    return rng.randrange(*bounds)


class Physics(msgspec.Struct, frozen=True):
    """Rates per thousand. `late`: of what is under way at a cut, how much lands later after all and is not lost."""

    torn: int = 0
    stale: int = 0
    slow: int = 0
    duplicate: int = 0
    late: int = 500


def drawn(rng: random.Random) -> Physics:
    """One world's physics."""
    return Physics(
        torn=rng.choice([0, 1, 1, 20, 200]),
        stale=rng.choice([0, 1, 1, 20, 200]),
        slow=rng.choice([0, 1, 1, 5]),
        duplicate=rng.choice([0, 1, 10, 100]),
        late=rng.choice([0, 300, 500, 700, 1000]),
    )
