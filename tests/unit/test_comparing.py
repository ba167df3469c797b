"""One run in the lab against several of the simulated world: what is a difference, what is chance, and how it is told."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from outlast.lab import compare_cli
from outlast.scenario.comparing import Comparison, Difference, compare
from outlast.scenario.reading import read
from outlast.scenario.result import End, Failure, HostEnd, Recovered, Result, Violation, VmEnd

TEXT = """\
title = "Power loss"
duration = "60s"

[[datastores]]
name = "ds1"

[[hosts]]
name = "host1"

[[hosts]]
name = "host2"

[[hosts]]
name = "host3"

[[vms]]
name = "web1"
host = "host1"

[[vms]]
name = "web2"
host = "host3"

[[steps]]
at = "10s"
do = "power-off"
host = "host1"

[[expect]]
at = "end"
running = { web1 = ["host2", "host3"] }
restarted = { web1 = 1 }
recovered_within = { web1 = "9s" }
primary = "host3"
"""


def result(seconds: float = 7.0, seed: int = 1, **changes: object) -> Result:
    """web1 came back on host2 after so long, all else was left alone."""
    web1 = VmEnd(state="running", host="host2", epoch=1, restarts=1)
    hosts = {
        "host1": HostEnd("dead", "off"),
        "host2": HostEnd("connected", "on"),
        "host3": HostEnd("connected", "on"),
    }
    plain = Result(
        scenario="Power loss",
        world="simulated",
        seed=seed,
        passed=True,
        failures=(),
        violations=(),
        hazards=(),
        end=End({"web1": web1, "web2": VmEnd("running", "host3", 0, 0)}, hosts, "host3"),
        recovery=(Recovered("web1", 10.0, 10.0 + seconds, seconds),),
        timeline=(),
        events=1,
        wall_seconds=0.1,
    )
    return msgspec.structs.replace(plain, **changes)


def ending(vm: str, **changes: object) -> End:
    end = result().end
    return msgspec.structs.replace(end, vms=end.vms | {vm: msgspec.structs.replace(end.vms[vm], **changes)})


def compared(lab: Result, *simulated: Result, text: str = TEXT) -> Comparison:
    return compare(read(text, "scenarios/power/01-loss.toml"), simulated or (result(),), lab)


def failing(claim: str) -> Result:
    return result(passed=False, failures=(Failure(60.0, f"{claim}: web1 ... (line 30)", "otherwise"),))


# -- outcome ----------------------------------------------------------------------------------------------------------


def test_runs_that_end_alike_are_the_same() -> None:
    found = compared(result(7.4), result(7.0), result(7.9, seed=2))
    assert (found.same, found.passed, found.differences, found.seeds) == (True, True, (), (1, 2))


def test_a_host_that_the_scenario_leaves_open_is_no_difference() -> None:
    assert compared(result(end=ending("web1", host="host3"))).same


@pytest.mark.parametrize("claim", ['running = { web1 = "any" }', "running = { web2 = 'host3' }"])
def test_nor_is_any_live_host_for_a_vm_that_was_started_anew(claim: str) -> None:
    text = TEXT.replace('running = { web1 = ["host2", "host3"] }', claim)
    assert compared(result(end=ending("web1", host="host3")), text=text).same
    assert not compared(result(end=ending("web1", host="host1")), text=text).same


@pytest.mark.parametrize(
    ("vm", "changes", "difference"),
    [
        ("web1", {"host": "host1"}, Difference("web1: host", ("host2 or host3",), "host1")),
        ("web2", {"host": "host2"}, Difference("web2: host", ("host3",), "host2")),
        ("web2", {"state": "frozen"}, Difference("web2: state", ("running",), "frozen")),
        ("web1", {"restarts": 2}, Difference("web1: starts", ("1",), "2")),
    ],
)
def test_what_became_of_a_vm(vm: str, changes: dict[str, object], difference: Difference) -> None:
    found = compared(result(end=ending(vm, **changes)))
    assert (found.same, found.differences) == (False, (difference,))


def test_what_became_of_a_host_and_who_leads() -> None:
    end = msgspec.structs.replace(result().end, primary="host2")
    end.hosts["host1"] = HostEnd("presumed-dead", "off")
    assert compared(result(end=end)).differences == (
        Difference("host1: verdict", ("dead",), "presumed-dead"),
        Difference("primary", ("host3",), "host2"),
    )


def test_what_some_seed_shows_is_no_difference() -> None:
    paused = (*result().recovery, Recovered("web2", 10.0, 12.0, 2.0))
    lab = result(recovery=paused)
    assert compared(lab).differences == (Difference("web2: times away and back", ("0",), "1"),)
    assert compared(lab, result(), result(seed=2, recovery=paused)).same


def test_how_often_a_vm_was_away_is_as_open_as_how_often_it_was_started() -> None:
    text = TEXT.replace("restarted = { web1 = 1 }", "restarted = { web1 = [1, 2] }")
    twice = result(end=ending("web1", restarts=2), recovery=(*result().recovery, Recovered("web1", 30.0, 38.0, 8.0)))
    assert compared(twice, text=text).same
    assert not compared(twice).same


def test_an_expectation_or_an_invariant_that_does_not_hold_in_one_world() -> None:
    lab = compared(failing("state"))
    assert (lab.same, lab.passed, [d.what for d in lab.differences]) == (False, False, ["state: web1 ... (line 30)"])
    assert [d.what for d in compared(result(), failing("state")).differences] == ["state: web1 ... (line 30)"]
    twice = result(passed=False, violations=(Violation(20.0, "single-instance", "web1 executes twice"),))
    assert compared(twice).differences == (Difference("invariant single-instance", ("holds",), "does not hold"),)


def test_what_does_not_hold_in_either_is_the_same_and_has_not_passed() -> None:
    found = compared(failing("state"), failing("state"))
    assert (found.same, found.passed) == (True, False)


# -- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lab", "simulated", "differs"),
    [
        (9.0, (7.0,), False),  # 29 % off
        (9.2, (7.0,), True),
        (4.8, (7.0,), True),
        (9.2, (6.0, 7.0, 9.5), False),  # as long as with one of the seeds
    ],
)
def test_a_recovery_differs_beyond_thirty_percent(lab: float, simulated: tuple[float, ...], differs: bool) -> None:
    found = compared(result(lab), *(result(seconds, seed) for seed, seconds in enumerate(simulated)))
    assert [recovery.differs for recovery in found.recoveries] == [differs]
    assert (found.same, found.passed) == (True, True)


def test_a_claim_about_a_length_that_fails_in_the_lab_alone_is_late() -> None:
    found = compared(failing("recovered_within"))
    assert (found.same, found.passed, [late.found for late in found.late]) == (True, True, ["otherwise"])
    assert not compared(result(), failing("recovered_within")).passed


def test_ways_back_are_compared_with_seeds_that_were_away_as_often() -> None:
    twice = result(recovery=(*result(6.0).recovery, Recovered("web1", 30.0, 40.0, 10.0)))
    found = compared(twice, result(7.0), msgspec.structs.replace(twice, seed=2))
    assert [(each.cause_at, each.median, each.lab) for each in found.recoveries] == [(10.0, 6.0, 6.0), (30.0, 10.0, 10.0)]


# -- telling ----------------------------------------------------------------------------------------------------------


def told(*comparisons: Comparison) -> str:
    console = Console(file=io.StringIO(), width=120)
    compare_cli.show(comparisons, console)
    return console.file.getvalue()


def test_the_table_and_its_sentences() -> None:
    text = told(compared(result(7.5)))
    assert "power/01-loss │ alike   │ web1 │ 7.0 / 7.0 / 7.0 │    7.5 │ +7%" in text
    assert "OUTCOME" not in text
    assert "TIME" not in text
    late = told(compared(result(12.0, failures=(Failure(60.0, "recovered_within: web1", "after 12.000 s"),), passed=False)))
    assert "TIME     power/01-loss: web1 was back after 12.0 s in the lab, and after 7.0 to 7.0 s when simulated" in late
    assert "TIME     power/01-loss: in the lab at 60.000 s recovered_within: web1: after 12.000 s" in late
    assert "OUTCOME" not in late


def test_differences_are_told_as_sentences() -> None:
    text = told(compared(result(end=ending("web2", host="host2"))))
    assert "DIFFERS" in text
    assert "OUTCOME  power/01-loss: web2: host: host2 in the lab, host3 when simulated" in text
    seeds = told(compared(failing("state"), failing("state")))
    assert "FAILED" in seeds
    assert "OUTCOME  power/01-loss: in the lab at 60.000 s state: web1 ... (line 30): otherwise" in seeds


def test_a_scenario_without_a_recovery_has_its_line() -> None:
    assert "power/01-loss │ alike" in told(compared(result(recovery=()), result(recovery=())))
