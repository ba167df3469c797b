"""Where VMs may go in a random domain, made hard: sizes of hosts and VMs that leave little room, labels, and rules.

Drawn from a source of its own, so that everything else about a seed stays as it is. What runs at the start fits where it
runs; rules may be broken by it, and may contradict each other, as operators' do.
"""

import random

import msgspec

from outlast.model.ids import HostName, VmName
from outlast.model.rules import Rule, RuleKind
from outlast.scenario.model import HostSpec, VmSpec

_SIZES = (512, 1024, 2048, 2048, 4096, 8192)
_KINDS: tuple[RuleKind, ...] = ("keep-apart", "keep-apart", "keep-together", "run-on", "avoid")
Placed = tuple[tuple[HostSpec, ...], tuple[VmSpec, ...], tuple[Rule, ...]]


def draw(rng: random.Random, hosts: tuple[HostSpec, ...], vms: tuple[VmSpec, ...]) -> Placed:
    """The same domain with sizes and rules of its own."""
    vms = tuple(_vm(rng, vm) for vm in vms)
    # From hardly enough for what runs there to plenty.
    spare = rng.choice([0, 2048, 8192, 32768])
    racks = rng.choice([1, 2, 2, 3])
    hosts = tuple(_host(rng, host, vms, spare, f"r{1 + i % racks}") for i, host in enumerate(hosts))
    rules = tuple(_rule(rng, hosts, vms) for _ in range(rng.choice([0, 1, 2, 4]))) if len(vms) > 1 else ()
    return hosts, vms, rules


def sometimes(seed: int, hosts: tuple[HostSpec, ...], vms: tuple[VmSpec, ...]) -> Placed:
    """For every third seed; the others have room for all, and no rules. Every second rule that may asks for failback."""
    rng = random.Random(f"placing {seed}")
    if rng.randrange(3):
        return hosts, vms, ()
    hosts, vms, rules = draw(rng, hosts, vms)
    return hosts, vms, tuple(_goes_back(rule) if rule.kind == "run-on" and rng.randrange(2) else rule for rule in rules)


def _goes_back(rule: Rule) -> Rule:
    return msgspec.structs.replace(rule, failback=True)


def _vm(rng: random.Random, vm: VmSpec) -> VmSpec:
    cpus = rng.choice([1, 1, 1, 2, 4])
    used = rng.choice([None, None, None, cpus + rng.randrange(1, 20) / 10])
    return msgspec.structs.replace(vm, memory_mib=rng.choice(_SIZES), cpus=cpus, cpu_usage=used)


def _host(rng: random.Random, host: HostSpec, vms: tuple[VmSpec, ...], spare: int, rack: str) -> HostSpec:
    there = [vm for vm in vms if vm.host == host.name]
    memory = sum(vm.memory_mib for vm in there) + rng.choice([0, spare // 2, spare, spare])
    cpus = sum(vm.cpus for vm in there) + rng.choice([0, 2, 8, 32])
    labels = {"rack": rack} if rng.randrange(4) else {}
    return msgspec.structs.replace(host, memory_mib=max(1024, memory), cpus=max(1, cpus), labels=labels)


def _rule(rng: random.Random, hosts: tuple[HostSpec, ...], vms: tuple[VmSpec, ...]) -> Rule:
    kind = rng.choice(_KINDS)
    names: list[VmName] = [vm.name for vm in vms]
    about_hosts = kind in ("run-on", "avoid")
    some = rng.sample(names, rng.randrange(1 if about_hosts else 2, min(4, len(names)) + 1))
    chosen = rng.sample([host.name for host in hosts], rng.randrange(1, len(hosts) + 1)) if about_hosts else []
    return Rule(
        kind=kind,
        vms=tuple(sorted(some)),
        hosts={HostName(name): rng.randrange(1, 4) for name in sorted(chosen)},
        required=rng.randrange(3) > 0,
        by="rack" if kind == "keep-apart" and rng.randrange(4) == 0 else "",
    )
