"""Every order of everything: an exhaustive search of the small world, over the real ownership and takeover code.

    python -m outlast.sim.exhaustive --bound small|large

Breadth first, so that the first way found to something that must never be is a shortest one. A state is one number, made of
the numbers of its parts (two hosts, two observers, the datastore, what may still happen); each part has a table of what can
happen to it, made when the part is first met (`small_world`). So the real machines run thousands of times, and the search
makes millions of steps.

What must hold in every state:

    single-instance   the VM never executes on two hosts at once
    owner-runs        whatever executes is executed by the owner in the register's newest record, in that boot
    epochs-rise       no epoch is ever written a second time
"""

from __future__ import annotations

import argparse
import gc
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from outlast.sim.small_keeper import Evidence
from outlast.sim.small_observer import FRESH, ObserverMemory
from outlast.sim.small_world import ASK, EXECUTES, Bounds, HostMemory, SmallWorld, StoreMemory

BOUNDS = {
    "small": (Bounds(losses=1),),
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
        Bounds(losses=1, slow_reads=True),
        Bounds(losses=2),
    ),
}
"""Worlds to explore one after the other: a few things may go wrong in each, since their numbers multiply."""
_BITS = 24
_MASK = (1 << _BITS) - 1
_SHIFT = (0, _BITS, 2 * _BITS, 3 * _BITS, 4 * _BITS, 5 * _BITS)
HOST, OBSERVER, STORE, BUDGET = _SHIFT[0], _SHIFT[2], _SHIFT[4], _SHIFT[5]
NAMES = ("host1", "host2")


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


class _Parts(dict[Any, int]):
    """Numbers for parts, in the order in which they are met."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def __missing__(self, part: Any) -> int:
        number = self[part] = len(self.all)
        self.all.append(part)
        return number


class Search:
    """The tables of one search, and what can follow a state."""

    def __init__(self, bounds: Bounds) -> None:
        self.world = SmallWorld(bounds)
        self.bounds = bounds
        self.hosts, self.observers, self.stores = _Parts(), _Parts(), _Parts()
        self._fresh = self.observers[FRESH]
        self._host_steps: list[tuple[tuple[int, int, bool, str], ...] | None] = []
        self._observer_steps: dict[int, tuple[tuple[int, str], ...]] = {}
        self._store_steps: dict[int, tuple[tuple[int, int, bool, bool, str], ...]] = {}
        self._reads: dict[int, tuple[tuple[int, str], ...]] = {}
        self._orders: dict[int, int] = {}
        self._cleared: dict[int, int] = {}
        self._shifts: dict[tuple[str, int], int] = {}
        self._judged: dict[int, str] = {}

    def first(self) -> int:
        """The state that everything begins with."""
        one, other, store = self.world.first()
        key = self.hosts[one] | self.hosts[other] << _SHIFT[1] | self._fresh << _SHIFT[2] | self._fresh << _SHIFT[3]
        return key | self.stores[store] << STORE | self.bounds.budget << BUDGET

    def judge(self, key: int) -> str:
        """The invariant that a state breaks, or an empty string."""
        about = key & (1 << 2 * _BITS) - 1 | (key >> STORE & _MASK) << 2 * _BITS
        found = self._judged.get(about)
        if found is None:
            hosts = (self.hosts.all[key & _MASK], self.hosts.all[key >> _BITS & _MASK])
            found = self._judged[about] = _broken(hosts, self.stores.all[key >> STORE & _MASK])
        return found

    # -- what follows ---------------------------------------------------------------------------------------------

    def steps(self, key: int) -> Iterator[tuple[int, str, int]]:
        """Each state that can follow, what happened in words, and to which host."""
        hosts = (key & _MASK, key >> _BITS & _MASK)
        watchers = (key >> 2 * _BITS & _MASK, key >> 3 * _BITS & _MASK)
        store, budget = key >> STORE & _MASK, key >> BUDGET
        asks = budget & ASK * 15
        for me in (0, 1):
            host, watcher = hosts[me], watchers[me]
            at, watcher_at = me * _BITS, (2 + me) * _BITS
            rest = key - (host << at)
            for then, cost, off, label in self._steps_of(host):
                if cost and not budget & cost * 15:
                    continue
                follows = rest + (then << at) - (cost << BUDGET)
                if off:
                    follows += (self._fresh - watcher) << watcher_at
                yield self._unwatched(follows) if cost == ASK else follows, label, me
            for then, stored, overtakes, rewrites, label in self._lands(host, store, me):
                follows = rest + (then << at) + ((stored - store) << STORE)
                if overtakes:
                    follows = self._overtaken(follows)
                if rewrites:
                    other = watchers[1 - me]
                    follows += (self._shift("rewritten", other) - other) << (3 - me) * _BITS
                yield follows, label, me
            if me in self.bounds.observers and asks and self.hosts.all[host].on:
                yield from self._watcher_steps(key, watcher, store, me, hosts)
        if self._may_tick(hosts[0]) and self._may_tick(hosts[1]):
            yield self._ticked(key), "time goes on by one tick", 0

    def _watcher_steps(
        self, key: int, watcher: int, store: int, me: int, hosts: tuple[int, int]
    ) -> Iterator[tuple[int, str, int]]:
        at = (2 + me) * _BITS
        for then, label in self._looks(watcher):
            yield key + ((then - watcher) << at), label, me
        for then, label in self._finds(watcher, store, me):
            yield key + ((then - watcher) << at), label, me
        if self.observers.all[watcher].order is None:
            return
        for target in (0, 1):
            taken = self._ordered(watcher, hosts[target], target == me)
            if taken >= 0:
                sent = key - (ASK << BUDGET) + ((self._without_order(watcher) - watcher) << at)
                label = "the keeper of {h} is ordered to take the VM over"
                yield self._unwatched(sent + ((taken - hosts[target]) << target * _BITS)), label, target

    def _unwatched(self, key: int) -> int:
        """When nothing may be asked any more, what the agents know is of no consequence."""
        if key >> BUDGET & ASK * 15:
            return key
        hosts_and_store = key & ~(_MASK << 2 * _BITS | _MASK << 3 * _BITS)
        return hosts_and_store | self._fresh << 2 * _BITS | self._fresh << 3 * _BITS

    # -- tables ---------------------------------------------------------------------------------------------------

    def _steps_of(self, host: int) -> tuple[tuple[int, int, bool, str], ...]:
        steps = self._host_steps
        if host >= len(steps):
            steps += [None] * (host + 1 - len(steps))
        found = steps[host]
        if found is None:
            found = steps[host] = tuple(
                (self.hosts[step.host], step.cost, not step.host.on, step.label)
                for step in self.world.host_steps(self.hosts.all[host])
            )
        return found

    def _lands(self, host: int, store: int, me: int) -> tuple[tuple[int, int, bool, bool, str], ...]:
        about = host << _BITS + 1 | store << 1 | me
        found = self._store_steps.get(about)
        if found is None:
            found = self._store_steps[about] = tuple(
                (self.hosts[step.host], self.stores[step.store], step.overtakes, step.rewrites, step.label)
                for step in self.world.store_steps(self.hosts.all[host], self.stores.all[store], me)
            )
        return found

    def _looks(self, watcher: int) -> tuple[tuple[int, str], ...]:
        found = self._observer_steps.get(watcher)
        if found is None:
            steps = self.world.observer_steps(self.observers.all[watcher])
            found = self._observer_steps[watcher] = tuple((self.observers[then], label) for label, then in steps)
        return found

    def _finds(self, watcher: int, store: int, me: int) -> tuple[tuple[int, str], ...]:
        about = watcher << _BITS + 1 | store << 1 | me
        found = self._reads.get(about)
        if found is None:
            steps = self.world.observer_reads(self.observers.all[watcher], self.stores.all[store], me)
            found = self._reads[about] = tuple((self.observers[then], label) for label, then in steps)
        return found

    def _ordered(self, watcher: int, host: int, own: bool) -> int:
        about = watcher << _BITS + 1 | host << 1 | own
        found = self._orders.get(about)
        if found is None:
            order: Evidence = self.observers.all[watcher].order
            order = order if own else order._replace(owner=1 - order.owner)
            taken = self.world.take_order(self.hosts.all[host], order)
            found = self._orders[about] = self.hosts[taken] if taken is not None else -1
        return found

    def _without_order(self, watcher: int) -> int:
        found = self._cleared.get(watcher)
        if found is None:
            memory: ObserverMemory = self.observers.all[watcher]
            found = self._cleared[watcher] = self.observers[memory._replace(order=None)]
        return found

    def _may_tick(self, host: int) -> bool:
        return bool(self._shift("may-tick", host))

    def _shift(self, what: str, part: int) -> int:
        found = self._shifts.get((what, part))
        if found is None:
            found = self._shifts[what, part] = self._shifted(what, part)
        return found

    def _shifted(self, what: str, part: int) -> int:
        world, observers = self.world, self.world.observers
        match what:
            case "may-tick":
                return int(world.may_tick(self.hosts.all[part]))
            case "tick-host":
                return self.hosts[world.tick(self.hosts.all[part])]
            case "tick-observer":
                return self.observers[observers.tick(self.observers.all[part])]
            case "overtaken-host":
                return self.hosts[world.overtaken(self.hosts.all[part])]
            case "overtaken-observer":
                return self.observers[observers.overtaken(self.observers.all[part])]
            case _:
                return self.observers[observers.rewritten(self.observers.all[part])]

    def _ticked(self, key: int) -> int:
        return self._all_shifted(key, "tick-host", "tick-observer")

    def _overtaken(self, key: int) -> int:
        return self._all_shifted(key, "overtaken-host", "overtaken-observer")

    def _all_shifted(self, key: int, hosts: str, observers: str) -> int:
        shift = self._shift
        return (
            key >> STORE << STORE
            | shift(hosts, key & _MASK)
            | shift(hosts, key >> _BITS & _MASK) << _BITS
            | shift(observers, key >> 2 * _BITS & _MASK) << 2 * _BITS
            | shift(observers, key >> 3 * _BITS & _MASK) << 3 * _BITS
        )


def _broken(hosts: tuple[HostMemory, HostMemory], store: StoreMemory) -> str:
    executing = [me for me in (0, 1) if hosts[me].guest == EXECUTES]
    if not store.sound:
        return "epochs-rise: an epoch was written a second time"
    if len(executing) == 2:
        return "single-instance: the VM executes on host1 and on host2"
    for me in executing:
        if store.owner != me or store.released:
            word = "released by" if store.released else "owned by"
            return f"owner-runs: the VM executes on {NAMES[me]}, and its register says {word} {NAMES[store.owner]}"
    return ""


def explore(
    bounds: Bounds, *, most_states: int | None = None, progress: Callable[[int, int], None] = lambda _depth, _states: None
) -> Explored:
    """Visit every state that can be reached within the bounds, nearest first; stop at the first violation."""
    was_collecting = gc.isenabled()
    gc.disable()  # Nothing here is ever garbage, and looking for it takes half of the time.
    try:
        return _explore(Search(bounds), most_states, progress)
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
