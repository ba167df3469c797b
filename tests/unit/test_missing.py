"""What is not installed, or not running, is named with its remedy; nothing is lost, and nobody sees a traceback."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_config import written

from outlast.interfaces.cli import main
from outlast.lab import building
from outlast.lab.errors import LabError


def test_without_libvirts_binding_the_agent_says_what_to_install(tmp_path: Path) -> None:
    config = written(tmp_path)
    script = (
        "import sys; sys.modules['libvirt'] = None\n"
        f"sys.argv = ['outlast', 'agent', '--config', {str(config)!r}]\n"
        "from outlast.interfaces.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "libvirt's Python binding is not installed" in done.stderr
    assert "apt-get install" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_lab_names_the_programs_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building.os, "geteuid", lambda: 0)
    real = shutil.which
    monkeypatch.setattr(building.shutil, "which", lambda name: None if name == "libvirtd" else real(name) or "/bin/true")
    with pytest.raises(LabError, match=r"the lab needs libvirtd: apt-get install libvirt-daemon"):
        building.check_machine(3, 2, 4)


@pytest.mark.parametrize("command", [["status"], ["explain", "host", "host1"]])
def test_without_an_agent_the_commands_say_so(tmp_path: Path, command: list[str]) -> None:
    done = CliRunner().invoke(main, [*command, "--socket", str(tmp_path / "no.sock")])
    assert done.exit_code == 1
    assert "no agent answers on" in done.output
    assert "systemctl status outlast-agent" in " ".join(done.output.split())
    assert "Traceback" not in done.output
