"""Whether a scenario came out the same in both worlds, and whether its VMs came back as fast.

The simulated world is played with several seeds: how a fault falls between two heartbeats is chance, there as in a lab, and
one run against one run would compare two throws of dice. So a run in the lab is held against all of them.

outcome    Each run is put into *facts*: state, host and starts of each VM at the end, how often it was away and came back,
           verdict and power of each host, the primary, and every expectation and invariant that did not hold. A fact of
           the lab that no seed shows is a difference. Where the scenario leaves a choice (`running = { web1 = ["host2",
           "host3"] }`), both choices are one fact; where a VM that was started anew stands in no claim, any live host is:
           placement goes by free memory, of which hosts of a lab have all the same.
times      A VM's n-th way back takes otherwise if it lies outside of all that the seeds show and more than TOLERANCE off
           their median. This is no difference in outcome, and neither is a claim about a length (TIMED) that does not
           hold in the lab alone: hosts of a lab share the processors of one machine with each other and with whatever
           else runs there, so that a rule that fails on lengths would fail on the weather. Both are told.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from outlast.scenario.model import Scenario
from outlast.scenario.result import End, Failure, Recovered, Result
from outlast.scenario.words import ANY

TOLERANCE = 0.3
TIMED = frozenset({"recovered_within", "frozen_at_most"})
"""The claims about lengths. That a VM was away at all, and how often, is a fact of its own."""
_HOLDS, _BROKEN = "holds", "does not hold"
_ANYWHERE = "any live host"


class Difference(msgspec.Struct, frozen=True):
    """A fact that the lab shows and no seed of the simulated world; `simulated`: what the seeds show, each once."""

    what: str
    simulated: tuple[str, ...]
    lab: str


class Recovery(msgspec.Struct, frozen=True):
    """One way back in both worlds, in seconds. `off`: how far the lab is from the seeds' median; `differs`: too far."""

    vm: str
    cause_at: float
    least: float
    median: float
    most: float
    lab: float
    off: float
    differs: bool


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Both worlds side by side.

    `same`: no difference in outcome. `passed`: with every seed all held, and in the lab all that is not in `late`, the
    claims about lengths that did not.
    """

    scenario: str
    path: str
    seeds: tuple[int, ...]
    same: bool
    passed: bool
    differences: tuple[Difference, ...]
    recoveries: tuple[Recovery, ...]
    late: tuple[Failure, ...]
    lab: Result


def compare(scenario: Scenario, simulated: Sequence[Result], lab: Result) -> Comparison:
    """One run in the lab against those of the simulated world, of which there is at least one."""
    differences = tuple(_differences([facts(scenario, result) for result in simulated], facts(scenario, lab)))
    late = tuple(failure for failure in lab.failures if _is_timed(failure))
    return Comparison(
        scenario=scenario.title,
        path=scenario.path,
        seeds=tuple(result.seed for result in simulated),
        same=not differences,
        passed=not lab.violations and len(late) == len(lab.failures) and all(result.passed for result in simulated),
        differences=differences,
        recoveries=tuple(_recoveries(simulated, lab)),
        late=late,
        lab=lab,
    )


# -- outcome ----------------------------------------------------------------------------------------------------------


def facts(scenario: Scenario, result: Result) -> dict[str, str]:
    """What came of a run, as far as the scenario determines it. What holds and is not asked for here is left out."""
    end, found = result.end, dict[str, str]()
    claims = _claims_at_the_end(scenario)
    for name, vm in end.vms.items():
        found[f"{name}: state"] = vm.state
        found[f"{name}: host"] = _host(name, end, claims.get("running", {}))
        least, most = claims.get("restarted", {}).get(name, (vm.restarts, vm.restarts))
        if least == most or not least <= vm.restarts <= most:
            found[f"{name}: starts"] = str(vm.restarts)
            found[f"{name}: times away and back"] = str(len(_ways(result, name)))
    for name, host in end.hosts.items():
        found[f"{name}: verdict"] = host.verdict
        found[f"{name}: power"] = host.power
    found["primary"] = _one_of(claims.get("primary", ()), end.primary)
    for failure in result.failures:
        if not _is_timed(failure):
            found[failure.expectation] = _BROKEN
    for violation in result.violations:
        found[f"invariant {violation.invariant}"] = _BROKEN
    return found


def _claims_at_the_end(scenario: Scenario) -> dict[str, Any]:
    """What is claimed of the end, by claim; of claims about names, by name."""
    found: dict[str, Any] = {}
    for expectation in scenario.expect:
        if expectation.at is not None and expectation.at != scenario.duration:
            continue
        for claim, content in expectation.claims.items():
            found[claim] = {**found.get(claim, {}), **content} if isinstance(content, Mapping) else content
    return found


def _host(vm: str, end: End, claimed: Mapping[str, Sequence[str]]) -> str:
    host, restarts = end.vms[vm].host, end.vms[vm].restarts
    if vm in claimed and tuple(claimed[vm]) != (ANY,):
        return _one_of(claimed[vm], host)
    if (vm in claimed or restarts) and host in end.hosts and end.hosts[host].power == "on":
        return _ANYWHERE
    return host


def _is_timed(failure: Failure) -> bool:
    return failure.expectation.partition(":")[0] in TIMED


def _one_of(allowed: Sequence[str], name: str) -> str:
    """The name; the whole choice if it is one of those that the scenario allows."""
    return " or ".join(allowed) if name in allowed else name


def _differences(simulated: Sequence[Mapping[str, str]], lab: Mapping[str, str]) -> Iterator[Difference]:
    for what in dict.fromkeys([*lab, *(what for each in simulated for what in each)]):
        shown = tuple(dict.fromkeys(each.get(what, _HOLDS) for each in simulated))
        if (found := lab.get(what, _HOLDS)) not in shown:
            yield Difference(what, shown, found)


# -- recovery ---------------------------------------------------------------------------------------------------------


def _recoveries(simulated: Sequence[Result], lab: Result) -> Iterator[Recovery]:
    for vm in lab.end.vms:
        ways = _ways(lab, vm)
        # Seeds in which it was away as often: which way back is which would be a guess in the others.
        alike = [each for result in simulated if len(each := _ways(result, vm)) == len(ways)]
        for n, way in enumerate(ways):
            if seconds := [each[n].seconds for each in alike]:
                yield _recovery(way, seconds)


def _ways(result: Result, vm: str) -> list[Recovered]:
    return sorted((way for way in result.recovery if way.vm == vm), key=lambda way: way.running_at)


def _recovery(way: Recovered, seconds: Sequence[float]) -> Recovery:
    least, median, most = min(seconds), statistics.median(seconds), max(seconds)
    off = way.seconds / median - 1 if median else float(way.seconds > 0)
    differs = abs(off) > TOLERANCE and not least <= way.seconds <= most
    return Recovery(way.vm, way.cause_at, least, median, most, way.seconds, round(off, 3), differs)
