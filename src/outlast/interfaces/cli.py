"""`outlast`: every command of it. Each group's module is loaded only when it is used, so that commands start fast."""

import importlib
from pathlib import Path

import rich_click as click

from outlast.interfaces.output import OutlastGroup

_GROUPS = {
    "datastore": "outlast.interfaces.datastore_cli:datastore",
    "host": "outlast.interfaces.host_cli:host",
    "hook": "outlast.interfaces.hook_cli:hook",
    "status": "outlast.interfaces.status_cli:status",
    "events": "outlast.interfaces.events_cli:events",
    "fence": "outlast.interfaces.fence_cli:fence",
    "explain": "outlast.interfaces.explain_cli:explain",
    "settings": "outlast.interfaces.settings_cli:settings",
    "vm": "outlast.interfaces.vm_cli:vm",
    "pause": "outlast.interfaces.pause_cli:pause",
    "resume": "outlast.interfaces.pause_cli:resume",
    "plan": "outlast.interfaces.plan_cli:plan",
    "metrics": "outlast.interfaces.metrics_cli:metrics",
    "simulate": "outlast.interfaces.simulate_cli:simulate",
    "lab": "outlast.lab.cli:lab",
}


class _LazyGroup(OutlastGroup):
    """Loads a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_GROUPS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _GROUPS:
            return super().get_command(ctx, cmd_name)
        module, _, name = _GROUPS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup)
@click.version_option(package_name="outlast")
def main() -> None:
    """Keeps the virtual machines of a group of libvirt/QEMU hosts running, and never runs one twice."""


_CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    default="/etc/outlast/outlast.toml",
    show_default=True,
    help="The settings file.",
)


@main.command()
@_CONFIG
@click.option("--check", is_flag=True, help="Only check the settings file.")
def agent(config: Path, *, check: bool) -> None:
    """Run this host's agent (the service manager does)."""
    from outlast.protocol.planning.rulebook import resolve
    from outlast.runtime.config import fencing_warnings, load_config

    loaded = load_config(config)
    if check:
        for warning in fencing_warnings(loaded):
            click.echo(f"warning: {warning}", err=True)
        click.echo(f"{config} can be used: host {loaded.host.name} of the fault domain {loaded.domain}")
        for dropped in resolve(loaded.rules, loaded.hosts).dropped:
            click.echo(f"! {dropped}")
        return
    from outlast.runtime.agent_process import run_agent

    run_agent(loaded)


@main.command()
@_CONFIG
def keeper(config: Path) -> None:
    """Run this host's keeper (the service manager does)."""
    from outlast.keeper.launch import become_keeper
    from outlast.runtime.config import load_config

    become_keeper(load_config(config).for_keeper())
