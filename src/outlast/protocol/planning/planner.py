"""Where many VMs go at once. Greedy, then repaired; the same snapshot always gives the same plan.

    order      by tier; then those with the fewest candidates; then the largest; VMs that required rules keep together are
               placed as one, and as many of them as fit if they do not all fit anywhere
    spread     each goes to the host that is best for it (`Board.rank`): where it breaks the fewest preferred rules, and
               then where the most is left, so that nobody is crowded while there is room
    repair     a VM that found no room may have one that was placed a moment ago moved elsewhere for it
    pack       if some still wait, everything is tried once more with each VM where it just fits, preferences forgotten;
               whichever way places more, the important ones first, is taken
    search     if there may still be a way, all ways are tried, up to `MOST_STEPS`: where few VMs are to be placed, nobody
               waits who need not
    squeeze    whom no host has the CPU for that it was seen to use goes where there is what is reserved for it: to run
               slowly is better than not to run
    again      if somebody still waits, or runs slowly, everything is tried once more with the smallest of each tier first;
               if that places more, the important ones first, it is taken

What runs stays where it is. Nobody waits for room that a VM of a lower tier was given.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from itertools import islice

from outlast.model.planning import Assignment, Obstacle, Plan, PlanVm
from outlast.protocol.planning.board import NOTHING, Board, View
from outlast.protocol.planning.checking import Worth, worth
from outlast.protocol.planning.problem import Problem
from outlast.protocol.planning.search import Search, impossible

MOST_STEPS = 2000
MOST_SEARCHED = 60
"""How many placements the search tries in one plan, and for how many VMs it is tried at all."""
MOST_REPAIRS = 1000
"""How many moves are looked at to make room, in one plan."""

FEW = 8
"""Fewer than one host in so many are sorted whenever they are asked about."""

_Entry = tuple[int, ...]


def make_plan(problem: Problem, lost: frozenset[int] = frozenset(), board: Board | None = None) -> Plan:
    """A place for every wanted VM that runs nowhere, or on a host in `lost`. `board`: the problem's, if there is one."""
    start = (board or Board(problem)).copy(lost)
    vms = to_place(problem, lost)
    order = _order(problem, start, vms)
    plan = _Pass(start.copy(), order, pack=False)
    plan.run()
    if not plan.waiting():
        return Plan(tuple(plan.steps))
    packed = _Pass(start.copy(), order, pack=True)
    packed.run()
    if packed.worth() > plan.worth():
        plan = packed
    if not plan.waiting():
        return Plan(tuple(plan.steps))
    found = _find_a_way(start, [vm for bundle in order for vm in bundle], plan.waiting()[0])
    if isinstance(found, Plan):
        return found
    plan.squeeze()
    again = _Pass(start.copy(), _order(problem, start, vms, smallest_first=True), pack=False)
    again.run()
    again.squeeze()
    if again.worth() > plan.worth():
        plan = again
    everybody = not plan.waiting() and not any(step.squeezed for step in plan.steps)
    return Plan(tuple(plan.steps), None if everybody else found)


def _find_a_way(start: Board, vms: list[PlanVm], binding: PlanVm) -> Plan | Obstacle:
    """A place for all, found by trying; else what is in the way."""
    obstacle = impossible(start, vms)
    if obstacle is not None:
        return obstacle
    search = Search(start.copy(), vms, MOST_STEPS) if len(vms) <= MOST_SEARCHED else None
    if search is not None and search.run():
        hosts = start.problem.hosts
        return Plan(tuple(Assignment(vm.vm, hosts[search.found[vm.vm]].id) for vm in vms))
    if search is not None and search.left > 0:
        return Obstacle(binding.vm, f"there is no way to place {binding.name} with all the others", True)
    return Obstacle(binding.vm, f"no place was found for {binding.name}; there are too many ways to try them all", False)


def to_place(problem: Problem, lost: frozenset[int] = frozenset()) -> list[PlanVm]:
    """The VMs that need a host."""
    return [vm for vm in problem.snapshot.vms if vm.wanted and (vm.host is None or problem.number.get(vm.host, -1) in lost)]


def _order(problem: Problem, board: Board, vms: Sequence[PlanVm], *, smallest_first: bool = False) -> list[list[PlanVm]]:
    """The VMs in the order in which they are placed; those that belong together in one."""
    memory = max(1, sum(m for m in board.free_memory if m > 0))
    cpu = max(1, sum(c for c in board.free_cpu if c > 0))
    there = frozenset(i for i, free in enumerate(board.free_memory) if free >= 0)

    def importance(vm: PlanVm) -> tuple[int, int, int, str, str]:
        share = max(vm.needs.memory_mib * 1_000_000 // memory, vm.needs.cpu * 1_000_000 // cpu)
        if smallest_first:
            return vm.tier, share, 0, vm.name, vm.vm
        return vm.tier, len(problem.candidates(vm) & there), -share, vm.name, vm.vm

    bundles: dict[object, list[PlanVm]] = {}
    for vm in sorted(vms, key=importance):
        bundles.setdefault(problem.bundles.get(vm.name, vm.vm), []).append(vm)
    return list(bundles.values())


class _Pass:
    """One way of placing all. `pack`: each where it just fits, instead of where the most is left."""

    def __init__(self, board: Board, order: list[list[PlanVm]], *, pack: bool) -> None:
        self._board = board
        self._problem = board.problem
        self._order = order
        self._pack = pack
        self._by_cpu = pack and _cpu_is_scarcer(board, order)
        self._squeezing = False
        self._entries = [self._entry(i) for i in range(len(board.free_memory))]
        self._sorted = sorted(self._entries)
        self._repairs = MOST_REPAIRS
        self._refused: set[tuple[object, ...]] = set()
        """The sizes for which none of some hosts has room. While VMs are only put down, that stays so."""
        self.steps: list[Assignment] = []

    def run(self) -> None:
        """Place everybody who can be placed."""
        for bundle in self._order:
            if len(bundle) == 1:
                self._settle(bundle[0], self._best(bundle[0]))
            else:
                self._place_together(bundle)
        waiting = self.waiting()
        if waiting:
            by_host = self._movable()
            for vm in waiting:
                if self._repairs <= 0:
                    break
                self._make_room(vm, by_host)

    def waiting(self) -> list[PlanVm]:
        """Who has no place."""
        return [vm for bundle in self._order for vm in bundle if vm.vm not in self._board.placed]

    def worth(self) -> Worth:
        """What came of it so far."""
        return worth((vm for bundle in self._order for vm in bundle), Plan(tuple(self.steps)))

    def squeeze(self) -> None:
        """Place who still waits where the reserved CPU is there."""
        self._squeezing = True
        self._refused.clear()
        for vm in self.waiting():
            self._settle(vm, self._best(vm))

    # -- one VM -------------------------------------------------------------------------------------------------------

    def _settle(self, vm: PlanVm, i: int | None) -> None:
        if i is None:
            if not self._squeezing:
                self.steps.append(Assignment(vm.vm, None))
            return
        squeezed = self._squeezing and vm.needs.cpu > self._board.free_cpu[i]
        self._board.put(vm, i, squeezed)
        self._changed(i)
        self.steps.append(Assignment(vm.vm, self._problem.hosts[i].id, squeezed))

    def _best(self, vm: PlanVm, but: int = -1) -> int | None:
        """The best host that can take it now, `but` apart; None if there is none.

        Hosts that are like others for this VM stand in order already: the first of them that has room is the best of them.
        """
        board, view, hosts = self._board, self._board.view(vm), self._problem.candidates(vm)
        if view is NOTHING:
            return self._first_with_room(vm, hosts - {but} if but in hosts else hosts)
        allowed = hosts - view.forbidden - {but}
        if view.only is not None:
            allowed &= view.only
        special = allowed & view.special()
        fitting = [i for i in special if board.has_room(vm, i, self._squeezing)]
        usual = self._first_with_room(vm, allowed - special)
        if usual is not None:
            fitting.append(usual)
        if len(fitting) < 2:
            return fitting[0] if fitting else None
        entries = self._entries
        if self._pack:
            return min(fitting, key=lambda i: (i in view.failed, entries[i]))
        return max(fitting, key=lambda i: board.rank(view, i, entries[i]))

    def _first_with_room(self, vm: PlanVm, hosts: frozenset[int]) -> int | None:
        """The first in order of some hosts that has room for it. Of VMs that need the same, one refusal is enough."""
        needs, board = vm.needs, self._board
        memory, reserved = needs.memory_mib, needs.reserved_cpu
        cpu = reserved if self._squeezing else needs.cpu
        asked = memory, cpu, reserved, hosts
        if asked in self._refused:
            return None
        free_memory, free_reserved = board.free_memory, board.free_reserved_cpu
        free_cpu = free_reserved if self._squeezing else board.free_cpu
        order = self._order_of(hosts)
        # Packing begins with the smallest; those before this place have too little of what they are sorted by.
        smallest = bisect_left(order, (False, cpu if self._by_cpu else memory)) if self._pack else 0
        for entry in islice(order, smallest, None) if self._pack else reversed(order):
            i = entry[-1]
            if memory <= free_memory[i] and cpu <= free_cpu[i] and reserved <= free_reserved[i] and i in hosts:
                return i
        self._refused.add(asked)
        return None

    # -- hosts in order, for VMs that nothing distinguishes but their size --------------------------------------------

    def _entry(self, i: int) -> _Entry:
        board = self._board
        if not self._pack:
            return board.standing(i)
        return bool(self._problem.hosts[i].last_resort), (board.free_cpu if self._by_cpu else board.free_memory)[i], i

    def _order_of(self, hosts: frozenset[int]) -> list[_Entry]:
        """Hosts in order, perhaps with others among them: few are sorted anew, many are found among all."""
        if len(hosts) * FEW < len(self._entries):
            return sorted(self._entries[i] for i in hosts)
        return self._sorted

    def _changed(self, i: int) -> None:
        old, new = self._entries[i], self._entry(i)
        self._entries[i] = new
        del self._sorted[bisect_left(self._sorted, old)]
        insort(self._sorted, new)

    # -- VMs that belong together -------------------------------------------------------------------------------------

    def _place_together(self, bundle: list[PlanVm]) -> None:
        """All of them, or as many as fit anywhere, on one host: the best one for the first of them that fits at all."""
        board = self._board
        views = [board.view(vm) for vm in bundle]
        for at, first in enumerate(bundle):
            can = (i for i in sorted(self._problem.candidates(first)) if board.has_room(first, i))
            counts = {i: self._how_many_fit(bundle[at:], views[at:], i) for i in can}
            most = max(counts.values(), default=0)
            if most:
                best = max((i for i, count in counts.items() if count == most), key=lambda i: board.rank(views[at], i))
                for vm in bundle[at:]:
                    fits = best in self._problem.candidates(vm) and board.fits(vm, best)
                    self._settle(vm, best if fits else None)
                return
            self._settle(first, None)

    def _how_many_fit(self, bundle: list[PlanVm], views: list[View], i: int) -> int:
        """How many of them a host can take, if the first is among them. No rule that holds keeps two of them apart."""
        board, count = self._board, 0
        memory, cpu, reserved = board.free_memory[i], board.free_cpu[i], board.free_reserved_cpu[i]
        for vm, view in zip(bundle, views, strict=True):
            needs = vm.needs
            room = needs.memory_mib <= memory and needs.cpu <= cpu and needs.reserved_cpu <= reserved
            if room and view.allows(i) and i in self._problem.candidates(vm):
                memory, cpu, reserved = memory - needs.memory_mib, cpu - needs.cpu, reserved - needs.reserved_cpu
                count += 1
            elif not count:
                break
        return count

    # -- making room --------------------------------------------------------------------------------------------------

    def _movable(self) -> dict[int, list[PlanVm]]:
        """The VMs that were placed and may be moved, by host, the smallest first."""
        by_host: dict[int, list[PlanVm]] = {}
        for vm, i, _ in self._board.placed.values():
            if vm.name not in self._problem.bundles:
                by_host.setdefault(i, []).append(vm)
        for there in by_host.values():
            there.sort(key=lambda each: (each.needs.memory_mib, each.vm))
        return by_host

    def _make_room(self, vm: PlanVm, by_host: dict[int, list[PlanVm]]) -> None:
        """Move one VM that has just been placed, so that this one can go where it was."""
        for i in sorted(self._problem.candidates(vm)):
            for at, other in enumerate(by_host.get(i, ())):
                if self._repairs <= 0:
                    return
                self._repairs -= 1
                if self._swap(vm, other, i):
                    del by_host[i][at]
                    return

    def _swap(self, vm: PlanVm, other: PlanVm, i: int) -> bool:
        board = self._board
        short = vm.needs.memory_mib - board.free_memory[i], vm.needs.cpu - board.free_cpu[i]
        if other.needs.memory_mib < short[0] or other.needs.cpu < short[1] or self._is_crowded(other):
            return False
        board.take(other)
        if board.fits(vm, i):
            board.put(vm, i)
            elsewhere = self._best(other, but=i)
            board.take(vm)
            if elsewhere is not None:
                self._refused.clear()
                self._settle(other, elsewhere)
                self._settle(vm, i)
                return True
        board.put(other, i)
        return False

    def _is_crowded(self, vm: PlanVm) -> bool:
        """Whether no host has room for one more like this: then it need not be tried whether it could be elsewhere."""
        if self._board.view(vm) is not NOTHING:
            return False
        return self._first_with_room(vm, self._problem.candidates(vm)) is None


def _cpu_is_scarcer(board: Board, order: list[list[PlanVm]]) -> bool:
    vms = [vm for bundle in order for vm in bundle]
    free_memory = max(1, sum(m for m in board.free_memory if m > 0))
    free_cpu = max(1, sum(c for c in board.free_cpu if c > 0))
    return sum(vm.needs.cpu for vm in vms) * free_memory > sum(vm.needs.memory_mib for vm in vms) * free_cpu
