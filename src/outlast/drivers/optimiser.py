"""A better plan than the greedy one, if there is one, and a bound on how good any can be, by OR-tools' CP-SAT: for people
who plan, never for recovery.

The greedy planner answers in milliseconds; its answer is the hint, and stands unless a better one comes within the time.
The goals are reached for one after the other, and nothing that was reached is given up for a later one:

    for each tier, the most important first      as many VMs as can be placed; as few of them squeezed in as can be
    if that is more than the greedy planner's    as few on hosts of last resort, then where a start failed; then as few
                                                 preferred rules broken as can be

VMs that nothing distinguishes are counted, not named: the solver has a number for each such group and host, and the plan
leaves as many of them as it can where the greedy planner has them.

Who can go where at all, and what room there is, is asked of the board and the problem; the constraints here are how VMs
that are placed at once bear upon each other. What comes of it is replayed on a board like any plan (`checking.flaw`): an
answer that the board refuses is thrown away. OR-tools is an optional package, because it is large; nothing else needs it.
"""

import collections
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from outlast.model.errors import OutlastError
from outlast.model.ids import VmId, VmName
from outlast.model.planning import Assignment, Obstacle, Plan, PlanVm
from outlast.protocol.planning.board import Board, View
from outlast.protocol.planning.checking import flaw, worth
from outlast.protocol.planning.planner import make_plan, to_place
from outlast.protocol.planning.problem import Problem

MOST_PAIRS = 400_000
"""Groups of equal VMs, times hosts that could take them: beyond that the model alone takes longer than anybody waits."""

KEPT_FOR_COSTS = 0.1
"""The share of the time that is left for preferences, however long the places take."""

Place = tuple[VmId, int, bool]
"""A VM, or a group of them by its first, on a host by its number, squeezed in or not."""

Counts = Mapping[Place, int]
"""How many VMs of each group a plan has in each place."""


class TierResult(msgspec.Struct, frozen=True, kw_only=True):
    """One tier: `greedy` and `placed` of its `of` VMs have a place; no plan that is as good for the tiers before has more
    than `bound`.
    """

    tier: int
    of: int
    greedy: int
    placed: int
    bound: int


class Optimised(msgspec.Struct, frozen=True, kw_only=True):
    """`plan`: the best that is known, the greedy one unless `better`. `proven`: no plan is better, by tiers in their order.

    `discarded`: why the solver was not asked, or its answer thrown away; empty if neither is the case.
    """

    plan: Plan
    better: bool
    proven: bool
    tiers: tuple[TierResult, ...]
    seconds: float
    discarded: str = ""


def load() -> Any:
    """The solver. Raises OutlastError if it is not installed."""
    try:
        from ortools.sat.python import cp_model
    except ImportError:
        raise OutlastError(
            "the optimiser needs OR-tools, which is not installed",
            "install it with pip install 'outlast[optimiser]'; everything else works without it",
        ) from None
    return cp_model


def optimise(
    problem: Problem,
    lost: frozenset[int],
    time_limit_s: float,
    *,
    workers: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Optimised:
    """The best plan that is found within the time, the greedy one at worst.

    `workers`: threads of the solver; by default half of the CPUs, because a keeper may live on this machine, and two at
    least, because one alone does not look around in what it has found.
    """
    cp_model, began = load(), clock()
    greedy, vms = make_plan(problem, lost), to_place(problem, lost)
    if greedy.obstacle is None:
        found = _Found(greedy, {}, True)
    else:
        model = _Model(cp_model, Board(problem).copy(lost), vms, workers or max(2, (os.cpu_count() or 2) // 2))
        found = _checked(model, greedy, lost, lambda: began + time_limit_s - clock())
    return Optimised(
        plan=found.plan,
        better=found.plan is not greedy,
        proven=found.proven,
        tiers=_tiers(vms, greedy, found),
        seconds=round(clock() - began, 3),
        discarded=found.why,
    )


class _Found(NamedTuple):
    """A plan, the bound of each tier, whether no plan is better, and why there is nothing but the greedy plan."""

    plan: Plan
    bounds: dict[int, int]
    proven: bool
    why: str = ""


def _tiers(vms: list[PlanVm], greedy: Plan, found: _Found) -> tuple[TierResult, ...]:
    numbers = sorted({vm.tier for vm in vms})
    before, now = worth(vms, greedy).tiers, worth(vms, found.plan).tiers
    results: list[TierResult] = []
    for at, tier in enumerate(numbers):
        size = sum(vm.tier == tier for vm in vms)
        bound = found.bounds.get(tier, size)
        results.append(TierResult(tier=tier, of=size, greedy=before[at][0], placed=now[at][0], bound=bound))
    return tuple(results)


def _checked(model: "_Model", greedy: Plan, lost: frozenset[int], left: Callable[[], float]) -> _Found:
    """The solver's plan if it may be carried out, else the greedy one. `left`: the seconds that are left."""
    if model.pairs > MOST_PAIRS:
        why = f"{model.pairs:,} pairs of unlike VMs and hosts are more than the optimiser takes on ({MOST_PAIRS:,})"
        return _Found(greedy, {}, False, why)
    model.constrain()
    found = _solve(model, greedy, left)
    wrong = flaw(model.problem, model.vms, found.plan, lost) if found.plan is not greedy else ""
    if wrong:
        return _Found(greedy, {}, False, f"the optimiser's answer is not used: {wrong}")
    return found


def _solve(model: "_Model", greedy: Plan, left: Callable[[], float]) -> _Found:
    """The best plan that is found, or the greedy one if none is better."""
    found = model.counts(greedy)
    bounds: dict[int, int] = {}
    proven = True
    goals, kept = model.goals(), left() * KEPT_FOR_COSTS
    for at, goal in enumerate(goals):
        reached, bound = goal.reached(found), goal.most
        if reached < bound:
            seconds = (left() - kept) / (len(goals) - at)
            answer = model.maximise(goal.sign * sum(model.chosen[place] for place in goal.places), found, seconds)
            if answer is not None:
                found, bound = answer[0], min(bound, answer[1])
                reached = goal.reached(found)
        proven = proven and reached == bound
        if goal.sign > 0:
            bounds[goal.tier] = bound
        model.demand(goal, reached)
    if worth(model.vms, model.plan(found, greedy)).tiers <= worth(model.vms, greedy).tiers:
        return _Found(greedy, bounds, proven)
    for cost in model.costs():
        answer = model.maximise(-sum(cost), found, left())
        if answer is None:
            break
        found = answer[0]
        model.keep(cost)
    plan = model.plan(found, greedy)
    short = any(bounds[tier] < model.size(tier) for tier in bounds)
    return _Found(msgspec.structs.replace(plan, obstacle=_obstacle(model.problem, plan, greedy, short)), bounds, proven)


def _obstacle(problem: Problem, plan: Plan, greedy: Plan, proven: bool) -> Obstacle | None:
    """Why not all have what they need in a plan that is better than the greedy one."""
    if greedy.obstacle is not None and greedy.obstacle.proven:
        return greedy.obstacle
    if plan.waiting:
        name = problem.vms[plan.waiting[0]].name
        return Obstacle(plan.waiting[0], f"the optimiser found no place for {name} with the others", proven)
    squeezed = next((step.vm for step in plan.steps if step.squeezed), None)
    if squeezed is None:
        return None
    return Obstacle(squeezed, f"no host has the CPU that {problem.vms[squeezed].name} was seen to use", False)


class _Goal(NamedTuple):
    """As many VMs in these places as can be (`sign` 1), or as few (-1). `most`: what cannot be surpassed, signed."""

    tier: int
    sign: int
    places: list[Place]
    most: int

    def reached(self, found: Counts) -> int:
        """What a plan makes of it, signed."""
        return self.sign * sum(found.get(place, 0) for place in self.places)


class _Model:
    """What the solver is told. `chosen`: a variable for every place, how many VMs of a group are there."""

    def __init__(self, cp_model: Any, board: Board, vms: Iterable[PlanVm], workers: int) -> None:
        self._cp = cp_model
        self._model = cp_model.CpModel()
        self._board = board
        self._workers = workers
        self._home: list[tuple[Any, list[Place]]] = []
        """The variables that stand for "one of these is taken"."""
        self.problem = board.problem
        self.vms = sorted(vms, key=lambda vm: (vm.tier, vm.vm))
        self._measured = any(vm.needs.cpu > vm.needs.reserved_cpu for vm in self.vms)
        alike: dict[object, list[PlanVm]] = {}
        self._by_name: dict[VmName, list[PlanVm]] = {}
        for vm in self.vms:
            alike.setdefault(self._what_matters_of(vm), []).append(vm)
            self._by_name.setdefault(vm.name, []).append(vm)
        self._group: dict[VmId, list[PlanVm]] = {group[0].vm: group for group in alike.values()}
        self._first: dict[VmId, VmId] = {vm.vm: first for first, group in self._group.items() for vm in group}
        self._views: dict[VmId, View] = {first: board.view(group[0]) for first, group in self._group.items()}
        self._places = {first: list(self._possible(group[0])) for first, group in self._group.items()}
        self.chosen: dict[Place, Any] = {}
        self.pairs = sum(len(places) for places in self._places.values())

    def _what_matters_of(self, vm: PlanVm) -> object:
        """Two VMs for which this is equal may change places; one that a rule names is like no other."""
        if vm.name in self.problem.ruled or vm.failed_on:
            return vm.vm
        return vm.tier, vm.needs, vm.only

    def _possible(self, vm: PlanVm) -> Iterable[Place]:
        """The places that a VM could have if it were placed first: no plan has it elsewhere."""
        board, view = self._board, self._views[vm.vm]
        for i in sorted(self.problem.candidates(vm)):
            if view.allows(i):
                if board.has_room(vm, i):
                    yield vm.vm, i, False
                if self._squeezes(i) and board.has_room(vm, i, True):
                    yield vm.vm, i, True

    def _squeezes(self, i: int) -> bool:
        """Whether a host may have reserved CPU left where it has no other: only then can anybody be squeezed in."""
        return self._measured or self._board.free_reserved_cpu[i] > self._board.free_cpu[i]

    def _of(self, vms: Iterable[PlanVm], hosts: Iterable[int]) -> list[Place]:
        """All the places that these VMs, each in a rule and thus a group of its own, could have on these hosts."""
        some = frozenset(hosts)
        return [place for vm in vms for place in self._places[vm.vm] if place[1] in some]

    # -- constraints --------------------------------------------------------------------------------------------------

    def constrain(self) -> None:
        """Say what no plan may do."""
        on: dict[int, list[Place]] = {}
        for first, places in self._places.items():
            size = len(self._group[first])
            for place in places:
                self.chosen[place] = self._model.new_int_var(0, size, "")
                on.setdefault(place[1], []).append(place)
            if len(places) > 1:
                self._model.add(sum(self.chosen[place] for place in places) <= size)
        for i, there in on.items():
            needs = [self.problem.vms[vm].needs for vm, _, _ in there]
            unsqueezed = [0 if squeezed else need.cpu for need, (_, _, squeezed) in zip(needs, there, strict=True)]
            self._limit(there, [need.memory_mib for need in needs], self._board.free_memory[i])
            self._limit(there, [need.reserved_cpu for need in needs], self._board.free_reserved_cpu[i])
            self._limit(there, unsqueezed, self._board.free_cpu[i])
        for apart in self.problem.apart:
            if apart.rule.required:
                for hosts in apart.hosts.values():
                    self._at_most_one(self._of(self._named(apart.rule.vms), hosts))
        for t, rule in enumerate(self.problem.together):
            # Where some of them run already, the board has said where the others may go.
            if rule.required and not self._board.together(t):
                self._one_home(self._named(rule.vms))

    def _limit(self, places: list[Place], needs: list[int], free: int) -> None:
        most = sum(need * len(self._group[place[0]]) for need, place in zip(needs, places, strict=True))
        if most > max(0, free):
            self._model.add(sum(need * self.chosen[place] for need, place in zip(needs, places, strict=True)) <= free)

    def _at_most_one(self, places: list[Place]) -> None:
        if len(places) > 1:
            self._model.add_at_most_one(self.chosen[place] for place in places)

    def _one_home(self, vms: list[PlanVm]) -> None:
        if len(vms) > 1:
            self._model.add_at_most_one(self._used(vms, i) for i in range(len(self.problem.hosts)))

    def _used(self, vms: list[PlanVm], i: int) -> Any:
        """A variable that is true if any of these has a place on that host."""
        there = self._of(vms, (i,))
        used = self._model.new_bool_var("")
        self._home.append((used, there))
        for place in there:
            self._model.add(self.chosen[place] <= used)
        return used

    def _named(self, names: Iterable[VmName]) -> list[PlanVm]:
        return [vm for name in names for vm in self._by_name.get(name, ())]

    # -- goals --------------------------------------------------------------------------------------------------------

    def size(self, tier: int) -> int:
        """How many VMs a tier has."""
        return sum(vm.tier == tier for vm in self.vms)

    def goals(self) -> list[_Goal]:
        """What is wanted of a plan, the most important first."""
        goals: list[_Goal] = []
        for tier in sorted({vm.tier for vm in self.vms}):
            firsts = [first for first, group in self._group.items() if group[0].tier == tier]
            places = [place for first in firsts for place in self._places[first]]
            squeezed = [place for place in places if place[2]]
            goals.append(_Goal(tier, 1, places, self.size(tier)))
            goals += [_Goal(tier, -1, squeezed, 0)] if squeezed else []
        return goals

    def demand(self, goal: _Goal, reached: int) -> None:
        """From now on a goal is not missed by more than it is now."""
        if goal.places:
            self._model.add(goal.sign * sum(self.chosen[place] for place in goal.places) >= reached)

    def costs(self) -> Iterable[list[Any]]:
        """What is to be kept low besides, the most important first."""
        hosts, views = self.problem.hosts, self._views
        last = [variable for (_, i, _), variable in self.chosen.items() if hosts[i].last_resort]
        failed = [variable for (vm, i, _), variable in self.chosen.items() if i in views[vm].failed]
        yield from (cost for cost in (last, failed, self._broken()) if cost)

    def keep(self, cost: list[Any]) -> None:
        """From now on a cost is no higher than in the last answer."""
        self._model.add(sum(cost) <= sum(round(self._solver.value(each)) for each in cost))

    def _broken(self) -> list[Any]:
        """What counts the preferred rules that a plan breaks."""
        broken = [
            variable * self._views[vm].wrong[i]
            for (vm, i, _), variable in self.chosen.items()
            if i in self._views[vm].wrong
        ]
        for apart in self.problem.apart:
            for hosts in () if apart.rule.required else apart.hosts.values():
                there = [self.chosen[place] for place in self._of(self._named(apart.rule.vms), hosts)]
                if len(there) > 1:
                    broken.append(self._beyond_the_first(there))
        for rule in self.problem.together:
            vms = [] if rule.required else self._named(rule.vms)
            if len(vms) > 1:
                broken.append(self._beyond_the_first([self._used(vms, i) for i in range(len(self.problem.hosts))]))
        return broken

    def _beyond_the_first(self, variables: list[Any]) -> Any:
        beyond = self._model.new_int_var(0, len(variables), "")
        self._model.add(beyond >= sum(variables) - 1)
        return beyond

    # -- solving ------------------------------------------------------------------------------------------------------

    def maximise(self, objective: Any, hint: Counts, seconds: float) -> tuple[Counts, int] | None:
        """The counts of the best that was found, and the bound; None if nothing was, or there is no time."""
        if seconds <= 0:
            return None
        self._model.clear_hints()
        for place, variable in self.chosen.items():
            self._model.add_hint(variable, hint.get(place, 0))
        for used, places in self._home:
            self._model.add_hint(used, any(hint.get(place, 0) for place in places))
        self._model.maximize(objective)
        self._solver = self._cp.CpSolver()
        self._solver.parameters.max_time_in_seconds = seconds
        self._solver.parameters.num_workers = self._workers
        self._solver.parameters.random_seed = 1
        if self._solver.solve(self._model) not in (self._cp.OPTIMAL, self._cp.FEASIBLE):
            return None
        values = {place: self._solver.value(variable) for place, variable in self.chosen.items()}
        return {place: count for place, count in values.items() if count}, math.floor(
            self._solver.best_objective_bound + 1e-6
        )

    # -- plans --------------------------------------------------------------------------------------------------------

    def counts(self, plan: Plan) -> Counts:
        """What a plan has where."""
        return collections.Counter((self._first[vm], i, squeezed) for vm, (i, squeezed) in self._where(plan).items())

    def _where(self, plan: Plan) -> dict[VmId, tuple[int, bool]]:
        number, last = self.problem.number, {step.vm: step for step in plan.steps}
        return {vm: (number[step.host], step.squeezed) for vm, step in last.items() if step.host is not None}

    def plan(self, found: Counts, greedy: Plan) -> Plan:
        """A plan of these counts: those that are squeezed in come last, and then who waits."""
        left, before = dict(found), self._where(greedy)
        where: dict[VmId, tuple[int, bool]] = {}
        for vm, (i, squeezed) in before.items():
            place = self._first[vm], i, squeezed
            if left.get(place, 0):
                left[place] -= 1
                where[vm] = i, squeezed
        for (first, i, squeezed), count in left.items():
            for vm in [vm.vm for vm in self._group[first] if vm.vm not in where][:count]:
                where[vm] = i, squeezed
        hosts = self.problem.hosts
        steps = [Assignment(vm.vm, hosts[where[vm.vm][0]].id, where[vm.vm][1]) for vm in self.vms if vm.vm in where]
        waiting = [Assignment(vm.vm, None) for vm in self.vms if vm.vm not in where]
        return Plan((*sorted(steps, key=lambda step: step.squeezed), *waiting))
