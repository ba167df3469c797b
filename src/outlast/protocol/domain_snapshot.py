"""What an agent knows of the fault domain, as the snapshot that placements are decided from.

A host has the room that its VMs leave of it: all that stand on its power-on list, and those whose start was ordered there
and has not come so far. Of memory, what the host measures as free counts too, if it is less: others use memory as well.
Whatever a VM stood on last counts as its place, also while nobody hears that host: it may run there. On a host that is
proven dead nothing runs.
"""

from collections.abc import Mapping

from outlast.model.ids import DatastoreName, HostId, VmId
from outlast.model.inventory import Capacity, Needs
from outlast.model.planning import UNLIMITED, PlanHost, PlanVm, Snapshot
from outlast.model.policy import NO_WISH, rank
from outlast.model.records import PoweredVm, ProtectedVm
from outlast.protocol.host_condition import kept_empty, last_resort
from outlast.protocol.knowledge import Knowledge
from outlast.protocol.verdict import Verdict

_NONE = Needs()


def take(
    known: Knowledge, waiting: Mapping[VmId, PlanVm], ordered: Mapping[VmId, PlanVm], *, measured: bool = True
) -> Snapshot:
    """`waiting`: VMs that need a host, wherever they stood; `ordered`: those that are being started on their `host`.

    `measured` False: what hosts measure as free does not count, so that the snapshot is another one only if something is.
    """
    vms: dict[VmId, PlanVm] = {}
    arrived: set[VmId] = set()
    for vm, (host, line) in known.whereabouts().items():
        if vm in waiting or vm in ordered:
            if vm in ordered and ordered[vm].host == host:
                arrived.add(vm)
            continue
        if known.verdict(host) is not Verdict.DEAD:
            vms[vm] = as_listed(vm, host, line)
    vms |= waiting
    vms |= ordered
    on_the_way = {vm: ordered[vm] for vm in ordered if vm not in arrived}
    hosts = _hosts(known, vms, on_the_way if measured else None)
    return Snapshot(hosts=hosts, vms=tuple(vms[vm] for vm in sorted(vms)), rules=known.rulebook.rules)


def as_listed(vm: VmId, host: HostId | None, line: PoweredVm) -> PlanVm:
    """A VM as a power-on list has it. One that is never restarted automatically only takes room."""
    priority = (line.policy or NO_WISH).priority
    wanted = line.protected and priority != "disabled"
    return PlanVm(vm=vm, name=line.name, needs=needs_of(line, line.home), host=host, wanted=wanted, tier=rank(priority))


def needs_of(vm: PoweredVm | ProtectedVm, home: DatastoreName | None) -> Needs:
    """What a VM on a list needs; an entry of an older release says its memory and its home alone."""
    needs, datastores = vm.needs, vm.needs.datastores
    if home is not None and home not in datastores:
        datastores = (home, *datastores)
    return Needs(
        memory_mib=max(vm.memory_mib, needs.memory_mib),
        cpu=max(needs.cpu, needs.reserved_cpu),
        reserved_cpu=needs.reserved_cpu,
        datastores=datastores,
        networks=needs.networks,
        cpu_model=needs.cpu_model,
    )


def _hosts(known: Knowledge, vms: dict[VmId, PlanVm], on_the_way: dict[VmId, PlanVm] | None) -> tuple[PlanHost, ...]:
    used, empty, last = _sums(vms), kept_empty(known), last_resort(known)
    promised = _sums(on_the_way or {})
    hosts: list[PlanHost] = []
    for host in known.members:
        capacity = _capacity(known, host)
        memory = max(0, capacity.memory_mib - capacity.reserved_memory_mib)
        free = memory - used.get(host, _NONE).memory_mib
        if on_the_way is not None:
            free = min(free, capacity.free_memory_mib - promised.get(host, _NONE).memory_mib)
        hosts.append(
            _host(known, host, (memory, max(0, free)), used.get(host, _NONE), (empty.get(host, ""), last.get(host, "")))
        )
    return tuple(hosts)


def _capacity(known: Knowledge, host: HostId) -> Capacity:
    seen = known.beats.get(host)
    return known.capacity if host == known.me or seen is None else seen.beat.capacity


def _sums(vms: dict[VmId, PlanVm]) -> dict[HostId, Needs]:
    """What the VMs of each host need together."""
    memory: dict[HostId, list[int]] = {}
    for vm in vms.values():
        if vm.host is not None:
            sums = memory.setdefault(vm.host, [0, 0, 0])
            sums[0] += vm.needs.memory_mib
            sums[1] += vm.needs.cpu
            sums[2] += vm.needs.reserved_cpu
    return {host: Needs(memory_mib=m, cpu=c, reserved_cpu=r) for host, (m, c, r) in memory.items()}


def _host(known: Knowledge, host: HostId, memory: tuple[int, int], used: Needs, condition: tuple[str, str]) -> PlanHost:
    member, capacity = known.members[host], _capacity(known, host)
    cpu = max(0, capacity.cpus * 100 - capacity.reserved_cpu) if capacity.cpus else UNLIMITED
    return PlanHost(
        id=host,
        name=member.name,
        labels=member.labels,
        unusable=why_unusable(known, host),
        kept_empty=condition[0],
        last_resort=condition[1],
        spare=member.spare,
        memory_mib=memory[0],
        cpu=cpu,
        free_memory_mib=memory[1],
        free_cpu=cpu - used.cpu,
        free_reserved_cpu=cpu - used.reserved_cpu,
        leases=known.leases_of(host),
        networks=frozenset(capacity.networks) if capacity.networks is not None else None,
        cpu_models=frozenset(capacity.cpu_models),
    )


def why_refused(known: Knowledge, host: HostId) -> str:
    """Why nothing is to be started on a host now, if another one can; an empty string if it may be."""
    return why_unusable(known, host) or kept_empty(known).get(host, "")


def why_unusable(known: Knowledge, host: HostId) -> str:
    """Why nothing can be started on a host now; an empty string if something can."""
    seen, mine = known.beats.get(host), host == known.me
    if not mine and (seen is None or not known.live(host)):
        return "it is not connected"
    if seen is not None and not mine:
        if not seen.beat.rank.not_isolated:
            return "it is isolated"
        if seen.beat.leaving:
            return "its agent is about to end"
    if not (known.hypervisor_up if mine or seen is None else seen.beat.hypervisor_up):
        return "its libvirt does not answer"
    return ""
