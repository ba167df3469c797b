"""A part of the agent whose deadline has passed must not be asked again and again: that would be a loop at full speed."""

import pytest

from outlast.sim.ordeals import ordeal
from outlast.sim.random_runs import play
from outlast.sim.random_scenarios import generate


@pytest.mark.parametrize("name", ["nothing-freezes-there", "a-late-link-meets-a-pruned-name", "it-writes-a-newer-format"])
def test_an_agent_that_hears_nobody_does_not_spin(name: str) -> None:
    """Found by the simulator: with its only peer dead, an agent woke a thousand times a second for ever."""
    outcome = play(ordeal(name, 1))
    seconds = (outcome.began + outcome.scenario.duration) / 1e9
    assert outcome.events / seconds / len(outcome.scenario.hosts) < 60


@pytest.mark.parametrize("name", ["a-vm-ends-while-storage-hangs", "silent-when-our-own-storage-hangs"])
def test_hung_storage_keeps_nobody_busy(name: str) -> None:
    """Found by the simulator: an agent asked for a release again and again that its keeper could not write, as fast as it
    was answered; and one that waited for the read which proves a death asked for it a thousand times a second."""
    outcome = play(ordeal(name, 1))
    seconds = (outcome.began + outcome.scenario.duration) / 1e9
    assert outcome.events / seconds / len(outcome.scenario.hosts) < 60


def test_random_scenarios_are_not_busy() -> None:
    outcome = play(generate(1))
    seconds = (outcome.began + outcome.scenario.duration) / 1e9
    assert outcome.events / seconds / len(outcome.scenario.hosts) < 120
