"""`outlast simulate`: scenarios in the simulated world, many at once, one line each.

Everything is read and checked before anything runs: a file that cannot be played stops the command with exit code 2.
"""

import contextlib
import os
import re
import shlex
import statistics
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import msgspec
import rich_click as click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from outlast.interfaces.violation_report import report
from outlast.model.errors import OutlastError, UsageError
from outlast.scenario.model import Scenario
from outlast.scenario.reading import files_in, read_file
from outlast.scenario.result import Result
from outlast.scenario.shrinking import shrink
from outlast.scenario.values import nearest
from outlast.scenario.writing import write
from outlast.sim import mutants, plan_checks, stage
from outlast.sim.play import play
from outlast.sim.random_scenarios import generate

AHEAD = 64
"""How many runs per processor are given out before the first of them is waited for: a world of 32 hosts takes as long as
sixty of the usual size, and the other processors must not stand still meanwhile."""

Outcome = Result | str
"""What came of a run: its result, or the sentence that says why it could not be played to its end."""


@click.command()
@click.argument("paths", nargs=-1, metavar="[FILE|DIRECTORY]...", type=click.Path(path_type=Path))
@click.option("--random", "randoms", type=click.IntRange(min=1), metavar="N", help="Also N random ones, from the seed on.")
@click.option("--seed", type=click.IntRange(min=0), help="In place of the seed in the files; the first of the random ones.")
@click.option(
    "--break",
    "rule",
    default="",
    metavar="RULE",
    help="With a safety rule switched off; `help` names them, `list` explains.",
)
@click.option(
    "--check-plan", is_flag=True, help="The random ones: what `outlast plan` foretells of a loss is what happens."
)
@click.option("--trace", is_flag=True, help="Also print one number for all that happened: equal runs have equal ones.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a scenario, one a line.")
@click.option("--timeline", is_flag=True, help="Also tell what happened, and all that did not hold.")
@click.option("--stats", is_flag=True, help="Also say how long recoveries took, and how fast the simulation was.")
@click.option("--shrink", "shrinks", is_flag=True, help="Make the first failing one as small as it can be, and write it.")
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="How many run side by side; by default one a processor.")
def simulate(
    paths: tuple[Path, ...],
    *,
    randoms: int | None,
    seed: int | None,
    rule: str,
    check_plan: bool,
    trace: bool,
    as_json: bool,
    timeline: bool,
    stats: bool,
    shrinks: bool,
    jobs: int | None,
) -> None:
    """Play scenarios in the simulated world. A directory stands for all its .toml files.

    Exit code 0: all that they expect held, and no rule was broken. 1: some did not. 2: a file cannot be played.
    """
    began = time.monotonic()
    if rule in ("help", "list"):
        _list_rules(with_words=rule == "list")
        return
    try:
        _check_options(rule, plan_with_others=check_plan and bool(paths or shrinks or not randoms))
        runs = [_Run(rule, scenario, seed) for scenario in _read_all(paths)]
        runs += [_Run(rule, random_seed=(seed or 0) + i, checks_plan=check_plan) for i in range(randoms or 0)]
        if not runs:
            raise UsageError("there is nothing to play", "name scenarios or directories of them, or say --random N")
    except UsageError as error:
        # Like a compiler's, so that editors and scripts find `file:line:`; a frame would fold it.
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    outcomes: list[Outcome] = []
    first_failing: tuple[_Run, Result] | None = None
    for run, outcome in _run_all(runs, jobs or os.cpu_count() or 1):
        outcomes.append(outcome)
        if first_failing is None and isinstance(outcome, Result) and not outcome.passed:
            first_failing = run, outcome
        if as_json:
            click.echo(_json(run.name, outcome))
            continue
        click.echo(line(run.name, outcome) + (f"  {outcome.trace}" if trace and isinstance(outcome, Result) else ""))
        if isinstance(outcome, Result) and outcome.violations:
            for text in report(outcome, run.arguments()):
                click.echo(f"  {text}")
        if timeline and isinstance(outcome, Result):
            for text in told(outcome):
                click.echo(f"  {text}")
    failed = sum(not isinstance(outcome, Result) or not outcome.passed for outcome in outcomes)
    if not as_json:
        seconds = sum(outcome.seconds for outcome in outcomes if isinstance(outcome, Result))
        took = time.monotonic() - began
        counted = f"{len(outcomes) - failed} passed, {failed} failed" if failed else f"all {len(outcomes)} passed"
        click.echo(f"{counted}: {_length(seconds)} simulated in {took:.1f} s")
        if stats:
            for text in _statistics([outcome for outcome in outcomes if isinstance(outcome, Result)]):
                click.echo(text)
    if shrinks and first_failing is not None:
        _shrink(*first_failing)
    sys.exit(1 if failed else 0)


class _Run(msgspec.Struct, frozen=True):
    """One thing to do, with a safety rule switched off or "": a scenario of a file, or the random one of a seed.

    `seed`: in place of the file's own.
    """

    rule: str
    of_file: Scenario | None = None
    seed: int | None = None
    random_seed: int = 0
    checks_plan: bool = False

    @property
    def name(self) -> str:
        """What people call it."""
        return self.of_file.path or self.of_file.title if self.of_file is not None else f"random {self.random_seed}"

    def arguments(self) -> list[str]:
        """What `outlast simulate` is to be told to play it once more."""
        what = [self.of_file.path] if self.of_file is not None else ["--random", "1", "--seed", str(self.random_seed)]
        seed = ["--seed", str(self.seed)] if self.seed is not None else []
        plan = ["--check-plan"] if self.checks_plan else []
        return [*what, *seed, *plan, *(["--break", self.rule] if self.rule else [])]

    def scenario(self) -> Scenario:
        """It. A random one is made anew at each call: a hundred thousand of them would not fit into memory."""
        if self.of_file is not None:
            return self.of_file
        return plan_checks.generate(self.random_seed) if self.checks_plan else generate(self.random_seed)


# -- reading ----------------------------------------------------------------------------------------------------------


def _check_options(rule: str, *, plan_with_others: bool) -> None:
    if rule and rule not in mutants.MUTANTS:
        raise UsageError(f"there is no safety rule {rule}: {nearest(rule, mutants.MUTANTS)}", "`--break help` names them")
    if plan_with_others:
        raise UsageError("--check-plan is about random losses alone", "say --random N, and neither files nor --shrink")


def _list_rules(*, with_words: bool) -> None:
    for mutant in mutants.MUTANTS.values():
        click.echo(f"{mutant.name}  (rule {mutant.rule}: {mutant.what})" if with_words else mutant.name)


def _read_all(paths: tuple[Path, ...]) -> list[Scenario]:
    """Every scenario, checked. Raises UsageError with the problems of all files."""
    found: list[Scenario] = []
    problems: list[UsageError] = []
    for path in paths:
        try:
            for file in files_in(path):
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


# -- running ----------------------------------------------------------------------------------------------------------


def _run_all(runs: list[_Run], jobs: int) -> Iterator[tuple[_Run, Outcome]]:
    """Each run with its outcome, in their order, as soon as all before it have ended too."""
    if jobs == 1 or len(runs) == 1:
        for run in runs:
            yield run, _run(run)
        return
    with ProcessPoolExecutor(min(jobs, len(runs))) as pool, _Bar(len(runs)) as advance:
        waiting = deque[tuple[_Run, Future[Outcome]]]()
        for run in runs:
            waiting.append((run, pool.submit(_run, run)))
            if len(waiting) > AHEAD * jobs:
                first, future = waiting.popleft()
                yield first, future.result()
                advance()
        for first, future in waiting:
            yield first, future.result()
            advance()


class _Bar:
    """A bar on the terminal's error output while runs are under way; nothing where nobody looks."""

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        self._total = total
        self._bar: Progress | None = None
        if console.is_terminal and sys.stdout.isatty():
            columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=console, transient=True)

    def __enter__(self) -> Callable[[], None]:
        if self._bar is None:
            return lambda: None
        bar = self._bar
        task = bar.add_task("", total=self._total)
        bar.start()
        return lambda: bar.advance(task)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _run(run: _Run) -> Outcome:
    began, cpu_began = time.perf_counter(), time.process_time()
    try:
        with mutants.broken(run.rule) if run.rule else contextlib.nullcontext():
            if run.checks_plan:
                result = plan_checks.check(run.random_seed)
            else:
                result = play(run.scenario(), run.seed, until_rest=run.of_file is None)
    except OutlastError as error:
        return str(error)
    except Exception as error:
        # A finding like any other, and no reason to end all other runs.
        where = traceback.extract_tb(error.__traceback__)[-1]
        again = f"once more: outlast simulate {shlex.join(run.arguments())}"
        return f"the program failed: {error!r} in {where.name}, {Path(where.filename).name}:{where.lineno}; {again}"
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    return msgspec.structs.replace(result, wall_seconds=round(wall, 3), cpu_seconds=round(cpu, 3))


# -- shrinking --------------------------------------------------------------------------------------------------------


def _shrink(run: _Run, result: Result) -> None:
    """Write the smallest scenario that fails in the same way, next to where the command was run."""
    scenario = msgspec.structs.replace(run.scenario(), seed=result.seed)
    kinds = _kinds(result)

    def fails(candidate: Scenario) -> bool:
        outcome = _run(_Run(run.rule, candidate))
        return isinstance(outcome, Result) and not kinds.isdisjoint(_kinds(outcome))

    small = shrink(scenario, fails)
    broken = " ".join(wrong(result)[0].split())
    story = f"{scenario.story.strip()}\nShrunk by `outlast simulate --shrink`; it failed {broken}.".strip()
    name = re.sub(r"[^a-z0-9]+", "-", (Path(scenario.path).stem or scenario.title).lower()).strip("-")
    file = Path(f"{name}-shrunk.toml")
    file.write_text(write(msgspec.structs.replace(small, title=f"{scenario.title} (shrunk)", story=story)))
    before, after = (len(each.steps) for each in (scenario, small))
    click.echo(f"wrote {file}: {after} of {before} steps, {len(small.hosts)} hosts, {len(small.vms)} VMs", err=True)


def _kinds(result: Result) -> set[str]:
    """In which ways it failed: the invariants and the claims."""
    claims = {failure.expectation.partition(":")[0] for failure in result.failures}
    return {violation.invariant for violation in result.violations} | claims


# -- telling ----------------------------------------------------------------------------------------------------------


def line(name: str, outcome: Outcome) -> str:
    """One line: whether it passed, how long it was, and the first thing that did not hold."""
    if not isinstance(outcome, Result):
        return f"FAIL  {name}: {' '.join(outcome.split())}"
    length = f"{outcome.seconds:g} s in {outcome.wall_seconds:.2f} s"
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


def _json(name: str, outcome: Outcome) -> str:
    if isinstance(outcome, Result):
        return msgspec.json.encode(outcome).decode()
    return msgspec.json.encode({"scenario": name, "world": "simulated", "passed": False, "error": outcome}).decode()


def _length(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"


def _statistics(results: list[Result]) -> Iterator[str]:
    ways = [way.seconds for result in results for way in result.recovery]
    if ways:
        ordered = sorted(ways)
        nearly_all = ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)]
        yield (
            f"{len(ways)} recoveries: median {statistics.median(ways):.1f} s, 95 % within {nearly_all:.1f} s, "
            f"longest {ordered[-1]:.1f} s"
        )
    events, cpu = sum(result.events for result in results), sum(result.cpu_seconds for result in results)
    yield f"{events} events, {events / cpu:.0f} in a second of one processor" if cpu else f"{events} events"
