"""The small world with a live migration, explored in full: decision 19 holds in every order, and no hole opens again."""

from collections.abc import Callable
from typing import Any

import pytest

from outlast.model.ids import RequestId, VmId
from outlast.model.keeper_effects import KeeperEffect, Remember
from outlast.model.keeping import AskRelease
from outlast.model.records import Reason, RegisterRecord, RegisterState
from outlast.protocol.copies import Copies
from outlast.protocol.gatekeeping import Gatekeeper
from outlast.protocol.keeper_replies import yes
from outlast.protocol.ownership import Ownership, Phase, Purpose
from outlast.sim.exhaustive import BOUNDS, explore, told
from outlast.sim.mutants import broken
from outlast.sim.small_migration import GONE, WHOLE, MigrationSearch, SmallMigration
from outlast.sim.small_parts import EXECUTES, NONE, Bounds
from outlast.sim.small_search import NAMES

MIGRATES = Bounds(migrates=True, lease=1, observers=(), guest_ends=1)
CRASHES = Bounds(migrates=True, lease=1, observers=(), crashes=1)


def test_every_state_is_safe() -> None:
    assert BOUNDS["migration"] == (MIGRATES,)
    explored = explore(MIGRATES)
    assert explored.violation is None, told(explored)
    assert explored.complete
    assert explored.states > 100_000


def test_a_migration_comes_to_its_end() -> None:
    """That nothing bad happens would be easy if nothing did."""
    search = MigrationSearch(MIGRATES)
    key = search.first()
    for word in (
        "begins to migrate",
        "promises a place",
        "is to receive",
        "asks the gate once more",
        "receives the copy",
        "finds the VM's process",
        "its copy on host2 is whole",
        "which has migrated",
        "hears of the process's exit",
        "asks for the release that names the copy",
        "link lands and is won",
        "is told that the copy is whole",
        "reads the register",
        "link lands and is won",
        "host2 hears that its link is won",
        "let the copy go on",
    ):
        follows = [
            follows for follows, label, me in search.steps(key) if word in label.format(h=NAMES[me], p=NAMES[1 - me])
        ]
        assert follows, word
        key = follows[0]
        assert search.judge(key) == ""
    assert [host.guest for host in search.hosts_of(key)] == [NONE, EXECUTES]


@pytest.mark.parametrize(
    ("name", "invariant"), [("copy-without-an-epoch", "owner-runs"), ("any-release-names-the-copy", "no-stale-copy")]
)
def test_a_dropped_rule_is_missed(name: str, invariant: str) -> None:
    with broken(name):
        explored = explore(MIGRATES, most_states=300_000)
    assert explored.violation is not None
    assert explored.violation.invariant == invariant


_let_pass, _link, _won = Copies.let_pass, Ownership.link, Copies.won


def _any_start_passes_for_the_copy(self: Copies, vm: VmId) -> bool:
    known = self._keeper.vms.get(vm)
    return known is not None and known.phase is Phase.EXPECTED


def _what_ran_before_is_remembered(
    self: Copies, ownership: Ownership, client: int, request: RequestId
) -> list[KeeperEffect]:
    effects = _let_pass(self, ownership, client, request)
    return [effect for effect in effects if not isinstance(effect, Remember)]


def _its_end_is_remembered_for_ever(self: Ownership, *args: Any, **named: Any) -> RegisterRecord:
    ended = self.ended
    record = _link(self, *args, **named)
    self.ended = ended
    return record


def _won_in_a_term_that_broke(
    self: Copies, ownership: Ownership, record: RegisterRecord, _granted: bool
) -> list[KeeperEffect]:
    return _won(self, ownership, record, True)


def _any_end_is_a_migration(_self: SmallMigration, stage: int) -> bool:
    return stage <= WHOLE


def _handed_over_while_it_stands_still(_self: SmallMigration, stage: int) -> bool:
    return stage in (WHOLE, GONE)


def _released_whatever_runs(self: Gatekeeper, client: int, ask: AskRelease) -> list[KeeperEffect]:
    ownership = self._keeper.vms[ask.vm]
    ownership.release_to = (ask.heir, ask.handover) if ask.heir is not None else None
    released = self._keeper.link(ownership, Purpose.RELEASE, RegisterState.RELEASED, Reason.MIGRATED)
    return [*released, yes(client, ask.request)]


UNDONE: dict[str, tuple[Bounds, str, list[tuple[Any, str, Callable[..., Any]]]]] = {
    "a-plain-start-passes-for-the-copy": (
        MIGRATES,
        "single-instance",
        [(Copies, "comes_in", _any_start_passes_for_the_copy)],
    ),
    "a-new-keeper-takes-the-copy-for-what-ran-there-before": (
        CRASHES,
        "single-instance",
        [(Copies, "let_pass", _what_ran_before_is_remembered)],
    ),
    "another-process-ends-and-the-old-copy-is-named": (
        MIGRATES,
        "no-stale-copy",
        [(Ownership, "link", _its_end_is_remembered_for_ever)],
    ),
    "any-end-is-a-migration": (MIGRATES, "no-stale-copy", [(SmallMigration, "has_migrated", _any_end_is_a_migration)]),
    "a-copy-won-in-a-term-that-broke-goes-on": (MIGRATES, "present-term", [(Copies, "won", _won_in_a_term_that_broke)]),
    "released-before-its-process-has-ended": (
        MIGRATES,
        "owner-runs",
        [
            (SmallMigration, "may_hand_over", _handed_over_while_it_stands_still),
            (Gatekeeper, "_ask_release", _released_whatever_runs),
        ],
    ),
}
"""What keeps a copy from going on: where it is dropped, which invariant that breaks, and what takes its place."""


@pytest.mark.parametrize("name", UNDONE)
def test_what_keeps_a_copy_from_going_on_is_missed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds, invariant, patches = UNDONE[name]
    for owner, method, without in patches:
        monkeypatch.setattr(owner, method, without)
    explored = explore(bounds, most_states=300_000)
    assert explored.violation is not None
    assert explored.violation.invariant == invariant
