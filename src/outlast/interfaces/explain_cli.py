"""`outlast explain`: the evidence and the rule behind the present state of a host, a VM or a datastore, in sentences."""

from pathlib import Path
from typing import Literal

import rich_click as click

from outlast.interfaces.local_agent import SOCKET, ask
from outlast.interfaces.output import OutlastGroup, show_json
from outlast.runtime.control import ControlRequest


@click.group(cls=OutlastGroup)
def explain() -> None:
    """Say why a host, a VM or a datastore is in the state that it is in."""


def _command(what: Literal["host", "vm", "datastore"]) -> None:
    @explain.command(name=what, help=f"Explain a {what}.")
    @click.argument("name")
    @click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
    @SOCKET
    def command(name: str, output: str, path: Path) -> None:
        reply = ask(path, ControlRequest("explain", what, name))
        if output == "json":
            show_json({"what": what, "name": name, "lines": reply.lines})
            return
        for line in reply.lines:
            click.echo(line)


for _what in ("host", "vm", "datastore"):
    _command(_what)
