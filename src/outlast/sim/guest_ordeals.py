"""Ordeals about guests that are watched: see `ordeals.py`. What is feared of them stands in `protocol/guest_watch.py`."""

import random
from typing import Any

from outlast.model.time import SECOND
from outlast.scenario.model import Scenario
from outlast.sim.ordeals import _ordeal as an_ordeal
from outlast.sim.ordeals import _Story as Story

_SOONEST: dict[str, Any] = {
    "guest_monitoring": "on",
    "guest_failure_after": 10 * SECOND,
    "guest_io_quiet": 10 * SECOND,
    "guest_min_uptime": 10 * SECOND,
}


@an_ordeal
def _a_watched_guest_is_frozen(rng: random.Random) -> Scenario:
    s = Story(rng, "A watched guest is frozen for longer than a hung one is given", settings=_SOONEST)
    s.store(2_000, "cut", "host1")
    s.store(rng.uniform(28_000, 34_000), "heal", "host1")
    return s.done(50_000)


@an_ordeal
def _a_watched_guest_is_silent_and_works(rng: random.Random) -> Scenario:
    s = Story(rng, "A watched guest does not answer any more, and reads and writes on", settings=_SOONEST)
    s.at(rng.uniform(1_000, 3_000), "vm-hang", vm="vm1", io=True)
    return s.done(40_000)


@an_ordeal
def _a_watched_guest_hangs_in_a_pause(rng: random.Random) -> Scenario:
    s = Story(rng, "A watched guest hangs while an operator holds all recovery", settings=_SOONEST)
    s.at(1_000, "pause")
    s.at(rng.uniform(1_500, 4_000), "vm-hang", vm="vm1")
    return s.done(50_000)
