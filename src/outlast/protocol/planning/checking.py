"""Whether a plan may be carried out, and which of two plans is worth more: asked of every plan alike, whoever made it.

A plan's decisions are replayed on a board, and the board is asked before each of them: what it refuses is the flaw. No rule
is said here a second time.
"""

from collections.abc import Iterable
from typing import NamedTuple

from outlast.model.planning import Plan, PlanVm
from outlast.protocol.planning.board import Board
from outlast.protocol.planning.problem import Problem


class Worth(NamedTuple):
    """`tiers`: how many VMs of each tier have a place, and how many of them all the CPU that they were seen to use; the
    most important tier first. The greater plan is the better one; of two that place as many, the one with more memory.
    """

    tiers: tuple[tuple[int, int], ...]
    memory_mib: int

    @property
    def placed(self) -> int:
        """How many have a place."""
        return sum(placed for placed, _ in self.tiers)


def worth(vms: Iterable[PlanVm], plan: Plan) -> Worth:
    """What a plan is worth. `vms`: those that need a place."""
    last = {step.vm: step for step in plan.steps}
    tiers: dict[int, tuple[int, int]] = {}
    memory = 0
    for vm in vms:
        step = last.get(vm.vm)
        placed, unsqueezed = tiers.get(vm.tier, (0, 0))
        if step is not None and step.host is not None:
            placed, unsqueezed = placed + 1, unsqueezed + (not step.squeezed)
            memory += vm.needs.memory_mib
        tiers[vm.tier] = placed, unsqueezed
    return Worth(tuple(tiers[tier] for tier in sorted(tiers)), memory)


def flaw(problem: Problem, vms: Iterable[PlanVm], plan: Plan, lost: frozenset[int] = frozenset()) -> str:
    """Why a plan for these VMs must not be carried out, as a sentence; empty if it may be."""
    wanted = {vm.vm for vm in vms}
    if plan.targets.keys() != wanted:
        return f"it does not decide about {', '.join(sorted(plan.targets.keys() ^ wanted))} as it should"
    board = Board(problem).copy(lost)
    for step in plan.steps:
        vm = problem.vms[step.vm]
        if step.vm in board.placed:
            board.take(vm)
        if step.host is None:
            continue
        i = problem.number.get(step.host)
        if i is None:
            return f"{vm.name} would go to {step.host}, which is no host"
        refusal = board.refusal(vm, i, step.squeezed)
        if refusal:
            return f"{vm.name} cannot go to {problem.hosts[i].name}: {refusal}"
        board.put(vm, i, step.squeezed)
    return ""
