"""`outlast plan --optimise`: what an optimiser would place better than recovery does, and how good any plan can be.

It is for people who plan: what to move, what to buy, what to put up with. Recovery takes the greedy plan, always.
"""

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from outlast.drivers.optimiser import Optimised, TierResult, optimise
from outlast.model.planning import Foretold
from outlast.model.policy import PRIORITIES
from outlast.protocol.planning.foretelling import Loss, foretell_by


class OptimisedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What `--optimise` adds to `--json`. `foretold`: what would come of its plan, which is recovery's unless `better`."""

    better: bool
    proven: bool
    tiers: tuple[TierResult, ...]
    seconds: float
    discarded: str
    foretold: Foretold


def ask_optimiser(loss: Loss, time_limit_s: float) -> OptimisedAnswer:
    """The optimiser's answer to a loss."""
    found: Optimised = optimise(loss.problem, loss.gone, time_limit_s)
    return OptimisedAnswer(
        better=found.better,
        proven=found.proven,
        tiers=found.tiers,
        seconds=found.seconds,
        discarded=found.discarded,
        foretold=foretell_by(loss, found.plan),
    )


def show_optimised(console: Console, recovery: Foretold, answer: OptimisedAnswer) -> None:
    """The answer, and where it differs from what recovery would do."""
    console.print(f"\n{_verdict(answer)}")
    if answer.discarded:
        console.print(Text(f"! {answer.discarded}", style="yellow"))
        return
    if not answer.proven or answer.better:
        console.print(_tiers(answer))
    if answer.better:
        console.print(_differences(recovery, answer.foretold))
        for wait in answer.foretold.waits:
            console.print(Text(f"{wait.vm} would wait with it: {wait.why}", style="red"))
        console.print("Recovery does not use this plan: it takes its own, at once.")


def _verdict(answer: OptimisedAnswer) -> str:
    took = f"OR-tools, {answer.seconds:.1f} s"
    if answer.discarded:
        return f"The plan above is the best that is known ({took})."
    proof = "Proven: no plan is better." if answer.proven else "Not proven to be the best: raise --time-limit."
    if answer.better:
        return f"There is a better plan than the one above ({took}). {proof}"
    if answer.proven:
        return f"No plan has more places than the one above: proven ({took})."
    return f"No better plan than the one above was found ({took}). {proof}"


def _tiers(answer: OptimisedAnswer) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("PRIORITY", "VMS", "RECOVERY PLACES", "OPTIMISED", "NO PLAN MORE THAN"):
        table.add_column(column, justify="left" if column == "PRIORITY" else "right")
    for tier in answer.tiers:
        name = PRIORITIES[tier.tier] if 0 <= tier.tier < len(PRIORITIES) else str(tier.tier)
        table.add_row(name, str(tier.of), str(tier.greedy), str(tier.placed), str(tier.bound))
    return table


def _differences(recovery: Foretold, optimised: Foretold) -> Table:
    before = {move.vm: str(move.to) for move in recovery.moves}
    after = {move.vm: move for move in optimised.moves}
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("VM", "RECOVERY", "OPTIMISED", "WHY"):
        table.add_column(column, overflow="fold", no_wrap=column != "WHY")
    for name in sorted({*before, *after}):
        move = after.get(name)
        if move is None:
            table.add_row(name, before[name], "waits", "others have its room")
        elif before.get(name) != move.to:
            why = move.why + ("; with less CPU than it used" if move.squeezed else "")
            table.add_row(name, before.get(name, "waits"), move.to, why)
    return table
