"""What can follow a state of the small world, as numbers: the tables of one search, and the rules that every state keeps.

A state is one number, made of the numbers of its parts: two hosts, two observers, the datastore, what may still happen.
Each part has a table of what can happen to it, made when the part is first met (`small_world`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from outlast.sim.small_observer import FRESH, ObserverMemory
from outlast.sim.small_parts import ASK, EXECUTES, Bounds, Evidence, HostMemory, StoreMemory, order_from
from outlast.sim.small_world import SmallWorld

BITS = 24
MASK = (1 << BITS) - 1
SHIFT = (0, BITS, 2 * BITS, 3 * BITS, 4 * BITS, 5 * BITS, 6 * BITS)
STORE, BUDGET = SHIFT[4], SHIFT[5]
HOSTS = (1 << 2 * BITS) - 1
NAMES = ("host1", "host2")

_T = TypeVar("_T")


class Parts(dict[Any, int]):
    """Numbers for parts, in the order in which they are met."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def __missing__(self, part: Any) -> int:
        number = self[part] = len(self.all)
        self.all.append(part)
        return number


class Table(dict[int, _T]):
    """What follows from a number, worked out when it is first asked for; from then on asking costs a look at a dict."""

    def __init__(self, made: Callable[[int], _T]) -> None:
        self._made = made

    def __missing__(self, number: int) -> _T:
        made = self[number] = self._made(number)
        return made


class Search:
    """The tables of one search, and what can follow a state."""

    def __init__(self, bounds: Bounds) -> None:
        self.world = SmallWorld(bounds)
        self.bounds = bounds
        self.hosts, self.observers, self.stores = Parts(), Parts(), Parts()
        self._fresh = self.observers[FRESH]
        self._host_steps = Table(self._of_host)
        self._lands = Table(self._of_host_and_store)
        self._looks = Table(self._of_watcher)
        self._finds = Table(self._of_watcher_and_store)
        self._ordered = Table(self._of_order)
        self._given_up = Table(self._of_question)
        self._without_order = Table(self._watcher_without_order)
        self._judged = Table(self._broken)
        world, observers = self.world, self.world.observers
        self._may_tick = Table(lambda host: world.may_tick(self.hosts.all[host]))
        self._tick_host = Table(lambda host: self.hosts[world.tick(self.hosts.all[host])])
        self._tick_observer = Table(lambda one: self.observers[observers.tick(self.observers.all[one])])
        self._overtaken_host = Table(lambda host: self.hosts[world.overtaken(self.hosts.all[host])])
        self._overtaken_observer = Table(lambda one: self.observers[observers.overtaken(self.observers.all[one])])
        self._rewritten = Table(lambda one: self.observers[observers.rewritten(self.observers.all[one])])

    def first(self) -> int:
        """The state that everything begins with."""
        one, other, store = self.world.first()
        key = self.hosts[one] | self.hosts[other] << SHIFT[1] | self._fresh << SHIFT[2] | self._fresh << SHIFT[3]
        return key | self.stores[store] << STORE | self.bounds.budget << BUDGET

    def judge(self, key: int) -> str:
        """The invariant that a state breaks, or an empty string."""
        return self._judged[key & HOSTS | (key >> STORE & MASK) << 2 * BITS]

    def hosts_of(self, key: int) -> tuple[HostMemory, HostMemory]:
        """Both hosts."""
        return self.hosts.all[key & MASK], self.hosts.all[key >> BITS & MASK]

    # -- what follows ---------------------------------------------------------------------------------------------

    def steps(self, key: int) -> Iterator[tuple[int, str, int]]:
        """Each state that can follow, what happened in words, and to which host."""
        hosts = (key & MASK, key >> BITS & MASK)
        watchers = (key >> 2 * BITS & MASK, key >> 3 * BITS & MASK)
        store, budget = key >> STORE & MASK, key >> BUDGET
        asks = budget & ASK * 15
        for me in (0, 1):
            host, watcher = hosts[me], watchers[me]
            at, watcher_at = me * BITS, (2 + me) * BITS
            rest = key - (host << at)
            for then, cost, off, label in self._host_steps[host]:
                if cost and not budget & cost * 15:
                    continue
                follows = rest + (then << at) - (cost << BUDGET)
                if off:
                    follows += (self._fresh - watcher) << watcher_at
                yield self._unwatched(follows) if cost == ASK else follows, label, me
            for then, stored, overtakes, rewrites, label in self._lands[_about(host, store, me)]:
                follows = rest + (then << at) + ((stored - store) << STORE)
                if overtakes:
                    follows = self._overtaken(follows)
                if rewrites:
                    other = watchers[1 - me]
                    follows += (self._rewritten[other] - other) << (3 - me) * BITS
                yield follows, label, me
            if me in self.bounds.observers and asks and self.hosts.all[host].on:
                yield from self._watcher_steps(key, watcher, store, me, hosts)
        if self._may_tick[hosts[0]] and self._may_tick[hosts[1]]:
            yield self._ticked(key), "time goes on by one tick", 0

    def _watcher_steps(
        self, key: int, watcher: int, store: int, me: int, hosts: tuple[int, int]
    ) -> Iterator[tuple[int, str, int]]:
        at = (2 + me) * BITS
        for then, label in self._looks[watcher]:
            yield key + ((then - watcher) << at), label, me
        for then, label in self._finds[_about(watcher, store, me)]:
            yield key + ((then - watcher) << at), label, me
        if self.bounds.gives_up:
            then, word = self._given_up[_about(hosts[1 - me], store, 1 - me)]
            told = self._with_order(watcher) if word else watcher
            label = "{h} is asked to give the VM up, and says that it " + ("has" if word else "has not")
            yield key + ((then - hosts[1 - me]) << (1 - me) * BITS) + ((told - watcher) << at), label, 1 - me
        if self.observers.all[watcher].order is None:
            return
        for target in (0, 1):
            taken = self._ordered[_about(watcher, hosts[target], target == me)]
            if taken >= 0:
                sent = key - (ASK << BUDGET) + ((self._without_order[watcher] - watcher) << at)
                label = "the keeper of {h} is ordered to take the VM over"
                yield self._unwatched(sent + ((taken - hosts[target]) << target * BITS)), label, target

    def _unwatched(self, key: int) -> int:
        """When nothing may be asked any more, what the agents know is of no consequence."""
        if key >> BUDGET & ASK * 15:
            return key
        hosts_and_store = key & ~(MASK << 2 * BITS | MASK << 3 * BITS)
        return hosts_and_store | self._fresh << 2 * BITS | self._fresh << 3 * BITS

    def _ticked(self, key: int) -> int:
        return self._shifted(key, self._tick_host, self._tick_observer)

    def _overtaken(self, key: int) -> int:
        return self._shifted(key, self._overtaken_host, self._overtaken_observer)

    @staticmethod
    def _shifted(key: int, hosts: Table[int], observers: Table[int]) -> int:
        return (
            key >> STORE << STORE
            | hosts[key & MASK]
            | hosts[key >> BITS & MASK] << BITS
            | observers[key >> 2 * BITS & MASK] << 2 * BITS
            | observers[key >> 3 * BITS & MASK] << 3 * BITS
        )

    # -- what the tables hold -------------------------------------------------------------------------------------

    def _of_host(self, host: int) -> tuple[tuple[int, int, bool, str], ...]:
        return tuple(
            (self.hosts[step.host], step.cost, not step.host.on, step.label)
            for step in self.world.host_steps(self.hosts.all[host])
        )

    def _of_host_and_store(self, about: int) -> tuple[tuple[int, int, bool, bool, str], ...]:
        host, store, me = _parts(about)
        return tuple(
            (self.hosts[step.host], self.stores[step.store], step.overtakes, step.rewrites, step.label)
            for step in self.world.store_steps(self.hosts.all[host], self.stores.all[store], me)
        )

    def _of_watcher(self, watcher: int) -> tuple[tuple[int, str], ...]:
        steps = self.world.observer_steps(self.observers.all[watcher])
        return tuple((self.observers[then], label) for label, then in steps)

    def _of_watcher_and_store(self, about: int) -> tuple[tuple[int, str], ...]:
        watcher, store, me = _parts(about)
        steps = self.world.observer_reads(self.observers.all[watcher], self.stores.all[store], me)
        return tuple((self.observers[then], label) for label, then in steps)

    def _of_order(self, about: int) -> int:
        watcher, host, own = _parts(about)
        order: Evidence = self.observers.all[watcher].order
        order = order if own else order._replace(owner=1 - order.owner)
        taken = self.world.take_order(self.hosts.all[host], order)
        return self.hosts[taken] if taken is not None else -1

    def _of_question(self, about: int) -> tuple[int, bool]:
        host, store, me = _parts(about)
        answer = self.world.asked_to_give_up(self.hosts.all[host], self.stores.all[store], me)
        return (self.hosts[answer[0]], answer[1]) if answer is not None else (host, False)

    def _with_order(self, watcher: int) -> int:
        """The owner's word about the newest epoch is proof, and may be used however late."""
        memory: ObserverMemory = self.observers.all[watcher]
        return self.observers[memory._replace(order=order_from(0))]

    def _watcher_without_order(self, watcher: int) -> int:
        memory: ObserverMemory = self.observers.all[watcher]
        return self.observers[memory._replace(order=None)]

    def _broken(self, about: int) -> str:
        return _broken(self.hosts_of(about), self.stores.all[about >> 2 * BITS])


def _about(one: int, other: int, me: int) -> int:
    """Two parts and whose they are, as one number."""
    return one << BITS + 1 | other << 1 | me


def _parts(about: int) -> tuple[int, int, int]:
    """The same, taken apart again."""
    return about >> BITS + 1, about >> 1 & MASK, about & 1


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
