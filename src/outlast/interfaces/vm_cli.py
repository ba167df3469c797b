"""`outlast vm`: what an operator wants of a VM, kept beside the protected list and followed wherever it runs."""

from pathlib import Path

import rich_click as click

from outlast.interfaces.commanding import give
from outlast.interfaces.local_agent import DEFAULT_SOCKET
from outlast.interfaces.output import OutlastGroup
from outlast.model.commands import Wanted, WantVm


@click.group(cls=OutlastGroup)
def vm() -> None:
    """What is wanted of a virtual machine: that it runs, is off, is protected or left alone, wherever it is."""


def _command(name: str, wanted: Wanted, text: str) -> None:
    @vm.command(name=name, help=text)
    @click.argument("vm", metavar="VM")
    @click.option("--json", "as_json", is_flag=True, help="Show the outcome as JSON.")
    @click.option("--socket", "path", type=click.Path(path_type=Path), default=DEFAULT_SOCKET, hidden=True)
    def command(vm: str, *, as_json: bool, path: Path) -> None:
        give(path, WantVm(vm=vm, wanted=wanted), as_json=as_json)


_command("start", "running", "Have VM (its name or uuid) run, on whatever host it may, and be restarted from now on.")
_command(
    "stop",
    "stopped",
    "Shut VM down in order, wherever it runs, and keep it off: no failover starts it. When `shutdown_timeout` is over its "
    "process is killed. `outlast vm start`, or a start by hand, ends that.",
)
_command("protect", "protected", "Have VM restarted when its host dies, whatever its definition says.")
_command(
    "unprotect",
    "unprotected",
    "Leave VM alone: it is not restarted, and no isolation response ends it. What keeps it from running twice goes on.",
)
