"""Random scenarios from a seed: first faults of every kind, then all is healed, then recovery is demanded.

Swarm style: each seed draws its own size of the domain, its settings (`random_settings.py`), which kinds of fault it uses
at all (`random_faults.py`), and for some where VMs may go (`random_placing.py`), so that rare combinations are not drowned
by the usual mixture. The result is a scenario like one that a person wrote, so a failing one can be shrunk, kept in a file
and played again.
"""

import random
from typing import Literal

import msgspec

from outlast.model.ids import DatastoreName, HostName, VmName
from outlast.model.settings import Settings
from outlast.model.time import MILLISECOND, SECOND, Duration
from outlast.scenario.model import DatastoreSpec, HostSpec, Scenario, VmSpec
from outlast.sim import random_clones, random_placing, random_settings
from outlast.sim.random_faults import Trouble
from outlast.sim.recovery_watch import recovery_bound

FAULTS_FOR = 32 * SECOND
RESETS = 20 * SECOND
"""After the last heal `all-recovered` has its bound, the time that a reset host needs to boot, and a little."""

WAIT = Duration(10 * SECOND)
"""How long VMs wait for those that they name in `after`, where any do."""

_SIZES = (2, 3, 3, 3, 4, 4, 5, 5, 6, 8)
_LARGE = range(9, 33)


def generate(seed: int) -> Scenario:
    """The random scenario of this seed."""
    rng = random.Random(f"scenario {seed}")
    large = rng.randrange(60) == 0
    datastores = _datastores(rng)
    names = [d.name for d in datastores]
    hosts = _hosts(rng, rng.choice(_LARGE if large else _SIZES), names)
    vms = _vms(rng, hosts, names, large)
    hosts, vms, rules = random_placing.sometimes(seed, hosts, vms)
    drawn = random_settings.draw(rng, watchdogs=any(host.watchdog for host in hosts)) | random_settings.graces(seed)
    drawn |= random_settings.storage_loss(seed, drawn) | random_settings.shutdowns(seed) | random_settings.guests(seed)
    settings = Settings(**drawn)
    trouble = Trouble(rng, hosts, datastores, vms, settings)
    steps = trouble.steps(FAULTS_FOR if not large else FAULTS_FOR // 3)
    ended = max((step.at for step in steps), default=0)
    run_seed = rng.getrandbits(31)
    vms = _policies(rng, vms)
    vms, more = random_clones.sometimes(seed, hosts, vms, ended)
    steps = tuple(sorted((*steps, *more), key=lambda step: step.at))
    return Scenario(
        title=f"random {seed}",
        story=f"Made from seed {seed}: {len(hosts)} hosts, {len(vms)} VMs, faults of the kinds {', '.join(trouble.kinds)}.",
        seed=run_seed,
        duration=Duration(ended + recovery_bound(settings) + RESETS + sum(WAIT for vm in vms if vm.after)),
        settings=drawn | ({"dependency_timeout": WAIT} if any(vm.after for vm in vms) else {}),
        datastores=datastores,
        hosts=hosts,
        vms=vms,
        rules=rules,
        steps=steps,
    )


def _datastores(rng: random.Random) -> tuple[DatastoreSpec, ...]:
    bounds = [Duration(SECOND), Duration(SECOND), Duration(SECOND // 5), None]
    return tuple(
        DatastoreSpec(
            name=DatastoreName(f"ds{i + 1}"),
            filesystem=rng.choice(["nfs", "nfs", "cephfs", "ext4"]),
            device=rng.choice(["array-a", f"array-{i}"]),
            in_flight_bound=rng.choice(bounds),
            accept_in_flight_risk=rng.randrange(8) > 0,
        )
        for i in range(rng.choice([1, 2, 2, 3]))
    )


def _hosts(rng: random.Random, count: int, stores: list[DatastoreName]) -> tuple[HostSpec, ...]:
    watchdogs = rng.choice([0, 0, 0, 50, 100])
    nones = rng.choice([0, 0, 0, 30])
    partial = rng.choice([0, 0, 30])
    devices = rng.choice([0, 0, 50, 100])

    def host(i: int) -> HostSpec:
        level: Literal["", "none"] = "none" if rng.randrange(100) < nones else ""
        reached = None
        if rng.randrange(100) < partial and len(stores) > 1:
            reached = tuple(sorted(rng.sample(stores, len(stores) - 1)))
        return HostSpec(
            name=HostName(f"host{i + 1}"),
            cpus=32,
            watchdog=not level and rng.randrange(100) < watchdogs,
            enforcement=level,
            fencing=rng.randrange(100) < devices,
            datastores=reached,
        )

    return tuple(host(i) for i in range(count))


def _vms(rng: random.Random, hosts: tuple[HostSpec, ...], stores: list[DatastoreName], large: bool) -> tuple[VmSpec, ...]:
    def vm(i: int) -> VmSpec:
        home = rng.choice(stores)
        able = [h.name for h in hosts if h.datastores is None or home in h.datastores]
        return VmSpec(
            name=VmName(f"vm{i + 1}"),
            datastore=home,
            host=rng.choice(able) if able else HostName(""),
            start_time=Duration(rng.choice([100, 500, 500, 3000]) * MILLISECOND),
            isolation_response=rng.choice([None, None, None, "leave-running", "power-off"]),
        )

    return tuple(vm(i) for i in range(len(hosts) if large else rng.choice([1, 2, 3, 4, 6])))


def _policies(rng: random.Random, vms: tuple[VmSpec, ...]) -> tuple[VmSpec, ...]:
    """In half of the scenarios, policies of the VMs' own. Each waits only for earlier ones: there are no rings."""
    if rng.randrange(2):
        return vms

    def policy(i: int, vm: VmSpec) -> VmSpec:
        earlier = [each.name for each in vms[:i]]
        return msgspec.structs.replace(
            vm,
            priority=rng.choice(["highest", "high", "medium", "medium", "low", "lowest", "disabled"]),
            after=tuple(sorted(rng.sample(earlier, min(i, rng.choice([0, 0, 1, 2]))))),
            ready=rng.choice(["powered-on", "powered-on", "guest-heartbeat", "delay:3s"]),
            max_restarts=rng.choice([-1, 0, 1, 1, 3]),
            max_relocations=rng.choice([-1, 0, 1, 1, 3]),
        )

    return tuple(policy(i, vm) for i, vm in enumerate(vms))
