"""Every claim holds where it should, and where it does not, the failure names whom, what was expected, what was found."""

from __future__ import annotations

from typing import Any

import pytest

from outlast.model.time import SECOND
from outlast.scenario.history import History
from outlast.scenario.judging import judge
from outlast.scenario.model import Expectation
from outlast.scenario.words import CLAIMS


class World:
    """web1 on host1 was cut off at 10 s, stood still from 16 s, and runs on host2 since 18 s; db1 runs on host2."""

    def __init__(self) -> None:
        self.histories = {"web1": History(), "db1": History(), "off1": History()}
        for vm in ("web1", "db1"):
            self.histories[vm].changed(0, executes=True, frozen=False)
        web1 = self.histories["web1"]
        web1.caused(10 * SECOND)
        web1.changed(16 * SECOND, executes=False, frozen=True)
        web1.started(17 * SECOND)
        web1.changed(18 * SECOND, executes=True, frozen=True)

    def now(self) -> int:
        return 60 * SECOND

    def live_hosts(self) -> list[str]:
        return ["host2", "host3"]

    def executing_on(self, vm: str) -> list[str]:
        return [] if vm == "off1" else ["host2"]

    def state(self, vm: str) -> str:
        return "stopped" if vm == "off1" else "running"

    def verdict(self, host: str) -> str:
        return "dead" if host == "host1" else "connected"

    def dead_since(self) -> dict[str, int]:
        return {"host1": 17 * SECOND}

    def primary(self) -> str:
        return "host3"

    def fenced(self) -> list[str]:
        return ["host1"]

    def resets(self, vm: str) -> int:
        return 2 if vm == "web1" else 0

    def guest(self, vm: str) -> str:
        return "failed" if vm == "web1" else "answers"

    def history(self, vm: str) -> History:
        return self.histories[vm]


HOLD: list[tuple[str, Any]] = [
    ("running", {"web1": ("host2", "host3"), "db1": ("any",)}),
    ("not_running", ("off1",)),
    ("state", {"web1": "running", "off1": "stopped"}),
    ("verdict", {"host1": "dead", "host2": "connected"}),
    ("not_dead", ("host2", "host3")),
    ("restarted", {"web1": (1, 1), "db1": (0, 3)}),
    ("resets", {"web1": (2, 2), "db1": (0, 1)}),
    ("guest", {"web1": "failed", "db1": "answers"}),
    ("recovered_within", {"web1": 8 * SECOND}),
    ("frozen_at_most", {"web1": 2 * SECOND, "db1": 0}),
    ("primary", ("host2", "host3")),
    ("fenced", ("host1",)),
    ("apart", ("web1",)),
    ("together", ("web1", "db1")),
]
FAIL: list[tuple[str, Any, str, str]] = [
    ("running", {"web1": ("host1",)}, "web1 executes on host1", "it executes on host2"),
    ("running", {"off1": ("any",)}, "off1 executes on any live host", "it is stopped"),
    ("not_running", ("web1",), "web1 does not execute", "executes on host2"),
    ("state", {"web1": "frozen"}, "web1 is frozen", "it is running"),
    ("verdict", {"host1": "isolated"}, "host1 is isolated", "host3 says dead"),
    ("not_dead", ("host1",), "host1 was never declared dead", "it was, at 17s"),
    ("restarted", {"web1": (2, 2)}, "started anew 2 times", "1 times"),
    ("resets", {"web1": (1, 1)}, "the guest of web1 was reset 1 times", "2 times"),
    ("resets", {"db1": (1, 3)}, "the guest of db1 was reset 1 to 3 times", "0 times"),
    ("guest", {"web1": "answers"}, "the guest of web1 is told to be: answers", "failed"),
    ("recovered_within", {"web1": 7 * SECOND}, "web1 is back within 7s", "after 8.000 s"),
    ("recovered_within", {"db1": 7 * SECOND}, "db1 is back within 7s", "no step stopped it"),
    ("frozen_at_most", {"web1": SECOND}, "web1 is frozen for at most 1s", "2.000 s"),
    ("primary", ("host1",), "the primary is host1", "it is host3"),
    ("fenced", (), "powered off none", "powered off host1"),
    ("apart", ("web1", "db1"), "a host of its own", "web1 on host2, db1 on host2"),
    ("together", ("web1", "off1"), "on one host", "off1 on none"),
]


@pytest.mark.parametrize(("claim", "value"), HOLD)
def test_a_claim_that_holds(claim: str, value: Any) -> None:
    assert judge(Expectation(at=None, claims={claim: value}), World()) == []


@pytest.mark.parametrize(("claim", "value", "expected", "found"), FAIL)
def test_a_claim_that_does_not_hold(claim: str, value: Any, expected: str, found: str) -> None:
    failures = judge(Expectation(at=None, claims={claim: value}, line=7), World())
    assert len(failures) == 1
    assert failures[0].at == 60
    assert failures[0].expectation.startswith(f"{claim}: ")
    assert expected in failures[0].expectation
    assert failures[0].expectation.endswith("(line 7)")
    assert found in failures[0].found


def test_every_claim_of_the_language_is_judged() -> None:
    assert {claim for claim, _ in HOLD} == {claim for claim, *_ in FAIL} == set(CLAIMS)


def test_a_vm_that_was_cut_off_and_went_on_has_recovered_at_once() -> None:
    history = History()
    history.changed(0, executes=True, frozen=False)
    history.caused(10)
    way = history.way_back()
    assert way is not None
    assert (way.stopped, way.length) == (None, 0)
    assert history.ways_back() == []


def test_the_way_back_is_counted_from_the_last_cause() -> None:
    history = History()
    history.changed(0, executes=True, frozen=False)
    history.caused(10)
    history.changed(10, executes=False, frozen=False)
    history.caused(15)
    assert history.way_back().length is None  # type: ignore[union-attr]
    history.changed(20, executes=True, frozen=False)
    assert history.way_back().length == 5  # type: ignore[union-attr]
    history.caused(30)
    history.changed(36, executes=False, frozen=True)
    history.changed(40, executes=True, frozen=False)
    assert [(way.cause, way.running) for way in history.ways_back()] == [(10, 20), (15, 20), (30, 40)]
    assert history.frozen_for(50) == 4
