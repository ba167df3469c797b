"""The same scenario files in the simulated world and on real hosts: what holds in one has to hold in the other.

Between them they go through every state that a host is judged to be in (docs/claim.md). How long recoveries took is told at
the end of the run, and fails nothing: see `scenario/comparing.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from conftest import COMPARISON

from outlast.lab import compare_cli, two_worlds
from outlast.lab.lab import Lab
from outlast.scenario.reading import read_file

pytestmark = pytest.mark.lab

FILES = Path(__file__).parents[2] / "scenarios"
SEEDS = 5
# `make test` plays half of the dozen, and `make test-lab` all: it has twelve minutes, which these would take by themselves.
LONG = [
    # The longest first, so that none of them is alone at the end.
    "daemons/03-the-primarys-agent-hangs",
    "storage/03-outage-for-everybody",
    "network/01-isolated-and-left-running",
    "network/04-partition-in-the-middle",
    "power/16-shut-down-in-order",
    "power/02-primary-loses-power",
]
SHORT = [
    "daemons/09-unresponsive",
    "network/02-isolated-and-powered-off",
    "power/01-secondary-loses-power",
    "power/05-quick-reboot",
    "storage/02-freeze-and-thaw",
    "vms/01-crash",
]


@pytest.mark.parametrize("name", [*(pytest.param(name, marks=pytest.mark.long) for name in LONG), *SHORT])
def test_both_worlds_end_alike(name: str, down_lab: Lab, record_property: Callable[[str, object], None]) -> None:
    comparison = two_worlds.play_both(read_file(FILES / f"{name}.toml"), down_lab, SEEDS)
    record_property(COMPARISON, msgspec.json.encode(comparison).decode())
    assert (comparison.same, comparison.passed) == (True, True), "\n".join(compare_cli.sentences([comparison]))
