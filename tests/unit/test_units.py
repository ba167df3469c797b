"""The systemd units: what systemd itself says of them, and the relations that safety and recovery need."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False, comment_prefixes="#", delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    text = (UNITS / name).read_text()
    # systemd adds repeated list settings up; configparser keeps the last one.
    befores = [line.partition("=")[2] for line in text.splitlines() if line.startswith("Before=")]
    parser.read_string(text)
    parser["Unit"]["Before"] = " ".join(befores)
    return parser


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_them(tmp_path: Path) -> None:
    for source in sorted(UNITS.glob("*.service")):
        (tmp_path / source.name).write_text(source.read_text().replace("/usr/bin/outlast", "/bin/true"))
    files = [str(path) for path in sorted(tmp_path.glob("*.service"))]
    done = subprocess.run(["systemd-analyze", "verify", *files], check=False, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 0


def test_the_keeper_is_there_before_libvirt_and_after_the_last_guest() -> None:
    before = unit("outlast-keeper.service")["Unit"]["Before"].split()
    assert {"libvirtd.service", "virtqemud.service", "libvirt-guests.service"} <= set(before)
    # What tells the keeper that the host goes down must have been written when it is stopped.
    assert "systemd-user-sessions.service" in before


def test_what_the_keeper_leaves_in_run_outlives_it() -> None:
    for name in ("outlast-keeper.service", "outlast-agent.service"):
        service = unit(name)["Service"]
        assert service["RuntimeDirectoryPreserve"] == "yes"
        assert (service["Type"], service["Restart"]) == ("notify", "always")
        assert "WatchdogSec" in service


def test_the_agent_never_takes_the_keeper_with_it() -> None:
    agent = unit("outlast-agent.service")["Unit"]
    assert "outlast-keeper.service" in agent["After"].split()
    assert "Requires" not in agent
    assert "BindsTo" not in agent
