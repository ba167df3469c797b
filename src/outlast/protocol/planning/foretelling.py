"""What would come of a loss: which VM would run where, which would wait and for what, and how long it would take.

The plan is the one that the primary would make, from the same snapshot. A VM whose host's death could not be proven by the
end of its lease waits for its host's next boot, or for a person; its place is not kept. One of priority `disabled` is left
out. Priorities decide who has the room, as in a recovery; who waits for whom (`after`) does not, nor does it count as time.

How long: until the window has elapsed (`lease_duration + lease_margin`), counted from the last record that was seen of the
lost host, which was written up to a heartbeat before it was lost and read up to a poll later; then the starts, so many
at once on one host.
"""

import msgspec

from outlast.model.ids import HostId, HostName, VmId
from outlast.model.planning import Assignment, Foretold, Move, Plan, PlanBasis, PlanVm, Wait
from outlast.model.time import in_seconds
from outlast.protocol.planning.explaining import Explanation, explain_all
from outlast.protocol.planning.planner import make_plan
from outlast.protocol.planning.problem import Problem

STARTS_AT_ONCE = 2
"""How many VMs libvirt starts at one time on one host."""
START_S = (0.5, 2.0)
"""How long one start takes, until QEMU runs."""
CLAIM_S = (0.0, 0.5)
"""From the proof to the start: two reads and a link."""


class Loss(msgspec.Struct, frozen=True):
    """A loss as a problem for planners. `gone`: the lost hosts; `unproven`: the VMs that are not to be placed, and for want
    of a proof on which datastore; in `before` they are still wanted.
    """

    basis: PlanBasis
    before: Problem
    problem: Problem
    gone: frozenset[int]
    unproven: dict[VmId, str]


def loss_of(basis: PlanBasis, lost: frozenset[HostId]) -> Loss:
    """What is to be planned if these hosts are lost now. Hosts that the snapshot does not know are left out."""
    before = Problem(basis.snapshot)
    unproven = {vm.vm: missing for vm in basis.snapshot.vms if vm.host in lost and (missing := _no_proof(basis, vm))}
    vms = tuple(msgspec.structs.replace(vm, wanted=False) if vm.vm in unproven else vm for vm in basis.snapshot.vms)
    problem = Problem(msgspec.structs.replace(basis.snapshot, vms=vms))
    gone = frozenset(problem.number[host] for host in lost if host in problem.number)
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
        moves=tuple(_moves(loss.basis, problem, plan, explained)),
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


def _moves(basis: PlanBasis, problem: Problem, plan: Plan, explained: dict[VmId, Explanation]) -> list[Move]:
    queues: dict[HostId, int] = {}
    moves: list[Move] = []
    for step in _last(plan):
        if step.host is None:
            continue
        vm, queued = problem.vms[step.vm], queues.get(step.host, 0)
        queues[step.host] = queued + 1
        moves.append(
            Move(
                vm=vm.name,
                origin=_name(problem, vm.host),
                to=problem.hosts[problem.number[step.host]].name,
                after_s=_after(basis, vm, queued // STARTS_AT_ONCE + 1),
                squeezed=step.squeezed,
                why=explained[step.vm].considered[0].why,
            )
        )
    return moves


def _after(basis: PlanBasis, vm: PlanVm, rounds: int) -> tuple[float, float]:
    least, most = CLAIM_S[0] + rounds * START_S[0], CLAIM_S[1] + rounds * START_S[1]
    if vm.host is not None:
        least += in_seconds(basis.window - basis.heartbeat)
        most += in_seconds(basis.window + basis.poll)
    return round(least, 1), round(most, 1)


def _waits(problem: Problem, step: Assignment, explanation: Explanation) -> Wait:
    vm, hosts = problem.vms[step.vm], dict(explanation.refused())
    return Wait(vm=vm.name, origin=_name(problem, vm.host), why="no host can take it", hosts=hosts)


def _unproven(problem: Problem, vm: PlanVm, home: str) -> Wait:
    origin = _name(problem, vm.host)
    why = f"the end of {origin}'s lease on {home} would be no proof: it waits until {origin} boots again"
    return Wait(vm=vm.name, origin=origin, why=why)
