"""The scenarios that the project keeps can be read, say why they matter, and use every word that is built."""

from __future__ import annotations

from pathlib import Path

from outlast.scenario.model import Scenario
from outlast.scenario.reading import read, read_file
from outlast.scenario.words import CLAIMS, VERBS, VERDICTS
from outlast.scenario.writing import write
from outlast.sim import stage

KEPT = Path(__file__).parents[2] / "scenarios"


def scenarios() -> list[Scenario]:
    return [read_file(path) for path in sorted(KEPT.rglob("*.toml"))]


def test_each_has_a_title_of_its_own_and_a_story() -> None:
    found = scenarios()
    assert len(found) >= 25
    assert len({scenario.title for scenario in found}) == len(found)
    assert all(scenario.story and scenario.expect for scenario in found)


def test_every_verb_that_is_built_is_used() -> None:
    used = {step.do for scenario in scenarios() for step in scenario.steps}
    assert set(VERBS) - used == set(VERBS) - stage.VERBS


def test_every_claim_and_every_verdict_is_expected_somewhere() -> None:
    claims = [expectation.claims for scenario in scenarios() for expectation in scenario.expect]
    assert {name for each in claims for name in each} >= set(CLAIMS)
    assert {verdict for each in claims for verdict in each.get("verdict", {}).values()} >= set(VERDICTS) - {"unknown"}


def test_each_can_be_written_and_read_again() -> None:
    for scenario in scenarios():
        again = read(write(scenario))
        assert (again.hosts, again.vms, again.datastores) == (scenario.hosts, scenario.vms, scenario.datastores)
        assert [(s.at, s.do, s.keys) for s in again.steps] == [(s.at, s.do, s.keys) for s in scenario.steps]
        assert [(e.at, e.claims) for e in again.expect] == [(e.at, e.claims) for e in scenario.expect]
