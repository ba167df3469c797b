"""A settings file with a mistake names the mistake and its remedy, and starts nothing."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from outlast.interfaces.cli import main
from outlast.model.errors import UsageError
from outlast.model.ids import HostId
from outlast.model.settings import FREEZES_WITHIN, Settings, problems, setting_text
from outlast.model.time import SECOND, seconds
from outlast.model.units import parse_duration
from outlast.runtime.agent_process import FREEZER_LOOKS_EVERY_S
from outlast.runtime.config import fencing_warnings, load_config
from outlast.runtime.second_freezer import GRACE
from outlast.sim.invariants import AGENT_REACTS

IDS = ("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222")


def settings_text(directory: Path) -> str:
    key = directory / "cluster.key"
    key.write_text("ab" * 32 + "\n")
    return f"""
[domain]
name = "dom"
key_file = "{key}"

[host]
name = "host1"

[[hosts]]
name = "host1"
id = "{IDS[0]}"
address = "192.0.2.1"

[[hosts]]
name = "host2"
id = "{IDS[1]}"
address = "192.0.2.2"

[[datastores]]
name = "ds1"
path = "/srv/ds1"

[settings]
lease_duration = "6s"
"""


def written(directory: Path, old: str = "", new: str = "") -> Path:
    text = settings_text(directory)
    assert old in text
    path = directory / "outlast.toml"
    path.write_text(text.replace(old, new) if old else text)
    return path


def test_a_good_file(tmp_path: Path) -> None:
    config = load_config(written(tmp_path))
    assert config.host.name == "host1"
    assert config.settings == Settings()
    assert config.for_keeper().home_of(("/srv/ds1/disks/a.raw",)) == "ds1"
    assert config.for_keeper().home_of(("/srv/ds11/a.raw", "/elsewhere")) is None


def test_every_setting_can_be_given_in_the_file(tmp_path: Path) -> None:
    every = ((name, setting_text(name, value)) for name, value in msgspec.structs.asdict(Settings()).items())
    lines = "\n".join(f"{name} = {text if text.isdigit() else json.dumps(text)}" for name, text in every)
    config = load_config(written(tmp_path, 'lease_duration = "6s"', lines))
    assert config.settings == Settings()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('lease_duration = "6s"', 'lease_duraton = "6s"', "lease_duraton is not known: misspelt? the nearest is lease_dur"),
        ("[settings]", "[setings]", "setings is not known: misspelt? the nearest is settings"),
        ('lease_duration = "6s"', 'lease_duration = "6 parsecs"', "'6 parsecs' is not a duration"),
        ('lease_duration = "6s"', 'lease_duration = "2s"', "lease_duration is 2s, but must be at least 3s (3 x datastore"),
        ('lease_duration = "6s"', 'isolation_response = "explode"', "isolation_response: Input should be 'leave-running'"),
        ('name = "host2"', 'name = "host1"', "[[hosts]] name host1 is there more than once"),
        (IDS[1], IDS[0], f"[[hosts]] id {IDS[0]} is there more than once"),
        ("192.0.2.2", "192.0.2.1", "[[hosts]] address and port 192.0.2.1:7710 is there more than once"),
        (IDS[1], "host-two", "id is not a UUID: make one with `uuidgen`"),
        ('[host]\nname = "host1"', '[host]\nname = "host7"', "[host] name host7 is not among [[hosts]]"),
        ('path = "/srv/ds1"', 'path = "srv/ds1"', "path must be an absolute path"),
        ('path = "/srv/ds1"', "", "path is missing"),
        ('name = "dom"', 'name = "../up"', "name is not a name"),
        ("cluster.key", "no.key", "no.key cannot be read (No such file or directory): make one with `openssl"),
        ("[domain]", "[domain", "is not TOML"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_remedy(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = written(tmp_path, old, new)
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, 'lease_duration = "6s"', 'lease_duration = "1s"\nisolation_after = "1s"')
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert "lease_duration is 1s" in str(caught.value)
    assert "isolation_after is 1s, but must be longer than unreachable_after (3s)" in str(caught.value)


def test_a_key_that_is_too_short(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "cluster.key").write_text("abcd\n")
    with pytest.raises(UsageError, match="must have 64 hexadecimal digits, not 4; make one with"):
        load_config(path)


def test_nested_datastores_are_refused(tmp_path: Path) -> None:
    inner = '[[datastores]]\nname = "ds2"\npath = "/srv/ds1/inner"\n\n[settings]'
    with pytest.raises(UsageError, match="ds2 lies inside ds1"):
        load_config(written(tmp_path, "[settings]", inner))


FENCED = """address = "192.0.2.2"

[[hosts.fencing]]
agent = "{agent}"
timeout = "9s"
parameters = {{ ip = "192.0.2.66", lanplus = true, port = 3 }}
secrets = {{ password = "{secret}" }}
"""


def test_fence_devices(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, 'address = "192.0.2.2"', FENCED.format(agent="/bin/true", secret="/dev/null")))
    (method,) = config.fencing[HostId(IDS[1])]
    assert (method.level.agent, method.level.timeout) == ("/bin/true", 9 * SECOND)
    assert method.parameters == {"ip": "192.0.2.66", "lanplus": "1", "port": "3"}
    assert fencing_warnings(config) == []


def test_a_fence_agent_that_is_missing_is_a_warning_with_its_remedy(tmp_path: Path) -> None:
    path = written(tmp_path, 'address = "192.0.2.2"', FENCED.format(agent="fence_nothing", secret="/no/file"))
    first, second = fencing_warnings(load_config(path))
    assert "no fence agent fence_nothing on this host: apt-get install fence-agents" in first
    assert "/no/file of its password cannot be read (No such file" in second
    done = CliRunner().invoke(main, ["agent", "--check", "--config", str(path)])
    assert (done.exit_code, "warning: host2 could not be fenced" in done.stderr) == (0, True)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [('timeout = "9s"', 'timeout = "1h"', "timeout is 3600s"), ("lanplus", "action", "cannot hold action")],
)
def test_a_mistake_in_a_fence_device(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = FENCED.format(agent="/bin/true", secret="/dev/null").replace(old, new)
    with pytest.raises(UsageError) as caught:
        load_config(written(tmp_path, 'address = "192.0.2.2"', text))
    assert words in str(caught.value)


@pytest.mark.parametrize("command", ["agent", "keeper"])
def test_commands_end_with_2_and_a_message(tmp_path: Path, command: str) -> None:
    done = CliRunner().invoke(main, [command, "--config", str(tmp_path / "no.toml")])
    assert done.exit_code == 2
    assert "there is no settings file" in done.output
    assert "docs/setup.md" in done.output
    assert "Traceback" not in done.output


def test_checking_a_file_starts_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["agent", "--check", "--config", str(written(tmp_path))])
    assert done.exit_code == 0, done.output
    assert "can be used: host host1 of the fault domain dom" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("value", "expected"), [("6s", 6 * SECOND), ("500ms", SECOND // 2), ("2min", 120 * SECOND), (1.5, 3 * SECOND // 2)]
)
def test_durations(value: object, expected: int) -> None:
    assert parse_duration(value) == expected


@pytest.mark.parametrize("value", ["", "6", "s", "-1s", True, None, [], "1d"])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"unreachable_after": seconds(1.5)}, "unreachable_after"),
        ({"lease_duration": seconds(2.9)}, "lease_duration"),
        ({"lease_margin": seconds(0.4)}, "lease_margin"),
        ({"lease_margin": seconds(1.1)}, "lease_margin"),
        ({"datastore_stale_after": seconds(5)}, "datastore_stale_after"),
        ({"isolation_after": seconds(3)}, "isolation_after"),
        ({"heartbeat_datastores_per_host": 6}, "heartbeat_datastores_per_host"),
        ({"accessibility_threshold": 101}, "accessibility_threshold"),
        ({"ping_timeout": 0}, "ping_timeout"),
    ],
)
def test_a_broken_relation_is_named(changed: dict[str, int], name: str) -> None:
    assert any(problem.startswith(name) for problem in problems(Settings(**changed)))  # type: ignore[arg-type]


def test_the_defaults_hold_all_relations() -> None:
    assert problems(Settings()) == []


def test_the_margin_is_long_enough_for_the_second_freezer() -> None:
    """Found by the simulator: half a second was asked for, and the agent's grace and its next look take longer."""
    assert GRACE + round(FREEZER_LOOKS_EVERY_S * SECOND) < FREEZES_WITHIN
    assert AGENT_REACTS < FREEZES_WITHIN


# -- rules, labels, what a host keeps for itself ------------------------------------------------------------------------

RULES = """
[[rules]]
kind = "keep-apart"
vms = ["web1", "web2"]
by = "rack"

[[rules]]
kind = "run-on"
vms = ["db1"]
hosts = { host1 = 2, host2 = 1 }
required = false

[settings]
"""


def test_rules_labels_and_reserves(tmp_path: Path) -> None:
    path = written(tmp_path, "[settings]\n", RULES)
    text = path.read_text().replace('address = "192.0.2.1"', 'address = "192.0.2.1"\nlabels = { rack = "r1" }')
    own = '[host]\nname = "host1"'
    path.write_text(text.replace(own, f'{own}\nreserved_memory = "4GiB"\nreserved_cpus = 1.5'))
    config = load_config(path)
    assert [str(rule) for rule in config.rules] == [
        "required keep-apart (rack) of web1 and web2",
        "preferred run-on of db1: host1, host2",
    ]
    assert config.rules[1].hosts == {"host1": 2, "host2": 1}
    assert config.hosts[0].labels == {"rack": "r1"}
    assert (config.reserved_memory_mib, config.reserved_cpu) == (4096, 150)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ('kind = "keep-apart"\nvms = ["a"]', "[[rules]] number 1 (keep-apart) needs two VMs or more"),
        ('kind = "avoid"\nvms = ["a"]\nhosts = ["host9"]', "names the host host9, which is not among [[hosts]]"),
        ('kind = "keep-apart"\nvms = ["a", "b"]\nby = "rack"', "apart by rack, a label that no host has"),
        ('kind = "keep-apart"\nvms = ["a", "a"]', "names a twice"),
        ('kind = "apart"\nvms = ["a", "b"]', "'keep-apart', 'keep-together', 'run-on' or 'avoid'"),
        ('kind = "avoid"\nvms = ["a"]\nhost = ["host1"]', "the nearest is hosts"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(tmp_path: Path, rule: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(written(tmp_path, "[settings]\n", f"[[rules]]\n{rule}\n\n[settings]\n"))
    assert words in str(caught.value)


def test_contradictory_rules_are_named_and_no_error(tmp_path: Path) -> None:
    rules = "".join(f'[[rules]]\nkind = "run-on"\nvms = ["a"]\nhosts = ["{host}"]\n' for host in ("host1", "host2"))
    path = written(tmp_path, "[settings]\n", f"{rules}[settings]\n")
    done = CliRunner().invoke(main, ["agent", "--check", "--config", str(path)])
    assert done.exit_code == 0
    assert "the rule 'required run-on of a: host1' is dropped: no host is left for a" in done.output
    assert "it contradicts 'required run-on of a: host2'" in done.output
