"""On which host a VM is to run again, and why: the primary's open restarts, planned together.

All VMs that wait for a host are planned at once, though each becomes ready for its order at its own time: so an important
VM whose proof comes late finds its room still free, and what `outlast plan` foretells is what happens. A plan is kept as
long as it can be carried out. Room is kept for nobody for longer than `RESERVED_FOR`: a proof may never come. Who has
proof and waits for his turn alone keeps it.

A VM for which there is no room is looked at again every `LOOK_FOR_ROOM`, without asking storage, and goes on as soon as
there is some.
"""

from collections.abc import Mapping

import msgspec

from outlast.model.ids import HostId, VmId
from outlast.model.planning import Plan, PlanVm, Snapshot
from outlast.model.time import SECOND, Duration, Instant, after
from outlast.protocol.domain_snapshot import needs_of, take
from outlast.protocol.knowledge import Knowledge
from outlast.protocol.planning.board import Board
from outlast.protocol.planning.explaining import Explanation, explain, judge
from outlast.protocol.planning.planner import make_plan
from outlast.protocol.planning.problem import Problem
from outlast.protocol.restart import Restart, Stage
from outlast.protocol.verdict import SUSPECT

RESERVED_FOR = Duration(30 * SECOND)
LOOK_FOR_ROOM = Duration(2 * SECOND)
MOST_EXPLAINED = 2000


class Choice(msgspec.Struct, frozen=True):
    """The host chosen, None if none fits, and what was considered."""

    host: HostId | None
    explanation: Explanation


class Placement:
    """See the top of this file. `cases`: every restart that is under way, by VM."""

    def __init__(self, knowledge: Knowledge, cases: Mapping[VmId, Restart]) -> None:
        self._known = knowledge
        self._cases = cases
        self._planned: dict[VmId, HostId | None] = {}
        self._last: tuple[Snapshot, Problem, Plan] | None = None
        self._roomless: set[VmId] = set()
        self.explained: dict[VmId, Explanation] = {}
        """Why each VM was placed where it was, or not at all, the last time."""
        self._look_at: Instant | None = None

    def snapshot(self, now_for: VmId | None = None) -> Snapshot:
        """The domain as it is; with the VMs that wait for a host, those that may still come soon, and `now_for` itself."""
        waiting = {
            vm: each
            for vm, each in self.waiting().items()
            if vm == now_for or vm in self._roomless or self._keeps_room(self._cases[vm])
        }
        return take(self._known, waiting, self.ordered())

    def whole(self, *, measured: bool = False) -> Snapshot:
        """The domain with every VM that needs a host, also those that nobody has taken up yet."""
        known, waiting, ordered = self._known, self.waiting(), self.ordered()
        for vm, (host, line) in known.whereabouts().items():
            if vm not in waiting and vm not in ordered and line.protected and known.verdict(host) in SUSPECT:
                waiting[vm] = PlanVm(vm=vm, name=line.name, needs=needs_of(line, line.home))
        return take(known, waiting, ordered, measured=measured)

    def waiting(self) -> dict[VmId, PlanVm]:
        """Every restart that has no host yet, as planning sees it."""
        return {vm: _waits(case) for vm, case in self._cases.items() if case.target is None}

    def ordered(self) -> dict[VmId, PlanVm]:
        """Every restart that was ordered, on the host that it was ordered from."""
        return {vm: _goes(case) for vm, case in self._cases.items() if case.target is not None}

    def _keeps_room(self, case: Restart) -> bool:
        soon = case.stage is not Stage.SETTLED and self._known.now - case.opened < RESERVED_FOR
        return soon or case.stage is Stage.QUEUED

    # -- choosing -------------------------------------------------------------------------------------------------

    def choose(self, case: Restart) -> Choice:
        """A host for a VM that may be started now."""
        choice = self._choose(case)
        self.explained.pop(case.vm, None)
        while len(self.explained) >= MOST_EXPLAINED:
            del self.explained[next(iter(self.explained))]
        self.explained[case.vm] = choice.explanation
        return choice

    def _choose(self, case: Restart) -> Choice:
        snapshot = self.snapshot(case.vm)
        problem = Problem(snapshot)
        vm, planned = problem.vms[case.vm], self._planned.pop(case.vm, None)
        others = (other.vm for other in snapshot.vms if other.wanted and other.host is None and other is not vm)
        if planned is not None and all(other in self._planned for other in others):
            board, i = Board(problem), problem.number[planned]
            if i in problem.candidates(vm) and board.fits(vm, i):
                return Choice(planned, judge(board, vm, i))
        plan = self._plan(snapshot, problem)
        explanation = explain(problem, plan, case.vm)
        target = plan.targets[case.vm]
        self._planned.pop(case.vm, None)
        if target is None:
            self._roomless.add(case.vm)
            self._look_at = self._look_at or after(self._known.now, LOOK_FOR_ROOM)
        return Choice(target, explanation)

    def _plan(self, snapshot: Snapshot, problem: Problem) -> Plan:
        if self._last is None or self._last[0] != snapshot:
            self._last = snapshot, problem, make_plan(problem)
        plan = self._last[2]
        self._planned = plan.targets
        return plan

    # -- who found no room ----------------------------------------------------------------------------------------

    def found_room(self) -> list[VmId]:
        """The VMs that had no room and have some now; asked every turn, it looks now and then."""
        now = self._known.now
        self._roomless = {vm for vm in self._roomless if vm in self._cases and self._cases[vm].stage is Stage.WAITING}
        if not self._roomless:
            self._look_at = None
        if self._look_at is None or now < self._look_at:
            return []
        self._look_at = after(now, LOOK_FOR_ROOM)
        snapshot = self.snapshot()
        targets = self._plan(snapshot, Problem(snapshot)).targets
        found = sorted(vm for vm in self._roomless if targets.get(vm) is not None)
        self._roomless -= set(found)
        return found

    def next_deadline(self) -> Instant | None:
        """When to look for room again."""
        return self._look_at


def _waits(case: Restart) -> PlanVm:
    return PlanVm(
        vm=case.vm,
        name=case.name,
        needs=case.needs,
        tier=case.tier,
        failed_on=case.avoid | case.failed_on,
        prefer=case.again if case.again not in case.failed_on else None,
        only=case.only,
    )


def _goes(case: Restart) -> PlanVm:
    return PlanVm(vm=case.vm, name=case.name, needs=case.needs, host=case.target)
