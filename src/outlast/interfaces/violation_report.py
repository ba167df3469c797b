"""What `outlast simulate` says when an invariant was broken: enough to understand it, and to see it again.

what        the invariant, and what was found
the way     the last lines of the story that name one of the machines or hosts in it
again       the command that plays it once more, and the program that it was found with
"""

import functools
import importlib.metadata
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from outlast.scenario.result import Line, Result, Violation

LINES = 12
"""How much of the story is told; `--timeline` tells all of it."""


def report(result: Result, played: list[str]) -> Iterator[str]:
    """The first violation of a run, in lines. `played`: the arguments of `outlast simulate` that play it again."""
    violation = result.violations[0]
    yield f"invariant {violation.invariant} was broken at {violation.at:.3f} s: {violation.detail}"
    yield f"what led to it (the last {LINES} lines about what it names; --timeline tells all):"
    yield from (f"  {line.at:9.3f} s  {line.host:<8} {line.text}" for line in _way_to(violation, result))
    yield f"seed {result.seed}, {program()}; once more: {shlex.join(['outlast', 'simulate', *played, '--timeline'])}"


def _way_to(violation: Violation, result: Result) -> Iterator[Line]:
    named = [name for name in (*result.end.vms, *result.end.hosts) if name in violation.detail.split()]
    told = [
        line
        for line in result.timeline
        if line.at <= violation.at
        and line.kind != "violation"
        and (not named or line.host in named or line.vm in named or line.kind == "step")
    ]
    return iter(told[-LINES:])


@functools.cache
def program() -> str:
    """The program's version, and the commit of its sources where they lie in a checkout."""
    version = f"outlast {importlib.metadata.version('outlast')}"
    here = Path(__file__).parent
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=10"]
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return version
    return f"{version}, commit {found.stdout.strip()}" if found.returncode == 0 else version
