"""Why a VM goes where it goes, or waits: every host with the reason why it was refused, or what spoke for it.

A plan's decisions are replayed up to the VM's own, and the board is asked again: the reasons are those of that moment.
"""

from collections.abc import Collection

import msgspec

from outlast.model.ids import HostName, VmId
from outlast.model.planning import Plan, PlanVm
from outlast.protocol.planning.board import Board
from outlast.protocol.planning.problem import Problem

_BETTER = (
    "the others are a last resort",
    "no start of it failed there",
    "it ran there before",
    "it breaks fewer preferred rules",
    "a rule prefers it",
    "fewer of those that it is to be apart from are near it",
    "it is a spare host",
    "more of it is left",
    "more of its memory is free",
    "it comes first among equals",
)
"""What speaks for a host, one for each item of `Board.rank`."""


class Considered(msgspec.Struct, frozen=True, omit_defaults=True):
    """One host: why it was refused (`fits` False), or what speaks for or against it."""

    host: HostName
    fits: bool
    chosen: bool
    why: str


class Explanation(msgspec.Struct, frozen=True):
    """One decision: every host, the chosen one first, then those that fit, the best first, then the refused."""

    vm: VmId
    host: HostName | None
    considered: tuple[Considered, ...]

    def refused(self) -> tuple[tuple[HostName, str], ...]:
        """The hosts that were not chosen, each with the reason."""
        return tuple((each.host, each.why) for each in self.considered if not each.chosen)


def explain(problem: Problem, plan: Plan, vm: VmId, lost: frozenset[int] = frozenset()) -> Explanation:
    """Why the plan has that place for the VM. Raises KeyError for a VM that the plan is not about."""
    return explain_all(problem, plan, lost, {vm})[vm]


def explain_all(
    problem: Problem, plan: Plan, lost: frozenset[int] = frozenset(), about: Collection[VmId] | None = None
) -> dict[VmId, Explanation]:
    """The same for every VM of the plan, or for those in `about`."""
    board = Board(problem).copy(lost)
    last = {step.vm: at for at, step in enumerate(plan.steps)}
    found: dict[VmId, Explanation] = {}
    for at, step in enumerate(plan.steps):
        vm = problem.vms[step.vm]
        if step.vm in board.placed:
            board.take(vm)
        if step.host is None:
            continue
        i = problem.number[step.host]
        if last[step.vm] == at and (about is None or step.vm in about):
            found[step.vm] = judge(board, vm, i)
        board.put(vm, i, step.squeezed)
    # Who waits was tried again when all others had their places.
    for name in plan.waiting:
        if about is None or name in about:
            found[name] = judge(board, problem.vms[name], None)
    return found


def judge(board: Board, vm: PlanVm, chosen: int | None) -> Explanation:
    """Every host on a board as it is now, for one VM."""
    hosts = board.problem.hosts
    view = board.view(vm)
    refusals = {i: board.refusal(vm, i) for i in range(len(hosts))}
    fitting = sorted((i for i, why in refusals.items() if not why), key=lambda i: board.rank(view, i), reverse=True)
    others = [i for i in fitting if i != chosen]
    considered: list[Considered] = []
    if chosen is not None:
        considered.append(Considered(hosts[chosen].name, True, True, _chosen_because(board, vm, chosen, others)))
    considered += [Considered(hosts[i].name, True, False, f"it fits, {_left(board, i)}") for i in others]
    considered += [Considered(hosts[i].name, False, False, why) for i, why in refusals.items() if why and i != chosen]
    return Explanation(vm.vm, hosts[chosen].name if chosen is not None else None, tuple(considered))


def _chosen_because(board: Board, vm: PlanVm, chosen: int, others: list[int]) -> str:
    if not board.fits(vm, chosen):
        return "it has the CPU that is reserved for the VM, though not what the VM was seen to use"
    if not others:
        return "no other host can take it"
    view = board.view(vm)
    rank, second = board.rank(view, chosen), board.rank(view, others[0])
    for text, ours, theirs in zip(_BETTER, rank, second, strict=True):
        if ours > theirs:
            return f"{text}, {_left(board, chosen)}"
        if ours < theirs:
            return "so that more have a place"
    return _BETTER[-1]


def _left(board: Board, i: int) -> str:
    return f"{max(0, board.balance(i)) / 10:.0f} % of it is free"
