"""Playing a scenario for its invariants alone: what random runs, shrinking and the tests of the mutants need.

Expectations, results and the command line are the business of `play.py`.
"""

import msgspec

from outlast.scenario.model import Scenario
from outlast.sim.invariants import Hazard, ViolatedError, Violation
from outlast.sim.random_scenarios import generate
from outlast.sim.world import World


class Outcome(msgspec.Struct, frozen=True):
    """How one run ended. `began`, `ended`: true times; the scenario's steps count from `began`."""

    scenario: Scenario
    began: int
    ended: int
    events: int
    trace: str
    violations: tuple[Violation, ...]
    hazards: tuple[Hazard, ...]
    story: str


def play(
    scenario: Scenario, *, keep_story: bool = False, stop_at_violation: bool = False, until_rest: bool = False
) -> Outcome:
    """Play a scenario's steps, and say what its invariants found. Once something is violated, one may stop looking.

    `until_rest`: its duration is what recovery may take at most; once all is well and stays so, the run is over.
    """
    world = World.of(scenario)
    world.invariants.stop_at_first = stop_at_violation
    began = 0
    try:
        world.settle(hurried=until_rest)
        world.begin()
        began = world.now
        for step in scenario.steps:
            world.scheduler.run_until(max(world.now, began + step.at))
            world.do(step)
        end = max(world.now, began + scenario.duration)
        world.run_to_end(end, until_rest=until_rest)
        world.invariants.finish()
    except ViolatedError:
        pass  # It is in the list.
    violations = tuple(world.invariants.violations)
    return Outcome(
        scenario=scenario,
        began=began,
        ended=world.now,
        events=world.scheduler.events,
        trace=world.trace_hash(),
        violations=violations,
        hazards=tuple(world.hazards),
        story=world.story() if keep_story or violations else "",
    )


def run(seed: int, *, keep_story: bool = False) -> Outcome:
    """Play the random scenario of this seed."""
    return play(generate(seed), keep_story=keep_story, until_rest=True)
