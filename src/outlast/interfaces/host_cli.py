"""`outlast host`: the hosts, one or all; keeping one empty for maintenance; what is said of its hardware."""

from pathlib import Path

import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from outlast.interfaces.commanding import give
from outlast.interfaces.going_down_cli import going_down
from outlast.interfaces.local_agent import SOCKET, ask
from outlast.interfaces.output import AS_JSON, OutlastGroup, show_json
from outlast.interfaces.status_cli import host_role, is_heard
from outlast.interfaces.waiting import TIMEOUT, WAIT, wait_until_empty
from outlast.model.commands import DrainHost, ReportHealth, UndrainHost
from outlast.model.errors import OutlastError, UsageError
from outlast.model.health import HealthLevel
from outlast.model.planning import PlanBasis
from outlast.model.status import DomainStatus, HostStatus
from outlast.protocol.planning.emptying import plan_emptying
from outlast.runtime.control import ControlRequest

MOST_REASON = 200
"""Characters of a reason: it goes along in every copy of the settings, and in heartbeats."""
_LEVELS: tuple[HealthLevel, ...] = ("ok", "degraded", "failing")


def _short(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if len(value) > MOST_REASON:
        raise click.BadParameter(f"it is longer than {MOST_REASON} characters")
    return value


_REASON = click.option("--reason", default="", callback=_short, help="Why; everybody sees it in `outlast status`.")


@click.group(cls=OutlastGroup)
def host() -> None:
    """The hosts of the fault domain: how they are, and which of them is kept empty."""


host.add_command(going_down)


@host.command(name="list")
@AS_JSON
@SOCKET
def list_(*, as_json: bool, path: Path) -> None:
    """Show every host: its verdict, its VMs, its hardware, and whether it is kept empty."""
    found = _status(path).hosts
    if as_json:
        show_json(found)
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("HOST", "VERDICT", "ROLE", "VMS", "HARDWARE", "KEPT EMPTY"):
        table.add_column(column, no_wrap=column != "KEPT EMPTY", overflow="fold")
    for each in found:
        role = "-" if not is_heard(each) else "primary" if each.primary else "secondary"
        kept = Text(each.kept_empty or "no", style="bold yellow" if each.kept_empty else "")
        health = Text(each.health, style="" if each.health == "ok" else "yellow")
        table.add_row(each.name, each.verdict, role, str(each.vms), health, kept)
    Console(highlight=False).print(table)


@host.command()
@click.argument("name")
@AS_JSON
@SOCKET
def show(*, name: str, as_json: bool, path: Path) -> None:
    """Show the host NAME (or its id), and the VMs that run there."""
    status = _status(path)
    found = _named(status, name)
    vms = [vm.name for vm in status.vms if vm.host == found.name]
    if as_json:
        show_json({"host": found, "vms": vms})
        return
    role = f", {host_role(found)}" if is_heard(found) else ""
    click.echo(f"{found.name} ({found.id}, {found.address}): {found.verdict}{role}")
    if found.kept_empty:
        click.echo(f"it is kept empty: {found.kept_empty}")
    if found.emptying:
        click.echo(f"what runs there still: {found.emptying}")
    click.echo(f"its hardware: {found.health}" + (f" ({found.health_reason})" if found.health_reason else ""))
    if is_heard(found):
        click.echo(f"memory: {found.free_memory_mib / 1024:.1f} of {found.memory_mib / 1024:.1f} GiB free")
    click.echo(f"VMs: {', '.join(vms) or 'none'}")


@host.command()
@click.argument("name", metavar="HOST")
@_REASON
@click.option("--dry-run", is_flag=True, help="Only say where its VMs would go, and which of them could not.")
@WAIT
@TIMEOUT
@AS_JSON
@SOCKET
def drain(*, name: str, reason: str, dry_run: bool, wait: bool, timeout_s: float | None, as_json: bool, path: Path) -> None:
    """Empty HOST for maintenance, and keep it empty until `outlast host undrain`.

    Its VMs move to other hosts while they run, a few at a time; `outlast status` says how far that is. Nothing is started
    there, whatever happens: no failover chooses it, a start by hand is refused, also after a reboot of any host.

    With --wait it returns when HOST is empty: exit code 0; 3 if what is left stays there; 4 if the time is over.
    """
    if dry_run or not as_json:
        _foretell(_basis(path), name, as_json=as_json)
    if not dry_run:
        give(path, DrainHost(name, reason), as_json=as_json)
        if wait:
            wait_until_empty(path, name, timeout_s)


def _foretell(basis: PlanBasis, name: str, *, as_json: bool) -> None:
    """What becomes of the VMs of a host, by the plan that the primary would make now."""
    names = {each.id: each.name for each in basis.snapshot.hosts}
    host_id = next((each for each in names if name in (each, names[each])), None)
    if host_id is None:
        raise UsageError(f"there is no host {name}", f"the hosts are {', '.join(names.values())}; nothing was changed")
    found = plan_emptying(basis.snapshot, {host_id})
    stays = {vm.name: found.stays[vm.vm] for vm in basis.snapshot.vms if vm.vm in found.stays}
    moves = {each.vm.name: names[each.vm.host] for each in found.moves if each.vm.host is not None}
    if as_json:
        show_json({"host": names[host_id], "moves": moves, "stays": stays})
        return
    for vm, to in moves.items():
        click.echo(f"{vm}: moves to {to}")
    for vm, why in stays.items():
        click.echo(f"{vm}: stays, {why}")
    if not moves and not stays:
        click.echo(f"no VM runs on {names[host_id]}")


def _basis(path: Path) -> PlanBasis:
    reply = ask(path, ControlRequest("plan"))
    if reply.basis is None:
        raise OutlastError("the agent gave no plan", "restart it after an upgrade")
    return reply.basis


@host.command()
@click.argument("name", metavar="HOST")
@click.option("--return", "back", is_flag=True, help="Bring back the VMs that ran there when it was drained.")
@AS_JSON
@SOCKET
def undrain(*, name: str, back: bool, as_json: bool, path: Path) -> None:
    """Use HOST again: its maintenance is over.

    With --return its VMs come back, running, as far as rules and room allow, a few at a time; what finds no room is tried
    for an hour. `outlast host undrain HOST` once more ends that.
    """
    give(path, UndrainHost(name, back), as_json=as_json)


@host.command()
@click.argument("arguments", nargs=-1, required=True, metavar="[HOST] LEVEL")
@_REASON
@AS_JSON
@SOCKET
def health(*, arguments: tuple[str, ...], reason: str, as_json: bool, path: Path) -> None:
    """Say how the hardware of HOST is (default: this host): ok, degraded or failing. For scripts that watch it.

    A degraded host gets no new VMs if others can take them. A failing one is kept empty as long as it is, unless that were
    more than a quarter of the hosts (one at least). What was said holds until something else is said, also after a reboot.
    """
    *hosts, word = arguments
    level = next((each for each in _LEVELS if each == word), None)
    if level is None:
        raise UsageError(f"{word} is no level of health", f"write one of {', '.join(_LEVELS)}; nothing was changed")
    if len(hosts) > 1:
        raise UsageError(f"{len(hosts)} hosts are named", "name one, or none for this host; nothing was changed")
    give(path, ReportHealth(hosts[0] if hosts else "", level, reason), as_json=as_json)


def _status(path: Path) -> DomainStatus:
    reply = ask(path, ControlRequest("status"))
    if reply.status is None:
        raise OutlastError("the agent gave no status", "restart it after an upgrade")
    return reply.status


def _named(status: DomainStatus, name: str) -> HostStatus:
    found = next((each for each in status.hosts if name in (each.name, each.id)), None)
    if found is None:
        raise UsageError(f"there is no host {name}", f"the hosts are {', '.join(each.name for each in status.hosts)}")
    return found
