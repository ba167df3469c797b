"""Which hosts would be the worst to lose, and how many losses the domain survives: looked at one loss after the other.

Both go through losses beginning with those that concern the most VMs. No loss leaves more VMs waiting than it concerns, so
that as soon as the next one concerns no more than the worst so far leaves waiting, the worst is proven without looking
at the rest. Both are generators: whoever drives them decides when to stop, and has an honest answer at any time.
"""

import heapq
import math
from collections.abc import Callable, Iterator

import msgspec

from outlast.model.ids import HostId, VmId
from outlast.protocol.planning.board import Board
from outlast.protocol.planning.planner import make_plan
from outlast.protocol.planning.problem import Problem


class Worst(msgspec.Struct, frozen=True, kw_only=True):
    """The worst loss so far: `hosts`, and the VMs that would wait.

    `looked_at` of `losses` were looked at; `at_most`: no other loss leaves more VMs waiting. If that is no more than wait
    here, this is the worst loss of all (`proven`).
    """

    hosts: tuple[HostId, ...] = ()
    waiting: tuple[VmId, ...] = ()
    looked_at: int = 0
    losses: int = 0
    at_most: int = 0

    @property
    def proven(self) -> bool:
        """Whether no other loss is worse."""
        return self.at_most <= len(self.waiting)


def worst_losses(
    problem: Problem, count: int, as_lost: Callable[[frozenset[int]], Problem] | None = None
) -> Iterator[Worst]:
    """Ever worse losses of that many hosts, one answer for each that was looked at; the last one is proven.

    `as_lost`: the problem as a loss makes it, if it makes VMs more important than they are.
    """
    board = Board(problem)
    found = Worst(losses=math.comb(len(_usable(problem)), count))
    for lost, concerns in _losses(problem, count):
        found = msgspec.structs.replace(found, at_most=concerns)
        if found.hosts and concerns <= len(found.waiting):
            break
        ranked = as_lost(lost) if as_lost is not None else problem
        waiting = make_plan(ranked, lost, board if ranked is problem else None).waiting
        looked = found.looked_at + 1
        if not found.hosts or len(waiting) > len(found.waiting):
            names = tuple(problem.hosts[i].id for i in sorted(lost))
            found = msgspec.structs.replace(found, hosts=names, waiting=waiting)
        found = msgspec.structs.replace(found, looked_at=looked)
        yield found
    yield msgspec.structs.replace(found, at_most=len(found.waiting))


class Survival(msgspec.Struct, frozen=True, kw_only=True):
    """How many hosts the domain can lose, whichever they are, so that all VMs run again.

    `survives` is proven: a plan was found for every loss of up to that many hosts. `hosts`: a loss of one more for which
    none was found, `vm` the VM that stands in the way, and `why`; `proven`: there is none. `done` False: losses of one more
    are still being looked at, or there are too many of them to look at.
    """

    survives: int = 0
    hosts: tuple[HostId, ...] = ()
    vm: VmId | None = None
    why: str = ""
    proven: bool = False
    done: bool = False


def survival(problem: Problem, up_to: int) -> Iterator[Survival]:
    """Answers that get better, one for each loss that was looked at; the last one is `done`, if up to `up_to` is enough."""
    board, usable = Board(problem), len(_usable(problem))
    found = Survival()
    for count in range(min(up_to, usable) + 1):
        for lost, concerns in _losses(problem, count):
            if not concerns:
                break
            obstacle = make_plan(problem, lost, board).obstacle
            if obstacle is not None:
                hosts = tuple(problem.hosts[i].id for i in sorted(lost))
                vm, why, proven = obstacle.vm, obstacle.why, obstacle.proven
                yield Survival(survives=found.survives, hosts=hosts, vm=vm, why=why, proven=proven, done=True)
                return
            yield found
        found = msgspec.structs.replace(found, survives=count)
        yield found
    yield msgspec.structs.replace(found, done=True)


def _usable(problem: Problem) -> list[int]:
    return [i for i, host in enumerate(problem.hosts) if not host.unusable]


def _losses(problem: Problem, count: int) -> Iterator[tuple[frozenset[int], int]]:
    """Every set of that many usable hosts, with the number of VMs that it concerns: those that concern most first.

    VMs that wait already are concerned by each.
    """
    waiting = sum(vm.wanted and vm.host is None for vm in problem.snapshot.vms)
    wanted = dict.fromkeys(_usable(problem), 0)
    for vm in problem.snapshot.vms:
        i = problem.number.get(vm.host) if vm.host is not None else None
        if vm.wanted and i in wanted:
            wanted[i] += 1
    order = sorted(wanted, key=lambda i: (-wanted[i], i))
    if count > len(order):
        return
    first = tuple(range(count))
    heap = [(-sum(wanted[order[at]] for at in first), first)]
    seen = {first}
    while heap:
        negative, places = heapq.heappop(heap)
        yield frozenset(order[at] for at in places), waiting - negative
        for at, place in enumerate(places):
            following = places[at + 1] if at + 1 < count else len(order)
            moved = (*places[:at], place + 1, *places[at + 1 :])
            if place + 1 < following and moved not in seen:
                seen.add(moved)
                heapq.heappush(heap, (negative + wanted[order[place]] - wanted[order[place + 1]], moved))
