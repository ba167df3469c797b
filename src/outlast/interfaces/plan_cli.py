"""`outlast plan`: what would come of losing hosts, by the plan that the primary would make; and which loss is the worst.
`--optimise` is `plan_optimised.py`.

The agent of this host gives a snapshot; everything else is done here, so that no agent is kept busy by a question.
"""

import time
from pathlib import Path

import msgspec
import rich_click as click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from outlast.drivers import optimiser
from outlast.interfaces.local_agent import SOCKET, ask
from outlast.interfaces.output import show_json
from outlast.interfaces.plan_optimised import OptimisedAnswer, ask_optimiser, show_optimised
from outlast.model.errors import OutlastError, UsageError
from outlast.model.ids import HostId
from outlast.model.planning import Foretold, PlanBasis
from outlast.protocol.planning.explaining import Explanation, explain
from outlast.protocol.planning.foretelling import foretell, loss_of, ranked
from outlast.protocol.planning.planner import make_plan
from outlast.protocol.planning.problem import Problem
from outlast.protocol.planning.worst import Worst, worst_losses
from outlast.runtime.control import ControlRequest


class WorstLoss(msgspec.Struct, frozen=True, kw_only=True):
    """What `--worst --json` prints. `at_most`: no loss that was not looked at leaves more VMs waiting."""

    hosts: tuple[str, ...]
    looked_at: int
    losses: int
    proven: bool
    at_most: int
    foretold: Foretold


class PlanAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What `--optimise --json` prints. `recovery`: what is printed without `--optimise`."""

    recovery: Foretold | WorstLoss
    optimised: OptimisedAnswer


@click.command()
@click.option("--fail", metavar="HOST[,HOST...]", help="What would come of losing these hosts at once.")
@click.option(
    "--worst", "count", type=click.IntRange(min=1), metavar="N", help="The N hosts that would be the worst to lose."
)
@click.option("--explain", "about", metavar="VM", help="Every host that was considered for this VM, and why.")
@click.option("--optimise", is_flag=True, help="Look for a better plan than recovery's, with OR-tools (if installed).")
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0),
    default=20.0,
    show_default=True,
    help="Seconds for --worst, and for --optimise.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE", help="Also write what the plan was made from.")
@click.option("--from", "source", type=click.Path(path_type=Path), metavar="FILE", help="Plan from such a file.")
@SOCKET
def plan(
    *,
    fail: str | None,
    count: int | None,
    about: str | None,
    optimise: bool,
    time_limit: float,
    as_json: bool,
    save: Path | None,
    source: Path | None,
    path: Path,
) -> None:
    """Say which VM would run where after a loss, which would wait and why, and how long it would take.

    Without --fail or --worst: what is planned for the VMs that need a host now.
    """
    if fail and count:
        raise UsageError("--fail and --worst are two questions", "ask one of them at a time")
    if optimise and about:
        raise UsageError("--explain is about recovery's plan, not the optimiser's", "leave out one of them")
    if optimise:
        optimiser.load()
    basis = _basis(path, source)
    if save is not None:
        save.write_bytes(msgspec.json.encode(basis))
    worst = _worst(basis, count, time_limit) if count else None
    lost = frozenset(worst.hosts) if worst is not None else _hosts(basis, fail or "")
    if about:
        explanation = _explanation(basis, about, lost)
        _show_explanation(explanation, as_json)
        return
    found = foretell(basis, lost)
    better = ask_optimiser(loss_of(basis, lost), time_limit) if optimise else None
    if as_json:
        recovery = found if worst is None else _worst_loss(found, worst)
        show_json(recovery if better is None else PlanAnswer(recovery=recovery, optimised=better))
        return
    console = Console(highlight=False)
    if worst is not None:
        console.print(_told(found, worst))
    _show(console, basis, found)
    if better is not None:
        show_optimised(console, found, better)


def _basis(path: Path, source: Path | None) -> PlanBasis:
    if source is None:
        reply = ask(path, ControlRequest("plan"))
        if reply.basis is None:
            raise OutlastError("the agent gave nothing to plan from", "restart it after an upgrade")
        return reply.basis
    try:
        return msgspec.json.decode(source.read_bytes(), type=PlanBasis)
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}", "make it with `outlast plan --save`") from None
    except msgspec.DecodeError as error:
        raise UsageError(f"{source} is no basis of a plan: {error}", "make it with `outlast plan --save`") from None


def _hosts(basis: PlanBasis, names: str) -> frozenset[HostId]:
    by_name = {str(host.name): host.id for host in basis.snapshot.hosts}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        raise UsageError(f"there is no host {', '.join(unknown)}", f"the hosts are {', '.join(by_name)}")
    return frozenset(by_name[name] for name in wanted)


def _worst(basis: PlanBasis, count: int, time_limit: float) -> Worst:
    problem, until = Problem(basis.snapshot), time.monotonic() + time_limit
    usable = sum(not host.unusable for host in problem.hosts)
    if count > usable:
        raise UsageError(f"{count} hosts cannot be lost: {usable} can be used now", "ask for fewer")
    found = Worst()
    for found in worst_losses(problem, count, lambda lost: ranked(basis, problem, lost)):  # noqa: B007 - the last answer is the best one
        if time.monotonic() >= until:
            break
    return found


# -- showing ----------------------------------------------------------------------------------------------------------


def _worst_loss(found: Foretold, worst: Worst) -> WorstLoss:
    return WorstLoss(
        hosts=found.lost,
        looked_at=worst.looked_at,
        losses=worst.losses,
        proven=worst.proven,
        at_most=worst.at_most,
        foretold=found,
    )


def _told(found: Foretold, worst: Worst) -> str:
    hosts = " and ".join(found.lost)
    if worst.proven and not worst.waiting:
        return f"No loss of {len(found.lost)} leaves a VM waiting for room: proven for all {worst.losses} of them."
    said = f"The worst loss of {len(found.lost)}: {hosts}, and {len(worst.waiting)} VMs would wait for room."
    if worst.proven:
        return f"{said} Proven: no other of the {worst.losses} losses leaves more waiting."
    return (
        f"{said} Not proven: {worst.looked_at} of {worst.losses} losses were looked at; "
        f"none of the others leaves more than {worst.at_most} waiting (raise --time-limit)."
    )


def _show(console: Console, basis: PlanBasis, found: Foretold) -> None:
    what = f"Without {' and '.join(found.lost)}" if found.lost else "Now"
    counted = f"{len(found.moves)} VMs would start on another host, {len(found.waits)} would wait"
    console.print(f"{what}: {counted}. Seen from {basis.seen_from}.")
    if found.why_not:
        console.print(Text(f"! {found.why_not}", style="yellow"))
    if found.moves:
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        for column in ("VM", "FROM", "TO", "AFTER", "WHY"):
            table.add_column(column, overflow="fold", no_wrap=column != "WHY")
        for move in found.moves:
            why = move.why + ("; with less CPU than it used" if move.squeezed else "")
            table.add_row(move.vm, move.origin or "-", move.to, f"{move.after_s[0]:g} to {move.after_s[1]:g} s", why)
        console.print(table)
    for move in found.moves:
        for each in move.awaits:
            console.print(Text(f"{move.vm} {each.sentence}", style="" if each.heeded else "yellow"))
    for wait in found.waits:
        console.print(Text(f"{wait.vm} would wait: {wait.why}", style="red"))
        for host, why in wait.hosts.items():
            console.print(f"  {host}: {why}")


def _explanation(basis: PlanBasis, about: str, lost: frozenset[HostId]) -> Explanation:
    loss = loss_of(basis, lost)
    vm = next((vm for vm in basis.snapshot.vms if about in (vm.name, vm.vm)), None)
    if vm is None:
        raise UsageError(f"there is no VM {about}", "`outlast status` lists them")
    if vm.vm in loss.unproven:
        why = f"the end of its host's lease on {loss.unproven[vm.vm]} would be no proof"
        raise UsageError(
            f"no host is looked for: {why}", f"ask without --explain; {about} waits until that host boots again"
        )
    made = make_plan(loss.problem, loss.gone)
    if vm.vm not in made.targets:
        raise UsageError(f"{about} needs no host: it runs already, or is not wanted", "lose its host with --fail")
    return explain(loss.problem, made, vm.vm, loss.gone)


def _show_explanation(explanation: Explanation, as_json: bool) -> None:
    if as_json:
        show_json(explanation)
        return
    for each in explanation.considered:
        mark = "chosen" if each.chosen else "fits" if each.fits else "refused"
        click.echo(f"{each.host}: {mark}: {each.why}")
