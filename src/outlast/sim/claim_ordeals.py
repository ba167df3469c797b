"""Ordeals about two VMs that have one disk: see `ordeals.py`. What is feared stands in `protocol/disk_claims.py`."""

import itertools
import random

import msgspec

from outlast.model.time import MILLISECOND
from outlast.scenario.model import Scenario
from outlast.sim.ordeals import _ordeal as an_ordeal
from outlast.sim.ordeals import _Story as Story
from outlast.sim.physics import drawn

OFTEN = 200
"""Of a thousand reads."""


def _read_from_caches(scenario: Scenario) -> Scenario:
    """The same in a world in which a read often shows what a cache remembers."""
    seeds = itertools.count(scenario.seed)
    return msgspec.structs.replace(
        scenario, seed=next(seed for seed in seeds if drawn(random.Random(f"physics {seed}")).stale >= OFTEN)
    )


@an_ordeal
def _a_clone_starts_while_its_original_runs(rng: random.Random) -> Scenario:
    s = Story(rng, "Somebody starts a clone of a VM that runs; it has the original's disk")
    s.clone()
    s.at(rng.uniform(500, 2_000), "vm-start-elsewhere", vm="clone1", host=rng.choice(("host1", "host2")))
    return s.done(8_000)


@an_ordeal
def _a_clone_starts_beside_its_original(rng: random.Random) -> Scenario:
    s = Story(rng, "A VM that was switched off and a clone that has its disk are started at the same moment")
    s.clone()
    s.at(500, "vm-power-off", vm="vm1")
    s.store(4_000, "slow", "host1", latency=rng.randrange(30, 60) * MILLISECOND)
    s.store(4_000, "slow", "host2", latency=rng.randrange(100, 150) * MILLISECOND)
    s.at(5_000, "vm-start-elsewhere", vm="clone1", host="host2")
    s.at(5_000 + rng.uniform(250, 800), "vm-start", vm="vm1", host="host1")
    return s.done(14_000)


@an_ordeal
def _a_clone_starts_again_beside_its_original(rng: random.Random) -> Scenario:
    s = Story(rng, "A clone has run, and is started again when its original, which has run before, is started too")
    s.clone()
    s.at(500, "vm-power-off", vm="vm1")
    s.at(4_000, "vm-start-elsewhere", vm="clone1", host="host2")
    s.at(7_000, "vm-power-off", vm="clone1")
    s.store(9_000, "slow", "host1", latency=rng.randrange(100, 150) * MILLISECOND)
    s.store(9_000, "slow", "host2", latency=rng.randrange(30, 60) * MILLISECOND)
    s.at(10_000, "vm-start", vm="vm1", host="host1")
    s.at(10_000 + rng.uniform(250, 800), "vm-start-elsewhere", vm="clone1", host="host2")
    return _read_from_caches(s.done(19_000))


@an_ordeal
def _a_clone_starts_as_its_original_migrates(rng: random.Random) -> Scenario:
    s = Story(rng, "Somebody starts a clone in the moment in which its original is handed over to another host", hosts=3)
    s.clone()
    s.store(0, "slow", "host2", latency=600 * MILLISECOND)
    s.at(1_000, "migrate", vm="vm1", host="host2")
    s.at(rng.uniform(1_500, 5_000), "vm-start-elsewhere", vm="clone1", host="host3")
    return s.done(15_000)
