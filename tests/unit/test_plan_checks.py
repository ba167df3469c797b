"""What `outlast plan` foretells of a loss in a random domain is what happens (`outlast simulate --check-plan`)."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from outlast.interfaces.cli import main
from outlast.scenario.reading import read
from outlast.scenario.writing import write
from outlast.sim.plan_checks import generate, with_expectation
from outlast.sim.play import play
from outlast.sim.random_scenarios import generate as generate_random


@pytest.mark.parametrize("seed", [1, 16, 55, 173, 1217])
def test_what_is_foretold_happens(seed: int) -> None:
    """16: a VM that nobody protects held others to its dead host. 55: the room of dead hosts counted.

    173: what had just been started counted neither here nor there. 1217: one that was squeezed in took another's place.
    """
    result = play(with_expectation(generate(seed)))
    assert result.failures == ()
    assert result.violations == ()


def test_the_losses_are_worth_the_trouble() -> None:
    found = [generate(seed) for seed in range(60)]
    assert any(len(each.steps) == 2 for each in found)
    assert {rule.kind for each in found for rule in each.rules} == {"keep-apart", "keep-together", "run-on", "avoid"}
    expected = [with_expectation(each).expect[0].claims for each in found[:12]]
    assert any("state" in claims for claims in expected), "somebody waits somewhere"
    assert generate(3) == generate(3)


def test_random_domains_have_rules_and_little_room_now_and_then() -> None:
    found = [generate_random(seed) for seed in range(60)]
    ruled = [each for each in found if each.rules]
    assert 5 < len(ruled) < 30
    assert all(read(write(each)).rules == each.rules for each in ruled)


def test_the_command() -> None:
    done = CliRunner().invoke(main, ["simulate", "--random", "1", "--seed", "3", "--check-plan"])
    assert (done.exit_code, "all 1 passed" in done.output) == (0, True)
