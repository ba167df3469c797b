"""What a policy says: readiness in words, and VMs that wait for each other in a ring."""

from __future__ import annotations

import pytest

from outlast.model.policy import Ready, cycle_in, parse_ready, rank
from outlast.model.time import SECOND, Duration


@pytest.mark.parametrize("text", ["powered-on", "guest-heartbeat", "delay:30s", "delay:500ms"])
def test_readiness_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_ready(text)) == text


@pytest.mark.parametrize("text", ["", "ready", "delay", "delay:soon", "delay:-3s", "powered-on:3s"])
def test_what_is_no_readiness_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_ready(text)


def test_a_delay_has_its_length() -> None:
    assert parse_ready("delay:2min") == Ready("delay", Duration(120 * SECOND))


def test_the_more_important_has_the_smaller_rank() -> None:
    assert rank("highest") < rank("high") < rank("medium") < rank("low") < rank("lowest") < rank("disabled")


@pytest.mark.parametrize(
    ("after", "ring"),
    [
        ({}, ()),
        ({"a": ["b"], "b": ["c"], "c": []}, ()),
        ({"a": ["b", "c"], "b": ["d"], "c": ["d"]}, ()),
        ({"a": ["a"]}, ("a",)),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, ("b", "c")),
        ({"z": ["y"], "y": ["x"], "x": ["z"], "a": ["z"]}, ("z", "y", "x")),
        ({"a": ["elsewhere"]}, ()),
    ],
)
def test_a_ring_is_found_by_name(after: dict[str, list[str]], ring: tuple[str, ...]) -> None:
    assert cycle_in(after) == ring
