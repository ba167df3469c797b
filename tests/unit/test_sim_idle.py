"""A part of the agent whose deadline has passed must not be asked again and again: that would be a loop at full speed."""

from pathlib import Path

import pytest

from outlast.scenario.reading import read_file
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


LOST = """
title = "A datastore is lost to its primary"
duration = "60s"
datastores = [{ name = "ds1", device = "a" }, { name = "ds2", device = "b" }]
hosts = [{ name = "host1" }, { name = "host2" }]
[[vms]]
name = "web1"
host = "host1"
datastore = "ds1"
[[vms]]
name = "web2"
host = "host2"
datastore = "ds2"
[[steps]]
at = "5s"
do = "storage-lost"
host = "host1"
datastore = "ds1"
[[steps]]
at = "5s"
do = "storage-lost"
host = "host2"
datastore = "ds1"
[[steps]]
at = "6s"
do = "vm-power-off"
vm = "web1"
"""


def test_storage_that_refuses_at_once_is_not_asked_in_a_loop(tmp_path: Path) -> None:
    """Found by the profile of random runs: a protected list that could not be written was written again at once, a
    thousand times a second for as long as the storage was lost; and a VM on two hosts' lists had it rewritten for ever."""
    file = tmp_path / "lost.toml"
    file.write_text(LOST)
    outcome = play(read_file(file))
    seconds = (outcome.began + outcome.scenario.duration) / 1e9
    assert outcome.events / seconds / len(outcome.scenario.hosts) < 60
