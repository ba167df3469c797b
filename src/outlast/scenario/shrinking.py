"""A failing scenario made as small as it can be while it still fails: what a person can then read, fix and keep.

Only ways of leaving out are tried, the large ones first, each kept if the scenario fails without it: steps in halves,
quarters and so on, expectations, VMs and hosts with all that is said about them, time at the end, fractions of seconds.
Rounds are repeated until nothing more can go, or the tries are used up. In which world it fails is the business of `fails`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from outlast.model.time import SECOND, Duration
from outlast.scenario.model import Expectation, Scenario, Step
from outlast.scenario.sense import nonsense
from outlast.scenario.words import ANY, CLAIMS, VERBS, Kind

MOST_TRIES = 400
_replace = msgspec.structs.replace


def shrink(scenario: Scenario, fails: Callable[[Scenario], bool], tries: int = MOST_TRIES) -> Scenario:
    """The smallest failing scenario that was found. `fails` must be true for what is given."""
    left = tries
    shrunk = True
    while shrunk and left > 0:
        shrunk = False
        for ways in (_fewer_steps, _fewer_expectations, _fewer_vms, _fewer_hosts, _fewer_datastores, _shorter, _rounder):
            found, left = _walk(scenario, ways, fails, left)
            shrunk = shrunk or found is not scenario
            scenario = found
    return scenario


def _walk(
    scenario: Scenario, ways: Callable[[Scenario], Iterator[Scenario]], fails: Callable[[Scenario], bool], left: int
) -> tuple[Scenario, int]:
    """Take every way that still fails, beginning anew from what it leads to."""
    again = True
    while again:
        again = False
        for candidate in ways(scenario):
            if left <= 0:
                return scenario, 0
            if nonsense(candidate):
                continue
            left -= 1
            if fails(candidate):
                scenario, again = candidate, True
                break
    return scenario, left


def _fewer_steps(scenario: Scenario) -> Iterator[Scenario]:
    steps = scenario.steps
    size = len(steps)
    while size > 0:
        for at in range(0, len(steps), size):
            yield _replace(scenario, steps=steps[:at] + steps[at + size :])
        size //= 2


def _fewer_expectations(scenario: Scenario) -> Iterator[Scenario]:
    for i in range(len(scenario.expect)):
        yield _replace(scenario, expect=scenario.expect[:i] + scenario.expect[i + 1 :])


def _fewer_vms(scenario: Scenario) -> Iterator[Scenario]:
    for vm in scenario.vms:
        yield _without(scenario, hosts=frozenset(), vms=frozenset({str(vm.name)}))


def _fewer_hosts(scenario: Scenario) -> Iterator[Scenario]:
    if len(scenario.hosts) < 2:
        return
    for host in scenario.hosts:
        on_it = frozenset(str(vm.name) for vm in scenario.vms if vm.host == host.name)
        yield _without(scenario, hosts=frozenset({str(host.name)}), vms=on_it)


def _fewer_datastores(scenario: Scenario) -> Iterator[Scenario]:
    """One that no VM is homed on; every host must still reach another."""
    homes = {vm.datastore for vm in scenario.vms}
    for store in scenario.datastores:
        others = tuple(each for each in scenario.datastores if each is not store)
        hosts = tuple(
            host
            if host.datastores is None
            else _replace(host, datastores=tuple(name for name in host.datastores if name != store.name))
            for host in scenario.hosts
        )
        if store.name not in homes and others and all(host.datastores != () for host in hosts):
            steps = tuple(step for step in scenario.steps if step.keys.get("datastore") != store.name)
            yield _replace(scenario, datastores=others, hosts=hosts, steps=steps)


def _shorter(scenario: Scenario) -> Iterator[Scenario]:
    """Half of what follows the last moment."""
    times = [step.at for step in scenario.steps] + [e.at for e in scenario.expect if e.at is not None]
    last = max(times, default=0)
    shorter = last + (scenario.duration - last) // 2 // SECOND * SECOND
    if last < shorter < scenario.duration:
        yield _replace(scenario, duration=Duration(shorter))


def _rounder(scenario: Scenario) -> Iterator[Scenario]:
    for i, step in enumerate(scenario.steps):
        rounded = Duration(round(step.at / SECOND) * SECOND)
        if rounded != step.at and rounded <= scenario.duration:
            yield _replace(scenario, steps=(*scenario.steps[:i], _replace(step, at=rounded), *scenario.steps[i + 1 :]))


# -- without some hosts and VMs, and all that is said about them --------------------------------------------------------


def _without(scenario: Scenario, hosts: frozenset[str], vms: frozenset[str]) -> Scenario:
    gone = hosts | vms
    return _replace(
        scenario,
        hosts=tuple(host for host in scenario.hosts if host.name not in hosts),
        vms=tuple(
            _replace(vm, after=tuple(name for name in vm.after if name not in vms))
            for vm in scenario.vms
            if vm.name not in vms
        ),
        rules=tuple(rule for rule in scenario.rules if vms.isdisjoint(rule.vms) and hosts.isdisjoint(rule.hosts)),
        steps=tuple(step for step in scenario.steps if not _is_about(step, gone)),
        expect=tuple(
            _replace(expectation, claims=claims)
            for expectation in scenario.expect
            if (claims := _claims_without(expectation, hosts, vms))
        ),
    )


def _is_about(step: Step, gone: frozenset[str]) -> bool:
    named: set[str] = set()
    for key in VERBS[step.do].keys:
        value = step.keys.get(key.name)
        if key.kind in (Kind.HOST, Kind.VM) and value is not None:
            named.add(value)
        elif key.kind is Kind.GROUPS and value is not None:
            named |= {host for group in value for host in group}
    return not named.isdisjoint(gone)


def _claims_without(expectation: Expectation, hosts: frozenset[str], vms: frozenset[str]) -> dict[str, Any]:
    """The claims that are left; one that would say nothing any more is left out as a whole."""
    claims: dict[str, Any] = {}
    for name, value in expectation.claims.items():
        left = _claim_without(CLAIMS[name].kind, value, hosts, vms)
        if left:
            claims[name] = left
    return claims


def _claim_without(kind: Kind, value: Any, hosts: frozenset[str], vms: frozenset[str]) -> Any:
    if kind in (Kind.HOSTS, Kind.VMS):
        return tuple(name for name in value if name not in hosts | vms)
    if kind is not Kind.HOSTS_BY_VM:
        return {name: each for name, each in value.items() if name not in hosts | vms}
    found = {}
    for vm, where in value.items():
        left = where if where == (ANY,) else tuple(host for host in where if host not in hosts)
        if vm not in vms and left:
            found[vm] = left
    return found
