"""The simulated world as a snapshot for planning: what is true, whatever anybody believes.

Every host that has power can be used, unless it is to be kept empty; every process takes its room, and the rules are those
of the scenario without the contradictions. `all-recovered` asks it which VMs there is a place for.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from outlast.model.ids import HostId, VmId
from outlast.model.planning import PlanHost, PlanVm, Snapshot
from outlast.protocol.planning.rulebook import resolve
from outlast.sim.host import Host

if TYPE_CHECKING:
    from outlast.sim.ground import Ground


def truth_snapshot(world: "Ground", wanted: frozenset[VmId], nobody_knows: Mapping[VmId, HostId]) -> Snapshot:
    """The world now. `wanted`: the VMs that are to run; a process of any other one takes room all the same.

    `nobody_knows`: VMs that may run on a host for all that anybody can know, and count as if they did.
    """
    domain = world.domain
    where = {vm: host.id for host in world.hosts.values() if host.powered for vm in host.hypervisor.processes}
    where |= nobody_knows
    vms = tuple(
        PlanVm(
            vm=vm,
            name=definition.name,
            needs=definition.needs,
            host=where.get(vm),
            wanted=vm in wanted,
        )
        for vm, definition in sorted(domain.definitions.items())
        if vm in wanted or vm in where
    )
    hosts = tuple(
        _host(host, vms, host.id in world.kept_empty or host.health.level == "failing") for host in world.hosts.values()
    )
    return Snapshot(hosts=hosts, vms=vms, rules=resolve(domain.rules, domain.hosts).rules)


def _host(host: Host, vms: tuple[PlanVm, ...], kept_empty: bool) -> PlanHost:
    there = [vm.needs for vm in vms if vm.host == host.id]
    member = next(m for m in host.domain.hosts if m.id == host.id)
    return PlanHost(
        id=host.id,
        name=member.name,
        labels=member.labels,
        unusable="" if host.powered else "it has no power",
        kept_empty="it is kept empty" if kept_empty else "",
        memory_mib=host.memory_mib,
        cpu=host.cpus * 100,
        free_memory_mib=host.memory_mib - sum(needs.memory_mib for needs in there),
        free_cpu=host.cpus * 100 - sum(needs.cpu for needs in there),
        free_reserved_cpu=host.cpus * 100 - sum(needs.reserved_cpu for needs in there),
        leases=host.reached(),
        networks=frozenset(host.networks) if host.networks is not None else None,
        cpu_models=frozenset(host.cpu_models),
    )
