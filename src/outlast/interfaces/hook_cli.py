"""`outlast hook`: put the gate into libvirt, take it out, and say whether it is really there."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import rich_click as click

from outlast.interfaces.output import OutlastGroup, show_json
from outlast.model.errors import OutlastError

HOOK = Path("/etc/libvirt/hooks/qemu.d/outlast")
SETTINGS = Path("/etc/outlast/hook.json")


@click.group(cls=OutlastGroup)
def hook() -> None:
    """The gate in libvirt: it asks the keeper before any VM starts."""


def _script() -> str:
    from outlast.keeper import hook as module

    asked = "|".join(f'"{operation} {sub}"' for operation, sub in sorted(module.ASKED))
    return (
        "#!/bin/sh\n"
        "# Made by `outlast hook install`: asks the keeper before a VM starts. libvirt calls it for much else, and waits.\n"
        f'case "$2 $3" in {asked}) ;; *) exit 0 ;; esac\n'
        f'exec {sys.executable} -I -S {module.__file__} "$@"\n'
    )


@hook.command()
@click.option("--config", type=click.Path(path_type=Path), default="/etc/outlast/outlast.toml", show_default=True)
def install(config: Path) -> None:
    """Install the hook. Restart libvirtd after the first time: it looks for hooks only when it starts."""
    from outlast.runtime.config import load_config

    loaded = load_config(config)
    settings = {
        "datastores": [d.path for d in loaded.datastores],
        "socket": loaded.keeper_socket,
        "run_dir": loaded.run_dir,
    }
    first = not HOOK.exists()
    try:
        for path, content, mode in ((SETTINGS, json.dumps(settings, indent=1) + "\n", 0o644), (HOOK, _script(), 0o755)):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.new")
            temporary.write_text(content)
            temporary.chmod(mode)
            temporary.replace(path)
    except OSError as error:
        raise OutlastError(f"the hook cannot be installed: {error}", "run as root, with libvirt installed") from None
    click.echo(f"installed {HOOK}")
    if first:
        click.echo("now restart libvirtd (systemctl restart libvirtd): it looks for hooks only when it starts")


@hook.command()
def remove() -> None:
    """Remove the hook. VMs then start without being asked for, and the keeper freezes those it did not let pass."""
    for path in (HOOK, SETTINGS):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutlastError(f"{path} cannot be removed: {error.strerror}", "run as root") from None
    click.echo(f"removed {HOOK}; restart libvirtd to have it forget the hook")


@hook.command()
@click.option("--config", type=click.Path(path_type=Path), default="/etc/outlast/outlast.toml", show_default=True)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(config: Path, output: str) -> None:
    """Say whether libvirt really asks: exit code 0 only if it does."""
    from outlast.runtime.config import load_config

    loaded = load_config(config)
    problems: list[str] = []
    if not HOOK.exists() or not SETTINGS.exists():
        problems.append("it is not installed: outlast hook install")
    elif HOOK.read_text() != _script():
        problems.append(f"{HOOK} is of another installation: outlast hook install")
    elif json.loads(SETTINGS.read_text()).get("datastores") != [d.path for d in loaded.datastores]:
        problems.append("the settings have other datastores since it was installed: outlast hook install")
    else:
        problems += _libvirtd_problems()
    called = _last_call(Path(loaded.run_dir) / "hook-called")
    if output == "json":
        show_json({"installed": HOOK.exists(), "problems": problems, "last_call": called})
    else:
        for problem in problems:
            click.echo(f"problem: {problem}")
        if not problems:
            click.echo("the hook is installed, and libvirtd started after it was")
        if called is not None:
            ago = int(time.time()) - int(str(called["at"]))
            click.echo(f"libvirt last called it {ago} s ago: {called['operation']} of {called['name']}")
        else:
            click.echo("libvirt has not called it since this host booted; it does when the next VM starts")
    raise SystemExit(1 if problems else 0)


def _last_call(path: Path) -> dict[str, object] | None:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return None


def _libvirtd_problems() -> list[str]:
    """Whether the running libvirtd started after the hook was first there."""
    if shutil.which("pgrep") is None:
        return ["pgrep is missing, so libvirtd's start cannot be told: apt-get install procps"]
    done = subprocess.run(["pgrep", "-o", "-x", "libvirtd|virtqemud"], check=False, capture_output=True, text=True)
    pids = done.stdout.split()
    if not pids:
        return ["libvirtd does not run: systemctl start libvirtd"]
    ticks = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[19])
    started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
    # The directory is made once, and its birth is not touched by a later install; a rename into it moves its mtime.
    if HOOK.parent.stat().st_ctime > started and HOOK.stat().st_mtime > started:
        return ["libvirtd started before the hook was installed: systemctl restart libvirtd"]
    return []
