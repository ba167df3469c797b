"""Every order of everything: an exhaustive search of the small world, over the real ownership and takeover code.

    python -m outlast.sim.exhaustive --bound small|migration|large

Breadth first, so that the first way found to something that must never be is a shortest one. A state is one number, made of
the numbers of its parts (two hosts, two observers, the datastore, what may still happen); each part has a table of what can
happen to it, made when the part is first met (`small_world`). So the real machines run thousands of times, and the search
makes millions of steps.

What must hold in every state:

    single-instance   the VM never executes on two hosts at once
    owner-runs        whatever executes is executed by the owner in the register's newest record, in that boot
    epochs-rise       no epoch is ever written a second time
    present-term      what a keeper knows of does not execute while it holds no lease (looked for where the VM migrates)
    no-stale-copy     no copy goes on that is not whole, or whose guest has executed elsewhere since it was
"""

from __future__ import annotations

import argparse
import gc
import itertools
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from outlast.sim.small_migration import MigrationSearch
from outlast.sim.small_parts import Bounds
from outlast.sim.small_search import NAMES, Search

BOUNDS = {
    "small": (Bounds(losses=1),),
    "migration": (Bounds(migrates=True, lease=1, observers=(), guest_ends=1),),
    "large": (
        Bounds(asks=2),
        Bounds(asks=2, running=False, late_starts=True),
        Bounds(asks=2, running=False, late_launches=True),
        Bounds(asks=2, running=False, late_starts=True, crashes=1, lease=1),
        Bounds(asks=2, running=False, closes=1, lease=1),
        Bounds(closes=1),
        Bounds(observers=(0, 1)),
        Bounds(losses=1, crashes=1),
        Bounds(losses=1, power_losses=1),
        Bounds(crashes=1, power_losses=1),
        Bounds(losses=1, guest_ends=1),
        Bounds(losses=1, lease=3),
        Bounds(losses=1, margin=2),
        Bounds(losses=1, words=True),
        Bounds(gives_up=True, lease=1, losses=1),
        Bounds(gives_up=True, lease=1, crashes=1),
        Bounds(gives_up=True, lease=1, power_losses=1),
        Bounds(gives_up=True, lease=1, asks=2, closes=1, running=False),
        Bounds(losses=1, slow_reads=True),
        Bounds(losses=2),
        Bounds(migrates=True, lease=1),
        Bounds(migrates=True, lease=1, guest_ends=1),
        Bounds(migrates=True, lease=1, observers=(0,)),
        Bounds(migrates=True, lease=1, observers=(), losses=1),
        Bounds(migrates=True, lease=1, observers=(), crashes=1),
        Bounds(migrates=True, lease=1, observers=(), power_losses=1),
    ),
}
"""Worlds to explore one after the other: a few things may go wrong in each, since their numbers multiply."""


class Violation(NamedTuple):
    """What must never be, and the shortest way to it, a sentence a step."""

    invariant: str
    story: tuple[str, ...]


class Explored(NamedTuple):
    """`depth`: steps of the longest shortest way. `complete`: nothing was left unvisited."""

    states: int
    depth: int
    violation: Violation | None
    complete: bool


def explore(
    bounds: Bounds, *, most_states: int | None = None, progress: Callable[[int, int], None] = lambda _depth, _states: None
) -> Explored:
    """Visit every state that can be reached within the bounds, nearest first; stop at the first violation."""
    was_collecting = gc.isenabled()
    gc.disable()  # Nothing here is ever garbage, and looking for it takes half of the time.
    try:
        return _explore(MigrationSearch(bounds) if bounds.migrates else Search(bounds), most_states, progress)
    finally:
        if was_collecting:
            gc.enable()


def _explore(search: Search, most_states: int | None, progress: Callable[[int, int], None]) -> Explored:
    first = search.first()
    came_from: dict[int, int] = {first: -1}
    level, depth = [first], 0
    while level:
        following: list[int] = []
        for key in level:
            for follows, _, _ in search.steps(key):
                if follows in came_from:
                    continue
                came_from[follows] = key
                following.append(follows)
                if search.judge(follows):
                    return Explored(len(came_from), depth + 1, _violation(search, came_from, follows), False)
        level = following
        depth += bool(level)
        progress(depth, len(came_from))
        if most_states is not None and len(came_from) >= most_states:
            return Explored(len(came_from), depth, None, not level)
    return Explored(len(came_from), depth, None, True)


def _violation(search: Search, came_from: dict[int, int], key: int) -> Violation:
    path = [key]
    while (key := came_from[key]) >= 0:
        path.append(key)
    path.reverse()
    story: list[str] = [
        f"host1 owns the VM and {'runs it' if search.bounds.running else 'does not run it'}; both hold their leases"
    ]
    tick = 0
    for before, then in itertools.pairwise(path):
        label, me = next((label, me) for follows, label, me in search.steps(before) if follows == then)
        if label.startswith("time goes on"):
            tick += 1
            story.append(f"{label}: it is now tick {tick}")
        else:
            story.append(label.format(h=NAMES[me], p=NAMES[1 - me]))
    broken = search.judge(path[-1])
    return Violation(broken.partition(":")[0], (*story, broken))


def told(explored: Explored) -> str:
    """The outcome in words."""
    lines = [f"{explored.states} states, {explored.depth} steps deep"]
    if explored.violation is None:
        lines.append("every state is safe" if explored.complete else "every state that was visited is safe; not all were")
    else:
        lines.append(f"{explored.violation.invariant} is broken; the shortest way there:")
        lines += [f"{number:3}. {sentence}" for number, sentence in enumerate(explored.violation.story)]
    return "\n".join(lines)


def main() -> int:
    """Explore, and say what was found. Exit code 1: a violation."""
    parser = argparse.ArgumentParser(prog="python -m outlast.sim.exhaustive", description="explore the small world")
    parser.add_argument("--bound", choices=sorted(BOUNDS), default="small", help="how much may happen")
    for name in ("lease", "margin", "losses", "crashes", "power_losses", "guest_ends", "asks", "closes"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"overrides the bound's {name}")
    parser.add_argument("--observers", choices=("0", "1", "2"), help="how many agents watch the other host")
    parser.add_argument("--late-starts", action="store_const", const=True, help="libvirt may launch a start however late")
    parser.add_argument("--not-running", dest="running", action="store_const", const=False, help="host1 only owns the VM")
    parser.add_argument("--slow-reads", action="store_const", const=True, help="an observer's reads take time, too")
    parser.add_argument("--late-launches", action="store_const", const=True, help="the same after the gate's second answer")
    parser.add_argument("--migrates", action="store_const", const=True, help="the VM may migrate from host1 to host2")
    parser.add_argument("--gives-up", action="store_const", const=True, help="the owner may be asked to give the VM up")
    parser.add_argument("--words", action="store_const", const=True, help="a later owner may say so over the network")
    parser.add_argument("--most-states", type=int, help="stop after so many")
    chosen = vars(parser.parse_args())
    worlds = BOUNDS[chosen.pop("bound")]
    most_states, observers = chosen.pop("most_states"), chosen.pop("observers")
    if observers is not None:
        chosen["observers"] = ((), (1,), (0, 1))[int(observers)]
    changes = {name: value for name, value in chosen.items() if value is not None}
    safe = True
    for bounds in worlds:
        safe = _explored_aloud(bounds._replace(**changes), most_states) and safe
    return 0 if safe else 1


def _explored_aloud(bounds: Bounds, most_states: int | None) -> bool:
    """Explore one world, and say what was found and how long it took. Whether it is safe."""
    began = time.monotonic()

    def progress(depth: int, states: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{depth} steps, {states} states, {time.monotonic() - began:.0f} s ")

    explored = explore(bounds, most_states=most_states, progress=progress)
    spent = time.monotonic() - began
    usual = Bounds()._asdict()
    differs = {name: value for name, value in bounds._asdict().items() if value != usual[name]}
    sys.stdout.write(
        f"with {differs}: {told(explored)}\n{spent:.1f} s, {explored.states / max(spent, 0.001):.0f} states/s\n"
    )
    sys.stdout.flush()
    return explored.violation is None


if __name__ == "__main__":
    sys.exit(main())
