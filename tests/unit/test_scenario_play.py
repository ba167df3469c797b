"""A scenario in the simulated world: the same seed tells the same story, and what does not hold is named."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from outlast.interfaces import simulate_cli
from outlast.interfaces.cli import main
from outlast.model.errors import OutlastError
from outlast.model.time import SECOND
from outlast.scenario.model import Step
from outlast.scenario.reading import read
from outlast.scenario.result import Result as Outcome
from outlast.scenario.telling import causes, told
from outlast.sim.play import play

POWER_LOSS = """\
title = "Power loss"
duration = "25s"
datastores = [{ name = "ds1", device = "array-a" }, { name = "ds2", device = "array-a" }]
hosts = [{ name = "host1" }, { name = "host2" }]

[[vms]]
name = "web1"
host = "host1"
datastore = "ds1"

[[vms]]
name = "db1"
host = "host2"
datastore = "ds2"

[[vms]]
name = "spare"
datastore = "ds2"

[[steps]]
at = "2s"
do = "power-off"
host = "host1"

[[expect]]
at = "1s"
running = { web1 = "host1" }
state = { spare = "stopped" }

[[expect]]
at = "6s"
state = { web1 = "waiting" }

[[expect]]
at = "end"
running = { web1 = "host2", db1 = "any" }
not_running = ["spare"]
verdict = { host1 = "dead" }
not_dead = ["host2"]
restarted = { web1 = 1, db1 = 0 }
recovered_within = { web1 = "9s" }
together = ["web1", "db1"]
primary = "host2"
fenced = []
"""


@pytest.fixture(scope="module")
def power_loss() -> Outcome:
    return play(read(POWER_LOSS))


def test_a_power_loss_and_its_story(power_loss: Outcome) -> None:
    result = power_loss
    assert (result.failures, result.violations, result.passed) == ((), (), True)
    assert [(way.vm, way.cause_at) for way in result.recovery] == [("web1", 2.0)]
    assert result.end.vms["web1"].host == "host2"
    assert result.end.vms["web1"].epoch == 1
    assert (result.end.hosts["host1"].power, result.end.primary) == ("off", "host2")
    story = [line.text for line in result.timeline]
    assert story[0] == "the plug of host1 is pulled"
    assert any(text.startswith("host1 is dead (was presumed-dead)") for text in story)
    assert any(text == "web1 runs again on host2" for text in story)
    assert all(line.at >= 2 for line in result.timeline)


def test_the_same_seed_tells_the_same_story_and_another_one_another(power_loss: Outcome) -> None:
    again, other = play(read(POWER_LOSS)), play(read(POWER_LOSS), 7)
    assert again == power_loss
    assert (other.seed, other.passed) == (7, True)
    assert other.timeline != power_loss.timeline


def test_what_does_not_hold_is_named_with_its_time() -> None:
    text = POWER_LOSS.replace("web1 = 1, db1 = 0", "web1 = 2, db1 = 0").replace('web1 = "host1" }', 'web1 = "host2" }')
    result = play(read(text))
    assert not result.passed
    found = [(failure.at, failure.found) for failure in result.failures]
    assert found == [(1.0, "it executes on host1"), (25.0, "1 times")]
    assert any(line.kind == "failure" for line in result.timeline)


def test_a_domain_that_does_not_come_to_rest_is_told() -> None:
    text = POWER_LOSS.replace("[[vms]]", '[settings]\nelection_timeout = "5min"\n\n[[vms]]', 1)
    with pytest.raises(OutlastError, match="does not come to rest"):
        play(read(text))


def test_datastores_on_one_device_share_their_fate() -> None:
    cut = Step(at=0, do="storage-outage", keys={"datastore": "ds1"})  # type: ignore[arg-type]
    assert causes(read(POWER_LOSS), cut, lambda _: {"host1"}) == ("web1", "db1", "spare")
    steps = '[[steps]]\nat = "2s"\ndo = "storage-outage"\ndatastore = "ds1"\n'
    expect = '[[expect]]\nat = "12s"\nstate = { db1 = "frozen" }\n'
    assert play(read(POWER_LOSS[: POWER_LOSS.index("[[steps]]")] + steps + expect)).passed


@pytest.mark.parametrize(
    ("do", "keys", "sentence"),
    [
        ("network-cut", {"host": "host1"}, "no packets pass: to and from host1"),
        ("network-cut", {"between": (("a", "b"), ("c",)), "one_way": True}, "no packets pass: from a, b to c"),
        ("network-heal", {"between": (("a",), ("b",))}, "packets pass again: between a and b"),
        ("network-heal", {}, "packets pass again: everywhere"),
        ("reboot", {"host": "host1"}, "host1 loses its power, and has it back after 30s"),
        ("reboot", {"host": "host1", "for": 3 * SECOND}, "host1 loses its power, and has it back after 3s"),
        ("start-fails", {"vm": "web1", "times": -1}, "the next starts of web1 fail everywhere (all of them)"),
        ("start-fails", {"vm": "web1", "host": "a"}, "the next starts of web1 fail on a (1 of them)"),
        ("clock-jump", {"host": "a", "by": -SECOND}, "the wall clock of a jumps by -1s"),
    ],
)
def test_steps_are_told_in_words(do: str, keys: dict[str, object], sentence: str) -> None:
    assert told(Step(at=SECOND, do=do, keys=keys)) == sentence


# -- outlast simulate -------------------------------------------------------------------------------------------------


def simulate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["simulate", *(str(each) for each in arguments)])


def test_one_file_passes(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(POWER_LOSS)
    done = simulate(file, "--stats")
    assert done.exit_code == 0, done.output
    assert f"pass  {file}" in done.output
    assert "1 recoveries" in done.output


def test_a_directory_with_a_failure_names_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.toml").write_text(POWER_LOSS)
    (tmp_path / "sub" / "b.toml").write_text(POWER_LOSS.replace('primary = "host2"', 'primary = "host1"'))
    done = simulate(tmp_path, "-j", "1")
    assert done.exit_code == 1
    assert f"pass  {tmp_path}/a.toml" in done.output
    assert "at 25.000 s primary: the primary is host1" in done.output
    assert "1 passed, 1 failed" in done.output


def test_a_failing_one_is_shrunk_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text(
        'title = "Small"\nduration = "1s"\ndatastores = [{ name = "ds1" }]\nhosts = [{ name = "host1" }]\n'
        'vms = [{ name = "web1", host = "host1" }]\nsteps = [{ at = "500ms", do = "agent-kill", host = "host1" }]\n'
        '[[expect]]\nat = "end"\nrestarted = { web1 = 1 }\nrunning = { web1 = "host1" }\n'
    )
    done = simulate("a.toml", "--shrink", "--seed", "3")
    assert (done.exit_code, "wrote a-shrunk.toml: 0 of 1 steps" in done.stderr) == (1, True)
    small = read((tmp_path / "a-shrunk.toml").read_text())
    assert (small.seed, len(small.expect), small.steps) == (3, 1, ())
    assert "Shrunk by" in small.story
    assert simulate("a-shrunk.toml").exit_code == 1


def test_nothing_to_play_and_rules_that_are_none() -> None:
    assert simulate().exit_code == 2
    done = simulate("--random", "1", "--break", "no-freez")
    assert (done.exit_code, "did you mean no-freeze?" in done.stderr) == (2, True)
    assert "no-freeze  (rule 4" in simulate("--break", "list").output


def test_a_rule_switched_off_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    steps = '[[steps]]\nat = "2s"\ndo = "network-cut"\nhost = "host1"\n[[steps]]\nat = "2s"\ndo = "storage-cut"\n'
    steps += 'host = "host1"\ndatastore = "ds1"\n'
    file.write_text(POWER_LOSS[: POWER_LOSS.index("[[steps]]")] + steps)
    assert simulate(file).exit_code == 0
    done = simulate(file, "--break", "no-freeze")
    assert (done.exit_code, "invariant" in done.output) == (1, True)


def test_random_ones_are_the_same_every_time() -> None:
    first, again = (simulate("--random", "1", "--seed", "3", "--trace", "-j", "1") for _ in range(2))
    assert (first.exit_code, "random 3" in first.output) == (0, True)
    traces = [done.output.splitlines()[0].split()[-1] for done in (first, again)]
    assert traces[0] == traces[1]
    assert len(traces[0]) == 32


def test_json_is_one_object_a_line(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(POWER_LOSS)
    done = simulate(file, "--json", "--seed", "3")
    found = json.loads(done.output)
    keys = "scenario world seed passed failures violations hazards end recovery timeline events wall_seconds"
    assert set(keys.split()) <= set(found)
    assert (found["scenario"], found["world"], found["seed"], found["passed"]) == ("Power loss", "simulated", 3, True)
    assert set(found["timeline"][0]) == {"at", "kind", "host", "vm", "text"}
    assert set(found["end"]["vms"]["web1"]) == {"state", "host", "epoch", "restarts"}


def test_files_that_cannot_be_played_stop_everything(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(POWER_LOSS)
    (tmp_path / "b.toml").write_text(POWER_LOSS.replace('host = "host1"\n\n[[expect]]', 'host = "host9"\n\n[[expect]]'))
    done = simulate(tmp_path, tmp_path / "none.toml")
    assert done.exit_code == 2
    assert re.search(r'b\.toml:\d+: host is "host9"', done.stderr)
    assert "there is no scenario file" in done.stderr
    assert "pass" not in done.stdout


def test_a_result_survives_the_way_between_processes(power_loss: Outcome) -> None:
    assert pickle.loads(pickle.dumps(power_loss)) == power_loss
    assert msgspec.json.decode(msgspec.json.encode(power_loss), type=Outcome) == power_loss


def test_a_world_in_which_the_program_fails_is_a_finding_and_ends_no_other_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("vm1")

    monkeypatch.setattr(simulate_cli, "play", fail)
    done = CliRunner().invoke(main, ["simulate", "--random", "2", "--seed", "3", "-j", "1"])
    assert done.exit_code == 1
    assert "random 3: the program failed: KeyError('vm1')" in done.output
    assert "once more: outlast simulate --random 1 --seed 4" in done.output
