"""Who is where, and what room is left, while a plan is made. VMs are put down and taken up again; nothing else changes.

Every question of the form "can this VM go there now?" is asked here, in numbers for the planner (`has_room`, `view`) and in
a sentence for people (`refusal`): they agree, and a test sees to it.
"""

import msgspec

from outlast.model.ids import VmId
from outlast.model.planning import PlanVm
from outlast.protocol.planning.problem import Problem

_GONE = -1
"""The room of a host that cannot be used, or is taken for lost: nothing fits there."""


class View(msgspec.Struct):
    """What the rules say of one VM on a board as it is: which hosts they forbid, and which are better or worse than others.

    `only`: the hosts of those that it has to be together with, None if there are none. The dictionaries are by host, and
    hosts about which there is nothing to say are absent: `wrong`, how many preferred rules it would break there; `near`,
    how much VMs that it is to be apart from share the host's labels (rack, site).
    """

    forbidden: set[int]
    only: set[int] | None
    wrong: dict[int, int]
    liked: dict[int, int]
    near: dict[int, int]
    failed: frozenset[int]
    prefer: int

    def allows(self, i: int) -> bool:
        """Whether the required rules allow it to go there."""
        return i not in self.forbidden and (self.only is None or i in self.only)

    def special(self) -> set[int]:
        """The hosts that are not like others for this VM."""
        named = {*self.wrong, *self.liked, *self.near, *self.failed}
        return {*named, self.prefer} if self.prefer >= 0 else named


NOTHING = View(set(), None, {}, {}, {}, frozenset(), -1)
"""The view of every VM of which nothing is to be said: the same one, so that planners can tell."""


class Board:
    """The board of a problem at its start, or a `copy` of one."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.free_memory = [_GONE if host.unusable else host.free_memory_mib for host in problem.hosts]
        self.free_cpu = [_GONE if host.unusable else host.free_cpu for host in problem.hosts]
        self.free_reserved_cpu = [_GONE if host.unusable else host.free_reserved_cpu for host in problem.hosts]
        self.placed: dict[VmId, tuple[PlanVm, int, bool]] = {}
        """The VMs that were put down here, with their hosts, and whether squeezed in."""
        self._apart: list[dict[str, int]] = [{} for _ in problem.apart]
        self._apart_on: list[dict[int, int]] = [{} for _ in problem.apart]
        self._together: list[dict[int, int]] = [{} for _ in problem.together]
        for vm in problem.snapshot.vms:
            i = problem.number.get(vm.host) if vm.host is not None else None
            if i is not None and vm.name in problem.ruled:
                self._count(vm, i, 1)

    def copy(self, lost: frozenset[int] = frozenset()) -> "Board":
        """A board of its own, as it would be without some hosts and all that ran there."""
        board: Board = object.__new__(Board)
        board.problem = self.problem
        board.free_memory, board.free_cpu = self.free_memory.copy(), self.free_cpu.copy()
        board.free_reserved_cpu = self.free_reserved_cpu.copy()
        board.placed = self.placed.copy()
        board._apart = [each.copy() for each in self._apart]
        board._apart_on = [each.copy() for each in self._apart_on]
        board._together = [each.copy() for each in self._together]
        for i in lost:
            board.free_memory[i] = board.free_cpu[i] = board.free_reserved_cpu[i] = _GONE
        if lost and self.problem.ruled:
            for vm in self.problem.snapshot.vms:
                if vm.host is not None and self.problem.number.get(vm.host) in lost and vm.name in self.problem.ruled:
                    board._count(vm, self.problem.number[vm.host], -1)
        return board

    # -- moves ----------------------------------------------------------------------------------------------------

    def put(self, vm: PlanVm, i: int, squeezed: bool = False) -> None:
        """A VM goes to a host."""
        self.placed[vm.vm] = (vm, i, squeezed)
        self.free_memory[i] -= vm.needs.memory_mib
        self.free_cpu[i] -= vm.needs.cpu
        self.free_reserved_cpu[i] -= vm.needs.reserved_cpu
        if vm.name in self.problem.ruled:
            self._count(vm, i, 1)

    def take(self, vm: PlanVm) -> int:
        """It is taken up again: from which host."""
        _, i, _ = self.placed.pop(vm.vm)
        self.free_memory[i] += vm.needs.memory_mib
        self.free_cpu[i] += vm.needs.cpu
        self.free_reserved_cpu[i] += vm.needs.reserved_cpu
        if vm.name in self.problem.ruled:
            self._count(vm, i, -1)
        return i

    def _count(self, vm: PlanVm, i: int, by: int) -> None:
        for a in self.problem.apart_of.get(vm.name, ()):
            _add(self._apart[a], self.problem.apart[a].places[i], by)
            _add(self._apart_on[a], i, by)
        for t in self.problem.together_of.get(vm.name, ()):
            _add(self._together[t], i, by)

    # -- questions ------------------------------------------------------------------------------------------------

    def has_room(self, vm: PlanVm, i: int, squeezed: bool = False) -> bool:
        """Whether a host has the room for a VM now. `squeezed`: only the CPU that is reserved counts."""
        needs = vm.needs
        if needs.memory_mib > self.free_memory[i] or needs.reserved_cpu > self.free_reserved_cpu[i]:
            return False
        return squeezed or needs.cpu <= self.free_cpu[i]

    def fits(self, vm: PlanVm, i: int, squeezed: bool = False) -> bool:
        """Whether a candidate can take a VM now."""
        return self.has_room(vm, i, squeezed) and self.view(vm).allows(i)

    def view(self, vm: PlanVm) -> View:
        """What the rules say of a VM now. The VM itself must not be on the board."""
        problem = self.problem
        if vm.name not in problem.ruled and not vm.failed_on and vm.prefer is None:
            return NOTHING
        number = problem.number
        failed = frozenset(number[host] for host in vm.failed_on if host in number)
        prefer = number.get(vm.prefer, -1) if vm.prefer is not None else -1
        taste = problem.taste(vm)
        view = View(set(), None, taste.wrong.copy(), taste.liked, {}, failed, prefer)
        for a in problem.apart_of.get(vm.name, ()):
            self._see_apart(view, a)
        for t in problem.together_of.get(vm.name, ()):
            self._see_together(view, t)
        return view

    def _see_apart(self, view: View, a: int) -> None:
        apart = self.problem.apart[a]
        for place, count in self._apart[a].items():
            for i in apart.hosts[place]:
                if apart.rule.required:
                    view.forbidden.add(i)
                else:
                    view.wrong[i] = view.wrong.get(i, 0) + count
        for i, count in self._apart_on[a].items():
            for label in self.problem.hosts[i].labels.items():
                for j in self.problem.labelled[label]:
                    view.near[j] = view.near.get(j, 0) + count

    def _see_together(self, view: View, t: int) -> None:
        there = self._together[t]
        if not there:
            return
        if self.problem.together[t].required:
            view.only = set(there) if view.only is None else view.only & there.keys()
            return
        for i in range(len(self.problem.hosts)):
            if i not in there:
                view.wrong[i] = view.wrong.get(i, 0) + 1

    def together(self, t: int) -> frozenset[int]:
        """The hosts that have VMs of a keep-together rule, by the rule's number."""
        return frozenset(self._together[t])

    def refusal(self, vm: PlanVm, i: int, squeezed: bool = False) -> str:
        """Why a host cannot take a VM now, as a sentence without its subject; empty if it can. `squeezed`: as above."""
        problem, needs = self.problem, vm.needs
        never = problem.never(vm, i)
        if never:
            return never
        if self.free_memory[i] == _GONE:
            return "it is taken for lost"
        if needs.memory_mib > self.free_memory[i]:
            return f"it has {max(0, self.free_memory[i])} MiB of memory free, and the VM needs {needs.memory_mib} MiB"
        if needs.reserved_cpu > self.free_reserved_cpu[i]:
            return f"it has {_cores(self.free_reserved_cpu[i])} cores free, and the VM needs {_cores(needs.reserved_cpu)}"
        if not squeezed and needs.cpu > self.free_cpu[i]:
            return f"it has {_cores(self.free_cpu[i])} cores free, and the VM uses {_cores(needs.cpu)}"
        for a in problem.apart_of.get(vm.name, ()):
            apart = problem.apart[a]
            if apart.rule.required and apart.places[i] in self._apart[a]:
                return f"the rule '{apart.rule}' forbids it: another of them is {_at(apart.places[i])}"
        for t in problem.together_of.get(vm.name, ()):
            if problem.together[t].required and self._together[t] and i not in self._together[t]:
                where = " and ".join(problem.hosts[h].name for h in sorted(self._together[t]))
                return f"the rule '{problem.together[t]}' forbids it: others of them are on {where}"
        return ""

    def balance(self, i: int) -> int:
        """What is left of what a host has, in thousandths, of memory or CPU, whichever is scarcer there."""
        host = self.problem.hosts[i]
        memory = self.free_memory[i] * 1000 // host.memory_mib if host.memory_mib else 0
        cpu = self.free_cpu[i] * 1000 // host.cpu if host.cpu else 0
        return min(memory, cpu)

    def standing(self, i: int) -> tuple[int, ...]:
        """How good a host is for any VM: the greatest is best. The last item makes it unique."""
        host = self.problem.hosts[i]
        return not host.last_resort, host.spare, self.balance(i), self.free_memory[i], i

    def rank(self, view: View, i: int, standing: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """How good a candidate is for a VM, as its view has it: the greatest is best. `standing`: if that is known."""
        usual = standing or self.standing(i)
        return (
            usual[0],
            i not in view.failed,
            i == view.prefer,
            -view.wrong.get(i, 0),
            view.liked.get(i, 0),
            -view.near.get(i, 0),
            *usual[1:],
        )


def _add(counts: dict, key: str | int, by: int) -> None:  # type: ignore[type-arg]
    left = counts.get(key, 0) + by
    if left:
        counts[key] = left
    else:
        del counts[key]


def _at(place: str) -> str:
    label, _, value = place.partition("=")
    return f"in {label} {value}" if value else f"on {place.removeprefix('host ')}"


def _cores(hundredths: int) -> str:
    return f"{max(0, hundredths) / 100:g}"
