"""`outlast simulate`: scenarios in the simulated world, many at once, one line each.

Everything is read and checked before anything runs: a file that cannot be played stops the command with exit code 2.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import msgspec
import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from outlast.model.errors import OutlastError, UsageError
from outlast.model.time import in_seconds
from outlast.scenario.model import Scenario
from outlast.scenario.reading import read_file
from outlast.scenario.result import Result
from outlast.sim import stage
from outlast.sim.play import play

Outcome = Result | str
"""What came of a run: its result, or the sentence that says why it could not be played to its end."""


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="FILE|DIRECTORY...", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(min=0), help="In place of the seed in the files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a scenario, one a line.")
@click.option("--timeline", is_flag=True, help="Also tell what happened, and all that did not hold.")
@click.option("--stats", is_flag=True, help="Also say how long recoveries took, and how fast the simulation was.")
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="How many run side by side; by default one a processor.")
def simulate(
    paths: tuple[Path, ...], *, seed: int | None, as_json: bool, timeline: bool, stats: bool, jobs: int | None
) -> None:
    """Play scenarios in the simulated world. A directory stands for all its .toml files.

    Exit code 0: all that they expect held, and no rule was broken. 1: some did not. 2: a file cannot be played.
    """
    began = time.monotonic()
    try:
        scenarios = _read_all(paths)
    except UsageError as error:
        # Like a compiler's, so that editors and scripts find `file:line:`; a frame would fold it.
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    outcomes: list[Outcome] = []
    for scenario, outcome in _run_all(scenarios, seed, jobs or os.cpu_count() or 1):
        outcomes.append(outcome)
        if as_json:
            click.echo(_json(scenario, outcome))
            continue
        click.echo(line(scenario, outcome))
        if timeline and isinstance(outcome, Result):
            for text in told(outcome):
                click.echo(f"  {text}")
    failed = sum(not isinstance(outcome, Result) or not outcome.passed for outcome in outcomes)
    if not as_json:
        seconds = sum(in_seconds(scenario.duration) for scenario in scenarios)
        took = time.monotonic() - began
        counted = f"{len(outcomes) - failed} passed, {failed} failed" if failed else f"all {len(outcomes)} passed"
        click.echo(f"{counted}: {seconds:g} s simulated in {took:.1f} s")
        if stats:
            for text in _statistics([outcome for outcome in outcomes if isinstance(outcome, Result)]):
                click.echo(text)
    sys.exit(1 if failed else 0)


# -- reading ----------------------------------------------------------------------------------------------------------


def _read_all(paths: tuple[Path, ...]) -> list[Scenario]:
    """Every scenario, checked. Raises UsageError with the problems of all files."""
    found: list[Scenario] = []
    problems: list[UsageError] = []
    for path in paths:
        try:
            for file in _files(path):
                try:
                    scenario = read_file(file)
                    stage.check(scenario)
                    found.append(scenario)
                except UsageError as error:
                    problems.append(error)
        except UsageError as error:
            problems.append(error)
    if problems:
        raise UsageError("\n".join(problem.message for problem in problems), "nothing was run")
    return found


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(path.rglob("*.toml"))
    if not files:
        raise UsageError(f"there is no .toml file in {path}", "name a scenario, or a directory of scenarios")
    return files


# -- running ----------------------------------------------------------------------------------------------------------


def _run_all(scenarios: list[Scenario], seed: int | None, jobs: int) -> Iterator[tuple[Scenario, Outcome]]:
    """Each scenario with its outcome, in their order, as soon as all before it have ended too."""
    if jobs == 1 or len(scenarios) == 1:
        for scenario in scenarios:
            yield scenario, _run(scenario, seed)
        return
    with ProcessPoolExecutor(min(jobs, len(scenarios))) as pool:
        futures = [pool.submit(_run, scenario, seed) for scenario in scenarios]
        with _progress(futures) as advance:
            for scenario, future in zip(scenarios, futures, strict=True):
                outcome = future.result()
                advance()
                yield scenario, outcome


class _progress:  # noqa: N801
    """A bar on the terminal's error output while runs are under way; nothing where nobody looks."""

    def __init__(self, futures: list[Future[Outcome]]) -> None:
        console = Console(stderr=True)
        self._futures = futures
        self._bar: Progress | None = None
        if console.is_terminal and sys.stdout.isatty():
            columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=console, transient=True)

    def __enter__(self) -> Callable[[], None]:
        if self._bar is None:
            return lambda: None
        bar = self._bar
        task = bar.add_task("", total=len(self._futures))
        bar.start()
        return lambda: bar.update(task, completed=sum(future.done() for future in self._futures))

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _run(scenario: Scenario, seed: int | None) -> Outcome:
    began = time.perf_counter()
    try:
        result = play(scenario, seed)
    except OutlastError as error:
        return str(error)
    return msgspec.structs.replace(result, wall_seconds=round(time.perf_counter() - began, 3))


# -- telling ----------------------------------------------------------------------------------------------------------


def line(scenario: Scenario, outcome: Outcome) -> str:
    """One line: whether it passed, how long it was, and the first thing that did not hold."""
    name = scenario.path or scenario.title
    if not isinstance(outcome, Result):
        return f"FAIL  {name}: {' '.join(outcome.split())}"
    length = f"{in_seconds(scenario.duration):g} s in {outcome.wall_seconds:.2f} s"
    if outcome.passed:
        hazards = f"; {len(outcome.hazards)} hazards" if outcome.hazards else ""
        waiting = f"; awaiting proof: {', '.join(outcome.awaiting_proof)}" if outcome.awaiting_proof else ""
        return f"pass  {name}  ({length}{hazards}{waiting})"
    first, *others = wrong(outcome)
    return f"FAIL  {name}  ({length})  {first}" + (f"  (and {len(others)} more)" if others else "")


def wrong(result: Result) -> list[str]:
    """Everything that did not hold, broken invariants first, as sentences with their times."""
    found = [f"at {v.at:.3f} s invariant {v.invariant}: {v.detail}" for v in result.violations]
    return found + [f"at {f.at:.3f} s {f.expectation}: {f.found}" for f in result.failures]


def told(result: Result) -> list[str]:
    """The story, and what was wrong with it."""
    story = [f"{each.at:9.3f} s  {each.host:<8} {each.text}" for each in result.timeline]
    hazards = [f"hazard at {h.at:.3f} s ({h.kind}, {h.seconds:g} s): {h.detail}" for h in result.hazards]
    return story + hazards + [f"WRONG {sentence}" for sentence in wrong(result)]


def _json(scenario: Scenario, outcome: Outcome) -> str:
    if isinstance(outcome, Result):
        return msgspec.json.encode(outcome).decode()
    return msgspec.json.encode(
        {"scenario": scenario.title, "world": "simulated", "passed": False, "error": outcome}
    ).decode()


def _statistics(results: list[Result]) -> Iterator[str]:
    ways = [way.seconds for result in results for way in result.recovery]
    if ways:
        ordered = sorted(ways)
        nearly_all = ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)]
        yield (
            f"{len(ways)} recoveries: median {statistics.median(ways):.1f} s, 95 % within {nearly_all:.1f} s, "
            f"longest {ordered[-1]:.1f} s"
        )
    events, wall = sum(result.events for result in results), sum(result.wall_seconds for result in results)
    yield f"{events} events, {events / wall:.0f} a second and processor" if wall else f"{events} events"
