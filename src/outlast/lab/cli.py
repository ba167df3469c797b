"""`outlast lab`: the lab's command line. Each command is one call of `Lab`; the verbs are those of the scenarios.

Errors are one sentence with the remedy; exit code 1. A command used wrongly: exit code 2. `exec` gives the exit code of
its command.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from outlast.lab import bench, compare_cli, demo, moving, outlast_view, power_strip
from outlast.lab import host as hosts_module
from outlast.lab.errors import LabError
from outlast.lab.lab import Lab
from outlast.model.errors import UsageError

_STATE_COLOURS = {"on": "green", "running": "green", "off": "red", "dead": "red", "stopped": "yellow", "frozen": "cyan"}


class _Group(click.RichGroup):
    """A group whose commands turn the lab's errors into a message without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LabError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group)
def lab() -> None:
    """Real hosts, libvirt and virtual machines on this machine, and faults to try Outlast with.

    The lab lies in /var/lib/outlast-lab, or where OUTLAST_LAB says.
    """


@lab.command()
@click.option("--hosts", default=3, show_default=True, help="How many hosts.")
@click.option("--datastores", default=2, show_default=True, help="How many datastores.")
@click.option("--vms", default=4, show_default=True, help="How many virtual machines.")
@click.option("--start/--no-start", default=False, show_default=True, help="Also start the virtual machines.")
@click.option("--setting", "settings", multiple=True, metavar="NAME=VALUE", help="A setting of the fault domain.")
@click.option("--fencing/--no-fencing", default=False, show_default=True, help="Give every host a fence device.")
@click.option(
    "--service", "services", multiple=True, help="Run only these services on the hosts (libvirtd, keeper, agent)."
)
def up(
    *,
    hosts: int,
    datastores: int,
    vms: int,
    start: bool,
    settings: tuple[str, ...],
    fencing: bool,
    services: tuple[str, ...],
) -> None:
    """Make and boot a lab."""
    began = time.monotonic()
    here = Lab()
    notes = here.up(hosts, datastores, vms, settings=_settings(settings), services=services or None, fencing=fencing)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    if start:
        if "agent" in here.state().services:
            outlast_view.wait_ready(here)
        moving.start_all(here)
    seconds = time.monotonic() - began
    click.echo(f"the lab is up after {seconds:.1f} s: {hosts} hosts, {datastores} datastores, {vms} virtual machines")


def _settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--setting")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found[name] = value if isinstance(value, bool | int | float | str | list) else text
    return found


@lab.command()
def down() -> None:
    """Remove the lab and everything that is left of it."""
    Lab().down()


@lab.command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def status(output: str) -> None:
    """Show hosts, services, virtual machines and faults."""
    found = Lab().status()
    if output == "json":
        click.echo(json.dumps(found, indent=1))
        return
    _show(found)


def _coloured(text: str) -> str:
    colour = _STATE_COLOURS.get(text)
    return f"[{colour}]{text}[/]" if colour else escape(text)


def _show(found: dict[str, Any]) -> None:
    console = Console()
    table = Table(
        "host", "power", "address", "services", "guests", "faults", title=escape(found["root"]), title_justify="left"
    )
    network = found["network_faults"]
    for name, each in found["hosts"].items():
        faults = [f"{datastore}: {fault}" for datastore, fault in each["storage_faults"].items()]
        if each["outlet"] not in (None, "works"):
            faults.append(f"fence device {each['outlet']}")
        faults += [f"network {kind}" for kind in ("cut", "muted") if name in network[kind]]
        faults += [f"lost to {target}" for source, target in network["one_way"] if source == name]
        if name in network["loss"]:
            faults.append(f"loss {network['loss'][name]} %")
        services = ", ".join(f"{service} {_coloured(state)}" for service, state in each["services"].items())
        guests = ", ".join(f"{guest} {_coloured(state)}" for guest, state in each["guests"].items())
        table.add_row(name, _coloured(each["power"]), each["address"], services, guests, escape(", ".join(faults)))
    console.print(table)
    table = Table("virtual machine", "datastore", "runs on", "boots", "records", "problems")
    for name, each in found["vms"].items():
        where = ", ".join(each["running_on"]) or "nowhere"
        table.add_row(
            name, each["datastore"], where, str(each["boots"]), str(each["records"]), escape("; ".join(each["problems"]))
        )
    console.print(table)
    if network["isolation_address_cut"]:
        console.print("the isolation address is cut")
    for note in found["notes"]:
        console.print(f"note: {note}", markup=False)


@lab.command()
@click.argument("host")
def shell(host: str) -> None:
    """Open a shell inside HOST."""
    _replace_by(host, ["/bin/bash", "-i"])


@lab.command(name="exec", context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(host: str, command: tuple[str, ...]) -> None:
    """Run a COMMAND inside HOST: outlast lab exec host1 -- virsh list."""
    _replace_by(host, list(command))


def _replace_by(host: str, argv: list[str]) -> None:
    here = Lab()
    command = [*hosts_module.enter(here.init(host)), *argv]
    os.execvpe(command[0], command, hosts_module.environment(here.layout))


def _host_verb(name: str, summary: str, work: Callable[[Lab, str], None]) -> None:
    """Add a command whose only argument is a host."""

    @lab.command(name=name, help=summary)
    @click.argument("host")
    def verb(host: str) -> None:
        work(Lab(), host)


def _reboot(here: Lab, host: str) -> None:
    here.power_off(host)
    here.power_on(host)


_host_verb("power-off", "Pull the plug of HOST: everything in it dies at once.", Lab.power_off)
_host_verb("power-on", "Boot HOST.", Lab.power_on)
_host_verb("reboot", "Pull the plug of HOST and put it in again.", _reboot)
_host_verb("shut-down", "Shut HOST down in order: its guests, its services, its power.", Lab.shut_down)
_host_verb("network-heal", "End every fault of HOST's network.", Lab.network_heal)


def _service_verbs(word: str, service: str, stop: str) -> None:
    """Add the commands that act on a service of a host."""
    _host_verb(
        f"{word}-kill", f"SIGKILL {service} of HOST; it starts again soon.", lambda at, host: at.service_kill(host, service)
    )
    _host_verb(f"{word}-{stop}", f"SIGSTOP {service} of HOST: it hangs.", lambda at, host: at.service_stop(host, service))
    _host_verb(f"{word}-resume", f"SIGCONT {service} of HOST.", lambda at, host: at.service_resume(host, service))
    _host_verb(
        f"{word}-restart",
        f"End {service} of HOST and start it at once.",
        lambda at, host: at.service_restart(host, service),
    )


_service_verbs("agent", "agent", "stop")
_service_verbs("keeper", "keeper", "stop")
_service_verbs("hypervisor", "libvirtd", "hang")


@lab.command()
@click.argument("host")
@click.argument("how", type=click.Choice(power_strip.OUTLETS))
def outlet(host: str, how: str) -> None:
    """Let the fence device of HOST work, fail, hang, or lie: say that the host is off and do nothing."""
    Lab().outlet(host, how)


@lab.command(name="network-cut")
@click.argument("host")
@click.option("--one-way", is_flag=True, help="Only what the host sends is lost.")
def network_cut(host: str, one_way: bool) -> None:
    """Cut HOST from the network."""
    Lab().network_cut(host, one_way=one_way)


@lab.command(name="network-loss")
@click.argument("host")
@click.argument("percent", type=int)
def network_loss(host: str, percent: int) -> None:
    """Lose PERCENT of HOST's packets, in each direction; 0 ends it."""
    Lab().network_loss(host, percent)


@lab.command()
@click.argument("groups", nargs=-1, required=True, metavar="HOST[,HOST...]...")
@click.option("--one-way", is_flag=True, help="Only what an earlier group sends to a later one is lost.")
@click.option("--heal", is_flag=True, help="End this partition.")
def partition(groups: tuple[str, ...], one_way: bool, heal: bool) -> None:
    """Let nothing pass between groups of hosts: outlast lab partition host1 host2,host3."""
    if len(groups) < 2:
        raise click.BadArgumentUsage("a partition needs two groups of hosts or more")
    parts = [group.split(",") for group in groups]
    here = Lab()
    (here.partition_heal if heal else here.partition)(parts, one_way=one_way)


@lab.command(name="isolation-address-cut")
def isolation_address_cut() -> None:
    """Let the isolation address answer no ping."""
    Lab().isolation_address_cut()


@lab.command(name="isolation-address-heal")
def isolation_address_heal() -> None:
    """Let the isolation address answer again."""
    Lab().isolation_address_heal()


def _storage_verb(name: str, summary: str, work: Callable[[Lab, str, str], None]) -> None:
    """Add a command with a host and a datastore."""

    @lab.command(name=name, help=summary)
    @click.argument("host")
    @click.argument("datastore")
    def verb(host: str, datastore: str) -> None:
        work(Lab(), host, datastore)


_storage_verb("storage-cut", "Let HOST's I/O on DATASTORE hang.", Lab.storage_cut)
_storage_verb("storage-lost", "Let HOST's I/O on DATASTORE fail at once.", Lab.storage_lost)
_storage_verb("storage-heal", "End HOST's faults on DATASTORE.", Lab.storage_heal)


@lab.command(name="storage-slow")
@click.argument("host")
@click.argument("datastore")
@click.argument("milliseconds", type=click.IntRange(min=0))
def storage_slow(host: str, datastore: str, milliseconds: int) -> None:
    """Let each read and write of HOST on DATASTORE take MILLISECONDS longer."""
    Lab().storage_slow(host, datastore, milliseconds)


@lab.command(name="host-stall")
@click.argument("host")
@click.argument("seconds", type=click.FloatRange(min=0.0))
def host_stall(host: str, seconds: float) -> None:
    """Let nothing run on HOST for SECONDS, then let it go on."""
    Lab().host_stall(host, seconds)


@lab.command(name="vm-start")
@click.argument("vm")
@click.argument("host")
def vm_start(vm: str, host: str) -> None:
    """Start VM on HOST, as an operator would with virsh."""
    done = Lab().vm_start(vm, host)
    if done.returncode != 0:
        raise LabError(f"{vm} did not start on {host}: {done.stderr.strip()}")


@lab.command(name="vm-crash")
@click.argument("vm")
def vm_crash(vm: str) -> None:
    """Kill VM's process, wherever it runs."""
    Lab().vm_crash(vm)


@lab.command(name="guest-log")
@click.argument("host")
@click.argument("vm")
@click.option("-n", "--lines", default=20, show_default=True, help="How many of the last lines.")
def guest_log(host: str, vm: str, lines: int) -> None:
    """Show what VM printed while it ran on HOST."""
    for line in Lab().guest_log(host, vm)[-lines:]:
        click.echo(line)


@lab.command(name="run")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--timeline", is_flag=True, help="Also tell what happened, and all that did not hold.")
def run_scenario(file: Path, *, as_json: bool, timeline: bool) -> None:
    """Play the scenario in FILE on a lab of its own, in real time.

    Exit code 0: all that it expects held. 1: some did not, or the lab failed. 2: a lab cannot play it.
    """
    from outlast.interfaces import simulate_cli
    from outlast.lab import run
    from outlast.scenario.reading import read_file

    try:
        scenario = read_file(file)
        result = run.run(Lab(), scenario, lambda text: click.echo(text, err=True))
    except UsageError as error:
        click.echo(str(error), err=True)
        raise SystemExit(error.exit_code) from None
    if as_json:
        click.echo(msgspec.json.encode(result).decode())
    else:
        click.echo(simulate_cli.line(scenario.path or scenario.title, result))
        for text in simulate_cli.told(result) if timeline else simulate_cli.wrong(result):
            click.echo(f"  {text}")
    raise SystemExit(0 if result.passed else 1)


lab.add_command(compare_cli.compare)


@lab.command(name="demo")
def demonstration() -> None:
    """Show on three hosts what Outlast does when power, network and storage go. Cleans up behind itself."""
    raise SystemExit(demo.run(Lab()))


@lab.command(name="bench-failover")
@click.option("--runs", default=10, show_default=True, help="How many power losses of each kind.")
@click.option("--fencing/--no-fencing", default=False, show_default=True, help="Give every host a fence device.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench_failover(*, runs: int, fencing: bool, as_json: bool) -> None:
    """Measure the way from a power loss to the guest's first line, for a secondary and for the primary."""
    bench.failover(Lab(), runs, fencing=fencing, as_json=as_json)


@lab.command(name="bench-idle")
@click.option("--seconds", default=60, show_default=True, help="How long to measure.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench_idle(seconds: int, as_json: bool) -> None:
    """Measure what Outlast costs on an idle host: CPU seconds a minute and memory (PSS)."""
    bench.idle(Lab(), seconds, as_json=as_json)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    lab(prog_name="outlast lab")
