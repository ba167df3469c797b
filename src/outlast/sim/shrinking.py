"""Making a failing scenario small, so that a person can read why it fails.

Greedy delta debugging: cut the end off, drop steps (halves first, then single ones), VMs, hosts and datastores that nothing
names any more, as long as the same invariant is still violated. Each try is a whole run; the number of tries is bounded,
and what has been reached when it is used up is returned. The seed of latencies stays, so a step that is dropped moves
everything random after it: the smaller scenario fails for the same rule, not always by the same chain of events.
"""

from collections.abc import Callable, Iterator

import msgspec

from outlast.model.time import SECOND, Duration
from outlast.scenario.model import Scenario, Step
from outlast.sim.random_runs import play

TRIES = 300
AFTER_LAST = 3 * SECOND
Fails = Callable[[Scenario], bool]


def violates(invariant: str) -> Fails:
    """Whether a scenario's first violation is of this invariant."""

    def fails(scenario: Scenario) -> bool:
        violations = play(scenario, stop_at_violation=True).violations
        return bool(violations) and violations[0].invariant == invariant

    return fails


def shrink(scenario: Scenario, fails: Fails, tries: int = TRIES) -> Scenario:
    """The smallest scenario found that still fails. `scenario` itself must fail; if it does not, it is returned."""
    left = [tries]

    def try_it(candidate: Scenario) -> bool:
        if left[0] <= 0:
            return False
        left[0] -= 1
        return fails(candidate)

    if not try_it(scenario):
        return scenario
    smaller, before = _shortened(scenario, try_it), None
    while smaller != before and left[0] > 0:
        before = smaller
        smaller = _fewer_steps(smaller, try_it)
        for candidates in (_without_a_vm, _without_a_host, _without_a_datastore):
            smaller = _fewer(smaller, candidates, try_it)
    return msgspec.structs.replace(smaller, title=f"{scenario.title}, shrunk")


def _shortened(scenario: Scenario, fails: Fails) -> Scenario:
    """End when the violation is there: later steps are gone at once. `all-recovered` needs all of its time."""
    violations = play(scenario, stop_at_violation=True)
    if not violations.violations:
        return scenario
    at = Duration(violations.violations[0].at - violations.began + AFTER_LAST)
    steps = tuple(step for step in scenario.steps if step.at <= at)
    candidate = msgspec.structs.replace(scenario, steps=steps, duration=min(at, scenario.duration))
    return candidate if fails(candidate) else scenario


def _fewer_steps(scenario: Scenario, fails: Fails) -> Scenario:
    size = max(1, len(scenario.steps) // 2)
    while True:
        at = 0
        while at < len(scenario.steps):
            steps = scenario.steps[:at] + scenario.steps[at + size :]
            candidate = msgspec.structs.replace(scenario, steps=steps)
            if fails(candidate):
                scenario = candidate
            else:
                at += size
        if size == 1:
            return scenario
        size //= 2


def _fewer(scenario: Scenario, candidates: Callable[[Scenario], Iterator[Scenario]], fails: Fails) -> Scenario:
    """Take the first smaller one that still fails, again and again."""
    while True:
        smaller = next((candidate for candidate in candidates(scenario) if fails(candidate)), None)
        if smaller is None:
            return scenario
        scenario = smaller


def _names(step: Step, name: str) -> bool:
    values = [value for key, value in step.keys.items() if key != "between"]
    return name in values or any(name in group for group in step.keys.get("between", ()))


def _without_a_vm(scenario: Scenario) -> Iterator[Scenario]:
    for vm in scenario.vms:
        yield msgspec.structs.replace(
            scenario,
            vms=tuple(v for v in scenario.vms if v is not vm),
            steps=tuple(s for s in scenario.steps if not _names(s, vm.name)),
        )


def _without_a_host(scenario: Scenario) -> Iterator[Scenario]:
    """Also the steps that are about it alone; partitions lose it from their groups, and go when a group is empty."""
    if len(scenario.hosts) <= 2:
        return
    for host in scenario.hosts:
        if any(vm.host == host.name for vm in scenario.vms):
            continue
        steps: list[Step] = []
        for step in scenario.steps:
            if step.keys.get("host") == host.name:
                continue
            if "between" in step.keys:
                groups = tuple(tuple(name for name in group if name != host.name) for group in step.keys["between"])
                if not all(groups):
                    continue
                step = msgspec.structs.replace(step, keys={**step.keys, "between": groups})  # noqa: PLW2901
            steps.append(step)
        hosts = tuple(h for h in scenario.hosts if h is not host)
        yield msgspec.structs.replace(scenario, hosts=hosts, steps=tuple(steps))


def _without_a_datastore(scenario: Scenario) -> Iterator[Scenario]:
    if len(scenario.datastores) <= 1:
        return
    for store in scenario.datastores:
        if any(vm.datastore == store.name for vm in scenario.vms):
            continue
        hosts = tuple(
            h
            if h.datastores is None
            else msgspec.structs.replace(h, datastores=tuple(d for d in h.datastores if d != store.name))
            for h in scenario.hosts
        )
        if any(h.datastores == () for h in hosts):
            continue
        yield msgspec.structs.replace(
            scenario,
            hosts=hosts,
            datastores=tuple(d for d in scenario.datastores if d is not store),
            steps=tuple(s for s in scenario.steps if not _names(s, store.name)),
        )
