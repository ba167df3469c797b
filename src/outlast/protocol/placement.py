"""On which host a VM is to run again, and why: the primary's open restarts, planned together.

All VMs that wait for a host are planned at once, though each becomes ready for its order at its own time: so an important
VM whose proof comes late finds its room still free, and what `outlast plan` foretells is what happens. A plan is kept as
long as it can be carried out. Room is kept for nobody for longer than `RESERVED_FOR`, as a proof may never come, and not at
all where only a person could give it. Who has proof and waits for his turn alone keeps it.

A VM for which there is no room is looked at again every `LOOK_FOR_ROOM`, without asking storage, and goes on as soon as
there is some.
"""

from collections.abc import Mapping

import msgspec

from outlast.model.ids import DatastoreName, HostId, VmId
from outlast.model.planning import Plan, PlanVm, Snapshot
from outlast.model.policy import rank
from outlast.model.records import ProtectedVm, RegisterState
from outlast.model.time import SECOND, Duration, Instant, after
from outlast.protocol.domain_snapshot import as_listed, needs_of, take
from outlast.protocol.knowledge import Knowledge
from outlast.protocol.planning.board import Board
from outlast.protocol.planning.explaining import Explanation, explain, judge
from outlast.protocol.planning.planner import make_plan
from outlast.protocol.planning.problem import Problem
from outlast.protocol.restart import Restart, Stage
from outlast.protocol.verdict import SUSPECT

RESERVED_FOR = Duration(30 * SECOND)
LOOK_FOR_ROOM = Duration(2 * SECOND)
ON_THE_WAY = Duration(10 * SECOND)
"""From the end of a restart until its VM must stand on the list of its new host."""
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
        self._sent: dict[VmId, tuple[PlanVm, Instant]] = {}
        """VMs that were sent to a host, and when that was last under way."""
        self._last: tuple[Snapshot, Problem, Plan] | None = None
        self._roomless: set[VmId] = set()
        self.explained: dict[VmId, Explanation] = {}
        """Why each VM was placed where it was, or not at all, the last time."""
        self._look_at: Instant | None = None
        self.moving: Mapping[VmId, PlanVm] = {}
        """VMs that are on their way from one host to another, on the one that they go to (`moving`)."""

    def snapshot(self, now_for: VmId | None = None) -> Snapshot:
        """The domain as it is; with the VMs that wait for a host, those that may still come soon, and `now_for` itself."""
        waiting = {
            vm: each
            for vm, each in self.waiting().items()
            if vm == now_for or vm in self._roomless or self._keeps_room(self._cases[vm])
        }
        return take(self._known, waiting | self._to_come(lately=True), self.ordered())

    def whole(self, *, measured: bool = False) -> Snapshot:
        """The domain with every VM that needs a host, also those that nobody has taken up yet."""
        return take(self._known, self.waiting() | self._to_come(), self.ordered(), measured=measured)

    def _to_come(self, *, lately: bool = False) -> dict[VmId, PlanVm]:
        """VMs whose host is presumed dead, and that nobody here has taken up: not yet, or somebody else answers for them.

        `lately`: only those whose host was lost a moment ago.
        """
        known, found = self._known, dict[VmId, PlanVm]()
        lost = {host for host in known.peers if known.verdict(host) in SUSPECT}
        if lately:
            lost = {host for host in lost if known.now - known.judgements[host].since < RESERVED_FOR}
        for vm, (host, line) in known.whereabouts().items() if lost else ():
            taken_up = vm in self._cases or vm in self._sent or vm in known.aside
            if host in lost and not taken_up and (self._proof_may_come(host, line.home) or not lately):
                found[vm] = as_listed(vm, None, line)
        return {vm: each for vm, each in found.items() if each.wanted}

    def waiting(self) -> dict[VmId, PlanVm]:
        """Every restart that has no host yet, as planning sees it."""
        return {vm: _waits(case) for vm, case in self._cases.items() if case.target is None}

    def ordered(self) -> dict[VmId, PlanVm]:
        """Every restart that was ordered, on the host that it was ordered from, and every VM that moves.

        One that has succeeded still counts for a while: the list of its new host takes its time.
        """
        self._follow()
        moving = {vm: each for vm, each in self.moving.items() if vm not in self._cases}
        return moving | {vm: sent for vm, (sent, _) in self._sent.items()}

    def _follow(self) -> None:
        now = self._known.now
        for vm, case in self._cases.items():
            self._sent.pop(vm, None)
            if case.target is not None:
                self._sent[vm] = (_goes(case), now)
        if self._sent:
            self._sent = {vm: sent for vm, sent in self._sent.items() if now - sent[1] < ON_THE_WAY}

    def _keeps_room(self, case: Restart) -> bool:
        soon = case.stage is not Stage.SETTLED and not case.in_doubt and self._known.now - case.opened < RESERVED_FOR
        owner = case.last.owner if case.last is not None and case.last.state is RegisterState.OWNED else None
        return (soon and self._proof_may_come(owner, case.home)) or case.stage is Stage.QUEUED

    def _proof_may_come(self, owner: HostId | None, home: DatastoreName | None) -> bool:
        """Whether there may be proof without a person, or a boot of that host, which may take for ever."""
        if owner is None or home is None or owner == self._known.me or home not in self._known.datastores:
            return True
        fenced = bool(self._known.config.fencing.get(owner))
        return fenced or self._known.expiry_may_prove(owner, home, answers_ping=False)

    def could_take(self, leaving: Mapping[VmId, tuple[ProtectedVm, DatastoreName]]) -> list[VmId]:
        """Which of these, with their homes, would have a host if their owners gave them up, along with all that waits."""
        vms = {vm: _leaves(*each) for vm, each in leaving.items()} | self.waiting() | self._to_come(lately=True)
        plan = make_plan(Problem(take(self._known, vms, self.ordered())))
        return [vm for vm in leaving if plan.targets.get(vm) is not None]

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
        vm = problem.vms[case.vm]
        board = self._as_planned(problem, case.vm)
        if board is not None and case.vm in self._planned:
            planned = self._planned.pop(case.vm)
            i = problem.number[planned] if planned is not None else _best(board, vm)
            i = _rather_back(board, vm, case.back_on, i)
            # One that was squeezed in there meanwhile, as planned, takes nobody's planned place away.
            if i is None or (i in problem.candidates(vm) and board.fits(vm, i, squeezed=True)):
                return self._chosen(case.vm, judge(board, vm, i), problem.hosts[i].id if i is not None else None)
        plan = self._plan(snapshot, problem)
        self._planned.pop(case.vm, None)
        return self._chosen(case.vm, explain(problem, plan, case.vm), plan.targets[case.vm])

    def _chosen(self, vm: VmId, explanation: Explanation, host: HostId | None) -> Choice:
        if host is None:
            self._planned[vm] = None
            self._roomless.add(vm)
            self._look_at = self._look_at or after(self._known.now, LOOK_FOR_ROOM)
        return Choice(host, explanation)

    def _as_planned(self, problem: Problem, but: VmId | None = None) -> Board | None:
        """The board with all VMs that wait where they are planned to go, but one; None if that is not possible."""
        board = Board(problem)
        for vm in problem.snapshot.vms:
            if vm.host is not None or not vm.wanted or vm.vm == but:
                continue
            if vm.vm not in self._planned:
                return None
            planned = self._planned[vm.vm]
            if planned is None:
                continue
            i = problem.number[planned]
            if i not in problem.candidates(vm) or not board.fits(vm, i, squeezed=True):
                return None
            board.put(vm, i, squeezed=not board.fits(vm, i))
        return board

    def _plan(self, snapshot: Snapshot, problem: Problem) -> Plan:
        if self._last is None or self._last[0] != snapshot:
            self._last = snapshot, problem, make_plan(problem)
        plan = self._last[2]
        self._planned = plan.targets
        return plan

    # -- who found no room ----------------------------------------------------------------------------------------

    def found_room(self) -> list[VmId]:
        """The VMs that had no room and have some now; asked every turn, it looks now and then."""
        self._follow()
        now = self._known.now
        self._roomless = {vm for vm in self._roomless if vm in self._cases and self._cases[vm].stage is Stage.WAITING}
        if not self._roomless:
            self._look_at = None
        if self._look_at is None or now < self._look_at:
            return []
        self._look_at = after(now, LOOK_FOR_ROOM)
        snapshot = self.snapshot()
        problem = Problem(snapshot)
        board = self._as_planned(problem)
        if board is None:
            self._plan(snapshot, problem)
        else:
            for vm in (problem.vms[name] for name in sorted(self._roomless)):
                i = _best(board, vm)
                if i is not None:
                    self._planned[vm.vm] = problem.hosts[i].id
                    board.put(vm, i, squeezed=not board.fits(vm, i))
        found = sorted(vm for vm in self._roomless if self._planned.get(vm) is not None)
        self._roomless -= set(found)
        return found

    def next_deadline(self) -> Instant | None:
        """When to look for room again."""
        return self._look_at


def _best(board: Board, vm: PlanVm) -> int | None:
    """The best host that can take a VM now; one where it is squeezed in, if there is no other."""
    candidates, view = board.problem.candidates(vm), board.view(vm)
    for squeezed in (False, True):
        fitting = [i for i in candidates if view.allows(i) and board.has_room(vm, i, squeezed)]
        if fitting:
            return max(fitting, key=lambda i: board.rank(view, i))
    return None


def _rather_back(board: Board, vm: PlanVm, back_on: HostId | None, i: int | None) -> int | None:
    """The host where it ran, if that has rebooted since it was planned to go to `i`, and is the better one."""
    back = board.problem.number.get(back_on) if back_on is not None else None
    if back is None or i is None or back not in board.problem.candidates(vm) or not board.fits(vm, back):
        return i
    view = board.view(vm)
    return max(i, back, key=lambda each: board.rank(view, each))


def _waits(case: Restart) -> PlanVm:
    prefer = case.again or case.back_on
    return PlanVm(
        vm=case.vm,
        name=case.name,
        needs=case.needs,
        tier=case.tier,
        failed_on=case.avoid | case.failed_on,
        prefer=prefer if prefer not in case.failed_on else None,
        only=case.only,
    )


def _leaves(entry: ProtectedVm, home: DatastoreName) -> PlanVm:
    return PlanVm(vm=entry.vm, name=entry.name, needs=needs_of(entry, home), tier=rank(entry.policy.priority))


def _goes(case: Restart) -> PlanVm:
    return PlanVm(vm=case.vm, name=case.name, needs=case.needs, host=case.target)
