"""Whose turn it is: in which order VMs that have to be started anew are started. A pure decision over a snapshot.

Reading registers and waiting for proof goes on for all VMs at once; only the start is a matter of turns.

- The most important first. A VM is as important as the most important one that waits for it. A lower one waits for the
  proof about higher ones for `PROOF_GRACE` at most, and never for their being ready.
- A VM waits for those that it names in `after` until they are ready, as far as somebody is bringing them back. One that
  nobody will start (switched off, not protected, disabled, failed) is not waited for.
- It waits for `dependency_timeout` (and for the delay that a dependency's own readiness asks for) at most. Its time stands
  still while a dependency's own turn has not come, so that a long chain and a mass restart do not use it up.
- VMs that wait for each other in a ring cannot all be obeyed: the least important of a ring does not wait for the others.
- At most `starts_at_once_per_host` and `starts_at_once_per_datastore` starts are under way (`Slots`): a mass restart must
  not be an outage of its own.
"""

from collections.abc import Iterable, Mapping

import msgspec

from outlast.model.dependency import Dependency, Standing
from outlast.model.ids import DatastoreName, HostId, HostName, VmId, VmName
from outlast.model.policy import Priority, cycle_in, rank
from outlast.model.time import SECOND, Duration, Instant, after

PROOF_GRACE = Duration(SECOND)


class Waiter(msgspec.Struct, frozen=True, kw_only=True):
    """One VM that is to be started anew. `queued`: it only waits for its turn, since `queued_since`.

    `after`: as far as it waits for them still. `waited`: how long it has waited for them, as far as that counts.
    """

    vm: VmId
    name: VmName
    priority: Priority
    after: tuple[VmName, ...] = ()
    queued: bool = True
    queued_since: Instant = Instant(0)
    waited: Duration = Duration(0)


class Unheeded(msgspec.Struct, frozen=True):
    """A VM does not wait for a dependency although that is not ready; `in_vain`: no more, since its time is over."""

    vm: VmId
    dependency: VmName
    why: str
    in_vain: bool = False


class Turns(msgspec.Struct, frozen=True):
    """`go`: whose turn it is, in order. `held`: why it is not that of the others.

    `ranks`: how important each waiter is, as far as others wait for it. `standing_still`: whose wait does not count now.
    `look_again`: when time alone may change the answer.
    """

    go: tuple[VmId, ...]
    held: dict[VmId, str]
    ranks: dict[VmId, int]
    standing_still: frozenset[VmId]
    unheeded: tuple[Unheeded, ...]
    look_again: Instant | None


def turns(
    waiters: Iterable[Waiter], dependencies: Mapping[VmName, Dependency], dependency_timeout: Duration, now: Instant
) -> Turns:
    """Whose turn it is. `dependencies` has every name in anybody's `after`."""
    everybody = sorted(waiters, key=lambda waiter: (waiter.queued_since, waiter.name, waiter.vm))
    look = _Look(everybody, dependencies, dependency_timeout, now)
    for waiter in everybody:
        if waiter.queued:
            look.judge(waiter)
    look.go.sort(key=lambda waiter: look.ranks[waiter.vm])
    held_back = look.for_proof_of_higher_ones(everybody)
    return Turns(
        tuple(waiter.vm for waiter in look.go if waiter.vm not in held_back),
        look.held | held_back,
        look.ranks,
        frozenset(look.still),
        tuple(look.unheeded),
        min(look.times, default=None),
    )


class _Look:
    """One look at all of them."""

    def __init__(
        self, everybody: list[Waiter], dependencies: Mapping[VmName, Dependency], timeout: Duration, now: Instant
    ) -> None:
        self._dependencies = dependencies
        self._timeout = timeout
        self._now = now
        self.go: list[Waiter] = []
        self.held: dict[VmId, str] = {}
        self.still: set[VmId] = set()
        self.times: list[Instant] = []
        self.unheeded: list[Unheeded] = []
        self._waits = {waiter.vm: self._down(waiter) for waiter in everybody}
        self._break_rings(everybody)
        self.ranks = _inherited_ranks(everybody, self._waits)

    def _down(self, waiter: Waiter) -> tuple[VmName, ...]:
        """What it has to wait for: what nobody will start is told of, once, and left out."""
        found: list[VmName] = []
        for name in waiter.after:
            dependency = self._dependencies[name]
            if dependency.standing is Standing.NEVER:
                self.unheeded.append(Unheeded(waiter.vm, name, dependency.why))
            elif dependency.standing is not Standing.READY:
                found.append(name)
        return tuple(found)

    def _break_rings(self, everybody: list[Waiter]) -> None:
        named: dict[str, list[Waiter]] = {}
        for waiter in everybody:
            named.setdefault(waiter.name, []).append(waiter)
        while ring := cycle_in({name: [n for w in each for n in self._waits[w.vm]] for name, each in named.items()}):
            waiting = [w for name in ring for w in named[name] if not set(ring).isdisjoint(self._waits[w.vm])]
            least = max(waiting, key=lambda w: (rank(w.priority), w.name, w.vm))
            others = " and ".join(name for name in ring if name != least.name)
            for name in (name for name in self._waits[least.vm] if name in ring):
                self.unheeded.append(Unheeded(least.vm, name, f"{least.name} and {others} wait for each other"))
            self._waits[least.vm] = tuple(name for name in self._waits[least.vm] if name not in ring)

    def judge(self, waiter: Waiter) -> None:
        """Whether it may go as far as its dependencies are concerned."""
        waits = self._waits[waiter.vm]
        if any(self._dependencies[name].standing is Standing.QUEUED for name in waits):
            self.still.add(waiter.vm)
            self.held[waiter.vm] = f"it waits for {_listed(waits)}, whose turn has not come"
            return
        late: list[VmName] = []
        for name in waits:
            left = Duration(self._timeout + self._dependencies[name].allowance - waiter.waited)
            if left <= 0:
                late.append(name)
            else:
                self.times.append(after(self._now, left))
        self.unheeded += [Unheeded(waiter.vm, name, "it was waited for in vain", True) for name in late]
        waits = tuple(name for name in waits if name not in late)
        if waits:
            self.held[waiter.vm] = f"it waits until {_listed(waits)} {'is' if len(waits) == 1 else 'are'} ready"
        else:
            self.go.append(waiter)

    def for_proof_of_higher_ones(self, everybody: list[Waiter]) -> dict[VmId, str]:
        """Who waits a moment, because a more important one may be about to need its place."""
        unproven = [waiter for waiter in everybody if not waiter.queued]
        held: dict[VmId, str] = {}
        for waiter in self.go:
            until = after(waiter.queued_since, PROOF_GRACE)
            higher = next((w for w in unproven if self.ranks[w.vm] < self.ranks[waiter.vm]), None)
            if higher is not None and self._now < until:
                held[waiter.vm] = f"{higher.name} is more important, and about to be recovered as well"
                self.times.append(until)
        return held


def _inherited_ranks(everybody: list[Waiter], waits: Mapping[VmId, tuple[VmName, ...]]) -> dict[VmId, int]:
    """Each one's rank, or that of the most important one that waits for it, if that is higher. There are no rings."""
    ranks = {waiter.vm: rank(waiter.priority) for waiter in everybody}
    named: dict[VmName, list[VmId]] = {}
    for waiter in everybody:
        named.setdefault(waiter.name, []).append(waiter.vm)
    raised = [waiter.vm for waiter in everybody]
    while raised:
        vm = raised.pop()
        for other in (other for name in waits[vm] for other in named.get(name, ())):
            if ranks[vm] < ranks[other]:
                ranks[other] = ranks[vm]
                raised.append(other)
    return ranks


def _listed(names: tuple[VmName, ...]) -> str:
    return ", ".join(names)


class Slots:
    """How many more starts may be under way on each host and on each datastore."""

    def __init__(self, per_host: int, per_datastore: int, under_way: Iterable[tuple[HostId, DatastoreName]]) -> None:
        self._most_on_host, self._most_on_datastore = per_host, per_datastore
        self._on_host: dict[HostId, int] = {}
        self._on_datastore: dict[DatastoreName, int] = {}
        for host, home in under_way:
            self.take(host, home)

    def take(self, host: HostId, home: DatastoreName) -> None:
        """One more start is under way."""
        self._on_host[host] = self._on_host.get(host, 0) + 1
        self._on_datastore[home] = self._on_datastore.get(home, 0) + 1

    def refusal_of_datastore(self, home: DatastoreName) -> str:
        """Why no VM of this datastore may be started just now, or an empty string."""
        count = self._on_datastore.get(home, 0)
        if count < self._most_on_datastore:
            return ""
        return f"{count} VMs of {home} are being started (starts_at_once_per_datastore)"

    def refusal_of_host(self, host: HostId, name: HostName) -> str:
        """Why no VM may be started on this host just now, or an empty string."""
        count = self._on_host.get(host, 0)
        return "" if count < self._most_on_host else f"{name} is starting {count} VMs (starts_at_once_per_host)"
