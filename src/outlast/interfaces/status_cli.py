"""`outlast status`: one screen with everything that matters now, as this host's agent sees it."""

import datetime
import time
from pathlib import Path

import rich_click as click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from outlast.interfaces.local_agent import SOCKET, ask
from outlast.interfaces.output import show_json
from outlast.model.errors import OutlastError
from outlast.model.planning import Outlook
from outlast.model.status import DatastoreStatus, DomainStatus, HostStatus, PauseStatus, VmStatus
from outlast.runtime.control import ControlRequest

_GOOD = {"connected", "running"}
_BAD = {"dead", "presumed-dead", "lost", "unresponsive", "isolated", "waiting", "failed"}


@click.command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("-w", "--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@SOCKET
def status(*, output: str, watch: bool, path: Path) -> None:
    """Show hosts with their verdicts, datastores, virtual machines, and what is wrong."""
    console = Console(highlight=False)
    if not watch:
        found = _status(path)
        if output == "json":
            show_json(found)
        else:
            console.print(screen(found))
        return
    try:
        if output == "json":
            while True:
                show_json(_status(path))
                time.sleep(1.0)
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                try:
                    shown: RenderableType = screen(_status(path))
                except OutlastError as error:
                    shown = Text(str(error), style="red")
                live.update(shown, refresh=True)
                time.sleep(1.0)
    except KeyboardInterrupt:
        return


def _status(path: Path) -> DomainStatus:
    reply = ask(path, ControlRequest("status"))
    if reply.status is None:
        raise OutlastError("the agent gave no status", "restart it after an upgrade")
    return reply.status


def screen(found: DomainStatus) -> Group:
    """The whole screen."""
    primary = f"primary {found.primary}, term {found.term}" if found.primary else "NO PRIMARY"
    head = Text.assemble(
        ("fault domain ", ""), (found.domain, "bold"), f"  {primary}  seen from {found.seen_from}  Outlast {found.version}"
    )
    parts: list[RenderableType] = [head]
    if found.paused is not None:
        parts.append(Text(_paused(found.paused), style="bold white on red"))
    parts += [Text(_kept_empty(host), style="bold black on yellow") for host in found.hosts if host.kept_empty]
    parts += [
        _outlook(found.outlook),
        _hosts(found.hosts),
        *_fencing(found.hosts),
        _datastores(found.datastores, len(found.hosts)),
        vm_table(found.vms),
    ]
    parts += [Text(f"! {problem}", style="yellow") for problem in found.problems]
    return Group(*parts)


def _paused(pause: PauseStatus) -> str:
    since = datetime.datetime.fromtimestamp(pause.at_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
    return f" AUTOMATIC RECOVERY IS PAUSED by {pause.by} since {since}: {pause.reason or 'no reason given'} "


def _kept_empty(host: HostStatus) -> str:
    """Loud: whoever forgets a host in maintenance has one host less."""
    kept = host.maintenance
    left = f"{host.vms} VM{'s' * (host.vms != 1)} left" if host.vms else "no VM is left"
    left += f" ({host.emptying})" if host.vms and host.emptying else ""
    if kept is None:
        return f" {host.name.upper()} IS KEPT EMPTY: {host.kept_empty}; {left} "
    since = datetime.datetime.fromtimestamp(kept.at_ms / 1000).strftime("%Y-%m-%d %H:%M:%S")
    return f" {host.name.upper()} IS IN MAINTENANCE by {kept.by} since {since}: {kept.reason or 'no reason given'}; {left} "


def _outlook(outlook: Outlook | None) -> Text:
    """How many hosts may be lost now, whichever they are, and what the next one would mean."""
    if outlook is None:
        return Text("survives: not known yet", style="dim")
    count = "no host failure" if not outlook.survives else f"{outlook.survives} host failure{'s' * (outlook.survives > 1)}"
    text = f"survives {'' if outlook.done else 'at least '}{count}, whichever it is"
    if outlook.why:
        text += f"; {outlook.why}" + ("" if outlook.proven else " (not proven)")
    if outlook.stale:
        text += " (before the last change; it is looked at anew)"
    return Text(text, style="red" if not outlook.survives else "yellow" if outlook.short else "green")


def _coloured(word: str) -> Text:
    return Text(word, style="green" if word in _GOOD else "red" if word in _BAD else "yellow")


def _table(*columns: str, folds: str = "") -> Table:
    """A table whose last column may fold, and one more: names and states stay whole on a terminal of 80 columns."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column not in (columns[-1], folds))
    return table


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def is_heard(host: HostStatus) -> bool:
    """Whether what it said last of itself is so still."""
    return host.verdict in ("connected", "storage-lost", "isolated") or host.here


def host_role(host: HostStatus) -> str:
    """What it is to the others."""
    if not is_heard(host):
        return "kept empty" if host.kept_empty else "-"
    notes = ["primary" if host.primary else "secondary"]
    notes += ["kept empty"] if host.kept_empty else []
    notes += [host.health] if host.health != "ok" else []
    return ", ".join(notes)


def _hosts(hosts: tuple[HostStatus, ...]) -> Table:
    table = _table("HOST", "VERDICT", "FOR", "ROLE", "VMS", "FREE", "LIBVIRT", "LEASES", folds="ROLE")
    for host in hosts:
        lapsed = f"lapsed on {', '.join(host.lapsed)}" if host.lapsed else f"good ({host.enforcement or 'unknown'})"
        alive = is_heard(host)
        table.add_row(
            Text(host.name + (" *" if host.here else ""), style="bold" if host.here else ""),
            _coloured(host.verdict),
            _seconds(host.verdict_age_s),
            host_role(host),
            str(host.vms),
            f"{host.free_memory_mib / 1024:.1f} GiB" if alive else "-",
            "-" if host.hypervisor_up is None or not alive else "up" if host.hypervisor_up else Text("down", "red"),
            Text(lapsed, style="red" if host.lapsed else "") if alive else "-",
        )
    return table


def _fencing(hosts: tuple[HostStatus, ...]) -> list[RenderableType]:
    """What there is to fence with; nothing where no host has a device."""
    table = _table("FENCING", "DEVICES", "ASKED", "LAST RESULT")
    for host in hosts:
        if host.fencing:
            result = Text(host.fence_result or "not asked yet", style="red" if host.fence_result_ok is False else "")
            table.add_row(host.name, ", ".join(host.fencing), _seconds(host.fence_result_age_s), result)
    return [table] if table.row_count else []


def _datastores(datastores: tuple[DatastoreStatus, ...], hosts: int) -> Table:
    table = _table("DATASTORE", "SCORE", "TYPE", "FREE", "RESPONSIBLE", "LEASE", "EXPIRY", "HOSTS")
    for each in datastores:
        lease = f"term {each.lease_term}" if each.lease_held else "lapsed"
        watched = "all" if len(each.heartbeats_of) == hosts else ", ".join(each.heartbeats_of)
        responsible = f"{each.responsible}, epoch {each.responsible_epoch}"
        table.add_row(
            each.name,
            "-" if each.score is None else str(each.score) if each.reachable else Text("not reached", style="red"),
            each.filesystem.removeprefix("fuse.") or "-",
            f"{each.free_bytes / 2**30:.1f} GiB" if each.reachable else "-",
            responsible if each.responsible else Text("nobody", style="yellow"),
            Text(lease, style="" if each.lease_held else "red"),
            "proof, at risk"
            if each.risk_accepted
            else "proof"
            if each.expiry_is_proof
            else Text("no proof", style="yellow"),
            watched or "none",
        )
    return table


def vm_table(vms: tuple[VmStatus, ...]) -> RenderableType:
    """A line for each VM; a sentence if there is none."""
    if not vms:
        return Text("no virtual machine runs", style="dim")
    table = _table("VM", "HOST", "STATE", "PROTECTED", "HOME", "EPOCH", "LEASE AGE", "NOTE")
    for vm in vms:
        table.add_row(
            vm.name,
            vm.host or "-",
            _coloured(vm.state),
            "yes" if vm.protected else Text("no", style="yellow"),
            vm.home or "-",
            "-" if vm.epoch is None else str(vm.epoch),
            _seconds(vm.lease_age_s),
            vm.note or (vm.migration.sentence if vm.migration is not None else ""),
        )
    return table
