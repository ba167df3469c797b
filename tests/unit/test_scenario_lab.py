"""A scenario on real hosts, tried with a lab that is none: what is refused, what is built, what is done, what is found."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from outlast.interfaces.cli import main
from outlast.lab import configuration, operating, run, scenario_plan, scenario_steps
from outlast.lab.errors import LabError
from outlast.lab.host import Guest
from outlast.lab.lab import Lab
from outlast.lab.scenario_observer import LabObserver
from outlast.lab.state import LabState
from outlast.model.commands import Outcome
from outlast.model.errors import UsageError
from outlast.model.status import DomainStatus, HostStatus, VmStatus
from outlast.runtime.event_log import LoggedEvent
from outlast.scenario.model import Scenario
from outlast.scenario.reading import read
from outlast.scenario.words import VERBS

TEXT = """\
title = "Power loss"
duration = "30s"

[settings]
lease_duration = "5s"
isolation_response = "shut-down"

[[datastores]]
name = "fast"

[[datastores]]
name = "slow"
in_flight_bound = "unknown"
accept_in_flight_risk = false

[[hosts]]
name = "alpha"

[[hosts]]
name = "beta"

[[vms]]
name = "web1"
host = "alpha"
datastore = "fast"
isolation_response = "power-off"

[[vms]]
name = "spare"
datastore = "slow"
state = "unprotected"

[[steps]]
at = "5s"
do = "power-off"
host = "alpha"

[[expect]]
at = "10s"
state = { web1 = "waiting" }

[[expect]]
at = "end"
running = { web1 = "beta" }
verdict = { alpha = "dead" }
restarted = { web1 = 1 }
recovered_within = { web1 = "9s" }
primary = "beta"
not_dead = ["beta"]
state = { spare = "unprotected" }
"""
SECOND = 1_000_000_000


class FakeLab(Lab):
    """Two hosts; when alpha loses its power, beta starts its VM eight seconds later."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.clock_ns = 0
        self.done: list[tuple[Any, ...]] = []
        self.off: set[str] = set()
        self.lost_at: int | None = None
        self.also_on_alpha = False
        self.daemons = "running"

    def state(self) -> LabState:
        return scenario_plan.plan(read(TEXT))

    def is_on(self, name: str) -> bool:
        return name not in self.off

    def power_off(self, name: str) -> None:
        self.done.append(("power_off", name))
        self.off.add(name)
        self.lost_at = self.clock_ns

    def guests(self, name: str) -> list[Guest]:
        back = self.lost_at is not None and self.clock_ns >= self.lost_at + 8 * SECOND
        if name == "alpha":
            return [Guest("web1", "u", 7, False)] if self.lost_at is None or (self.also_on_alpha and back) else []
        return [Guest("web1", "u", 9, False)] if back else []

    def service_state(self, name: str, service: str) -> str:
        return self.daemons if self.is_on(name) else "dead"

    def disk_problems(self, vm: str) -> list[str]:
        return []

    def view(self, host: str) -> DomainStatus | None:
        """What beta's agent says."""
        if host != "beta":
            return None
        gone = self.lost_at is not None
        hosts = [(h, "dead" if h == "alpha" and gone else "connected") for h in ("alpha", "beta")]
        vm = VmStatus(
            name="web1",
            uuid="u",
            host="",
            state="lost" if gone else "running",
            protected=True,
            home="fast",
            epoch=3,
            lease_age_s=None,
            memory_mib=64,
            note="",
        )
        return status(hosts, vm)

    def events(self, since_ms: int) -> list[LoggedEvent]:
        """alpha's opinion about beta is no primary's; beta's about alpha is."""

        def verdict(reporter: str, host: str) -> LoggedEvent:
            facts = {"verdict": "dead"}
            return LoggedEvent(
                at_ms=13_000, reporter=reporter, kind="verdict", host=host, text=f"{host} is dead", facts=facts
            )

        elected = [
            LoggedEvent(at_ms=-1, reporter=r, kind="primary-elected", host="beta", text="") for r in ("alpha", "beta")
        ]
        return [*elected, verdict("alpha", "beta"), verdict("beta", "alpha")]

    def sleep(self, seconds: float) -> None:
        """Time passes at once."""
        self.clock_ns += round(seconds * SECOND)


def status(hosts: list[tuple[str, str]], vm: VmStatus) -> DomainStatus:
    def host(name: str, verdict: str) -> HostStatus:
        return HostStatus(
            name=name,
            id=name,
            address="",
            verdict=verdict,
            verdict_age_s=None,
            verdict_by="",
            reason="",
            primary=name == "beta",
            here=name == "beta",
            isolated=False,
            hypervisor_up=True,
            enforcement="keeper",
            memory_mib=0,
            free_memory_mib=0,
            vms=0,
            heartbeat_age_s=None,
            lapsed=(),
        )

    return DomainStatus(
        domain="lab",
        seen_from="beta",
        version="",
        primary="beta",
        term=1,
        isolated=False,
        hosts=tuple(host(name, verdict) for name, verdict in hosts),
        datastores=(),
        vms=(vm,),
        problems=(),
        dropped_datagrams={},
    )


class AtOnce(Executor):
    """Does what it is given before it returns."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except LabError as error:
            future.set_exception(error)
        return future


def played(lab: FakeLab, scenario: Scenario) -> run.Result:
    observer = LabObserver(
        lab,
        scenario,
        view=lab.view,
        events=lab.events,
        clock=lambda: lab.clock_ns,
        wall_ms=lambda: lab.clock_ns // 1_000_000,
    )
    return run.play(lab, scenario, observer, lab.sleep, (AtOnce(), AtOnce()))


def test_a_power_loss_is_played_and_judged() -> None:
    result = played(FakeLab(), read(TEXT))
    assert (result.failures, result.violations, result.passed) == ((), (), True)
    assert (result.world, result.end.primary, result.end.vms["web1"].host) == ("lab", "beta", "beta")
    assert result.end.hosts["alpha"].power == "off"
    assert [(way.vm, way.cause_at, round(way.seconds)) for way in result.recovery] == [("web1", 5.0, 8)]
    assert [line.text for line in result.timeline] == ["the plug of alpha is pulled", "alpha is dead"]


def test_what_does_not_hold_fails() -> None:
    result = played(FakeLab(), read(TEXT.replace('"9s"', '"7s"').replace('["beta"]', '["alpha"]')))
    assert [failure.found[:12] for failure in result.failures] == ["it was, at 1", "after 8.000 "]


def test_two_instances_are_a_violation_told_once() -> None:
    lab = FakeLab()
    lab.also_on_alpha = True
    result = played(lab, read(TEXT))
    assert [(v.invariant, v.detail) for v in result.violations] == [("single-instance", "web1 executes on alpha and beta")]
    assert not result.passed


STALL = TEXT.replace('do = "power-off"\nhost = "alpha"', 'do = "host-stall"\nhost = "alpha"\nfor = "10s"')


class StallingLab(FakeLab):
    """alpha stands still for ten seconds, its VM runs on beta meanwhile; alpha's keeper kills its own after a while."""

    killed_after_s = 0.2

    def host_stall(self, name: str, seconds: float) -> None:
        self.lost_at, self.stalls_until = self.clock_ns, self.clock_ns + round(seconds * SECOND)

    def stands_still(self, name: str) -> bool:
        return name == "alpha" and self.lost_at is not None and self.clock_ns < self.stalls_until

    def guests(self, name: str) -> list[Guest]:
        if name == "beta" or self.lost_at is None:
            return super().guests(name)
        gone = self.clock_ns >= self.stalls_until + round(self.killed_after_s * SECOND)
        return [] if gone else [Guest("web1", "u", 7, self.stands_still("alpha"))]


def test_two_instances_are_a_hazard_in_the_instant_after_a_stall() -> None:
    result = played(StallingLab(), read(STALL))
    assert result.violations == ()
    assert [(hazard.kind, round(hazard.seconds, 1)) for hazard in result.hazards] == [("double-run", 0.2)]
    assert "web1 executes on alpha and beta: one of them is unguarded" in [line.text for line in result.timeline]


def test_and_a_violation_if_the_keeper_takes_longer() -> None:
    lab = StallingLab()
    lab.killed_after_s = 2.0
    result = played(lab, read(STALL))
    assert [v.detail for v in result.violations] == ["web1 executes on alpha and beta"]


def test_a_host_without_keeper_and_agent_is_unguarded() -> None:
    lab = FakeLab()
    lab.lost_at = -10 * SECOND
    lab.also_on_alpha = True
    lab.daemons = "dead"
    result = played(lab, read(TEXT.replace("[[steps]]", "", 1).replace('at = "5s"\ndo = "power-off"\nhost = "alpha"', "")))
    assert (result.violations, [hazard.seconds for hazard in result.hazards]) == ((), [30.0])


def test_a_step_that_cannot_be_done_fails_the_run() -> None:
    scenario = read(TEXT.replace('do = "power-off"\nhost = "alpha"', 'do = "agent-kill"\nhost = "alpha"', 1))
    result = played(FakeLab(), scenario)
    failure = result.failures[-1]
    assert failure.expectation.startswith("step: the agent of alpha dies")
    assert "alpha is off" in failure.found


def test_a_daemon_of_a_host_without_power_is_not_killed_again() -> None:
    steps = '[[steps]]\nat = "6s"\ndo = "agent-kill"\nhost = "alpha"\n\n[[expect]]\nat = "10s"'
    assert played(FakeLab(), read(TEXT.replace('[[expect]]\nat = "10s"', steps))).passed


# -- the plan ---------------------------------------------------------------------------------------------------------


def test_the_lab_has_the_names_and_settings_of_the_file() -> None:
    state = scenario_plan.plan(read(TEXT))
    assert (list(state.hosts), state.datastores, list(state.vms)) == (
        ["alpha", "beta"],
        ["fast", "slow"],
        ["web1", "spare"],
    )
    assert (state.vms["web1"].host, state.vms["spare"].host) == ("alpha", "alpha")
    written = tomllib.loads(configuration.outlast_toml(state, "beta"))
    assert written["settings"] == {"lease_duration": "5s", "isolation_response": "shut-down"}
    assert written["datastores"][0]["in_flight_bound"] == "1s"
    assert "in_flight_bound" not in written["datastores"][1]
    assert written["datastores"][1]["accept_in_flight_risk"] is False


def test_vms_with_a_policy_of_their_own_say_so_in_their_definition() -> None:
    vms = scenario_plan.plan(read(TEXT)).vms
    assert 'isolation-response="power-off"' in vms["web1"].metadata
    assert 'protected="no"' in vms["spare"].metadata


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "beta"', 'name = "beta"\npower = "off"', "off at the start"),
        ('name = "beta"', 'name = "beta"\nmemory = "64GiB"', "another size"),
        ('name = "beta"', 'name = "beta"\ndatastores = ["fast"]', "datastores (beta)"),
        ('name = "beta"', 'name = "beta"\nenforcement = "none"', "enforcement none"),
        ('name = "beta"', 'name = "beta-of-a-long-name"', "a host of that name"),
        ('name = "beta"', 'name = "beta"\nwatchdog = true', "a watchdog (beta)"),
        ('do = "power-off"', 'do = "network-cut"\nnetwork = "vm"', 'network = "vm"'),
        (
            'name = "beta"',
            'name = "beta"\nlabels = { rack = "r1" }',
            "or a spare one (beta)",
        ),
        ('name = "web1"', 'name = "web1"\ncpu_usage = 3', "a given amount of cpu or memory (web1)"),
        ('name = "web1"', 'name = "web1"\nnetworks = ["lan"]', "networks or a CPU model of a VM (web1)"),
        ('name = "web1"', 'name = "web1"\ncpus = 8', "placement by cpus"),
        (
            "[[steps]]",
            '[[rules]]\nkind = "avoid"\nvms = ["web1"]\nhosts = ["beta"]\n\n[[steps]]',
            "the rule avoid",
        ),
        ('name = "fast"', 'name = "fast"\nfilesystem = "xfs"', "another filesystem"),
        (
            'do = "power-off"\nhost = "alpha"',
            'do = "clock-jump"\nhost = "alpha"\nby = "1h"',
            "33: the lab cannot do clock-jump",
        ),
        ('do = "power-off"\nhost = "alpha"', 'do = "start-fails"\nvm = "web1"', "the lab cannot do start-fails"),
    ],
)
def test_what_a_lab_cannot_do_is_refused_by_name(old: str, new: str, words: str, tmp_path: Path) -> None:
    text = TEXT.replace(old, new)
    if "long-name" in new:
        text = text.replace('"beta"', '"beta-of-a-long-name"')
    with pytest.raises(UsageError) as caught:
        scenario_plan.check(read(text))
    assert words in str(caught.value)
    file = tmp_path / "a.toml"
    file.write_text(text)
    done = CliRunner().invoke(main, ["lab", "run", str(file)])
    assert (done.exit_code, "cannot be played in the lab" in done.stderr) == (2, True)
    done = CliRunner().invoke(main, ["lab", "compare", str(file)])
    assert (done.exit_code, "cannot be played in the lab" in done.stderr) == (2, True)


# -- steps ------------------------------------------------------------------------------------------------------------


def test_every_verb_that_is_built_is_done_or_refused() -> None:
    assert set(VERBS) - scenario_steps.VERBS.keys() == {
        "clock-jump",
        "operator-confirms",
        "record-clone",
        "record-damage",
        "record-newer",
        "record-older",
        "start-fails",
    }


def test_a_reboot_is_two_steps() -> None:
    text = TEXT.replace('do = "power-off"\nhost = "alpha"', 'do = "reboot"\nhost = "alpha"\nfor = "20s"')
    found = [(step.at // SECOND, step.do) for step in scenario_steps.expanded(read(text))]
    assert found == [(5, "reboot"), (25, "power-on")]


def test_power_that_is_off_already_is_not_pulled_again() -> None:
    lab, scenario = FakeLab(), read(TEXT)
    for _ in range(2):
        scenario_steps.do(lab, scenario, scenario.steps[0])
    assert lab.done == [("power_off", "alpha")]


class Operated(FakeLab):
    """Its agents answer; commands are given to the primary, which is busy at first, and refuses one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.busy = 1
        monkeypatch.setattr(operating.outlast_view, "status", lambda _, host: self.view(host))
        monkeypatch.setattr(operating, "TRIES_AGAIN_AFTER_S", 0.0)

    def run(
        self, name: str, argv: list[str], *, stdin: str | None = None, timeout_s: float | None = 60.0
    ) -> subprocess.CompletedProcess[str]:
        self.done.append((name, *argv[1:]))
        self.busy -= 1
        again = self.busy >= 0
        outcome = Outcome(ok=not again and "3s" not in argv, sentences=("a sentence",), try_again=again)
        return subprocess.CompletedProcess(argv, 0, msgspec.json.encode(outcome).decode(), "")


def test_an_operators_commands_are_outlasts_own_and_given_again_while_nobody_can_carry_them_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lab = Operated(monkeypatch)
    scenario = read(
        TEXT.replace('do = "power-off"\nhost = "alpha"', 'do = "set"\nsetting = "lease_duration"\nvalue = "3s"')
    )
    scenario_steps.do(lab, scenario, scenario.steps[0])
    assert lab.done == [("beta", "settings", "set", "lease_duration", "3s", "-o", "json")] * 2
    assert not operating.give(lab, "settings", "set", "lease_duration", "3s").ok, "a refusal is an outcome"


@pytest.mark.parametrize(
    ("verb", "command"),
    [
        ("maintenance-on", ("host", "drain", "alpha", "--reason", "the scenario says so")),
        ("maintenance-off", ("host", "undrain", "alpha")),
        ('health"\nlevel = "failing', ("host", "health", "alpha", "failing")),
    ],
)
def test_hosts_are_drained_and_reported_from_any_host_that_answers(
    verb: str, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Operated(monkeypatch)
    lab.busy = 0
    scenario = read(TEXT.replace('do = "power-off"', f'do = "{verb}"'))
    scenario_steps.do(lab, scenario, scenario.steps[0])
    assert lab.done == [("beta", *command, "-o", "json")]
