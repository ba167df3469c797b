"""Random scenarios, one more VM: a clone that has another VM's disk, and is started when that one may be as well."""

import random
from collections.abc import Iterator

from outlast.model.ids import VmName
from outlast.model.time import MILLISECOND, SECOND, Duration
from outlast.scenario.model import HostSpec, Step, VmSpec, WantedState

CLONE = VmName("clone1")
_STATES: tuple[WantedState, ...] = ("running", "unprotected")


def sometimes(
    seed: int, hosts: tuple[HostSpec, ...], vms: tuple[VmSpec, ...], until: int
) -> tuple[tuple[VmSpec, ...], tuple[Step, ...]]:
    """For every fifth seed, the VMs and a clone that is off, and what is done with it and its original until then."""
    rng = random.Random(f"clones {seed}")
    if rng.randrange(5):
        return vms, ()
    original = rng.choice(vms)
    clone = VmSpec(
        name=CLONE, datastore=original.datastore, same_disk_as=original.name, state=rng.choice(_STATES), memory_mib=512
    )
    steps = [step for _ in range(rng.randrange(1, 5)) for step in _meeting(rng, hosts, original.name, until)]
    return (*vms, clone), tuple(steps)


def _meeting(rng: random.Random, hosts: tuple[HostSpec, ...], original: VmName, until: int) -> Iterator[Step]:
    """One of the two ends, in some way or not at all; then both are started, almost at once, and before `until`."""
    at = rng.randrange(SECOND, max(until - 6 * SECOND, 2 * SECOND))
    ends = rng.choice(("vm-power-off", "vm-crash", ""))
    if ends:
        yield Step(at=Duration(at), do=ends, keys={"vm": rng.choice((original, CLONE))})
    at += rng.choice((5, 50, 500, 5000)) * MILLISECOND
    for vm in rng.sample((original, CLONE), rng.choice((1, 2, 2))):
        keys = {"vm": vm, "host": rng.choice(hosts).name}
        yield Step(at=Duration(at + rng.randrange(20) * MILLISECOND), do="vm-start-elsewhere", keys=keys)
