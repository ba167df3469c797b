"""The optimiser behind the greedy planner: never worse, never against a rule, always in time, and not needed.

Where OR-tools is not installed most of this is skipped; `make bench-planner` installs it and runs all of it first.
"""

from __future__ import annotations

import builtins
import importlib.util
import itertools
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from planning_values import domain, host, rule, snapshots, vm

from outlast.drivers import optimiser
from outlast.drivers.optimiser import Optimised, optimise
from outlast.interfaces.cli import main
from outlast.model.errors import OutlastError
from outlast.model.ids import HostId, HostName
from outlast.model.planning import Assignment, Plan, PlanBasis, Snapshot
from outlast.model.rules import Rule
from outlast.model.time import SECOND, Duration
from outlast.protocol.planning import planner
from outlast.protocol.planning.checking import flaw, worth
from outlast.protocol.planning.planner import make_plan, to_place
from outlast.protocol.planning.problem import Problem

needs_ortools = pytest.mark.skipif(
    importlib.util.find_spec("ortools") is None, reason="OR-tools is not installed; `make bench-planner` runs this"
)


def asked(snapshot: Snapshot, seconds: float = 10, **more: Any) -> Optimised:
    return optimise(Problem(snapshot), frozenset(), seconds, workers=1, **more)


TIGHT = {"v7": 7, "v4": 4, "w4": 4, "x4": 4, "v3": 3, "v2": 2}


def tight(*rules: Rule, **more: dict[str, Any]) -> Snapshot:
    """Two hosts of twelve, and six VMs that fill them exactly in one way: 7, 3 and 2, or three times 4."""
    vms = [vm(name, size * 1000, cpus=0.1, **more.get(name, {})) for name, size in TIGHT.items()]
    return domain([host("a", 12_000), host("b", 12_000)], vms, *rules)


@pytest.fixture
def greed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A greedy planner that does not try all ways where few VMs are to be placed, as it would not with many."""
    monkeypatch.setattr(planner, "MOST_SEARCHED", 0)


# -- what comes of it -------------------------------------------------------------------------------------------------


@needs_ortools
@pytest.mark.usefixtures("greed_alone")
def test_it_finds_what_greed_does_not() -> None:
    snapshot = tight(rule("run-on", "v7", hosts={"b": 1}))
    assert make_plan(Problem(snapshot)).waiting
    found = asked(snapshot)
    assert (found.better, found.proven, found.discarded) == (True, True, "")
    assert found.plan.waiting == ()
    assert found.plan.obstacle is None
    assert {name for name, at in found.plan.targets.items() if at == "b"} == {"v7", "v3", "v2"}
    (tier,) = found.tiers
    assert tier.greedy < tier.placed == tier.bound == tier.of


@needs_ortools
@given(snapshots(most_hosts=4, most_vms=10))
@settings(max_examples=50, deadline=None)
def test_never_worse_never_against_a_rule_and_the_bound_holds(snapshot: Snapshot) -> None:
    problem = Problem(snapshot)
    found, vms, greedy = asked(snapshot), to_place(problem), make_plan(problem)
    assert found.discarded == ""
    assert flaw(problem, vms, found.plan) == ""
    assert worth(vms, found.plan).tiers >= worth(vms, greedy).tiers
    assert found.better or found.plan == greedy
    assert found.proven, "domains of this size are solved to the end"
    assert all(tier.placed == tier.bound <= tier.of for tier in found.tiers)


@needs_ortools
@given(snapshots(most_hosts=2, most_vms=3))
@settings(max_examples=40, deadline=None)
def test_what_is_proven_is_the_best_of_all_ways(snapshot: Snapshot) -> None:
    problem = Problem(snapshot)
    vms = to_place(problem)
    places = [(None, False), *itertools.product([each.id for each in snapshot.hosts], [False, True])]
    best = worth(vms, asked(snapshot).plan).tiers
    for way in itertools.product(places, repeat=len(vms)):
        steps = [Assignment(v.vm, *place) for v, place in zip(vms, way, strict=True)]
        plan = Plan(tuple(sorted(steps, key=lambda step: step.squeezed)))
        assert worth(vms, plan).tiers <= best or flaw(problem, vms, plan)


@needs_ortools
def test_a_lost_host_takes_nobody_and_what_runs_stays() -> None:
    snapshot = domain([host("a"), host("b", 2048), host("c")], [vm("v", 6000, on="a"), vm("w", 4096, on="c")])
    problem = Problem(snapshot)
    found = optimise(problem, frozenset({problem.number[HostId("a")]}), 10, workers=1)
    assert (found.plan.targets, found.better, found.proven) == ({"v": None}, False, True)


@needs_ortools
def test_an_answer_that_the_check_refuses_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimiser._Model, "_limit", lambda *_: None)
    found = asked(domain([host("a", 1024)], [vm("v"), vm("w")]))
    assert found.plan == make_plan(Problem(domain([host("a", 1024)], [vm("v"), vm("w")])))
    assert (found.better, found.proven) == (False, False)
    assert "cannot go to a: it has 0 MiB of memory free" in found.discarded


@needs_ortools
@pytest.mark.usefixtures("greed_alone")
def test_when_the_time_is_over_the_greedy_plan_stands() -> None:
    snapshot = tight()
    found = asked(snapshot, 5, clock=itertools.count(0, 100).__next__)
    assert (found.better, found.proven, found.discarded) == (False, False, "")
    assert found.plan == make_plan(Problem(snapshot))
    assert [(tier.placed == tier.greedy, tier.bound == tier.of) for tier in found.tiers] == [(True, True)]


@needs_ortools
@pytest.mark.usefixtures("greed_alone")
def test_too_large_a_question_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimiser, "MOST_PAIRS", 5)
    found = asked(tight())
    assert "8 pairs of unlike VMs and hosts are more than the optimiser takes on (5)" in found.discarded
    assert (found.better, found.proven) == (False, False)


@needs_ortools
@pytest.mark.usefixtures("greed_alone")
def test_preferences_cost_nobody_a_place_and_are_kept_where_they_can_be() -> None:
    shy = tight(v7={"failed_on": frozenset({HostId("a")})})
    assert asked(shy).plan.targets["v7"] == "b"
    prefer = rule("run-on", "v7", hosts={"a": 1}, required=False)
    assert asked(tight(prefer)).plan.targets["v7"] == "a"
    apart = rule("keep-apart", "v7", "v3", required=False)
    assert asked(tight(apart)).plan.waiting == ()


# -- without it -------------------------------------------------------------------------------------------------------


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("ortools"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", importing)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    basis = PlanBasis(
        domain="d",
        seen_from=HostName("a"),
        primary=None,
        snapshot=tight(),
        window=Duration(SECOND),
        heartbeat=Duration(SECOND),
        poll=Duration(SECOND),
    )
    path = tmp_path / "basis.json"
    path.write_bytes(msgspec.json.encode(basis))
    return path


def run(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["plan", "--from", str(file), *arguments])


def said_by(done: Result) -> str:
    return " ".join(done.output.replace("│", " ").split())


@pytest.mark.usefixtures("not_installed")
def test_without_ortools_it_says_how_to_get_it_and_all_else_works(file: Path) -> None:
    with pytest.raises(OutlastError, match="OR-tools, which is not installed"):
        optimiser.load()
    refused = run(file, "--optimise")
    assert refused.exit_code == 1
    assert "pip install 'outlast[optimiser]'" in said_by(refused)
    assert run(file).exit_code == 0


# -- the command ------------------------------------------------------------------------------------------------------


@needs_ortools
@pytest.mark.usefixtures("greed_alone")
def test_the_command_tells_what_would_be_better(file: Path) -> None:
    said = said_by(run(file, "--optimise"))
    assert "There is a better plan than the one above" in said
    assert "Proven: no plan is better." in said
    assert "Recovery does not use this plan" in said


@needs_ortools
@pytest.mark.usefixtures("greed_alone")
def test_the_command_says_so_if_nothing_is_better(file: Path) -> None:
    said = said_by(run(file, "--optimise", "--time-limit", "0"))
    assert "No better plan than the one above was found" in said
    assert "Not proven to be the best: raise --time-limit." in said


@needs_ortools
@pytest.mark.usefixtures("greed_alone")
def test_json(file: Path) -> None:
    found = json.loads(run(file, "--optimise", "--json").output)
    assert found["recovery"]["waits"]
    assert (found["optimised"]["better"], found["optimised"]["foretold"]["waits"]) == (True, [])


def test_explaining_is_another_question(file: Path) -> None:
    done = run(file, "--optimise", "--explain", "v7")
    assert (done.exit_code, "about recovery's plan" in said_by(done)) == (2, True)
