"""`outlast lab run`: a scenario on real hosts, in real time, judged by the same judge as in the simulated world.

refuse     what a lab cannot do, before anything starts (`scenario_plan`)
settle     the lab of the file is made, Outlast guards it, the VMs run where the file says: time zero. The primary is the
           one that the simulated world has, where all boot at once: the host of the highest id
play       steps at their times (`scenario_steps`), looking all the while (`scenario_observer`), judging at its times
end        the guests' disks are asked whether two instances ever wrote (a hazard, if nothing could guard one of them:
           `guarding`); the lab is taken down
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import msgspec

from outlast.lab import moving, outlast_view, scenario_plan, scenario_steps
from outlast.lab.errors import LabError
from outlast.lab.lab import Lab
from outlast.lab.scenario_observer import LabObserver
from outlast.model.time import Duration, in_seconds
from outlast.scenario.history import recoveries
from outlast.scenario.judging import judge
from outlast.scenario.model import Scenario, Step
from outlast.scenario.moments import moments
from outlast.scenario.result import Failure, Result
from outlast.scenario.telling import causes, hosts_of, told

LOOK_EVERY_S = 0.05


def run(lab: Lab, scenario: Scenario, say: Callable[[str], None] = lambda _: None) -> Result:
    """Make the scenario's lab, play it, and take the lab down. Raises UsageError for what a lab cannot do, LabError."""
    scenario_plan.check(scenario)
    began = time.monotonic()
    say("making the lab")
    lab.build(scenario_plan.plan(scenario))
    try:
        _settle(lab, scenario)
        say(f"playing {scenario.title}: {in_seconds(scenario.duration):g} s")
        observer = LabObserver(lab, scenario)
        result = play(lab, scenario, observer)
    finally:
        say("taking the lab down")
        lab.down()
    return msgspec.structs.replace(result, wall_seconds=round(time.monotonic() - began, 3))


def _settle(lab: Lab, scenario: Scenario) -> None:
    outlast_view.wait_ready(lab)
    _elect_highest(lab)
    placed = [vm for vm in scenario.vms if vm.host]
    moving.start_on(lab, {vm.name: vm.host for vm in placed})

    def all_listed() -> bool:
        if not outlast_view.is_ready(lab):
            return False
        view = outlast_view.status(lab, outlast_view.primary(lab))
        listed = {each.name for each in view.vms if each.state == "running"} if view is not None else set()
        return {str(vm.name) for vm in placed} <= listed

    outlast_view.wait_until("every VM to be protected", all_listed, 30.0)


def _elect_highest(lab: Lab) -> None:
    """Who boots first on a busy machine may be elected alone, and stays it: its agent is restarted until it is not."""
    hosts = lab.state().hosts
    highest = max(hosts, key=lambda name: hosts[name].id)

    def leads() -> bool:
        return outlast_view.is_ready(lab) and outlast_view.primary(lab) == highest

    for _ in range(len(hosts)):
        if leads():
            return
        lab.service_restart(outlast_view.primary(lab), "agent")
        with contextlib.suppress(LabError):
            outlast_view.wait_until(f"{highest} to be primary", leads, 15.0)
        outlast_view.wait_ready(lab)
    raise LabError(f"{highest} does not become primary, as the scenario expects: see its /var/log/outlast/agent.log")


def play(
    lab: Lab,
    scenario: Scenario,
    observer: LabObserver,
    sleep: Callable[[float], None] = time.sleep,
    pools: tuple[Executor, Executor] | None = None,
) -> Result:
    """Play it in a lab that has settled. `pools`: what does quick steps, one after the other, and lasting ones."""
    failures: list[Failure] = []
    steps = _Steps(lab, scenario, pools or (ThreadPoolExecutor(1), ThreadPoolExecutor(32)))
    timed = msgspec.structs.replace(scenario, steps=tuple(scenario_steps.expanded(scenario)))

    def watch_until(at: int) -> None:
        observer.look()
        while (left := at - observer.now()) > 0:
            sleep(min(LOOK_EVERY_S, in_seconds(left)))
            observer.look()

    observer.begin()
    try:
        steps.begin_wishes()
        for at, what in moments(timed):
            watch_until(at)
            if isinstance(what, Step):
                _begin_step(scenario, observer, steps, what)
            else:
                failures += judge(what, observer)
        watch_until(scenario.duration)
        failures += steps.problems()
    finally:
        steps.end()
    observer.finish()
    violations = tuple(observer.violations)
    timeline = observer.timeline()
    return Result(
        scenario=scenario.title,
        world="lab",
        seed=scenario.seed,
        passed=not failures and not violations,
        failures=tuple(failures),
        violations=violations,
        hazards=tuple(observer.hazards),
        end=observer.end(),
        recovery=recoveries({vm.name: observer.history(vm.name) for vm in scenario.vms}),
        timeline=timeline,
        events=len(timeline),
        wall_seconds=0.0,
    )


def _begin_step(scenario: Scenario, observer: LabObserver, steps: _Steps, step: Step) -> None:
    host = hosts_of(step)[0] if len(hosts_of(step)) == 1 else ""
    observer.tell("step", told(step), host=host, vm=step.keys.get("vm", ""))
    for vm in causes(scenario, step, observer.processes_on):
        observer.history(vm).caused(observer.now())
    steps.begin(step)


class _Steps:
    """Steps under way: one after the other, except those that last, which nothing waits for."""

    def __init__(self, lab: Lab, scenario: Scenario, pools: tuple[Executor, Executor]) -> None:
        self._lab = lab
        self._scenario = scenario
        self._one, self._lasting = pools
        self._begun: list[tuple[Step, Future[None]]] = []

    def begin(self, step: Step) -> None:
        """Do it, without waiting for it."""
        pool = self._lasting if step.do in scenario_steps.LASTING else self._one
        self._begun.append((step, pool.submit(scenario_steps.do, self._lab, self._scenario, step)))

    def begin_wishes(self) -> None:
        """What runs at the start and is not to run is to be stopped from now on."""
        for vm in self._scenario.vms:
            if vm.host and vm.state == "stopped":
                self.begin(Step(at=Duration(0), do="set-state", keys={"vm": vm.name, "state": "stopped"}))

    def problems(self) -> list[Failure]:
        """The steps that could not be done: then the scenario was not the one in the file."""
        found = []
        for step, future in self._begun:
            if future.done() and (error := future.exception()) is not None:
                found.append(Failure(round(in_seconds(step.at), 3), f"step: {told(step)} (line {step.line})", str(error)))
        return found

    def end(self) -> None:
        """Nothing of it goes on afterwards."""
        self._one.shutdown(cancel_futures=True)
        self._lasting.shutdown(cancel_futures=True)
