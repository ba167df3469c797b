"""`outlast vm`: what is wanted of one virtual machine.

What an operator wants of it now (`start`, `stop`, `protect`, `unprotect`) is kept beside the protected list, and followed
wherever it runs; it counts more than the definition. How it is brought back (`set`) lies in its definition, in libvirt on
the host where it is defined; Outlast takes it along from there.
"""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click
from rich.console import Console

from outlast.interfaces.commanding import give
from outlast.interfaces.local_agent import SOCKET, ask
from outlast.interfaces.output import AS_JSON, OutlastGroup, show_json
from outlast.interfaces.status_cli import vm_table
from outlast.interfaces.waiting import TIMEOUT, WAIT, wait_for_migration
from outlast.model.commands import MoveVm, Wanted, WantVm
from outlast.model.errors import OutlastError, UsageError
from outlast.model.ids import VmName
from outlast.model.policy import PRIORITIES, VmPolicy, cycle_in, parse_ready
from outlast.runtime.control import ControlRequest

_PATIENCE_S = 6.0
GUEST_WORDS = {"answers": "answers", "silent": "does not answer", "failed": "has failed"}
_URI = click.option("--uri", default="qemu:///system", show_default=True, help="Where libvirt is asked.")


@click.group(cls=OutlastGroup)
def vm() -> None:
    """What is wanted of one virtual machine, wherever it is: that it runs, its priority, how often it is tried."""


def _wish(name: str, wanted: Wanted, text: str) -> None:
    @vm.command(name=name, help=text)
    @click.argument("name")
    @AS_JSON
    @SOCKET
    def command(*, name: str, as_json: bool, path: Path) -> None:
        give(path, WantVm(vm=name, wanted=wanted), as_json=as_json)


_wish(
    "start",
    "running",
    "Have the VM NAME (or its uuid) run, on whatever host it may, and be restarted from now on; also one that has failed. "
    "A pause does not hold it.",
)
_wish(
    "stop",
    "stopped",
    "Shut the VM NAME down in order, wherever it runs, and keep it off: no failover starts it. When `shutdown_timeout` is "
    "over its process is killed. `outlast vm start`, or a start by hand, ends that.",
)
_wish("protect", "protected", "Have the VM NAME restarted when its host dies, whatever its definition says.")
_wish(
    "unprotect",
    "unprotected",
    "Leave the VM NAME alone: it is not restarted, and no isolation response ends it. What keeps it from running twice "
    "goes on.",
)


@vm.command()
@click.argument("name")
@click.argument("host")
@click.option("--force", is_flag=True, help="Also if it has no room there, or a required rule forbids it.")
@WAIT
@TIMEOUT
@AS_JSON
@SOCKET
def migrate(*, name: str, host: str, force: bool, wait: bool, timeout_s: float | None, as_json: bool, path: Path) -> None:
    """Have the running VM NAME go on, without a stop, on HOST. Returns when the copying has begun.

    With --wait, when it is there: exit code 0; 3 if it goes on where it was; 4 if the time is over. Whatever fails on the
    way, it has one owner and goes on: where it is, or there.
    """
    give(path, MoveVm(vm=name, host=host, force=force), as_json=as_json)
    if wait:
        wait_for_migration(path, name, host, timeout_s)


@vm.command(name="set")
@click.argument("name")
@click.option("--priority", type=click.Choice(PRIORITIES), help="The most important are started first.")
@click.option("--after", multiple=True, help="A VM that must be ready before; again for each. Replaces those before.")
@click.option("--no-after", is_flag=True, help="It waits for none.")
@click.option("--ready", metavar="HOW", help="powered-on, guest-heartbeat, or delay:30s.")
@click.option("--max-restarts", type=click.IntRange(-1), help="On the host where it failed; -1: without end.")
@click.option("--max-relocations", type=click.IntRange(-1), help="Other hosts after that; -1: without end.")
@click.option(
    "--isolation-response",
    type=click.Choice(["leave-running", "shut-down", "power-off", "default"]),
    help="What becomes of it when its host is isolated; default: as the settings say.",
)
@click.option(
    "--guest-monitoring",
    type=click.Choice(["on", "off", "default"]),
    help="Whether it is reset when its guest hangs; default: as the settings say.",
)
@click.option("--protected/--unprotected", default=None, help="What its definition says; `outlast vm protect` counts more.")
@_URI
@SOCKET
def set_policy(
    *,
    name: str,
    priority: str | None,
    after: tuple[str, ...],
    no_after: bool,
    ready: str | None,
    max_restarts: int | None,
    max_relocations: int | None,
    isolation_response: str | None,
    guest_monitoring: str | None,
    protected: bool | None,
    uri: str,
    path: Path,
) -> None:
    """Change how the VM NAME, which is defined on this host, is brought back. What is not named stays as it is."""
    from outlast.drivers.hypervisor.policies import change_policy, local_policies

    wanted = {
        "priority": priority,
        "after": () if no_after else tuple(map(VmName, after)) or None,
        "ready": _ready(ready),
        "max_restarts": max_restarts,
        "max_relocations": max_relocations,
    }
    changes: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    for key, word in (("isolation_response", isolation_response), ("guest_monitoring", guest_monitoring)):
        if word is not None:
            changes[key] = None if word == "default" else word
    if not changes and protected is None:
        raise UsageError("nothing is to be changed", "see `outlast vm set --help`")
    if "after" in changes:
        _refuse_rings(name, changes["after"], _after_of_all(path) | local_policies(uri))
    policy = change_policy(uri, name, changes, protected)
    click.echo(f"{name}: {_told(policy.how)}{'' if policy.protected else '; it is not protected'}")


def _ready(text: str | None) -> object:
    try:
        return parse_ready(text) if text is not None else None
    except ValueError as error:
        raise UsageError(f"--ready: {error}", "write one of these") from None


def _after_of_all(path: Path) -> dict[str, tuple[str, ...]]:
    """Whom every VM waits for, as far as this host's agent knows. Without an agent, as far as this host's libvirt does."""
    try:
        status = ask(path, ControlRequest("status")).status
    except OutlastError as error:
        click.echo(f"rings are looked for on this host alone: {error.message}", err=True)
        return {}
    return {each.name: each.policy.after for each in status.vms if each.policy is not None} if status is not None else {}


def _refuse_rings(name: str, after: tuple[str, ...], known: Mapping[str, tuple[str, ...]]) -> None:
    for other in after:
        if other not in known:
            click.echo(f"no VM {other} is known here: {name} waits for it only if there is one", err=True)
    ring = cycle_in({**known, name: after})
    if ring:
        waits = ", ".join(f"{a} waits for {b}" for a, b in zip(ring, (*ring[1:], ring[0]), strict=True))
        raise UsageError(f"these VMs would wait for each other: {waits}", "leave one of them out; nothing was changed")


def _told(policy: VmPolicy) -> str:
    after = f", after {', '.join(policy.after)}" if policy.after else ""
    return (
        f"priority {policy.priority}{after}, ready by {policy.ready}, max_restarts {policy.max_restarts}, "
        f"max_relocations {policy.max_relocations}, isolation response {policy.isolation_response or 'default'}, "
        f"guest monitoring {policy.guest_monitoring or 'default'}"
    )


@vm.command(name="list")
@click.option("--host", help="Only those of this host.")
@AS_JSON
@SOCKET
def list_(*, host: str | None, as_json: bool, path: Path) -> None:
    """Show every VM: where it runs, how it is, and whether it is protected."""
    status = ask(path, ControlRequest("status")).status
    if status is None:
        raise OutlastError("the agent gave no status", "restart it after an upgrade")
    if host is not None and host not in (known := [each.name for each in status.hosts]):
        raise UsageError(f"there is no host {host}", f"there are {', '.join(known)}")
    found = tuple(each for each in status.vms if host in (None, each.host))
    if as_json:
        show_json(found)
    else:
        Console(highlight=False).print(vm_table(found))


@vm.command()
@click.argument("name")
@AS_JSON
@SOCKET
def show(*, name: str, as_json: bool, path: Path) -> None:
    """Say what is wanted of the VM NAME, as this host's agent knows it."""
    status = ask(path, ControlRequest("status")).status
    found = next((each for each in status.vms if name in (each.name, each.uuid)), None) if status is not None else None
    if found is None or found.policy is None:
        raise OutlastError(f"the agent knows no policy of a VM {name}", "see `outlast status`; on its own host it is known")
    if as_json:
        told: dict[str, object] = {"guest": found.guest, "guest_resets": found.guest_resets}
        told |= {"migration": found.migration} if found.migration is not None else {}
        show_json({"name": found.name, "protected": found.protected, **msgspec.to_builtins(found.policy), **told})
    else:
        note = f" ({found.note})" if found.note else ""
        guest = f"; its guest {GUEST_WORDS[found.guest]}" if found.guest else ""
        click.echo(f"{found.name}: {_told(found.policy)}{guest}{'' if found.protected else f'; it is not protected{note}'}")
        if found.migration is not None:
            click.echo(found.migration.sentence)


@vm.command()
@click.argument("name")
@SOCKET
def retry(*, name: str, path: Path) -> None:
    """Have the VM NAME tried once more: one that has failed, or one of priority `disabled`. A pause does not hold it."""
    token, until = secrets.token_hex(8), time.monotonic() + _PATIENCE_S
    while ask(path, ControlRequest("retry", name=name, token=token)).pending:
        if time.monotonic() > until:
            raise OutlastError("the primary gives no answer", "see `outlast status`")
        time.sleep(0.1)
    click.echo(f"{name} is tried once more; see `outlast events -f`")
