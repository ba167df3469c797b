"""A scenario played in the simulated world: minutes of a cluster's life in well under a second, and what came of it.

    settle     hosts boot, one is elected, the VMs of the file run where it says; this moment is time zero
    play       steps at their times, in the order of the file; then what is expected at that time is judged
    end        what is expected at the end is judged, and everything that was seen becomes a `Result`

A run is a function of the scenario and its seed.
"""

from collections.abc import Iterator

from outlast.model.errors import OutlastError
from outlast.model.ids import VmId
from outlast.model.time import in_seconds
from outlast.scenario.judging import judge
from outlast.scenario.model import Expectation, Scenario, Step
from outlast.scenario.result import Failure, Hazard, Recovered, Result, Violation
from outlast.scenario.telling import causes, hosts_of, told
from outlast.sim import stage
from outlast.sim.observing import Observer, protected_on
from outlast.sim.world import World

SETTLES_WITHIN_S = 60.0


def play(scenario: Scenario, seed: int | None = None) -> Result:
    """Play it once. Raises OutlastError if it cannot be played, or if its domain does not come to rest before it."""
    chosen = scenario.seed if seed is None else seed
    world = stage.make(scenario, chosen)
    observer = Observer(world, scenario)
    _settle(world, scenario)
    observer.begin()
    zero, failures = world.now, list[Failure]()
    for at, what in _moments(scenario):
        world.scheduler.run_until(zero + at)
        if isinstance(what, Step):
            _do(world, scenario, observer, what)
        else:
            found = judge(what, observer)
            for failure in found:
                observer.tell("failure", f"expected: {failure.expectation}; found: {failure.found}")
            failures += found
    world.scheduler.run_until(zero + scenario.duration)
    world.invariants.finish()
    violations = _violations(world, zero)
    return Result(
        scenario=scenario.title,
        world="simulated",
        seed=chosen,
        passed=not failures and not violations,
        failures=tuple(failures),
        violations=violations,
        hazards=_hazards(world, zero),
        awaiting_proof=tuple(sorted(world.recovery.awaiting_proof)),
        end=observer.end(),
        recovery=tuple(_recovery(scenario, observer)),
        timeline=tuple(sorted(observer.lines, key=lambda line: line.at)),
        events=world.scheduler.events,
        wall_seconds=0.0,
    )


def _settle(world: World, scenario: Scenario) -> None:
    world.settle()
    placed = {vm.name: vm for vm in scenario.vms if vm.host and vm.state != "stopped"}

    def at_rest() -> bool:
        if any(world.where(name) != [vm.host] for name, vm in placed.items()):
            return False
        listed = frozenset[VmId]().union(*(protected_on(world, name) for name in world.domain.stores))
        wanted = {VmId(name) for name, vm in placed.items() if vm.state != "unprotected"}
        return wanted <= listed and (len(world.primaries()) == 1 or not any(h.powered for h in world.hosts.values()))

    if world.run_until(at_rest, SETTLES_WITHIN_S, 0.5) is None:
        where = ", ".join(f"{name} on {' '.join(world.where(name)) or 'none'}" for name in placed)
        raise OutlastError(
            f"{scenario.path or scenario.title}: the domain does not come to rest before the scenario begins ({where}; "
            f"primaries: {' '.join(world.primaries()) or 'none'})",
            "check that its hosts reach their datastores, and that its settings let it work at all",
        )


def _moments(scenario: Scenario) -> Iterator[tuple[int, Step | Expectation]]:
    """Everything by time; at one time steps come first, each kind in the order of the file."""
    ends = scenario.duration
    timed: list[tuple[int, int, Step | Expectation]] = [(step.at, 0, step) for step in scenario.steps]
    timed += [(ends if e.at is None else e.at, 1 if e.at is not None else 2, e) for e in scenario.expect]
    for at, _, what in sorted(timed, key=lambda entry: entry[:2]):
        yield at, what


def _do(world: World, scenario: Scenario, observer: Observer, step: Step) -> None:
    host = hosts_of(step)[0] if len(hosts_of(step)) == 1 else ""
    observer.tell("step", told(step), host=host, vm=step.keys.get("vm", ""))
    for vm in causes(scenario, step, observer.processes_on):
        observer.history(vm).caused(observer.now())
    stage.do(world, scenario, step)


def _violations(world: World, zero: int) -> tuple[Violation, ...]:
    found = []
    for violation in world.invariants.violations:
        at = round(in_seconds(violation.at - zero), 3)
        found.append(Violation(at, violation.invariant, violation.detail))
    return tuple(found)


def _hazards(world: World, zero: int) -> tuple[Hazard, ...]:
    return tuple(
        Hazard(round(in_seconds(h.at - zero), 3), h.kind, round(in_seconds(h.length), 3), h.detail) for h in world.hazards
    )


def _recovery(scenario: Scenario, observer: Observer) -> Iterator[Recovered]:
    for vm in scenario.vms:
        for way in observer.history(vm.name).ways_back():
            if way.running is not None and way.length is not None:
                cause_at, running_at = (round(in_seconds(at), 3) for at in (way.cause, way.running))
                yield Recovered(vm.name, cause_at, running_at, round(in_seconds(way.length), 3))
