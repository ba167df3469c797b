"""What must hang together in a scenario whose every word is right: times within it, VMs on hosts that can hold them."""

from collections.abc import Iterator

from outlast.model.policy import cycle_in
from outlast.model.rules import problem
from outlast.model.time import Duration
from outlast.model.units import duration_text
from outlast.scenario.lines import Path
from outlast.scenario.model import HostSpec, Scenario, VmSpec


def nonsense(scenario: Scenario) -> list[tuple[Path, str]]:
    """Every contradiction: where it stands, and a sentence."""
    return [*_times(scenario), *_hosts(scenario), *_vms(scenario), *_rules(scenario)]


def _times(scenario: Scenario) -> Iterator[tuple[Path, str]]:
    if scenario.duration == 0:
        yield ("duration",), "duration is nothing: let the scenario run for a while"
    for i, step in enumerate(scenario.steps):
        if step.at > scenario.duration:
            yield ("steps", i, "at"), _too_late("step", step.at, scenario.duration)
    for i, expectation in enumerate(scenario.expect):
        if expectation.at is not None and expectation.at > scenario.duration:
            yield ("expect", i, "at"), _too_late("expectation", expectation.at, scenario.duration)


def _too_late(what: str, at: Duration, end: Duration) -> str:
    return f"this {what} is at {duration_text(at)}, but the scenario ends after {duration_text(end)}: raise duration"


def _hosts(scenario: Scenario) -> Iterator[tuple[Path, str]]:
    for i, host in enumerate(scenario.hosts):
        if host.enforcement == "watchdog" and not host.watchdog:
            yield ("hosts", i, "enforcement"), f"{host.name} has no watchdog to enforce with: add watchdog = true"


def _vms(scenario: Scenario) -> Iterator[tuple[Path, str]]:
    hosts = {host.name: host for host in scenario.hosts}
    taken = dict.fromkeys(hosts, 0)
    for i, vm in enumerate(scenario.vms):
        if vm.host:
            taken[vm.host] += max(vm.memory_mib, vm.memory_usage_mib or 0)
            yield from ((("vms", i, "host"), sentence) for sentence in _misplaced(vm, hosts[vm.host], taken[vm.host]))
        if vm.datastore in vm.disks_on:
            yield ("vms", i, "disks_on"), f"disks_on names {vm.datastore}, which is the home of {vm.name}: leave it out"
        yield from ((("vms", i, "same_disk_as"), sentence) for sentence in _misshared(scenario, vm))
        if vm.name in vm.after:
            yield ("vms", i, "after"), f"{vm.name} cannot wait for itself"
    ring = cycle_in({vm.name: [name for name in vm.after if name != vm.name] for vm in scenario.vms})
    if ring:
        where = next(i for i, vm in enumerate(scenario.vms) if vm.name == ring[-1])
        waits = ", ".join(f"{a} waits for {b}" for a, b in zip(ring, (*ring[1:], ring[0]), strict=True))
        yield ("vms", where, "after"), f"these VMs wait for each other: {waits}: leave one of them out"


def _misshared(scenario: Scenario, vm: VmSpec) -> Iterator[str]:
    other = next((each for each in scenario.vms if each.name == vm.same_disk_as), None)
    if other is None:
        return
    if other.datastore != vm.datastore or other.same_disk_as:
        yield f"{vm.name} cannot have the disk of {other.name}: its own must be one on {vm.datastore}"
    if vm.host and other.host:
        yield f"{vm.name} and {other.name} cannot both run at the start: they have one disk"


def _misplaced(vm: VmSpec, host: HostSpec, taken_mib: int) -> Iterator[str]:
    if host.power == "off":
        yield f"{vm.name} cannot run on {host.name} at the start: it is off"
    for store in (vm.datastore, *vm.disks_on):
        if host.datastores is not None and store not in host.datastores:
            yield f"{vm.name} cannot run on {host.name}: it does not reach {store}"
    if taken_mib > host.memory_mib:
        yield f"{vm.name} does not fit on {host.name}: its VMs want {taken_mib} MiB, and it has {host.memory_mib} MiB"


def _rules(scenario: Scenario) -> Iterator[tuple[Path, str]]:
    for i, rule in enumerate(scenario.rules):
        wrong = problem(rule)
        if wrong:
            yield ("rules", i, "kind"), f"a rule of the kind {rule.kind} {wrong}"
