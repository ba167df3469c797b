"""The small world, explored in full: the rules hold in every order of events, and each rule that is dropped is missed."""

import pytest

from outlast.model.ids import LeaseTerm
from outlast.model.keeper_effects import KeeperEffect, Reply
from outlast.model.keeping import AskGivenUp, KeeperReply
from outlast.model.time import Duration
from outlast.protocol.gatekeeping import Gatekeeper
from outlast.protocol.ownership import Ownership
from outlast.protocol.renouncing import Renouncing
from outlast.sim.exhaustive import BOUNDS, explore, told
from outlast.sim.mutants import broken
from outlast.sim.small_parts import Bounds, HostMemory, small_settings
from outlast.sim.small_search import Search
from outlast.sim.small_world import SmallWorld

TWO_ASKS = Bounds(asks=2)
LATE_START = Bounds(asks=2, running=False, late_starts=True)
CLOSED = Bounds(asks=2, closes=1, running=False, lease=1)

DROPPED = {
    "epoch-is-not-exclusive": (TWO_ASKS, "epochs-rise"),
    "lease-from-completion": (TWO_ASKS, "owner-runs"),
    "late-renewal-extends": (TWO_ASKS, "owner-runs"),
    "epoch-of-an-earlier-term": (TWO_ASKS, "owner-runs"),
    "pending-start-survives-a-lapse": (LATE_START, "owner-runs"),
    "start-on-the-old-epoch": (TWO_ASKS, "owner-runs"),
    "no-freeze": (TWO_ASKS, "owner-runs"),
    "thaw-without-reassertion": (TWO_ASKS, "owner-runs"),
    "no-window": (TWO_ASKS, "owner-runs"),
    "no-last-read": (TWO_ASKS, "owner-runs"),
    "epoch-read-last": (TWO_ASKS, "owner-runs"),
    "any-epoch-is-taken-from": (TWO_ASKS, "owner-runs"),
    "renounced-while-running": (TWO_ASKS, "owner-runs"),
    "void-start-runs": (LATE_START, "owner-runs"),
    "starts-as-held": (Bounds(crashes=1), "owner-runs"),
}
"""Mutant -> where it is looked for, and which invariant it breaks."""


def test_every_state_is_safe() -> None:
    explored = explore(BOUNDS["small"][0])
    assert explored.violation is None, told(explored)
    assert explored.complete
    assert explored.states > 300_000


@pytest.mark.parametrize("name", DROPPED)
def test_a_dropped_rule_is_missed(name: str) -> None:
    bounds, invariant = DROPPED[name]
    with broken(name):
        explored = explore(bounds, most_states=300_000)
    assert explored.violation is not None
    assert explored.violation.invariant == invariant
    assert len(explored.violation.story) == explored.depth + 2


@pytest.mark.parametrize("bounds", [Bounds(gives_up=True, lease=1), Bounds(gives_up=True, lease=1, guest_ends=1)])
def test_a_vm_may_be_given_up_at_any_moment(bounds: Bounds) -> None:
    explored = explore(bounds)
    assert explored.violation is None, told(explored)
    assert explored.complete
    assert explored.states > explore(bounds._replace(gives_up=False)).states


def test_a_violation_is_told_as_a_story() -> None:
    with broken("gate-fails-open"):
        story = told(explore(TWO_ASKS)).splitlines()
    assert story[0] == "253 states, 4 steps deep"
    assert story[2] == "  0. host1 owns the VM and runs it; both hold their leases"
    assert story[-2] == "  4. libvirt on host2 makes the process of the VM, which executes"
    assert story[-1] == "  5. single-instance: the VM executes on host1 and on host2"


def test_the_same_search_twice_finds_the_same() -> None:
    one, other = explore(TWO_ASKS, most_states=5_000), explore(TWO_ASKS, most_states=5_000)
    assert one == other
    assert not one.complete


def test_what_is_over_costs_nothing_and_what_is_bounded_ends() -> None:
    """A keeper that was killed cannot be killed again when the bound is one crash, and its host goes on without."""
    search = Search(Bounds(crashes=1))
    killed = next(key for key, label, me in search.steps(search.first()) if "is killed" in label and me == 0)
    labels = {label for _, label, _ in search.steps(killed)}
    assert "a new keeper starts on {h}" in labels
    assert not any("is killed" in label for label in labels)


def _not_closed(_self: Gatekeeper) -> list[KeeperEffect]:
    return []


def _launched_anyway(_self: Ownership, _term: LeaseTerm | None) -> bool:
    return True


_adopt, _starts = Ownership.adopt, SmallWorld.starts


def _adopted_by_right(
    self: Ownership, pid: int, stopped: bool, by_right: Duration | None, session: str = ""
) -> list[KeeperEffect]:
    return _adopt(self, pid, stopped, by_right=small_settings(2, 1).lease_duration)


def _any_word(_self: Renouncing, client: int, ask: AskGivenUp) -> list[KeeperEffect]:
    return [Reply(client, KeeperReply(ask.request, True, "", ask.epoch))]


def _published_before_it_looks(self: SmallWorld, host: HostMemory) -> HostMemory:
    started = _starts(self, host)
    assert started.keeper is not None
    return started._replace(published=started.keeper.deadline)


UNDONE = {
    "askers-wait-on-while-the-host-shuts-down": (Gatekeeper, "close", _not_closed, CLOSED),
    "no-second-question": (Ownership, "may_launch", _launched_anyway, LATE_START),
    "whatever-is-found-runs-on": (Ownership, "adopt", _adopted_by_right, Bounds(crashes=1)),
    "a-keeper-gives-its-word-whatever-runs": (Renouncing, "asked", _any_word, Bounds(gives_up=True, lease=1)),
    "a-new-keeper-publishes-before-it-freezes": (SmallWorld, "starts", _published_before_it_looks, Bounds(crashes=1)),
}
"""What this search has found or asked for: the method that keeps it, one that does not, and where that is noticed."""


@pytest.mark.parametrize("name", UNDONE)
def test_what_was_found_once_would_be_found_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, method, without, bounds = UNDONE[name]
    monkeypatch.setattr(owner, method, without)
    explored = explore(bounds, most_states=300_000)
    assert explored.violation is not None
    assert explored.violation.invariant == "owner-runs"


@pytest.mark.parametrize("bounds", [CLOSED, Bounds(crashes=1)], ids=["closes", "crashes"])
def test_what_was_found_once_is_not_found_any_more(bounds: Bounds) -> None:
    """As far as the ways that were found once, and further; `make model-check` explores such worlds in full."""
    explored = explore(bounds, most_states=260_000 if bounds is CLOSED else 150_000)
    assert explored.violation is None, told(explored)
