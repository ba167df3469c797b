"""A scenario's world: built from its values, and each verb of the language done to it.

What `World` calls by another name, or does with other arguments, is translated here. A verb that it cannot do is refused
before anything runs.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from outlast.model.errors import UsageError
from outlast.model.ids import DatastoreName, HostId, VmId
from outlast.model.inventory import DatastoreMember
from outlast.model.records import Enforcement
from outlast.model.settings import Settings
from outlast.model.time import SECOND
from outlast.scenario.model import Scenario, Step
from outlast.scenario.telling import REBOOT_AFTER, sharing_device
from outlast.sim.world import VmSpec, World

LIBVIRTD_RESTARTS = 5 * SECOND


def check(scenario: Scenario) -> None:
    """Raises UsageError that names the verbs that this world cannot do."""
    refused = [step for step in scenario.steps if step.do not in _VERBS]
    if refused:
        name = scenario.path or scenario.title
        listed = "\n".join(f"  {name}:{step.line}: the simulated world cannot do {step.do} yet" for step in refused)
        raise UsageError(f"{name} cannot be played:\n{listed}", "leave it out; nothing was run")


def make(scenario: Scenario, seed: int) -> World:
    """The world of a scenario, before anything has happened in it. Raises UsageError as `check` does."""
    check(scenario)
    on = {host.name for host in scenario.hosts if host.power == "on"}
    world = World(
        [host.name for host in scenario.hosts],
        [store.name for store in scenario.datastores],
        [
            VmSpec(vm.name, vm.host, vm.datastore, vm.memory_mib, vm.state != "unprotected", vm.isolation_response)
            for vm in scenario.vms
        ],
        settings=msgspec.structs.replace(Settings(), **scenario.settings),
        seed=seed,
        powered=lambda name: name in on,
    )
    _furnish(world, scenario)
    return world


def _furnish(world: World, scenario: Scenario) -> None:
    """What the values say beyond names, before any daemon has started."""
    domain = world.domain
    domain.datastores = tuple(
        DatastoreMember(d.name, f"/srv/{d.name}", d.in_flight_bound, d.accept_in_flight_risk) for d in scenario.datastores
    )
    for store in scenario.datastores:
        domain.stores[store.name].filesystem = store.filesystem
        domain.stores[store.name].device = store.device or f"array-{store.name}"
    start_times = {VmId(vm.name): vm.start_time for vm in scenario.vms}
    for spec in scenario.hosts:
        host = world.hosts[spec.name]
        host.memory_mib = spec.memory_mib
        host.enforcement = Enforcement(spec.enforcement or "keeper")
        host.start_time = lambda vm: start_times[vm]
        if spec.datastores is not None:
            domain.reach[HostId(spec.name)] = spec.datastores


def do(world: World, scenario: Scenario, step: Step) -> None:
    """One step, now. A fault of a datastore is one of every datastore on its device."""
    if "datastore" not in step.keys:
        _VERBS[step.do](world, step.keys)
        return
    for name in sharing_device(scenario, step.keys["datastore"]):
        _VERBS[step.do](world, step.keys | {"datastore": name})


Keys = dict[str, Any]


def _reboot(world: World, keys: Keys) -> None:
    world.power_off(keys["host"])
    boots = world.hosts[keys["host"]].boots

    def again() -> None:
        if world.hosts[keys["host"]].boots == boots:
            world.power_on(keys["host"])

    world.scheduler.after(keys.get("for", REBOOT_AFTER), again)


def _network(world: World, keys: Keys, *, cut: bool) -> None:
    network = world.domain.network
    if "host" in keys and not cut:
        world.network_heal(keys["host"])
    elif "host" in keys:
        (network.muted if keys.get("one_way") else network.cut).add(HostId(keys["host"]))
    groups = keys.get("between", ())
    for i, one in enumerate(groups):
        for a, b in ((a, b) for other in groups[i + 1 :] for a in one for b in other):
            pairs = (
                {(HostId(a), HostId(b))}
                if keys.get("one_way") and cut
                else {(HostId(a), HostId(b)), (HostId(b), HostId(a))}
            )
            network.blocked = network.blocked | pairs if cut else network.blocked - pairs


def _isolation_addresses(world: World, *, answer: bool) -> None:
    world.domain.network.isolation_address_answers = answer


def _slow(world: World, keys: Keys) -> None:
    world.hosts[keys["host"]].slow_storage(DatastoreName(keys["datastore"]), keys["latency"])


def _storage(mode: str) -> Callable[[World, Keys], None]:
    def work(world: World, keys: Keys) -> None:
        for host in [keys["host"]] if "host" in keys else list(world.hosts):
            world.storage(host, keys["datastore"], mode)
            if mode == "ok":
                world.hosts[host].slow_storage(DatastoreName(keys["datastore"]), 0)

    return work


def _hypervisor_kill(world: World, keys: Keys) -> None:
    world.hypervisor_mode(keys["host"], "dead")
    world.scheduler.after(LIBVIRTD_RESTARTS, lambda: world.hypervisor_mode(keys["host"], "up"))


_VERBS: dict[str, Callable[[World, Keys], object]] = {
    "power-off": lambda world, keys: world.power_off(keys["host"]),
    "power-on": lambda world, keys: world.power_on(keys["host"]),
    "reboot": _reboot,
    "network-cut": lambda world, keys: _network(world, keys, cut=True),
    "network-heal": lambda world, keys: _network(world, keys, cut=False),
    "network-loss": lambda world, keys: world.network_loss(keys["host"], keys["percent"]),
    "isolation-address-cut": lambda world, _: _isolation_addresses(world, answer=False),
    "isolation-address-heal": lambda world, _: _isolation_addresses(world, answer=True),
    "storage-cut": _storage("hang"),
    "storage-heal": _storage("ok"),
    "storage-lost": _storage("fail"),
    "storage-slow": _slow,
    "storage-outage": _storage("hang"),
    "storage-restore": _storage("ok"),
    "agent-kill": lambda world, keys: world.hosts[keys["host"]].agent.kill(),
    "agent-stop": lambda world, keys: world.hosts[keys["host"]].agent.stop(),
    "agent-resume": lambda world, keys: world.hosts[keys["host"]].agent.resume(),
    "keeper-kill": lambda world, keys: world.hosts[keys["host"]].keeper.kill(),
    "keeper-stop": lambda world, keys: world.hosts[keys["host"]].keeper.stop(),
    "keeper-resume": lambda world, keys: world.hosts[keys["host"]].keeper.resume(),
    "hypervisor-kill": _hypervisor_kill,
    "hypervisor-hang": lambda world, keys: world.hypervisor_mode(keys["host"], "hung"),
    "hypervisor-resume": lambda world, keys: world.hypervisor_mode(keys["host"], "up"),
    "vm-crash": lambda world, keys: world.vm_crash(keys["vm"]),
    "vm-power-off": lambda world, keys: world.vm_power_off(keys["vm"]),
    "vm-start": lambda world, keys: world.vm_start(keys["vm"], keys["host"]),
    "vm-start-elsewhere": lambda world, keys: world.vm_start(keys["vm"], keys["host"]),
    "start-fails": lambda world, keys: world.start_fails(keys["vm"], keys.get("host", ""), keys.get("times", 1)),
    "clock-jump": lambda world, keys: world.hosts[keys["host"]].jump_wall_clock(keys["by"]),
}
VERBS = frozenset(_VERBS)
"""What `shut-down` and `host-stall` need is not in this world."""
