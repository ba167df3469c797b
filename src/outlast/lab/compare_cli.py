"""`outlast lab compare`: scenarios in both worlds, one table of how they ended and how long every recovery took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import rich_click as click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from outlast.interfaces import simulate_cli
from outlast.lab import two_worlds
from outlast.lab.layout import Layout
from outlast.model.errors import UsageError
from outlast.scenario.comparing import TOLERANCE, Comparison, Recovery
from outlast.scenario.model import Scenario
from outlast.scenario.reading import files_in, read_file

SEEDS = 10
_LABS = 2


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="FILE|DIRECTORY...", type=click.Path(path_type=Path))
@click.option("--seeds", type=click.IntRange(min=1), default=SEEDS, show_default=True, help="Of the simulated world.")
@click.option("-j", "--labs", type=click.IntRange(1, 16), default=_LABS, show_default=True, help="How many play at once.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a scenario, one a line.")
def compare(paths: tuple[Path, ...], *, seeds: int, labs: int, as_json: bool) -> None:
    """Play scenarios in the simulated world and on real hosts, and hold the two against each other.

    Of a directory, those of its .toml files are played that both worlds can play. Labs of their own are made for it.

    Exit code 0: both worlds end alike, and all that is expected holds in both. 1: something does not, or a lab failed.
    2: a file cannot be played. A recovery that takes otherwise by more than 30 % is told, and is not an error: the hosts
    of a lab share one machine's processors with each other and with whatever else runs there.
    """
    try:
        scenarios = _read_all(paths)
    except UsageError as error:
        click.echo(str(error), err=True)
        raise SystemExit(error.exit_code) from None
    comparisons: list[Comparison] = []
    broken: list[str] = []
    played = two_worlds.play_all(scenarios, Layout.default(), seeds, labs, lambda text: click.echo(text, err=True))
    for scenario, outcome in played:
        name = scenario.path or scenario.title
        if isinstance(outcome, str):
            broken.append(f"{name}: {outcome}")
            click.echo(f"FAIL  {broken[-1]}", err=True)
            continue
        comparisons.append(outcome)
        click.echo(f"{verdict(outcome):<8}  {name}", err=True)
        if as_json:
            click.echo(msgspec.json.encode(outcome).decode())
    if not as_json:
        show(comparisons, Console())
    for text in broken:
        click.echo(text, err=True)
    raise SystemExit(0 if not broken and all(each.same and each.passed for each in comparisons) else 1)


def _read_all(paths: tuple[Path, ...]) -> list[Scenario]:
    """Every scenario. Raises UsageError for a file that was named and that one of the worlds cannot play."""
    found: dict[str, Scenario] = {}
    for path in paths:
        for file in files_in(path):
            scenario = read_file(file)
            try:
                two_worlds.check(scenario)
            except UsageError as error:
                if not path.is_dir():
                    raise
                click.echo(f"left out: {error.message}", err=True)
                continue
            found.setdefault(scenario.path, scenario)
    if not found:
        raise UsageError("nothing here can be played in both worlds", "name other files; nothing was started")
    return list(found.values())


# -- telling ----------------------------------------------------------------------------------------------------------


def verdict(comparison: Comparison) -> str:
    """One word for the outcome."""
    return "DIFFERS" if not comparison.same else "alike" if comparison.passed else "FAILED"


def show(comparisons: Sequence[Comparison], console: Console) -> None:
    """The table, and below it every difference as a sentence."""
    table = Table("scenario", "outcome", "VM", title="the simulated world and the lab", title_justify="left")
    for heading in ("simulated, s", "lab, s", "off"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in sorted(comparisons, key=lambda each: each.path):
        name, outcome = escape(_short(each)), verdict(each)
        outcome = outcome if outcome == "alike" else f"[bold red]{outcome}[/]"
        for recovery in each.recoveries or (None,):
            table.add_row(name, outcome, *(_cells(recovery) if recovery is not None else ("", "", "", "")))
            name = outcome = ""
    console.print(table)
    for text in sentences(comparisons):
        console.print(text, style="bold red" if text.startswith("OUTCOME") else "bold yellow", soft_wrap=True, markup=False)


def _short(comparison: Comparison) -> str:
    """The topic and the file's name are enough to know it by."""
    path = Path(comparison.path)
    return f"{path.parent.name}/{path.stem}" if comparison.path else comparison.scenario


def _cells(recovery: Recovery) -> tuple[str, str, str, str]:
    span = f"{recovery.least:.1f} / {recovery.median:.1f} / {recovery.most:.1f}"
    off = f"{recovery.off:+.0%}"
    return recovery.vm, span, f"{recovery.lab:.1f}", f"[bold yellow]{off}[/]" if recovery.differs else off


def sentences(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Everything that came out otherwise, and whatever did not hold in the lab: first what counts, then the times."""
    for each in sorted(comparisons, key=lambda each: each.path):
        for difference in each.differences:
            shown = " or ".join(difference.simulated)
            yield f"OUTCOME  {_short(each)}: {difference.what}: {difference.lab} in the lab, {shown} when simulated"
        if not each.passed and not each.lab.failures and not each.lab.violations:
            yield f"OUTCOME  {_short(each)}: does not hold in the simulated world with every seed of {list(each.seeds)}"
        counting = tuple(failure for failure in each.lab.failures if failure not in each.late)
        for text in simulate_cli.wrong(msgspec.structs.replace(each.lab, failures=counting)):
            yield f"OUTCOME  {_short(each)}: in the lab {text}"
    for each in sorted(comparisons, key=lambda each: each.path):
        for late in each.late:
            yield f"TIME     {_short(each)}: in the lab at {late.at:.3f} s {late.expectation}: {late.found}"
        for recovery in each.recoveries:
            if recovery.differs:
                yield (
                    f"TIME     {_short(each)}: {recovery.vm} was back after {recovery.lab:.1f} s in the lab, and after "
                    f"{recovery.least:.1f} to {recovery.most:.1f} s when simulated: more than {TOLERANCE:.0%} off"
                )
