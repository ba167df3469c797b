"""`outlast settings`: the settings of the whole fault domain, shown and changed while it runs."""

import datetime
from pathlib import Path

import rich_click as click
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from outlast.interfaces.commanding import give
from outlast.interfaces.local_agent import SOCKET, ask
from outlast.interfaces.output import AS_JSON, OutlastGroup, show_json
from outlast.model.commands import ChangeSettings
from outlast.model.errors import OutlastError, UsageError
from outlast.model.settings import parse_setting
from outlast.model.status import SettingsView
from outlast.runtime.control import ControlRequest


@click.group(cls=OutlastGroup)
def settings() -> None:
    """The settings of the whole fault domain: what the hosts use, and changing it while they run."""


@settings.command(name="list")
@AS_JSON
@SOCKET
def list_(*, as_json: bool, path: Path) -> None:
    """Show every setting that this host uses, and which version the other hosts use."""
    found = view(path)
    if as_json:
        show_json(found)
    else:
        Console(highlight=False).print(screen(found))


@settings.command()
@click.argument("name")
@AS_JSON
@SOCKET
def get(name: str, *, as_json: bool, path: Path) -> None:
    """Show the value of one setting, alone."""
    found = view(path)
    if name not in found.settings:
        _parsed(name, "")
    if as_json:
        show_json({"name": name, "value": found.settings[name], "version": found.version})
    else:
        click.echo(found.settings[name])


@settings.command(name="set")
@click.argument("name")
@click.argument("value")
@click.argument("more", nargs=-1, metavar="[NAME VALUE]...")
@AS_JSON
@SOCKET
def set_(name: str, value: str, more: tuple[str, ...], *, as_json: bool, path: Path) -> None:
    """Give a setting another value on every host; several at once, where one alone would not fit to the others."""
    if len(more) % 2:
        raise UsageError(f"{more[-1]} has no value", "write NAME VALUE for each setting")
    pairs = [(name, value), *zip(more[::2], more[1::2], strict=True)]
    give(path, ChangeSettings({name: _parsed(name, value) for name, value in pairs}), as_json=as_json)


def _parsed(name: str, value: str) -> int | str:
    try:
        parsed: int | str = parse_setting(name, value)
    except ValueError as error:
        raise UsageError(f"{name} {error}", "`outlast settings list` shows them all; nothing was changed") from None
    return parsed


def view(path: Path) -> SettingsView:
    """What this host's agent says. Raises OutlastError."""
    reply = ask(path, ControlRequest("settings"))
    if reply.settings is None:
        raise OutlastError("the agent gave no settings", "restart it after an upgrade")
    return reply.settings


def screen(found: SettingsView) -> Group:
    """The whole screen."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("SETTING", "VALUE", "DEFAULT"):
        table.add_column(column, no_wrap=True)
    for name, value in found.settings.items():
        default = found.defaults.get(name, "")
        table.add_row(name, Text(value, style="bold" if value != default else ""), default if value != default else "")
    parts: list[RenderableType] = [table, Text(_version(found), style="dim")]
    if found.paused is not None:
        parts.append(Text(f"AUTOMATIC RECOVERY IS PAUSED by {found.paused.by}: {found.paused.reason or 'no reason given'}"))
    for host, version in found.hosts.items():
        if version is not None and version != found.version:
            parts.append(Text(f"! {host} uses version {version} still", style="yellow"))
    for name, value in found.file_differs.items():
        sentence = f"! this host's file says {name} = {value}, which does not count: the fault domain's settings do"
        parts.append(Text(sentence, style="yellow"))
    return Group(*parts)


def _version(found: SettingsView) -> str:
    if not found.version:
        return "version 0: what this host's file says; nobody has changed a setting of the fault domain yet"
    at = datetime.datetime.fromtimestamp(found.at_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
    return f"version {found.version}, changed by {found.by} on {at}"
