"""A scenario file is taken as it is written, or refused with the line and the nearest word; nothing is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from outlast.model.errors import UsageError
from outlast.model.time import SECOND
from outlast.scenario.lines import Lines
from outlast.scenario.model import Step
from outlast.scenario.reading import read, read_file

GOOD = """\
title = "Power loss of one host"
story = "Why."
seed = 7
duration = "60s"

[settings]
isolation_response = "power-off"
lease_duration = "8s"
datastore_stale_after = "10s"

[[datastores]]
name = "ds1"
filesystem = "cephfs"
in_flight_bound = "unknown"

[[datastores]]
name = "ds2"

[[hosts]]
name = "host1"
memory = "64GiB"

[[hosts]]
name = "host2"
datastores = ["ds1"]
labels = { rack = "r1" }

[[vms]]
name = "web1"
host = "host1"
datastore = "ds1"
memory = "512MiB"

[[steps]]
at = "10s"
do = "power-off"
host = "host1"

[[expect]]
at = "20s"
running = { web1 = "host2" }

[[steps]]
at = "30s"
do = "network-cut"
between = [["host1"], ["host2"]]
one_way = true

[[expect]]
at = "end"
running = { web1 = "any" }
restarted = { web1 = [1, 2] }
recovered_within = { web1 = "12s" }
not_dead = ["host2"]
"""


def refused(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(text, "a.toml")
    assert caught.value.exit_code == 2
    return str(caught.value)


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return refused(GOOD.replace(old, new, 1))


def test_a_good_file() -> None:
    scenario = read(GOOD)
    assert (scenario.seed, scenario.duration) == (7, 60 * SECOND)
    assert scenario.settings["lease_duration"] == 8 * SECOND
    assert [d.in_flight_bound for d in scenario.datastores] == [None, SECOND]
    assert (scenario.hosts[0].memory_mib, scenario.hosts[1].datastores) == (64 << 10, ("ds1",))
    assert scenario.vms[0].memory_mib == 512
    assert scenario.steps[0] == Step(at=10 * SECOND, do="power-off", keys={"host": "host1"}, line=34)
    assert scenario.steps[1].keys == {"between": (("host1",), ("host2",)), "one_way": True}
    assert scenario.expect[0].claims == {"running": {"web1": ("host2",)}}
    assert scenario.expect[1].at is None
    assert scenario.expect[1].claims["restarted"] == {"web1": (1, 2)}
    assert scenario.expect[1].claims["running"] == {"web1": ("any",)}


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("seed = 7", "sead = 7", 3, ("sead", "seed")),
        ("seed = 7", 'seed = "x"', 3, ("seed", "whole number")),
        ('duration = "60s"', 'duration = "60"', 4, ("duration",)),
        ("isolation_response", "isolation_respones", 7, ("isolation_response?",)),
        ('"power-off"', '"poweroff"', 7, ("did you mean power-off?",)),
        ('lease_duration = "8s"', 'lease_duration = "2s"', 8, ("lease_duration is 2s", "raise")),
        ("filesystem", "file_system", 13, ("did you mean filesystem?",)),
        ('memory = "64GiB"', 'memory = "64 gigs"', 21, ("memory", "32GiB")),
        ('datastores = ["ds1"]', 'datastores = ["ds3"]', 25, ("ds3", "not a datastore", "did you mean ds")),
        ('host = "host1"\ndatastore', 'host = "hots1"\ndatastore', 30, ("hots1", "not a host", "did you mean host1?")),
        ('datastore = "ds1"\n', "", 28, ("datastore is missing",)),
        ('at = "10s"', 'at = "-10s"', 35, ("must not be negative",)),
        ('at = "10s"', "at = -10", 35, ("must not be negative",)),
        ('at = "10s"', 'at = "70s"', 35, ("at 70s", "ends after 60s")),
        ('at = "10s"\n', "", 34, ("at is missing",)),
        ('do = "power-off"', 'do = "power-of"', 36, ("did you mean power-off?",)),
        ('do = "power-off"\n', "", 34, ("do is missing",)),
        ('do = "power-off"\nhost', 'do = "power-off"\nvm', 37, ("vm is not a key of the verb power-off",)),
        ('do = "power-off"\nhost = "host1"', 'do = "power-off"\nhost = "host9"', 37, ("host9",)),
        ("one_way = true", 'host = "host1"', 43, ("one of host and between",)),
        ('[["host1"], ["host2"]]', '[["host1"], ["host1"]]', 46, ("one group alone",)),
        ('running = { web1 = "host2" }', 'runing = { web1 = "host2" }', 41, ("did you mean running?",)),
        ('running = { web1 = "host2" }', 'running = { web2 = "host2" }', 41, ("web2", "did you mean web1?")),
        ('running = { web1 = "host2" }', 'running = { web1 = "host3" }', 41, ("of web1", "host3")),
        ('running = { web1 = "host2" }', 'state = { web1 = "runing" }', 41, ("did you mean running?",)),
        ('running = { web1 = "host2" }', 'verdict = { host1 = "death" }', 41, ("did you mean dead?",)),
        ('running = { web1 = "host2" }', "restarted = { web1 = [2, 1] }", 41, ("larger",)),
        ('running = { web1 = "host2" }\n', "", 39, ("nothing is expected",)),
        ('name = "ds2"', 'name = "ds1"', 17, ("ds1", "another")),
        ('name = "host2"', 'name = "any"', 24, ("name",)),
        ('datastore = "ds1"', 'datastore = "ds1"\nstate = "stop"', 32, ("did you mean stopped?",)),
        ('memory = "64GiB"', 'memory = "256MiB"', 30, ("does not fit on host1",)),
        ('memory = "64GiB"', 'power = "off"', 30, ("it is off",)),
        ('memory = "64GiB"', 'datastores = ["ds2"]', 30, ("does not reach ds1",)),
    ],
)
def test_a_mistake_is_named_with_its_line(old: str, new: str, line: int, words: tuple[str, ...]) -> None:
    message = changed(old, new)
    problem = next(each for each in message.splitlines() if f"a.toml:{line}: " in each)
    assert all(word in problem for word in words), problem


def test_all_mistakes_are_told_at_once() -> None:
    text = GOOD.replace("power-off", "power-of").replace('"64GiB"', "64").replace("seed = 7", "seed = 7\nspeed = 8")
    assert refused(text).count("a.toml:") == 4


@pytest.mark.parametrize("text", ["title = ", "title = 1", "", "hosts = 3", "steps = [1]", "[hosts]\nname = 1"])
def test_what_is_no_scenario_at_all(text: str) -> None:
    assert "a.toml" in refused(text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no scenario file"):
        read_file(tmp_path / "a.toml")


def test_vms_that_wait_for_each_other_are_refused_by_name() -> None:
    chain = '\n[[vms]]\nname = "app"\ndatastore = "ds1"\nafter = ["db"]\n[[vms]]\nname = "db"\ndatastore = "ds1"\n'
    assert read(GOOD + chain).vms[1].after == ("db",)
    message = refused(GOOD + chain + 'after = ["app"]\n')
    line = (GOOD + chain).count("\n") + 1
    assert f"a.toml:{line}: these VMs wait for each other: app waits for db, db waits for app" in message


def test_lines_are_found_in_any_toml() -> None:
    lines = Lines(
        '# [[not]]\na = """\n[b]\nc = 1"""\nd = [ # ]\n  1,\n  2,\n]\n"quoted key" = \'#\'\n\n[[t]]\nx.y = 1\n'
        "[t.sub]\nz = { q = 1 }\n[[t]]\nx = '''\n[[t]]\n'''\n[[t.deep]]\nw = 1\n"
    )
    places = [("a",), ("d",), ("quoted key",), ("t", 0), ("t", 0, "x", "y"), ("t", 0, "sub", "z", "q"), ("t", 1, "x")]
    assert [lines.of(place) for place in places] == [2, 5, 9, 11, 12, 14, 16]
    assert lines.of(("t", 1, "deep", 0, "w")) == 20
    assert lines.of(("nowhere",)) == 1
