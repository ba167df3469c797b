"""Ordeals about what an operator changes while the domain runs: see `ordeals.py`.

What is feared of a lease whose length changes stands in `protocol/lease_length.py`.
"""

import random

from outlast.model.ids import DatastoreName
from outlast.model.time import MILLISECOND, SECOND
from outlast.scenario.model import DatastoreSpec, Scenario
from outlast.sim.ordeals import _ordeal as an_ordeal
from outlast.sim.ordeals import _Story as Story

_LONG = {"lease_duration": 20 * SECOND, "datastore_stale_after": 22 * SECOND}
_SHORT = {"lease_duration": 8 * SECOND, "datastore_stale_after": 22 * SECOND}
_HELD_FOR_EVER = (DatastoreSpec(name=DatastoreName("ds1"), in_flight_bound=None),)


@an_ordeal
def _the_lease_becomes_shorter_when_storage_hangs(rng: random.Random) -> Scenario:
    s = Story(rng, "A lease is made shorter, and its owner is cut off when it has just said so", settings=_LONG)
    s.store(500, "slow", "host1", latency=400 * MILLISECOND)
    changed = 1000 + rng.uniform(0, 1_000)
    s.at(changed, "set", setting="lease_duration", value="4s")
    s.cut_off(changed + rng.uniform(600, 2_600), "host1")
    return s.done(40_000)


@an_ordeal
def _the_lease_becomes_longer_and_an_older_record_lands(rng: random.Random) -> Scenario:
    s = Story(
        rng,
        "A keeper dies while its storage hangs; its successor knows a longer lease, and what the first one had under way "
        "lands over its record, before any epoch says that the lease is longer",
        stores=_HELD_FOR_EVER,
        settings=_SHORT,
    )
    healed = _a_keeper_dies_with_a_record_on_its_way(rng, s)
    s.store(healed, "heal", "host1")
    s.store(healed + rng.uniform(0.6, 1.6), "slow", "host1", latency=300 * MILLISECOND)
    _cut_off_and_shorter_again(s, healed + rng.uniform(10, 250))
    return s.done(40_000)


@an_ordeal
def _a_longer_lease_is_in_use_when_an_older_record_lands(rng: random.Random) -> Scenario:
    s = Story(
        rng,
        "As before, but every epoch says that the lease is longer when the older record lands",
        stores=_HELD_FOR_EVER,
        settings=_SHORT,
    )
    healed = _a_keeper_dies_with_a_record_on_its_way(rng, s)
    s.store(healed - 1, "slow", "host1", latency=300 * MILLISECOND)
    s.store(healed, "heal", "host1")
    _cut_off_and_shorter_again(s, healed + 1_950)
    return s.done(40_000)


def _a_keeper_dies_with_a_record_on_its_way(rng: random.Random, s: Story) -> float:
    """It hangs in the kernel as long as the storage does; the lease becomes longer meanwhile. When it is to be healed."""
    cut = rng.uniform(0, 1_000)
    s.store(cut, "cut", "host1")
    s.at(cut + 1_100, "keeper-kill", host="host1")
    s.at(cut + rng.uniform(1_200, 2_500), "set", setting="lease_duration", value="20s")
    return cut + rng.uniform(5_000, 6_300)


def _cut_off_and_shorter_again(s: Story, at: float) -> None:
    """The others wait for no longer than they must, and the host that is cut off never hears that its lease is too long."""
    s.cut_off(at, "host1")
    s.at(at + 200, "set", setting="lease_duration", value="8s")


@an_ordeal
def _a_host_is_lost_while_recovery_is_paused(rng: random.Random) -> Scenario:
    s = Story(rng, "Recovery is paused, its primary's agent dies, and a host loses its power", hosts=3)
    s.at(1_000, "pause")
    s.at(2_000 + rng.uniform(0, 3_000), "agent-kill", host="host3")
    s.at(3_000 + rng.uniform(0, 4_000), "power-off", host="host1")
    return s.done(35_000)


@an_ordeal
def _a_vm_is_stopped_and_its_host_is_lost(rng: random.Random) -> Scenario:
    story = "A VM whose guest hangs is to be stopped, and its host loses its power before it is off"
    s = Story(rng, story, hosts=3, vms=("host1", "host2"))
    s.at(500, "vm-hang", vm="vm1")
    s.at(1_000, "set-state", vm="vm1", state="stopped")
    s.at(1_200, "vm-crash", vm="vm2")
    s.at(2_000 + rng.uniform(0, 8_000), "power-off", host="host1")
    return s.done(40_000)
