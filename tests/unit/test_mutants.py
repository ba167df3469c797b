"""A rule that no test can break is not tested: each safety rule is switched off, and the simulated world must notice.

Each mutant (`sim/mutants.py`) is played in the ordeal that leads to where its rule matters, with one seed after another,
until an invariant is violated. How many it took is printed (`pytest -rP`). `OUTLAST_MUTANT_SEEDS` raises the bound.
"""

import os

import pytest

from outlast.sim.mutants import MUTANTS, broken
from outlast.sim.ordeals import ORDEALS, ordeal
from outlast.sim.random_runs import play

SEEDS = int(os.environ.get("OUTLAST_MUTANT_SEEDS", "80"))


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_rule_that_is_switched_off_is_noticed(name: str) -> None:
    mutant = MUTANTS[name]
    for seed in range(SEEDS):
        with broken(name):
            outcome = play(ordeal(mutant.ordeal, seed), stop_at_violation=True)
        if outcome.violations:
            found = outcome.violations[0]
            print(f"{name}: seen after {seed + 1} runs of {mutant.ordeal}: {found.invariant}: {found.detail}")  # noqa: T201
            return
    pytest.fail(f"nobody noticed in {SEEDS} runs of {mutant.ordeal} that {mutant.what}")


@pytest.mark.parametrize("name", sorted(ORDEALS))
def test_an_ordeal_is_survived_with_the_rules_in_place(name: str) -> None:
    for seed in range(5):
        outcome = play(ordeal(name, seed))
        assert outcome.violations == (), outcome.story


def test_a_mutant_leaves_nothing_behind() -> None:
    def state() -> list[object]:
        return [getattr(owner, attribute) for mutant in MUTANTS.values() for owner, attribute, _ in mutant.patches]

    before = state()
    for name in MUTANTS:
        with broken(name):
            pass
    assert state() == before
    assert len(MUTANTS) >= 30
