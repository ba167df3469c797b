"""`outlast pause` and `outlast resume`: hold all automatic recovery for the whole fault domain, and go on with it."""

from pathlib import Path

import rich_click as click

from outlast.interfaces.commanding import give
from outlast.interfaces.local_agent import SOCKET
from outlast.interfaces.output import AS_JSON
from outlast.model.commands import PauseRecovery, ResumeRecovery


@click.command()
@click.option("--reason", default="", help="Why; everybody sees it in `outlast status`.")
@AS_JSON
@SOCKET
def pause(*, reason: str, as_json: bool, path: Path) -> None:
    """Restart nothing, and apply no isolation response, on any host, until `outlast resume`.

    What keeps a VM from running twice goes on: leases, freezes, the gate. What an operator asks for is done.
    """
    give(path, PauseRecovery(reason), as_json=as_json)


@click.command()
@AS_JSON
@SOCKET
def resume(*, as_json: bool, path: Path) -> None:
    """Go on with automatic recovery: what has waited is restarted now."""
    give(path, ResumeRecovery(), as_json=as_json)
