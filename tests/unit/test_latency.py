"""How long writes take, as a histogram that only grows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.model.latency import BOUNDS_MS, Latencies, took
from outlast.model.time import MILLISECOND, Duration, seconds

TOOK = st.lists(st.integers(0, 8_000_000_000), max_size=60)


def counted(durations: list[int], start: Latencies | None = None) -> Latencies:
    found = start or Latencies()
    for each in durations:
        found = found.and_one(Duration(each))
    return found


@given(TOOK, TOOK)
def test_what_came_since_is_what_came_since(before: list[int], after: list[int]) -> None:
    first = counted(before)
    assert counted(after, first).since(first).counts == counted(after).counts
    assert counted(after, first).number == len(before) + len(after)


@given(TOOK.filter(bool), st.integers(1, 100))
def test_the_slowest_of_so_many_is_in_the_class_that_is_told(durations: list[int], percent: int) -> None:
    ordered = sorted(durations)
    slowest = ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
    place = next((i for i, bound in enumerate(BOUNDS_MS) if slowest <= bound * MILLISECOND), len(BOUNDS_MS))
    assert counted(durations).slowest_of(percent) == took(place)


def test_whoever_counts_anew_has_nothing_to_be_taken_off() -> None:
    assert counted([1]).since(counted([1, 2, 3])) == counted([1])


@pytest.mark.parametrize(
    ("place", "text"), [(0, "within 5 ms"), (7, "within 1 s"), (8, "within 2.5 s"), (10, "longer than 5 s")]
)
def test_a_class_has_words(place: int, text: str) -> None:
    assert took(place) == text


def test_they_are_told_in_one_sentence() -> None:
    found = counted([seconds(0.004)] * 90 + [seconds(0.8)] * 8 + [seconds(6)] * 2)
    assert found.sentence == "of the last 100 writes 50 % within 5 ms, 95 % within 1 s, 99 % longer than 5 s"
    assert Latencies().sentence == ""
