"""What the language can say and Outlast cannot do yet: the one list of it, and it is to become empty.

A scenario that asks for any of this is refused by name, with exit code 2. Taking part of a scenario and leaving out the
rest would make its expectations mean something else than they say.
"""

from collections.abc import Iterator

from outlast.scenario.model import Scenario, Step

Path = tuple[str | int, ...]

VERBS: frozenset[str] = frozenset()


def not_built(scenario: Scenario) -> Iterator[tuple[Path, str]]:
    """Everything in a scenario that is not built yet: where it stands, and what it is."""
    for i, rule in enumerate(scenario.rules):
        if rule.failback:
            yield ("rules", i, "failback"), "failback of a rule"
    for i, step in enumerate(scenario.steps):
        yield from (((("steps", i, key)), what) for key, what in _step(step))


def _step(step: Step) -> Iterator[tuple[str, str]]:
    if step.do in VERBS:
        yield "do", f"the verb {step.do}"
