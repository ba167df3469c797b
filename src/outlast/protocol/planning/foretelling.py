"""What would come of a loss: which VM would run where, which would wait and for what, and how long it would take.

The plan is the one that the primary would make, from the same snapshot. A VM whose host's death could not be proven by the
end of its lease waits for its host's next boot, or for a person; its place is not kept. One of priority `disabled` is left
out. Who has the room is decided as in a recovery, by priority: a VM is as important as the most important one that waits
for it (`after`).

How long: until the window has elapsed (`lease_duration + lease_margin`), counted from the last record that was seen of the
lost host, which was written up to a heartbeat (and a write that was lost with it) before it was lost, and read up to a poll
later; then the starts, so many at once on one host, each when its turn has come (`starting`): at the least if every guest
answers at once, at the most if none does and all who wait for one go on after `dependency_timeout`.
"""

from collections.abc import Collection, Iterator

import msgspec

from outlast.model.ids import HostId, HostName, VmId, VmName
from outlast.model.planning import Assignment, Awaited, Foretold, Move, Plan, PlanBasis, PlanVm, Wait
from outlast.model.policy import Ready
from outlast.model.time import Duration, Instant, in_seconds, seconds
from outlast.model.units import duration_text
from outlast.protocol.planning.explaining import Explanation, explain_all
from outlast.protocol.planning.planner import make_plan, to_place
from outlast.protocol.planning.problem import Problem
from outlast.protocol.planning.starting import Pace, Start, Starting

STARTS_AT_ONCE = 2
"""How many VMs libvirt starts at one time on one host where that takes long; else as many as `starts_at_once_per_host`."""
START_S = (0.5, 2.0)
"""How long one start takes, until QEMU runs."""
CLAIM_S = (0.0, 0.5)
"""From a VM's turn to its start: two reads and a link."""
WRITE_S = 0.5
"""How long the last heartbeat that was not written to its end was under way, at the most."""
TOLD_S = (0.0, 3.0)
"""From a VM's being ready until the primary has read so, where its host has to say it."""


class Loss(msgspec.Struct, frozen=True):
    """A loss as a problem for planners. `gone`: the lost hosts; `unproven`: the VMs that are not to be placed, and for want
    of a proof on which datastore; in `before` they are still wanted.
    """

    basis: PlanBasis
    before: Problem
    problem: Problem
    gone: frozenset[int]
    unproven: dict[VmId, str]

    def starting(self) -> Starting:
        """The way of all who are down then."""
        return _starting(self.basis, self.before, self.gone, self.unproven)


def _starting(basis: PlanBasis, problem: Problem, gone: frozenset[int], unproven: Collection[VmId]) -> Starting:
    return Starting(basis, to_place(problem, gone), {problem.hosts[i].id for i in gone}, unproven)


def ranked(basis: PlanBasis, problem: Problem, gone: frozenset[int]) -> Problem:
    """The problem as a loss makes it: with each VM as important as the most important one that would wait for it."""
    if not any(policy.after for policy in basis.policies.values()):
        return problem
    ranks = _starting(basis, problem, gone, ()).ranks()
    raised = {vm: tier for vm, tier in ranks.items() if tier < problem.vms[vm].tier}
    if not raised:
        return problem
    vms = tuple(msgspec.structs.replace(vm, tier=raised[vm.vm]) if vm.vm in raised else vm for vm in problem.snapshot.vms)
    return Problem(msgspec.structs.replace(problem.snapshot, vms=vms))


def loss_of(basis: PlanBasis, lost: frozenset[HostId]) -> Loss:
    """What is to be planned if these hosts are lost now. Hosts that the snapshot does not know are left out."""
    before = Problem(basis.snapshot)
    gone = frozenset(before.number[host] for host in lost if host in before.number)
    before = ranked(basis, before, gone)
    unproven = {vm.vm: missing for vm in before.snapshot.vms if vm.host in lost and (missing := _no_proof(basis, vm))}
    vms = tuple(msgspec.structs.replace(vm, wanted=False) if vm.vm in unproven else vm for vm in before.snapshot.vms)
    problem = Problem(msgspec.structs.replace(basis.snapshot, vms=vms))
    return Loss(basis, before, problem, gone, unproven)


def foretell(basis: PlanBasis, lost: frozenset[HostId]) -> Foretold:
    """What would come of losing these hosts now, by the plan that the primary would make."""
    loss = loss_of(basis, lost)
    return foretell_by(loss, make_plan(loss.problem, loss.gone))


def foretell_by(loss: Loss, plan: Plan) -> Foretold:
    """What would come of a loss by some plan."""
    problem = loss.problem
    explained = explain_all(problem, plan, loss.gone)
    waits = [_waits(problem, step, explained[step.vm]) for step in _last(plan) if step.host is None]
    waits += [_unproven(loss.before, loss.before.vms[vm], missing) for vm, missing in loss.unproven.items()]
    return Foretold(
        lost=tuple(problem.hosts[i].name for i in sorted(loss.gone)),
        moves=tuple(_moves(loss, plan, explained)),
        waits=tuple(waits),
        survives=plan.obstacle is None and not waits,
        why_not=plan.obstacle.why if plan.obstacle is not None else "",
    )


def _no_proof(basis: PlanBasis, vm: PlanVm) -> str:
    if not vm.wanted or vm.host is None or not vm.needs.datastores:
        return ""
    home = vm.needs.datastores[0]
    return home if home in basis.no_proof.get(vm.host, ()) else ""


def _last(plan: Plan) -> list[Assignment]:
    """The last word about each VM, in the order in which they were spoken."""
    last = {step.vm: at for at, step in enumerate(plan.steps)}
    return [step for at, step in enumerate(plan.steps) if last[step.vm] == at]


def _name(problem: Problem, host: HostId | None) -> HostName | None:
    return problem.hosts[problem.number[host]].name if host in problem.number else None


def _moves(loss: Loss, plan: Plan, explained: dict[VmId, Explanation]) -> list[Move]:
    """In the order in which they start at the fastest."""
    problem, steps = loss.problem, {step.vm: step for step in plan.steps}
    fastest = loss.starting().play(plan.targets, _pace(loss.basis, fastest=True))
    slowest = {start.vm.vm: start for start in loss.starting().play(plan.targets, _pace(loss.basis, fastest=False))}
    moves: list[Move] = []
    for start in fastest:
        late = slowest[start.vm.vm]
        if start.target is None or start.at is None or late.at is None:
            continue
        step = steps[start.vm.vm]
        moves.append(
            Move(
                vm=start.vm.name,
                origin=_name(problem, start.vm.host),
                to=problem.hosts[problem.number[start.target]].name,
                after_s=(_seconds(start.at), _seconds(max(start.at, late.at))),
                squeezed=step.squeezed,
                why=explained[start.vm.vm].considered[0].why,
                awaits=tuple(_awaits(loss, start, late, slowest.values())),
            )
        )
    return moves


def _pace(basis: PlanBasis, *, fastest: bool) -> Pace:
    at = 0 if fastest else 1
    proof = basis.window - basis.heartbeat - seconds(WRITE_S) if fastest else basis.window + basis.poll
    return Pace(
        proof=Duration(max(0, proof)),
        start=seconds(CLAIM_S[at] + START_S[at]),
        told=seconds(TOLD_S[at]),
        at_once=basis.starts_per_host if fastest else STARTS_AT_ONCE,
        guests_answer=fastest,
    )


def _seconds(time: Instant) -> float:
    return round(in_seconds(time), 1)


# -- who waits for whom -----------------------------------------------------------------------------------------------


def _awaits(loss: Loss, early: Start, late: Start, everybody: Collection[Start]) -> Iterator[Awaited]:
    """What becomes of each VM in `after` that is not ready anyway."""
    timeout = loss.basis.dependency_timeout
    for name in early.policy.after:
        unheeded = late.unheeded.get(name)
        if unheeded is not None and not unheeded.in_vain:
            yield Awaited(vm=name, heeded=False, sentence=f"does not wait for {name}: {unheeded.why}")
            continue
        if name not in late.awaited:
            continue
        ready = max((each.policy.ready for each in everybody if each.vm.name == name), key=str, default=Ready())
        patience = duration_text(Duration(timeout + ready.delay))
        if name in early.unheeded:
            why = _why_in_vain(loss, name, everybody)
            yield Awaited(vm=name, heeded=False, sentence=f"goes on without {name} after {patience}: {why}")
        elif unheeded is not None:
            until = "its guest answers" if ready.how == "guest-heartbeat" else "it is ready"
            yield Awaited(vm=name, heeded=True, sentence=f"waits for {name} until {until}, for {patience} at most")
        else:
            until = f"{duration_text(ready.delay)} after it runs" if ready.how == "delay" else "until it runs"
            yield Awaited(vm=name, heeded=True, sentence=f"waits for {name} {until}")


def _why_in_vain(loss: Loss, name: VmName, everybody: Collection[Start]) -> str:
    found = [each for each in everybody if each.vm.name == name]
    if any(each.vm.vm in loss.unproven for each in found):
        return "there would be no proof that it is off"
    if any(each.target is None for each in found):
        return "no host can take it"
    return "it is not ready by then"


def _waits(problem: Problem, step: Assignment, explanation: Explanation) -> Wait:
    vm, hosts = problem.vms[step.vm], dict(explanation.refused())
    return Wait(vm=vm.name, origin=_name(problem, vm.host), why="no host can take it", hosts=hosts)


def _unproven(problem: Problem, vm: PlanVm, home: str) -> Wait:
    origin = _name(problem, vm.host)
    why = f"the end of {origin}'s lease on {home} would be no proof: it waits until {origin} boots again"
    return Wait(vm=vm.name, origin=origin, why=why)
