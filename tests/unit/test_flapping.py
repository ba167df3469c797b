"""A host that fails again and again is avoided for a while; never more than a quarter of the hosts."""

from __future__ import annotations

from outlast.model.ids import HostId
from outlast.model.time import SECOND, Duration, Instant
from outlast.protocol.flapping import AVOIDED_FOR, Flapping, avoided

A, B = HostId("a"), HostId("b")


def minutes(value: int) -> Instant:
    return Instant(value * 60 * SECOND)


def test_the_third_failure_within_an_hour() -> None:
    seen = Flapping()
    for at in (0, 20):
        seen.died(A, False, minutes(at))
        seen.booted(A, False, minutes(at + 5))
        assert seen.left(minutes(at + 5)) == {}
    seen.booted(A, False, minutes(50))
    assert seen.left(minutes(50)) == {A: AVOIDED_FOR}
    assert seen.left(minutes(50 + 119)) == {A: Duration(60 * SECOND)}
    assert seen.left(minutes(50 + 120)) == {}


def test_an_outage_counts_once_and_one_that_was_announced_not_at_all() -> None:
    seen = Flapping()
    for at in (0, 10, 20):
        seen.died(A, True, minutes(at))
        seen.booted(A, False, minutes(at + 2))
        seen.booted(A, True, minutes(at + 4))
    assert seen.left(minutes(25)) == {}


def test_a_host_that_was_taken_for_dead_and_is_back_can_fail_again() -> None:
    seen = Flapping()
    for at in (0, 10, 20):
        seen.died(A, False, minutes(at))
        seen.died(A, False, minutes(at + 1))
        seen.back(A)
    assert A in seen.left(minutes(25))


def test_failures_further_apart_are_bad_luck() -> None:
    seen = Flapping()
    for at in (0, 35, 61, 100, 130):
        seen.booted(A, False, minutes(at))
    assert seen.left(minutes(130)) == {}
    seen.booted(A, False, minutes(150))
    assert A in seen.left(minutes(150))


def test_at_most_a_quarter_those_that_failed_last() -> None:
    told = [{A: Duration(50), B: Duration(70)}, {A: Duration(60)}]
    assert avoided(told, 3) == {}
    assert avoided(told, 7) == {B: 70}
    assert avoided(told, 8) == {B: 70, A: 60}
