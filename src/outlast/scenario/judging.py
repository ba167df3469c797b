"""Whether what a scenario expects is so. Both worlds are judged by this one judge, over the questions of `Observed`.

Each claim is judged name by name, so that a failure says which VM or host, what was expected, and what was found.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from outlast.model.time import in_seconds
from outlast.model.units import duration_text
from outlast.scenario.history import History
from outlast.scenario.model import Expectation
from outlast.scenario.result import Failure
from outlast.scenario.words import ANY


class Observed(Protocol):
    """A world, asked at one moment. Names are the scenario's; times are nanoseconds from its start."""

    def now(self) -> int:
        """The time."""
        ...

    def live_hosts(self) -> Sequence[str]:
        """The hosts that have power."""
        ...

    def executing_on(self, vm: str) -> Sequence[str]:
        """The hosts on which it executes now (frozen does not execute)."""
        ...

    def state(self, vm: str) -> str:
        """One of `words.STATES`."""
        ...

    def verdict(self, host: str) -> str:
        """By the primary in charge; "unknown" if there is none."""
        ...

    def dead_since(self) -> Mapping[str, int]:
        """The hosts that were ever declared dead by a primary, or fenced, and when first."""
        ...

    def primary(self) -> str:
        """The primary in charge: elected, and responsible for the most datastores; empty if there is none."""
        ...

    def fenced(self) -> Sequence[str]:
        """The hosts that a fence device powered off since the start."""
        ...

    def resets(self, vm: str) -> int:
        """How often its guest was reset since the start."""
        ...

    def guest(self, vm: str) -> str:
        """One of `words.GUESTS`, as its host tells."""
        ...

    def history(self, vm: str) -> History:
        """What happened to a VM since the start."""
        ...


Found = Iterator[tuple[str, str]]
"""(expected, found), of each name for which a claim does not hold."""


def judge(expectation: Expectation, observed: Observed) -> list[Failure]:
    """The claims that do not hold now, in the order of the language's table."""
    failures = []
    for claim, judge_claim in _JUDGES.items():
        if claim not in expectation.claims:
            continue
        for expected, found in judge_claim(expectation.claims[claim], observed):
            place = f" (line {expectation.line})" if expectation.line else ""
            at = round(in_seconds(observed.now()), 3)
            failures.append(Failure(at, f"{claim}: {expected}{place}", found))
    return failures


def _running(claim: Mapping[str, Sequence[str]], observed: Observed) -> Found:
    for vm, hosts in claim.items():
        allowed = list(observed.live_hosts()) if tuple(hosts) == (ANY,) else list(hosts)
        where = list(observed.executing_on(vm))
        if len(where) != 1 or where[0] not in allowed:
            expected = "any live host" if tuple(hosts) == (ANY,) else _either(hosts)
            yield f"{vm} executes on {expected}", _whereabouts(vm, observed)


def _not_running(claim: Sequence[str], observed: Observed) -> Found:
    for vm in claim:
        if observed.executing_on(vm):
            yield f"{vm} does not execute", _whereabouts(vm, observed)


def _state(claim: Mapping[str, str], observed: Observed) -> Found:
    for vm, state in claim.items():
        if (found := observed.state(vm)) != state:
            yield f"{vm} is {state}", f"it is {found}"


def _verdict(claim: Mapping[str, str], observed: Observed) -> Found:
    for host, verdict in claim.items():
        if (found := observed.verdict(host)) != verdict:
            yield f"{host} is {verdict}", f"{observed.primary() or 'no primary'} says {found}"


def _not_dead(claim: Sequence[str], observed: Observed) -> Found:
    dead = observed.dead_since()
    for host in claim:
        if host in dead:
            yield f"{host} was never declared dead", f"it was, at {duration_text(dead[host])}"


def _restarted(claim: Mapping[str, tuple[int, int]], observed: Observed) -> Found:
    for vm, (least, most) in claim.items():
        times = len(observed.history(vm).starts)
        if not least <= times <= most:
            expected = f"{least} times" if least == most else f"{least} to {most} times"
            yield f"{vm} was started anew {expected}", f"{times} times"


def _resets(claim: Mapping[str, tuple[int, int]], observed: Observed) -> Found:
    for vm, (least, most) in claim.items():
        if not least <= (times := observed.resets(vm)) <= most:
            expected = f"{least} times" if least == most else f"{least} to {most} times"
            yield f"the guest of {vm} was reset {expected}", f"{times} times"


def _guest(claim: Mapping[str, str], observed: Observed) -> Found:
    for vm, state in claim.items():
        if (found := observed.guest(vm)) != state:
            yield f"the guest of {vm} is told to be: {state}", f"it is told to be: {found}"


def _recovered_within(claim: Mapping[str, int], observed: Observed) -> Found:
    for vm, most in claim.items():
        way = observed.history(vm).way_back()
        expected = f"{vm} is back within {duration_text(most)}"
        if way is None:
            yield expected, "no step stopped it or cut it off"
        elif way.length is None:
            yield expected, f"{_seconds(observed.now() - way.cause)} after the step it is not"
        elif way.length > most:
            yield expected, f"after {_seconds(way.length)}"


def _frozen_at_most(claim: Mapping[str, int], observed: Observed) -> Found:
    for vm, most in claim.items():
        frozen = observed.history(vm).frozen_for(observed.now())
        if frozen > most:
            yield f"{vm} is frozen for at most {duration_text(most)}", f"{_seconds(frozen)}"


def _primary(claim: Sequence[str], observed: Observed) -> Found:
    if (found := observed.primary()) not in claim:
        yield f"the primary is {_either(claim)}", f"it is {found}" if found else "there is none"


def _fenced(claim: Sequence[str], observed: Observed) -> Found:
    found = sorted(observed.fenced())
    if found != sorted(claim):
        yield f"a fence device powered off {_all(claim)}", f"it powered off {_all(found)}"


def _apart(claim: Sequence[str], observed: Observed) -> Found:
    where = [host for vm in claim for host in observed.executing_on(vm)]
    if len(set(where)) != len(where) or len(where) != len(claim):
        yield f"{_all(claim)} execute, each on a host of its own", _all_whereabouts(claim, observed)


def _together(claim: Sequence[str], observed: Observed) -> Found:
    where = [tuple(observed.executing_on(vm)) for vm in claim]
    if len(set(where)) > 1 or any(len(hosts) != 1 for hosts in where):
        yield f"{_all(claim)} execute on one host", _all_whereabouts(claim, observed)


_JUDGES: dict[str, Callable[[Any, Observed], Found]] = {
    "running": _running,
    "not_running": _not_running,
    "state": _state,
    "verdict": _verdict,
    "not_dead": _not_dead,
    "restarted": _restarted,
    "resets": _resets,
    "guest": _guest,
    "recovered_within": _recovered_within,
    "frozen_at_most": _frozen_at_most,
    "primary": _primary,
    "fenced": _fenced,
    "apart": _apart,
    "together": _together,
}


def _whereabouts(vm: str, observed: Observed) -> str:
    where = observed.executing_on(vm)
    return f"it executes on {' and '.join(where)}" if where else f"it does not execute: it is {observed.state(vm)}"


def _all_whereabouts(vms: Sequence[str], observed: Observed) -> str:
    return ", ".join(f"{vm} on {' and '.join(observed.executing_on(vm)) or 'none'}" for vm in vms)


def _either(names: Sequence[str]) -> str:
    return " or ".join(names) if names else "none"


def _all(names: Sequence[str]) -> str:
    return " and ".join(names) if names else "none"


def _seconds(length: int) -> str:
    return f"{in_seconds(length):.3f} s"
