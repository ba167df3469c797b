"""Random scenarios: the rules hold, a seed says everything, and a failing scenario can be made small."""

import os
import subprocess
import sys

import msgspec
import pytest

from outlast.model.effects import Effect
from outlast.model.events import Event, Woken
from outlast.model.settings import Settings, problems
from outlast.model.time import MILLISECOND, SECOND, Instant, seconds
from outlast.protocol.agent import AgentMachine
from outlast.scenario.model import Scenario
from outlast.scenario.reading import read
from outlast.scenario.shrinking import shrink
from outlast.scenario.writing import write
from outlast.sim import random_settings, stage
from outlast.sim.mutants import broken
from outlast.sim.random_faults import KINDS
from outlast.sim.random_runs import play, run
from outlast.sim.random_scenarios import generate
from outlast.sim.recovery_watch import recovery_bound

PROGRAM = "import sys; from outlast.sim.random_runs import run; print(*[run(int(s)).trace for s in sys.argv[1:]])"


@pytest.fixture
def turning(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For how long agents were woken again and again for nothing."""
    handle = AgentMachine.handle
    since: dict[AgentMachine, Instant] = {}
    lengths: list[int] = [0]

    def handling(machine: AgentMachine, event: Event, now: Instant) -> list[Effect]:
        effects = handle(machine, event, now)
        if isinstance(event, Woken) and not effects and machine.deadline() <= now + MILLISECOND:
            lengths.append(now - since.setdefault(machine, now))
        else:
            since.pop(machine, None)
        return effects

    monkeypatch.setattr(AgentMachine, "handle", handling)
    return lengths


@pytest.mark.parametrize("seed", range(6))
def test_the_invariants_hold_and_nobody_turns_round_and_round(seed: int, turning: list[int]) -> None:
    """A deadline that has passed and that nothing moves would have an agent woken every millisecond for nothing."""
    outcome = run(seed)
    assert outcome.violations == (), outcome.story
    assert max(turning) < 10 * MILLISECOND  # Two deadlines may stand close together; what goes round does so for seconds.


def test_a_scenario_is_a_function_of_its_seed() -> None:
    assert generate(7) == generate(7)
    assert generate(7) != generate(8)


def test_the_same_seed_does_the_same_in_two_processes() -> None:
    """Sets and dictionaries are ordered by hashes of texts, which differ between processes: nothing may depend on it."""
    traces = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM, "3", "11"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(traces) == 1
    first, second = traces.pop().split()
    assert first != second
    assert first == run(3).trace


def test_a_random_scenario_can_be_kept_in_a_file() -> None:
    for seed in range(40):
        scenario = generate(seed)
        again = read(write(scenario))
        assert msgspec.structs.replace(again, path="", steps=()) == msgspec.structs.replace(scenario, steps=())
        assert [(s.at, s.do, s.keys) for s in again.steps] == [(s.at, s.do, s.keys) for s in scenario.steps]


def test_settings_are_drawn_and_hold_together() -> None:
    drawn: set[str] = set()
    for seed in range(200):
        scenario = generate(seed)
        settings = Settings(**scenario.settings)
        drawn |= {name for name in Settings.__struct_fields__ if getattr(settings, name) != getattr(Settings(), name)}
        assert problems(settings) == []
        if any(host.watchdog for host in scenario.hosts):
            assert settings.lease_margin >= random_settings.WATCHDOG_AND_RESET
    assert len(drawn) >= 15
    assert {"mass_failure_grace", "startup_grace"} <= drawn


def test_the_bound_of_a_recovery_goes_with_the_waits_that_settings_ask_for() -> None:
    assert recovery_bound(Settings()) == 60 * SECOND
    slow = Settings(lease_duration=seconds(10), datastore_stale_after=seconds(12), unreachable_after=seconds(4))
    assert recovery_bound(slow) == (60 + 2 * 4 + 1) * SECOND
    quick = Settings(lease_duration=seconds(4), election_timeout=seconds(2))
    assert recovery_bound(quick) == (60 - 2 * 2 - 1) * SECOND


def test_every_kind_of_fault_is_drawn_and_undone() -> None:
    """What a kind did is undone at the end, at one moment, whatever overlapped."""
    drawn: set[str] = set()
    for seed in range(150):
        scenario = generate(seed)
        drawn |= set(scenario.story.partition("of the kinds ")[2].rstrip(".").split(", "))
        assert {step.do for step in scenario.steps} <= stage.VERBS
        last = {(step.do, repr(step.keys)) for step in scenario.steps if step.at == scenario.steps[-1].at}
        off = {step.keys["host"] for step in scenario.steps if step.do in ("power-off", "reboot", "shut-down")}
        assert {("power-on", repr({"host": host})) for host in off} <= last
        cut = {repr(step.keys) for step in scenario.steps if step.do == "storage-cut"}
        assert {("storage-heal", keys) for keys in cut} <= last
    assert drawn == set(KINDS)


def test_large_domains_are_drawn_too() -> None:
    sizes = [len(generate(seed).hosts) for seed in range(200)]
    assert max(sizes) > 8
    assert min(sizes) == 2


def test_a_failing_scenario_is_made_small() -> None:
    with broken("no-freeze"):

        def fails(scenario: Scenario) -> bool:
            return any(v.invariant == "owner-runs" for v in play(scenario, stop_at_violation=True).violations)

        seed = next(seed for seed in range(50) if fails(generate(seed)))
        small = shrink(generate(seed), fails, tries=80)
        assert fails(small)
    assert len(small.steps) <= 3
    assert len(small.vms) == 1
    assert play(small).violations == ()
