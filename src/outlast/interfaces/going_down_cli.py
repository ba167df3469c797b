"""`outlast host going-down`: what the service manager runs before it stops anything, and what holds a shutdown up.

It must never hold one up for good: an agent that gives no answer is waited for GIVES_UP_S, and one that answers sees to it
itself that it lets the host go (`protocol/departure.py`).
"""

import time
from pathlib import Path
from typing import Literal

import rich_click as click

from outlast.drivers.host_shutdown import how_it_goes_down
from outlast.interfaces.local_agent import SOCKET, ask
from outlast.model.errors import OutlastError
from outlast.runtime.control import ControlReply, ControlRequest

GIVES_UP_S = 10.0
ASKS_EVERY_S = 0.5


@click.command(name="going-down")
@click.option("--reboot", "how", flag_value="reboot", help="It boots again. Default: what systemd says.")
@click.option("--power-off", "how", flag_value="power-off", help="It does not.")
@SOCKET
def going_down(*, how: Literal["reboot", "power-off"] | None, path: Path) -> None:
    """Say that this host goes down, and wait until it may: for outlast-shutdown.service, before any guest is stopped.

    What becomes of its VMs is the setting `host_shutdown_policy`. Outside of a shutdown it does nothing.
    """
    found = how or how_it_goes_down()
    if not found:
        click.echo("this host is not going down, as far as systemd says: nothing was done")
        return
    said, answered_at = "", time.monotonic()
    while True:
        try:
            reply = ask(path, ControlRequest("going-down", name=found))
        except OutlastError:
            if time.monotonic() - answered_at >= GIVES_UP_S:
                raise
        else:
            answered_at = time.monotonic()
            said = _tell(reply, said)
            if not reply.pending:
                return
        time.sleep(ASKS_EVERY_S)


def _tell(reply: ControlReply, said: str) -> str:
    text = "; ".join(reply.lines)
    if text and text != said:
        click.echo(text)
    return text
