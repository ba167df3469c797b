"""A scenario played in the simulated world: minutes of a cluster's life in well under a second, and what came of it.

    settle     hosts boot, one is elected, the VMs of the file run where it says; this moment is time zero
    play       steps at their times, in the order of the file; then what is expected at that time is judged
    end        what is expected at the end is judged, and everything that was seen becomes a `Result`

A run is a function of the scenario and its seed.
"""

from outlast.model.errors import OutlastError
from outlast.model.ids import VmId
from outlast.model.time import in_seconds
from outlast.scenario.history import recoveries
from outlast.scenario.judging import judge
from outlast.scenario.model import Scenario, Step
from outlast.scenario.moments import moments
from outlast.scenario.result import Failure, Hazard, Result, Violation
from outlast.scenario.telling import causes, hosts_of, told
from outlast.sim import stage
from outlast.sim.observing import Observer, protected_on
from outlast.sim.world import World

SETTLES_WITHIN_S = 60.0


def play(scenario: Scenario, seed: int | None = None, *, until_rest: bool = False) -> Result:
    """Play it once. `until_rest`: its duration is what recovery may take at most; once all stays well, it is over.

    Raises OutlastError if it cannot be played, or if its domain does not come to rest before it.
    """
    chosen = scenario.seed if seed is None else seed
    world = stage.make(scenario, chosen)
    observer = Observer(world, scenario)
    _settle(world, scenario, hurried=until_rest)
    observer.begin()
    world.begin()
    zero, failures = world.now, list[Failure]()
    for at, what in moments(scenario):
        world.scheduler.run_until(zero + at)
        if isinstance(what, Step):
            _do(world, scenario, observer, what)
        else:
            found = judge(what, observer)
            for failure in found:
                observer.tell("failure", f"expected: {failure.expectation}; found: {failure.found}")
            failures += found
    world.run_to_end(zero + scenario.duration, until_rest=until_rest)
    world.invariants.finish()
    violations = tuple(Violation(_since(zero, v.at), v.invariant, v.detail) for v in world.invariants.violations)
    return Result(
        scenario=scenario.title,
        world="simulated",
        seed=chosen,
        passed=not failures and not violations,
        failures=tuple(failures),
        violations=violations,
        hazards=tuple(Hazard(_since(zero, h.at), h.kind, _since(0, h.length), h.detail) for h in world.hazards),
        awaiting_proof=tuple(sorted(world.recovery.awaiting_proof)),
        end=observer.end(),
        recovery=recoveries({vm.name: observer.history(vm.name) for vm in scenario.vms}),
        timeline=observer.timeline(),
        events=world.scheduler.events,
        seconds=_since(zero, world.now),
        wall_seconds=0.0,
        trace=world.trace_hash(),
    )


def _settle(world: World, scenario: Scenario, *, hurried: bool) -> None:
    world.settle(hurried=hurried)
    placed = {vm.name: vm for vm in scenario.vms if vm.host}

    def at_rest() -> bool:
        if any(world.where(name) != [vm.host] for name, vm in placed.items()):
            return False
        listed = {vm for name in world.domain.stores for vm in protected_on(world, name)}
        wanted = {VmId(name) for name, vm in placed.items() if vm.state != "unprotected"}
        return wanted <= listed and (len(world.primaries()) == 1 or not any(h.powered for h in world.hosts.values()))

    if world.run_until(at_rest, SETTLES_WITHIN_S, 0.5) is None:
        where = ", ".join(f"{name} on {' '.join(world.where(name)) or 'none'}" for name in placed)
        raise OutlastError(
            f"{scenario.path or scenario.title}: the domain does not come to rest before the scenario begins ({where}; "
            f"primaries: {' '.join(world.primaries()) or 'none'})",
            "check that its hosts reach their datastores, and that its settings let it work at all",
        )


def _do(world: World, scenario: Scenario, observer: Observer, step: Step) -> None:
    host = hosts_of(step)[0] if len(hosts_of(step)) == 1 else ""
    observer.tell("step", told(step), host=host, vm=step.keys.get("vm", ""))
    for vm in causes(scenario, step, observer.processes_on):
        observer.history(vm).caused(observer.now())
    stage.do(world, scenario, step)


def _since(zero: int, at: int) -> float:
    """Seconds since then, as results have them."""
    return round(in_seconds(at - zero), 3)
