"""Who goes back to a better host that is there again: VMs of `run-on` rules with `failback`.

A host is better if the rule prefers it to the one on which the VM runs; a host that the rule does not name is the worst of
all. A VM goes to the best that can take it now, by room, reach and the rules that are required; never to one that is kept
empty, or avoided because it failed again and again. Nobody else is moved for it, and who is frozen or being started is left
alone. One that is to be together with others (`keep-together`, required) stays with them.
"""

from collections.abc import Collection

import msgspec

from outlast.model.ids import HostId, VmId
from outlast.model.planning import PlanVm, Snapshot
from outlast.model.rules import Rule
from outlast.protocol.planning.board import Board
from outlast.protocol.planning.emptying import Leaving
from outlast.protocol.planning.problem import Problem

_UNNAMED = -(1 << 31)


def plan_failback(snapshot: Snapshot, settled: Collection[VmId], steady: Collection[HostId]) -> tuple[Leaving, ...]:
    """Every move that is worth it now, the most important VM first.

    `settled`: the VMs that run, and may be moved; `steady`: the hosts that have been well for long enough.
    """
    moves: list[Leaving] = []
    for vm in sorted(snapshot.vms, key=lambda each: (each.tier, each.name)):
        rule = next((rule for rule in snapshot.rules if rule.failback and vm.name in rule.vms), None)
        if rule is None or vm.host is None or vm.vm not in settled:
            continue
        to = _better(snapshot, vm, rule, steady)
        if to is not None:
            placed = msgspec.structs.replace(vm, host=to)
            moves.append(Leaving(placed, vm.host, f"the rule '{rule}' prefers it there"))
            snapshot = with_moved(snapshot, placed)
    return tuple(moves)


def _better(snapshot: Snapshot, vm: PlanVm, rule: Rule, steady: Collection[HostId]) -> HostId | None:
    """The best host that the rule prefers to the present one, and that can take it."""
    here = next((_liked(rule, host.name) for host in snapshot.hosts if host.id == vm.host), _UNNAMED)
    able = [host.id in steady and not host.last_resort for host in snapshot.hosts]
    better = [i for i, host in enumerate(snapshot.hosts) if able[i] and _liked(rule, host.name) > here]
    if not better:
        return None
    lifted = msgspec.structs.replace(vm, host=None)
    others = tuple(lifted if each.vm == vm.vm else each for each in snapshot.vms)
    board = Board(Problem(msgspec.structs.replace(snapshot, vms=others)))
    view = board.view(lifted)
    free = [i for i in better if not board.refusal(lifted, i)]
    best = max(free, key=lambda i: (_liked(rule, snapshot.hosts[i].name), board.rank(view, i)), default=None)
    return snapshot.hosts[best].id if best is not None else None


def _liked(rule: Rule, name: str) -> int:
    return {str(host): preference for host, preference in rule.hosts.items()}.get(name, _UNNAMED)


def with_moved(snapshot: Snapshot, placed: PlanVm) -> Snapshot:
    """With the VM on its new host. What it leaves behind is not free before it has arrived."""
    vms = tuple(placed if each.vm == placed.vm else each for each in snapshot.vms)
    hosts = tuple(
        msgspec.structs.replace(
            host,
            free_memory_mib=host.free_memory_mib - placed.needs.memory_mib,
            free_cpu=host.free_cpu - placed.needs.cpu,
            free_reserved_cpu=host.free_reserved_cpu - placed.needs.reserved_cpu,
        )
        if host.id == placed.host
        else host
        for host in snapshot.hosts
    )
    return msgspec.structs.replace(snapshot, vms=vms, hosts=hosts)
