"""In which order the VMs of a plan would be started, and when: recovery's own rules, played ahead in time.

Whose turn it is says `sequence.turns`, and how those are doing that others wait for, `dependencies.standing_of`: the same
that recovery asks. What is foretold here is only what the world does meanwhile, at some `Pace`:

    stage      until                                              then
    proving    there is proof about its host; for ever, if that   queued
               will take a person, or a boot
    queued     its turn, and a place for one more start           starting; roomless, if the plan has no place for it
    starting   its process runs                                   started
    roomless   for ever                                           -
    started    for ever; ready at once, after its delay, or when its guest answers, as its policy has it

Played once at the fastest pace and once at the slowest, it gives the times between which a VM would run again.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import msgspec

from outlast.model.dependency import Dependency, Standing
from outlast.model.ids import DatastoreName, HostId, HostName, VmId, VmName
from outlast.model.planning import PlanBasis, PlanVm
from outlast.model.policy import NO_WISH, PRIORITIES, Priority, VmPolicy
from outlast.model.time import Duration, Instant, after
from outlast.protocol.dependencies import AwaitedVm, standing_of, unwanted, worst
from outlast.protocol.sequence import Slots, Turns, Unheeded, Waiter, turns

_BEGIN = Instant(0)
_Stage = Literal["proving", "queued", "starting", "roomless", "started"]
_CASES: dict[_Stage, Literal["queued", "coming", "started"]] = {
    "proving": "coming",
    "queued": "queued",
    "starting": "coming",
    "roomless": "coming",
    "started": "started",
}
"""How far the restart is for those that wait for it."""


class Pace(msgspec.Struct, frozen=True):
    """How long things take: from a loss to its proof, from a VM's turn until it runs, from its being ready until that is
    known. `at_once`: how many starts one host makes at one time. `guests_answer`: at once, or never.
    """

    proof: Duration
    start: Duration
    told: Duration
    at_once: int
    guests_answer: bool


class Start(msgspec.Struct):
    """One VM's way. `at`: when it runs, None if never. `awaited`: whom it waits for, or waited for, at any time;
    `unheeded`: for whom it does not wait, or no more, and why.
    """

    vm: PlanVm
    policy: VmPolicy
    target: HostId | None
    stage: _Stage = "proving"
    proven_at: Instant | None = None
    since: Instant = _BEGIN
    waited: Duration = Duration(0)
    at: Instant | None = None
    awaited: list[VmName] = []
    unheeded: dict[VmName, Unheeded] = {}

    def waiter(self) -> Waiter:
        """As the order of starts sees it."""
        return Waiter(
            vm=self.vm.vm,
            name=self.vm.name,
            priority=self.policy.priority,
            after=tuple(name for name in self.policy.after if name not in self.unheeded),
            queued=self.stage == "queued",
            queued_since=self.since,
            waited=self.waited,
        )

    def ready_at(self, pace: Pace) -> Instant | None:
        """When those that wait for it know that it is ready; None: never."""
        ready = self.policy.ready
        if self.at is None or (ready.how == "guest-heartbeat" and not pace.guests_answer):
            return None
        return self.at if ready.how == "powered-on" else after(self.at, Duration(ready.delay + pace.told))


class Starting:
    """The VMs of a loss on their way. `lost`: the hosts; `unproven`: the VMs that wait for a proof without end."""

    def __init__(
        self, basis: PlanBasis, vms: Iterable[PlanVm], lost: Collection[HostId], unproven: Collection[VmId]
    ) -> None:
        self._basis = basis
        self._vms = tuple(vms)
        self._lost = frozenset(lost)
        self._unproven = frozenset(unproven)
        self._pace = Pace(Duration(0), Duration(0), Duration(0), basis.starts_per_host, True)
        self._now = _BEGIN
        self._starts: dict[VmId, Start] = {}
        self._named: dict[VmName, list[Start]] = {}
        self._off: dict[VmName, Dependency] = {}
        """The VMs of lost hosts that nobody would start: they are waited for no more than recovery waits for such."""
        here = {vm.vm for vm in self._vms}
        for vm in basis.snapshot.vms:
            if vm.vm not in here and vm.host in self._lost:
                policy, of = basis.policies.get(vm.vm), AwaitedVm(name=vm.name, ready=NO_WISH.ready, disabled=True)
                self._off[vm.name] = standing_of(of) if policy and policy.priority == "disabled" else unwanted(vm.name)

    def ranks(self) -> dict[VmId, int]:
        """How important each is, as far as others wait for it: what recovery places them by."""
        self._begin({}, self._pace)
        return self._turns().ranks

    def play(self, places: Mapping[VmId, HostId | None], pace: Pace) -> list[Start]:
        """All of them, in the order of their starts; those that are never started last. `places`: the plan's."""
        self._begin(places, pace)
        order: list[Start] = []
        while True:
            self._pass_on()
            found = self._turns()
            if self._give_turns(found, order):
                continue
            following = self._next(found)
            if following is None:
                return order + [each for each in self._starts.values() if each.at is None]
            for each in self._starts.values():
                if each.stage == "queued" and each.vm.vm not in found.standing_still:
                    each.waited = Duration(each.waited + following - self._now)
            self._now = following

    def _begin(self, places: Mapping[VmId, HostId | None], pace: Pace) -> None:
        self._now, self._pace, self._named = _BEGIN, pace, {}
        self._starts = {vm.vm: self._start(vm, places.get(vm.vm)) for vm in self._vms}
        for each in self._starts.values():
            self._named.setdefault(each.vm.name, []).append(each)

    def _start(self, vm: PlanVm, target: HostId | None) -> Start:
        policy = self._basis.policies.get(vm.vm) or msgspec.structs.replace(NO_WISH, priority=_priority(vm.tier))
        start = Start(vm, policy, target)
        if vm.vm not in self._unproven:
            start.proven_at = after(_BEGIN, self._pace.proof) if vm.host in self._lost else _BEGIN
        return start

    def _pass_on(self) -> None:
        """What has happened by itself until now."""
        for each in self._starts.values():
            if each.stage == "proving" and each.proven_at is not None and each.proven_at <= self._now:
                each.stage, each.since = "queued", self._now
            elif each.stage == "starting" and each.at is not None and each.at <= self._now:
                each.stage = "started"

    def _turns(self) -> Turns:
        waiters = [each.waiter() for each in self._starts.values() if each.stage in ("proving", "queued")]
        dependencies = {name: self._standing(name) for waiter in waiters for name in waiter.after}
        for waiter in waiters:
            down = (n for n in waiter.after if dependencies[n].standing in (Standing.COMING, Standing.QUEUED))
            awaited = self._starts[waiter.vm].awaited
            awaited.extend(name for name in down if name not in awaited)
        return turns(waiters, dependencies, self._basis.dependency_timeout, self._now)

    def _standing(self, name: VmName) -> Dependency:
        found = [self._standing_of(each) for each in self._named.get(name, ())]
        if found:
            return worst(found)
        known = self._off.get(name) or self._basis.standings.get(name) or unwanted(name)
        # What is on its way without this loss is ready at once, or never.
        on_its_way = known.standing in {Standing.COMING, Standing.QUEUED}
        return Dependency(Standing.READY if self._pace.guests_answer else Standing.COMING) if on_its_way else known

    def _standing_of(self, start: Start) -> Dependency:
        ready_at = start.ready_at(self._pace)
        is_ready = start.stage == "started" and ready_at is not None and ready_at <= self._now
        case = "" if is_ready else _CASES[start.stage]
        return standing_of(AwaitedVm(name=start.vm.name, ready=start.policy.ready, case=case, runs=is_ready))

    def _give_turns(self, found: Turns, order: list[Start]) -> bool:
        """Whether anything has changed for the others."""
        basis, changed = self._basis, False
        for each in found.unheeded:
            start = self._starts[each.vm]
            if start.stage == "queued":
                start.unheeded[each.dependency] = each
                changed = True
        under_way = [each for each in self._starts.values() if each.stage == "starting"]
        slots = Slots(
            min(basis.starts_per_host, self._pace.at_once),
            basis.starts_per_datastore,
            [(each.target, _home(each.vm)) for each in under_way if each.target is not None],
        )
        for start in (self._starts[vm] for vm in found.go):
            home = _home(start.vm)
            if start.target is None:
                start.stage, changed = "roomless", True
            elif not slots.refusal_of_datastore(home) and not slots.refusal_of_host(start.target, HostName("")):
                slots.take(start.target, home)
                start.stage, start.at, changed = "starting", after(self._now, self._pace.start), True
                order.append(start)
        return changed

    def _next(self, found: Turns) -> Instant | None:
        """When anything happens by itself; None: never again."""
        times = [found.look_again] if found.look_again is not None else []
        for each in self._starts.values():
            due = (each.proven_at, each.at, each.ready_at(self._pace))
            times += [time for time in due if time is not None and time > self._now]
        return min(times, default=None)


def _priority(tier: int) -> Priority:
    return PRIORITIES[max(0, min(tier, len(PRIORITIES) - 1))]


def _home(vm: PlanVm) -> DatastoreName:
    return vm.needs.datastores[0] if vm.needs.datastores else DatastoreName("")
