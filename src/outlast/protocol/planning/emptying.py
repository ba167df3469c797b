"""Where the VMs of hosts go that are to be empty: by the planner of restarts, as if those hosts were lost and proven so.

All are planned together, and after those that wait for a restart already: who does not run comes first. What a move needs
besides (memory for two copies while it lasts) is no matter: the host that a VM leaves is to be empty anyway.
"""

from collections.abc import Collection

import msgspec

from outlast.model.ids import HostId, VmId
from outlast.model.planning import PlanVm, Snapshot
from outlast.protocol.planning.explaining import explain_all
from outlast.protocol.planning.planner import make_plan
from outlast.protocol.planning.problem import Problem

AFTER_ALL = 1000
"""Added to the tier of who runs still."""
NO_DATASTORE = "not all that it needs is on a datastore of the fault domain"


class Leaving(msgspec.Struct, frozen=True):
    """One VM that is to go on elsewhere; as planning sees it, on the host that it goes to."""

    vm: PlanVm
    origin: HostId
    why: str


class Evacuation(msgspec.Struct, frozen=True):
    """Who moves, the most important first, and who cannot, with the reason."""

    moves: tuple[Leaving, ...]
    stays: dict[VmId, str]


def plan_emptying(snapshot: Snapshot, hosts: Collection[HostId], leaving: Collection[VmId] | None = None) -> Evacuation:
    """A place for every VM of these hosts, or for those in `leaving` alone."""
    there = {vm.vm: vm for vm in snapshot.vms if vm.host in hosts and (leaving is None or vm.vm in leaving)}
    stays = {vm.vm: NO_DATASTORE for vm in there.values() if not vm.needs.datastores}
    moving = {vm: each for vm, each in there.items() if vm not in stays}
    vms = tuple(_as_waiting(vm) if vm.vm in moving else vm for vm in snapshot.vms)
    closed = tuple(
        msgspec.structs.replace(host, kept_empty="it is to be empty") if host.id in hosts and not host.kept_empty else host
        for host in snapshot.hosts
    )
    problem = Problem(msgspec.structs.replace(snapshot, hosts=closed, vms=vms))
    plan = make_plan(problem)
    explained = explain_all(problem, plan, about=moving)
    targets = {vm: host for vm, host in plan.targets.items() if vm in moving}
    moves: list[Leaving] = []
    for vm, host in targets.items():
        origin = moving[vm].host
        if host is None:
            refused = "; ".join(f"{name}: {why}" for name, why in explained[vm].refused())
            stays[vm] = f"no other host can take it ({refused})" if refused else "no other host can take it"
        elif origin is not None:
            placed = msgspec.structs.replace(moving[vm], host=host)
            moves.append(Leaving(placed, origin, explained[vm].considered[0].why))
    return Evacuation(tuple(moves), stays)


def _as_waiting(vm: PlanVm) -> PlanVm:
    return msgspec.structs.replace(vm, host=None, wanted=True, tier=vm.tier + AFTER_ALL)
