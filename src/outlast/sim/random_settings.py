"""Settings of a random domain: each drawn by itself, or left as it is; kept only if all of them hold together.

What holds together is said by `model.settings.problems`, so a relation that is added there is kept here too. One is about
more than settings: where a host has a watchdog, its timeout and the reset must fit in `lease_margin` (rule 6).
"""

import random
from typing import Any

from outlast.model.settings import Settings, problems
from outlast.model.time import MILLISECOND, SECOND, Duration

WATCHDOG_AND_RESET = 1500 * MILLISECOND
_TRIES = 1000
_MILLISECONDS: dict[str, tuple[int, ...]] = {
    "heartbeat_interval": (500, 1500, 2000),
    "unreachable_after": (2000, 4000, 5000, 8000),
    "ping_timeout": (1000, 3000, 4000),
    "datastore_heartbeat_interval": (500, 700, 1500, 2000, 3000),
    "datastore_poll_interval": (300, 700, 1000),
    "lease_duration": (4000, 4500, 5000, 7000, 8000, 10_000),
    "lease_margin": (1100, 1150, 1200, 2000, 3000),
    "datastore_stale_after": (5000, 6000, 9000, 12_000, 15_000),
    "isolation_after": (3000, 4000, 7000, 10_000),
    "election_timeout": (1500, 2000, 4000, 6000),
}
_GRACES = ((2, 2), (2, 10), (5, 30), (10, 120), (20, 60), (30, 30), (30, 300))
"""`mass_failure_grace` and `startup_grace` in seconds; the first is never the longer."""
_LOSSES = (3, 4, 6, 9, 9, 12, 20)
"""`storage_loss_after` in seconds."""
_NUMBERS = {"heartbeat_datastores_per_host": (1, 3)}
_POLICIES = ("failover", "freeze", "conditional", "migrate")
_FREEZES = (5, 20, 60)
"""`freeze_timeout` and `shutdown_migrate_timeout` in seconds."""
_SHUTDOWN_TIMEOUTS = (5, 10, 20)
"""Seconds, always short ones: a shutdown that began in an isolation has to end long before recovery is demanded."""


def draw(rng: random.Random, *, watchdogs: bool) -> dict[str, Any]:
    """What differs from the defaults, by name. `watchdogs`: whether some host has one."""
    settings: dict[str, Any] = {
        "isolation_response": rng.choice(["leave-running", "leave-running", "shut-down", "power-off"]),
        "shutdown_timeout": Duration(rng.choice(_SHUTDOWN_TIMEOUTS) * SECOND),
    }
    if rng.randrange(3) == 0:
        return settings
    for _ in range(_TRIES):
        drawn = settings | _some(rng)
        if _hold_together(Settings(**drawn), watchdogs):
            return drawn
    return settings


def graces(seed: int) -> dict[str, Any]:
    """In two of three worlds, others than the defaults. Drawn apart, so that all else of a world goes by its seed alone."""
    rng = random.Random(f"graces {seed}")
    if rng.randrange(3) == 0:
        return {}
    mass, startup = rng.choice(_GRACES)
    return {"mass_failure_grace": Duration(mass * SECOND), "startup_grace": Duration(startup * SECOND)}


def storage_loss(seed: int, drawn: dict[str, Any]) -> dict[str, Any]:
    """In two of three worlds, sooner than by default, as cuts of storage are shorter than that. Drawn apart as well."""
    rng = random.Random(f"storage loss {seed}")
    after = Duration(rng.choice(_LOSSES) * SECOND)
    if rng.randrange(3) == 0 or problems(Settings(**drawn, storage_loss_after=after)):
        return {}
    return {"storage_loss_after": after}


def shutdowns(seed: int) -> dict[str, Any]:
    """What becomes of the VMs of a host that goes down in good order; short waits, as recovery is demanded soon."""
    rng = random.Random(f"shutdowns {seed}")
    return {
        "host_shutdown_policy": rng.choice(_POLICIES),
        "freeze_timeout": Duration(rng.choice(_FREEZES) * SECOND),
        "shutdown_migrate_timeout": Duration(rng.choice(_FREEZES) * SECOND),
    }


def guests(seed: int) -> dict[str, Any]:
    """In one of three worlds guests are watched, and reset as soon as settings allow. Drawn apart as well."""
    rng = random.Random(f"guests {seed}")
    if rng.randrange(3):
        return {}
    return {
        "guest_monitoring": "on",
        "guest_failure_after": Duration(10 * SECOND),
        "guest_io_quiet": Duration(rng.choice([10, 10, 20]) * SECOND),
        "guest_min_uptime": Duration(rng.choice([10, 20]) * SECOND),
        "guest_resets_per_hour": rng.choice([1, 3]),
    }


def one(rng: random.Random) -> dict[str, str]:
    """One setting and a value, as an operator sets it while the domain runs: what does not fit to the others is refused."""
    if rng.randrange(3) == 0:
        return {"setting": "lease_duration", "value": rng.choice(["4s", "6s", "10s"])}
    name = rng.choice(sorted(_MILLISECONDS))
    return {"setting": name, "value": f"{rng.choice(_MILLISECONDS[name])}ms"}


def _some(rng: random.Random) -> dict[str, Any]:
    durations = {
        name: Duration(rng.choice(choices) * MILLISECOND)
        for name, choices in _MILLISECONDS.items()
        if rng.randrange(3) == 0
    }
    return durations | {name: rng.choice(choices) for name, choices in _NUMBERS.items() if rng.randrange(3) == 0}


def _hold_together(settings: Settings, watchdogs: bool) -> bool:
    fits = not watchdogs or settings.lease_margin >= WATCHDOG_AND_RESET
    return fits and not problems(settings)
