"""Who goes back now to a host that was emptied: of those that are named, whoever it can take, by room, reach and rules.

Required rules hold as for everybody. A host that is a last resort is none to go back to, and nobody else is moved for it.
"""

from collections.abc import Collection, Mapping

import msgspec

from outlast.model.ids import HostId, VmId
from outlast.model.planning import Snapshot
from outlast.protocol.planning.board import Board
from outlast.protocol.planning.emptying import Leaving
from outlast.protocol.planning.failback import with_moved
from outlast.protocol.planning.problem import Problem

WHY = "it was moved away from there for a while"


def plan_returns(
    snapshot: Snapshot, back: Mapping[VmId, HostId], settled: Collection[VmId]
) -> tuple[tuple[Leaving, ...], dict[VmId, str]]:
    """Every move that can be made now, the most important VM first, and why the others cannot.

    `back`: where each is to go; `settled`: the VMs that run, and may be moved.
    """
    moves, stays = list[Leaving](), dict[VmId, str]()
    for vm in sorted(snapshot.vms, key=lambda each: (each.tier, each.name)):
        to = back.get(vm.vm)
        if to is None or vm.host is None or vm.host == to:
            continue
        if vm.vm not in settled:
            stays[vm.vm] = "it does not run, or its host is not connected"
            continue
        lifted = msgspec.structs.replace(vm, host=None)
        others = tuple(lifted if each.vm == vm.vm else each for each in snapshot.vms)
        board = Board(Problem(msgspec.structs.replace(snapshot, vms=others)))
        i = next(i for i, host in enumerate(snapshot.hosts) if host.id == to)
        refusal = snapshot.hosts[i].last_resort or board.refusal(lifted, i)
        if refusal:
            stays[vm.vm] = refusal
            continue
        placed = msgspec.structs.replace(vm, host=to)
        moves.append(Leaving(placed, vm.host, WHY))
        snapshot = with_moved(snapshot, placed)
    return tuple(moves), stays
