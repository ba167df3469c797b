"""Which of Outlast's own commands the lab can use, and how it calls them.

A lab is useful before all of Outlast exists, and with an older one: what a command cannot do is left out, and said so.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from outlast.lab.configuration import CONFIG, DOMAIN
from outlast.lab.errors import LabError
from outlast.lab.host import Service, environment
from outlast.lab.layout import Layout

_WANTED = {
    "keeper": "the keeper's service is not started",
    "agent": "the agent's service is not started",
    "datastore init": "the datastores have no identity",
    "hook install": "libvirt's hook is not installed",
}
# libvirtd listens to TCP as well, for migration.
LIBVIRTD = Service("libvirtd", ["libvirtd", "--listen"], 5.0)


def outlast(*arguments: str) -> list[str]:
    """The command line of an Outlast command of this very installation."""
    return [str(Path(sys.executable).parent / "outlast"), *arguments]


def available(layout: Layout) -> set[str]:
    """The commands of Outlast that the lab wants and that exist."""
    if importlib.util.find_spec("outlast.interfaces.cli") is None:
        return set()

    def exists(command: str) -> bool:
        argv = outlast(*command.split(), "--help")
        try:
            done = subprocess.run(
                argv, check=False, capture_output=True, env=environment(layout), stdin=subprocess.DEVNULL, timeout=30
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(exists, _WANTED))
    return {command for command, answer in zip(_WANTED, answers, strict=True) if answer}


def missing_notes(commands: set[str]) -> list[str]:
    """What a lab without some of the commands lacks, as sentences."""
    return [f"`outlast {command}` does not exist: {lack}" for command, lack in _WANTED.items() if command not in commands]


def services(names: list[str]) -> list[Service]:
    """The services of a host, in the order in which they start. Raises LabError for a name that is none."""
    known = {
        "libvirtd": LIBVIRTD,
        "keeper": Service("keeper", outlast("keeper", "--config", str(CONFIG)), 2.0),
        "agent": Service("agent", outlast("agent", "--config", str(CONFIG)), 2.0),
    }
    unknown = [name for name in names if name not in known]
    if unknown:
        raise LabError(f"there is no service {unknown[0]}; services are {', '.join(known)}")
    return [known[name] for name in known if name in names]


def initialise_datastore(layout: Layout, datastore: str) -> None:
    """Give a datastore its identity. Raises LabError."""
    argv = outlast("datastore", "init", str(layout.backing(datastore)), "--name", datastore, "--domain", DOMAIN)
    done = subprocess.run(
        argv, check=False, capture_output=True, text=True, env=environment(layout), stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise LabError(f"{datastore} got no identity: {done.stderr.strip() or done.stdout.strip()}")
