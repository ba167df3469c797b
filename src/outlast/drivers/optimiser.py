"""The best plan there is, or a bound on how good any can be, by OR-tools' CP-SAT: for people who plan, not for recovery.

The greedy planner answers in milliseconds and is given as a hint. The solver goes tier by tier: as many VMs of the most
important tier as can be placed, then of the next without giving up any of those; at last, with what is left of the time,
as few preferred rules broken as can be. It is an optional package (`pip install outlast[optimiser]`); without it there is
the greedy plan alone, and it says so.

What a plan must obey is said here a second time, as constraints; a test compares both on random domains.
"""

import itertools
import time
from typing import Any

import msgspec

from outlast.model.ids import VmId
from outlast.model.planning import Assignment, Plan, PlanVm
from outlast.protocol.planning.board import Board
from outlast.protocol.planning.planner import make_plan, to_place
from outlast.protocol.planning.problem import Problem

MOST_PAIRS = 400_000
"""VMs times hosts that could take them: beyond that the model alone takes longer than anybody waits."""
WORKERS = 2


class Optimised(msgspec.Struct, frozen=True):
    """`plan`: the best that was found. `placed` of `of` VMs have a place; no plan has more than `bound` (by tiers, summed).

    `finished`: every tier was solved to the end. `problem`: why the solver was not asked, or an empty string.
    """

    plan: Plan
    placed: int
    of: int
    bound: int
    finished: bool
    problem: str = ""


def optimise(problem: Problem, lost: frozenset[int], time_limit_s: float) -> Optimised:
    """The best plan within the time, the greedy one at worst."""
    greedy = make_plan(problem, lost)
    vms = to_place(problem, lost)
    placed = sum(host is not None for host in greedy.targets.values())
    alone = Optimised(greedy, placed, len(vms), len(vms), False)
    if not greedy.waiting:
        return msgspec.structs.replace(alone, finished=True)
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        why = "OR-tools is not installed (pip install 'outlast[optimiser]'): this is the greedy plan alone"
        return msgspec.structs.replace(alone, problem=why)
    board = Board(problem).copy(lost)
    model = _Model(cp_model, board, vms)
    if model.pairs > MOST_PAIRS:
        why = f"{model.pairs} pairs of VMs and hosts are too many for the optimiser: this is the greedy plan alone"
        return msgspec.structs.replace(alone, problem=why)
    return _solve(model, greedy, alone, time.monotonic() + time_limit_s)


def _solve(model: "_Model", greedy: Plan, alone: Optimised, until: float) -> Optimised:
    places = {vm: model.problem.number[host] for vm, host in greedy.targets.items() if host is not None}
    bound, finished = 0, True
    for tier in model.tiers():
        counted = model.count(tier)
        found = model.maximise(sum(counted), places, max(0.1, until - time.monotonic()))
        if found is None:
            # Not even a first answer: nobody knows more of this tier than that all of it might fit.
            finished, bound = False, bound + model.size(tier)
            continue
        places, objective, best = found
        best = min(best, model.size(tier))
        bound += best
        finished = finished and objective == best
        model.demand(sum(counted) >= objective)
    found = model.maximise(-sum(model.broken), places, until - time.monotonic()) if model.broken else None
    if found is not None:
        places = found[0]
    hosts = model.problem.hosts
    steps = tuple(Assignment(vm.vm, hosts[places[vm.vm]].id if vm.vm in places else None) for vm in model.vms)
    better = len(places) > alone.placed or (finished and len(places) == alone.placed)
    plan = Plan(steps) if better else greedy
    return Optimised(plan, max(len(places), alone.placed), alone.of, bound, finished)


class _Model:
    """The constraints of a plan, for the solver. `broken`: a variable for each preferred rule that may be broken."""

    def __init__(self, cp_model: Any, board: Board, vms: list[PlanVm]) -> None:
        self._cp = cp_model
        self._model = cp_model.CpModel()
        self._board = board
        self.problem = board.problem
        self.vms = sorted(vms, key=lambda vm: vm.vm)
        self.broken: list[Any] = []
        views = {vm.vm: board.view(vm) for vm in self.vms}
        self._views = views
        # `has_room` and `view` are those of the board before anything is placed: no plan can do without.
        self._where = {
            vm.vm: {
                i: self._model.NewBoolVar(f"{vm.vm} on {i}")
                for i in sorted(self.problem.candidates(vm))
                if views[vm.vm].allows(i) and board.has_room(vm, i)
            }
            for vm in self.vms
        }
        self.pairs = sum(len(hosts) for hosts in self._where.values())
        if self.pairs <= MOST_PAIRS:
            self._constrain()

    def _constrain(self) -> None:
        for hosts in self._where.values():
            self._model.AddAtMostOne(hosts.values())
        for i in range(len(self.problem.hosts)):
            there = [(vm.needs, self._where[vm.vm][i]) for vm in self.vms if i in self._where[vm.vm]]
            for free, need in (
                (self._board.free_memory[i], [needs.memory_mib for needs, _ in there]),
                (self._board.free_cpu[i], [needs.cpu for needs, _ in there]),
                (self._board.free_reserved_cpu[i], [needs.reserved_cpu for needs, _ in there]),
            ):
                if sum(need) > free:
                    self._model.Add(sum(n * x for n, (_, x) in zip(need, there, strict=True)) <= free)
        self._keep_apart()
        self._keep_together()
        for vm in self.vms:
            for i, times in self._views[vm.vm].wrong.items():
                if i in self._where[vm.vm]:
                    self.broken += [self._where[vm.vm][i]] * times

    def _named(self, names: tuple[str, ...]) -> list[PlanVm]:
        return [vm for vm in self.vms if vm.name in names]

    def _keep_apart(self) -> None:
        for apart in self.problem.apart:
            vms = self._named(apart.rule.vms)
            for at, hosts in enumerate(apart.hosts.values()):
                there = [self._where[vm.vm][i] for vm in vms for i in hosts if i in self._where[vm.vm]]
                if len(there) < 2:
                    continue
                if apart.rule.required:
                    self._model.AddAtMostOne(there)
                else:
                    over = self._model.NewIntVar(0, len(there), f"{apart.rule} {at}")
                    self._model.Add(over >= sum(there) - 1)
                    self.broken.append(over)

    def _keep_together(self) -> None:
        for rule in self.problem.together:
            vms = self._named(rule.vms)
            for one, other in itertools.combinations(vms, 2) if rule.required else ():
                for i, j in itertools.product(self._where[one.vm], self._where[other.vm]):
                    if i != j:
                        self._model.AddBoolOr([self._where[one.vm][i].Not(), self._where[other.vm][j].Not()])
            if not rule.required and len(vms) > 1:
                self._prefer_together(str(rule), vms)

    def _prefer_together(self, rule: str, vms: list[PlanVm]) -> None:
        """Each host beyond the first that has one of them counts as broken."""
        used = []
        for i in range(len(self.problem.hosts)):
            there = [self._where[vm.vm][i] for vm in vms if i in self._where[vm.vm]]
            if there:
                has = self._model.NewBoolVar(f"{rule} uses {i}")
                self._model.AddMaxEquality(has, there)
                used.append(has)
        if used:
            beyond = self._model.NewIntVar(0, len(used), f"{rule} spread")
            self._model.Add(beyond >= sum(used) - 1)
            self.broken.append(beyond)

    def tiers(self) -> list[int]:
        """The tiers, the most important first."""
        return sorted({vm.tier for vm in self.vms})

    def size(self, tier: int) -> int:
        """How many VMs a tier has."""
        return sum(vm.tier == tier for vm in self.vms)

    def count(self, tier: int) -> list[Any]:
        """What is one for each VM of a tier that has a place."""
        return [x for vm in self.vms if vm.tier == tier for x in self._where[vm.vm].values()] or [0]

    def demand(self, constraint: Any) -> None:
        """From now on this holds."""
        if not isinstance(constraint, bool):
            self._model.Add(constraint)

    def maximise(self, objective: Any, hint: dict[VmId, int], seconds: float) -> tuple[dict[VmId, int], int, int] | None:
        """Places, value and bound of the best that was found; None if nothing was, or there is no time."""
        if seconds <= 0:
            return None
        self._model.ClearHints()
        for vm, hosts in self._where.items():
            for i, x in hosts.items():
                self._model.AddHint(x, hint.get(vm) == i)
        self._model.Maximize(objective)
        solver = self._cp.CpSolver()
        solver.parameters.max_time_in_seconds = seconds
        solver.parameters.num_workers = WORKERS
        solver.parameters.random_seed = 1
        status = solver.Solve(self._model)
        if status not in (self._cp.OPTIMAL, self._cp.FEASIBLE):
            return None
        places = {vm: i for vm, hosts in self._where.items() for i, x in hosts.items() if solver.BooleanValue(x)}
        return places, round(solver.ObjectiveValue()), int(solver.BestObjectiveBound() + 1e-6)
