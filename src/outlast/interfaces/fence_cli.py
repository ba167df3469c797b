"""`outlast fence`: try a host's fence devices, switching nothing; and give an operator's word that a host is off."""

from pathlib import Path

import rich_click as click

from outlast.interfaces.local_agent import SOCKET, ask
from outlast.interfaces.output import OutlastGroup
from outlast.model.errors import OutlastError
from outlast.runtime.control import ControlRequest

TEST_TIMEOUT_S = 90.0
WORD_TIMEOUT_S = 15.0


@click.group(cls=OutlastGroup)
def fence() -> None:
    """Fence devices, and what an operator knows better than any of them."""


@fence.command()
@click.argument("host")
@SOCKET
def test(host: str, path: Path) -> None:
    """Ask HOST's fence devices, from this host, whether it is on. Nothing is switched."""
    reply = ask(path, ControlRequest("fence-test", name=host), TEST_TIMEOUT_S)
    for line in reply.lines:
        click.echo(line)
    if reply.failed:
        raise OutlastError(f"not every fence device of {host} works", "see docs/setup.md, Fence devices")


@fence.command()
@click.argument("host")
@click.option("--yes", is_flag=True, help="Do not ask: I have made sure that the host is off.")
@SOCKET
def confirm(host: str, path: Path, *, yes: bool) -> None:
    """Say that HOST is off, when nothing else can prove it. Its VMs are then started elsewhere.

    The word is about the boot that is shown, and void as soon as the host shows life.
    """
    shown = ask(path, ControlRequest("fence-marks", name=host))
    for line in shown.lines:
        click.echo(line)
    click.secho(
        f"\nWARNING: if {host} still runs, its virtual machines will run TWICE, and their disks will be destroyed.\n"
        "Go and look: its power must be off, or its cables to the storage must be out. A silent host is not an off host.",
        fg="red",
        bold=True,
        err=True,
    )
    if not yes:
        typed = click.prompt(f"Type the name of the host to confirm that {host} is off", default="", show_default=False)
        if typed != host:
            raise OutlastError(f"{typed!r} is not {host!r}: nothing was confirmed", "nothing has changed")
    reply = ask(path, ControlRequest("fence-confirm", name=host, marks=shown.marks), WORD_TIMEOUT_S)
    for line in reply.lines:
        click.echo(line)
