"""Ordeals about hosts that lose a datastore which others reach: see `ordeals.py`.

What is feared of VMs that are given up stands in `protocol/storage_loss.py`.
"""

import random

from outlast.model.ids import DatastoreName
from outlast.model.time import SECOND
from outlast.scenario.model import DatastoreSpec, Scenario
from outlast.sim.ordeals import _ordeal as an_ordeal
from outlast.sim.ordeals import _Story as Story

_SOON = {"storage_loss_after": 4 * SECOND}
_HELD_FOR_EVER = (DatastoreSpec(name=DatastoreName("ds1"), in_flight_bound=None),)


@an_ordeal
def _a_host_gives_its_vm_up(rng: random.Random) -> Scenario:
    s = Story(rng, "A host loses its storage, and gives its VM up", settings=_SOON)
    s.store(1000, "cut", "host1")
    s.store(rng.uniform(14_000, 20_000), "heal", "host1")
    return s.done(26_000)


@an_ordeal
def _a_process_that_cannot_exit(rng: random.Random) -> Scenario:
    s = Story(rng, "A host is to give a VM up whose process hangs in its kernel", stores=_HELD_FOR_EVER, settings=_SOON)
    s.store(rng.uniform(500, 2_000), "cut", "host1")
    s.store(24_000, "heal", "host1")
    return s.done(30_000)


@an_ordeal
def _lost_where_writes_may_be_held(rng: random.Random) -> Scenario:
    store = DatastoreSpec(name=DatastoreName("ds1"), in_flight_bound=None, accept_in_flight_risk=False)
    s = Story(rng, "A host loses a datastore whose risk nobody accepted", stores=(store,), settings=_SOON)
    s.store(rng.uniform(500, 2_000), "lost", "host1")
    return s.done(24_000)


@an_ordeal
def _given_up_and_started_there_again(rng: random.Random) -> Scenario:
    s = Story(rng, "A VM is given up by a host, and comes back to it when it fails elsewhere", settings=_SOON)
    s.store(1000, "cut", "host1")
    s.store(20_000, "heal", "host1")
    s.at(21_000, "start-fails", vm="vm1", host="host2", times=-1)
    s.at(rng.uniform(24_000, 26_000), "vm-crash", vm="vm1")
    return s.done(50_000)


@an_ordeal
def _back_before_it_is_given_up(rng: random.Random) -> Scenario:
    s = Story(rng, "The storage of a host is back when it is asked to give its VM up, and slow", settings=_SOON)
    s.store(1000, "cut", "host1")
    s.heal_slowly(rng.uniform(10_200, 10_900), "host1")
    s.store(18_000, "slow", "host1", latency=0)
    return s.done(26_000)


@an_ordeal
def _a_keeper_that_stood_still_is_asked(rng: random.Random) -> Scenario:
    s = Story(rng, "A keeper is stopped for longer than storage_loss_after, while its storage is well", settings=_SOON)
    s.at(1000, "keeper-stop", host="host1")
    s.at(rng.uniform(14_000, 18_000), "keeper-resume", host="host1")
    return s.done(26_000)
