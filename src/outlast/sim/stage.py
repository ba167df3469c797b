"""A scenario's world: built from its values, and each step done to it.

A verb that it cannot do is refused before anything runs.
"""

from outlast.model.errors import UsageError
from outlast.scenario.model import Scenario, Step
from outlast.scenario.telling import datastores_of
from outlast.scenario.words import VERBS as WORDS
from outlast.sim.world import World

VERBS = frozenset(verb for verb in WORDS if hasattr(World, verb.replace("-", "_")))
"""What this world can do, of the language's verbs."""


def check(scenario: Scenario) -> None:
    """Raises UsageError that names the verbs that this world cannot do."""
    refused = [step for step in scenario.steps if step.do not in VERBS]
    if refused:
        name = scenario.path or scenario.title
        listed = "\n".join(f"  {name}:{step.line}: the simulated world cannot do {step.do} yet" for step in refused)
        raise UsageError(f"{name} cannot be played:\n{listed}", "leave it out; nothing was run")


def make(scenario: Scenario, seed: int) -> World:
    """The world of a scenario, before anything has happened in it. Raises UsageError as `check` does."""
    check(scenario)
    return World.of(scenario, seed)


def do(world: World, scenario: Scenario, step: Step) -> None:
    """One step, now. A fault of a datastore is one of every datastore on its device."""
    if "datastore" not in step.keys:
        world.do(step)
        return
    for name in datastores_of(scenario, step):
        world.do(Step(at=step.at, do=step.do, keys=step.keys | {"datastore": name}))
