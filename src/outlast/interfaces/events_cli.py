"""`outlast events`: what happened, with reasons, as this host's agent wrote it down, its own and what others told it."""

import datetime
import os
import time
from collections.abc import Callable
from pathlib import Path

import rich_click as click
from rich.console import Console
from rich.text import Text

from outlast.model.errors import OutlastError
from outlast.model.event_texts import WARNINGS
from outlast.runtime.event_log import LoggedEvent, read

LOOK_EVERY_S = 0.2


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on.")
@click.option("-n", "--lines", default=50, show_default=True, help="How many of the last events; 0 for all.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--vm", default="", help="Only events about this VM.")
@click.option("--host", default="", help="Only events about this host.")
@click.option(
    "--log",
    "path",
    type=click.Path(path_type=Path),
    default="/var/lib/outlast/events.jsonl",
    show_default=True,
    help="The event log.",
)
def events(*, follow: bool, lines: int, output: str, vm: str, host: str, path: Path) -> None:
    """Show what happened, oldest first."""

    def wanted(event: LoggedEvent) -> bool:
        return (not vm or event.vm == vm) and (not host or host in (event.host, event.reporter))

    def show(event: LoggedEvent) -> None:
        if output == "json":
            click.echo(json_line(event))
        else:
            console.print(as_text(event), soft_wrap=True)

    console = Console(highlight=False)
    try:
        found = [event for event in read(path) if wanted(event)]
        for event in found[-lines:] if lines else found:
            show(event)
        if not follow:
            return
        while not path.exists():
            time.sleep(LOOK_EVERY_S)
        _follow(path, lambda event: show(event) if wanted(event) else None)
    except OSError as error:
        raise OutlastError(f"the event log {path} cannot be read: {error.strerror}", "run as root on a host") from None
    except KeyboardInterrupt:
        return


def json_line(event: LoggedEvent) -> str:
    """One event as one line of JSON."""
    import msgspec

    return msgspec.json.encode(event).decode()


def as_text(event: LoggedEvent) -> Text:
    """One event as a line for people: local time, who reports it, the sentence."""
    at = datetime.datetime.fromtimestamp(event.at_ms / 1000).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    style = "yellow" if event.kind in WARNINGS else "bold" if event.kind.startswith("restart-") else ""
    return Text.assemble((at, "dim"), " ", (f"{event.reporter:<8}", "cyan"), " ", (event.text, style))


def _follow(path: Path, take: Callable[[LoggedEvent], None]) -> None:
    """Show lines as they are appended; a log that was put aside is left for the new one."""
    import msgspec

    decode = msgspec.json.Decoder(LoggedEvent).decode
    file = path.open("rb")
    file.seek(0, 2)
    while True:
        line = file.readline()
        if line.endswith(b"\n"):
            take(decode(line))
            continue
        file.seek(-len(line), 1)
        time.sleep(LOOK_EVERY_S)
        if path.exists() and path.stat().st_ino != _inode(file.fileno()):
            file.close()
            file = path.open("rb")


def _inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino
