"""Whether all of some VMs can be placed at all, whatever the way: a reason why not, or a search through every way.

Room is what counts here, not preferences. A reason holds whatever is tried: a VM fits on no host even if it were placed
first; or VMs that can only go to some hosts need more, together, than those have. The search is given up after so many
steps: then nobody knows.
"""

from outlast.model.ids import VmId
from outlast.model.planning import Obstacle, PlanVm
from outlast.protocol.planning.board import Board


def impossible(board: Board, vms: list[PlanVm]) -> Obstacle | None:
    """Why these cannot all be placed; None if there is no such simple reason."""
    for vm in vms:
        if not _fits_anywhere(board, vm):
            return Obstacle(vm.vm, f"no host could take {vm.name} even if it were placed first", True)
    groups: dict[frozenset[int], list[PlanVm]] = {}
    for vm in vms:
        groups.setdefault(board.problem.candidates(vm), []).append(vm)
    for hosts in groups:
        inside = [vm for candidates, there in groups.items() if candidates <= hosts for vm in there]
        short = _short_of(board, hosts, inside)
        if short:
            largest = max(inside, key=lambda vm: (vm.tier, vm.needs.memory_mib, vm.vm))
            return Obstacle(largest.vm, short, True)
    return None


def _fits_anywhere(board: Board, vm: PlanVm) -> bool:
    view = board.view(vm)
    return any(view.allows(i) and board.has_room(vm, i) for i in board.problem.candidates(vm))


def _short_of(board: Board, hosts: frozenset[int], vms: list[PlanVm]) -> str:
    memory, free = sum(vm.needs.memory_mib for vm in vms), sum(max(0, board.free_memory[i]) for i in hosts)
    if memory > free:
        return f"{len(vms)} VMs need {memory} MiB, and the hosts that can take them have {free} MiB free"
    cpu, free = sum(vm.needs.cpu for vm in vms), sum(max(0, board.free_cpu[i]) for i in hosts)
    if cpu > free:
        return f"{len(vms)} VMs need {cpu / 100:g} cores, and the hosts that can take them have {free / 100:g} free"
    return ""


class Search:
    """Every way of placing, depth first. Ways that differ by equal hosts or equal VMs alone are tried once."""

    def __init__(self, board: Board, vms: list[PlanVm], most_steps: int) -> None:
        self._board = board
        self._problem = board.problem
        self.left = most_steps
        self.found: dict[VmId, int] = {}
        """Where each VM goes, once a way was found."""
        self._order = sorted(
            vms,
            key=lambda vm: (
                vm.name not in self._problem.ruled,
                len(self._problem.candidates(vm)),
                -vm.needs.memory_mib,
                -vm.needs.cpu,
                vm.vm,
            ),
        )
        self._memory = [sum(vm.needs.memory_mib for vm in self._order[at:]) for at in range(len(self._order) + 1)]
        self._cpu = [sum(vm.needs.cpu for vm in self._order[at:]) for at in range(len(self._order) + 1)]

    def run(self) -> bool:
        """Whether there is a way. If not and `left` is not above zero, the search was given up."""
        return self._place(0, -1)

    def _place(self, at: int, least: int) -> bool:
        if at == len(self._order):
            self.found = {placed.vm: i for placed, i, _ in self._board.placed.values()}
            return True
        board, vm = self._board, self._order[at]
        if self._memory[at] > sum(m for m in board.free_memory if m > 0):
            return False
        if self._cpu[at] > sum(c for c in board.free_cpu if c > 0):
            return False
        plain = vm.name not in self._problem.ruled
        view, tried = board.view(vm), set[tuple[object, ...]]()
        for i in sorted(self._problem.candidates(vm)):
            if (plain and i < least) or not view.allows(i) or not board.has_room(vm, i):
                continue
            alike = (board.free_memory[i], board.free_cpu[i], board.free_reserved_cpu[i], self._what_matters_of(i))
            if plain and least < 0 and alike in tried:
                continue
            tried.add(alike)
            self.left -= 1
            if self.left <= 0:
                return False
            board.put(vm, i)
            found = self._place(at + 1, i if self._next_is_equal(at) else -1)
            board.take(vm)
            if found:
                return True
        return False

    def _next_is_equal(self, at: int) -> bool:
        if at + 1 >= len(self._order):
            return False
        vm, other = self._order[at], self._order[at + 1]
        plain = vm.name not in self._problem.ruled and other.name not in self._problem.ruled
        return plain and vm.needs == other.needs and vm.only == other.only

    def _what_matters_of(self, i: int) -> tuple[object, ...]:
        """Two hosts are alike for everybody who is still to come if this is equal: with rules, none are."""
        host = self._problem.hosts[i]
        return (host.leases, host.networks, host.cpu_models, i if self._problem.ruled else -1)
