"""Ordeals about live migrations: see `ordeals.py`. What is feared of copies stands in `protocol/copies.py`."""

import random

from outlast.model.time import MILLISECOND
from outlast.scenario.model import Scenario
from outlast.sim.ordeals import _ordeal as an_ordeal
from outlast.sim.ordeals import _Story as Story

_LATENCIES = (0, 0, 100, 300, 450)
"""Milliseconds that each request to storage takes, as likely none."""


@an_ordeal
def _migrates(rng: random.Random) -> Scenario:
    s = Story(rng, "A VM migrates, and the storage of its host is slow to take the release", hosts=3)
    s.store(rng.uniform(0, 1_000), "slow", "host1", latency=rng.choice([300, 600]) * MILLISECOND)
    s.at(2_000, "migrate", vm="vm1", host="host2")
    return s.done(15_000)


@an_ordeal
def _migrates_back_to_where_a_keeper_dies(rng: random.Random) -> Scenario:
    s = Story(rng, "A VM migrates there and back within one term, and the keeper that it comes back to dies", hosts=3)
    s.at(1_000, "migrate", vm="vm1", host="host2")
    s.at(8_000, "migrate", vm="vm1", host="host1")
    s.at(rng.uniform(9_000, 12_500), "keeper-kill", host="host1")
    return s.done(25_000)


@an_ordeal
def _crashes_while_it_migrates(rng: random.Random) -> Scenario:
    s = Story(rng, "A VM crashes in the middle of its migration", hosts=3)
    s.at(1_000, "migrate", vm="vm1", host="host2")
    s.at(rng.uniform(1_800, 4_000), "vm-crash", vm="vm1")
    return s.done(15_000)


@an_ordeal
def _migrated_and_never_released_to_its_copy(rng: random.Random) -> Scenario:
    s = Story(rng, "A host forgets that it is to release a VM to its copy; the VM starts afresh, and ends", hosts=3)
    s.store(0, "slow", "host1", latency=600 * MILLISECOND)
    s.at(1_000, "migrate", vm="vm1", host="host2")
    killed = rng.uniform(3_000, 6_500)
    s.at(killed, "keeper-kill", host="host1")
    s.at(killed + 100, "agent-kill", host="host1")
    s.store(9_500, "slow", "host1", latency=0)
    s.at(rng.uniform(22_000, 30_000), "vm-crash", vm="vm1")
    return s.done(45_000)


def _slow_for(rng: random.Random, s: Story, host: str) -> None:
    s.store(500, "slow", host, latency=rng.choice(_LATENCIES) * MILLISECOND)


@an_ordeal
def _its_source_dies_while_it_migrates(rng: random.Random) -> Scenario:
    s = Story(rng, "A VM migrates, and its source loses its power; who has the copy is the only host left")
    _slow_for(rng, s, "host1")
    _slow_for(rng, s, "host2")
    s.at(1_000, "migrate", vm="vm1", host="host2")
    s.at(rng.uniform(1_500, 7_000), "power-off", host="host1")
    return s.done(30_000)


@an_ordeal
def _its_source_dies_and_the_keeper_of_its_copy(rng: random.Random) -> Scenario:
    s = Story(rng, "A source loses its power, and the keeper dies that ends its copy and takes the VM over")
    _slow_for(rng, s, "host2")
    s.at(1_000, "migrate", vm="vm1", host="host2")
    lost = rng.uniform(1_500, 4_500)
    s.at(lost, "power-off", host="host1")
    s.at(lost + rng.uniform(6_500, 10_000), "keeper-kill", host="host2")
    return s.done(35_000)


@an_ordeal
def _its_source_is_cut_off_while_it_migrates(rng: random.Random) -> Scenario:
    """Its storage first: libvirt gives a migration up soon after the network is gone."""
    s = Story(
        rng, "A source falls silent, and heals as its VM is taken over where the copy is", hosts=rng.choice([2, 2, 3])
    )
    _slow_for(rng, s, "host2")
    s.at(1_000, "migrate", vm="vm1", host="host2")
    cut = rng.uniform(1_300, 4_000)
    s.store(cut, "cut", "host1")
    silent = cut + rng.uniform(6_000, 8_500)
    s.at(silent, "network-cut", host="host1")
    heal = silent + rng.uniform(2_300, 4_500)
    s.heal_slowly(heal, "host1")
    s.at(heal + rng.uniform(0, 4_000), "network-heal", host="host1")
    return s.done(35_000)


@an_ordeal
def _it_migrates_again_where_its_first_copy_was(rng: random.Random) -> Scenario:
    s = Story(rng, "A migration fails, the next one goes to the same host, and its source loses its power")
    _slow_for(rng, s, "host2")
    s.at(1_000, "migrate", vm="vm1", host="host2")
    s.at(rng.uniform(1_300, 3_500), "hypervisor-kill", host=rng.choice(["host1", "host2"]))
    again = rng.uniform(7_000, 10_000)
    s.at(again, "migrate", vm="vm1", host="host2")
    s.at(again + rng.uniform(300, 4_500), "power-off", host="host1")
    return s.done(again + 30_000)


@an_ordeal
def _both_ends_fail_before_the_copy_has_a_process(rng: random.Random) -> Scenario:
    s = Story(rng, "The libvirt of the destination dies as it is about to make the copy, and the source loses its power")
    s.store(500, "slow", "host2", latency=rng.choice([300, 600, 1_000]) * MILLISECOND)
    s.at(1_000, "migrate", vm="vm1", host="host2")
    s.at(rng.uniform(1_100, 2_500), "hypervisor-kill", host="host2")
    s.at(rng.uniform(1_500, 4_000), "power-off", host="host1")
    s.store(rng.uniform(4_000, 9_000), "slow", "host2", latency=0)
    return s.done(35_000)
