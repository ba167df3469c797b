"""What a VM's failures count: here again, elsewhere, or given up; and when all of it is forgotten."""

from __future__ import annotations

import msgspec
import pytest

from outlast.model.ids import DatastoreName, Epoch, HostId, Incarnation, Nonce, VmId, VmName
from outlast.model.policy import VmPolicy
from outlast.model.records import Attempts, PoweredVm, Reason, RegisterRecord, RegisterState
from outlast.model.time import SECOND
from outlast.protocol import attempts as counting


def ended(epoch: int, reason: Reason = Reason.CRASHED, host: str = "a") -> RegisterRecord:
    return RegisterRecord(
        subject="vm",
        epoch=Epoch(epoch),
        owner=HostId(host),
        incarnation=Incarnation(1),
        session="s",
        nonce=Nonce(str(epoch)),
        state=RegisterState.RELEASED,
        reason=reason,
    )


def line(epoch: int, *, state: str = "running", ready: bool = True) -> PoweredVm:
    return PoweredVm(VmId("vm"), VmName("vm"), DatastoreName("ds"), Epoch(epoch), state, 1, True, VmPolicy(), ready)


def moves(policy: VmPolicy, hosts: str, reason: Reason = Reason.CRASHED) -> str:
    """What follows each failure, on these hosts one after the other: (h)ere again, (e)lsewhere, (f)ailed."""
    attempts, found = Attempts(), ""
    for i, host in enumerate(hosts):
        last = ended(2 * i + 1, reason, host)
        attempts = counting.after_failure(attempts, policy, last)
        found += "f" if attempts.failed else "h" if counting.same_host_again(attempts, last) else "e"
    return found


@pytest.mark.parametrize("reason", [Reason.CRASHED, Reason.START_FAILED])
def test_here_again_then_elsewhere_then_failed(reason: Reason) -> None:
    assert moves(VmPolicy(), "aabb", reason) == "hehf"
    assert moves(VmPolicy(max_restarts=0, max_relocations=0), "a", reason) == "f"
    assert moves(VmPolicy(max_restarts=0, max_relocations=2), "abc", reason) == "eef"
    assert moves(VmPolicy(max_restarts=2, max_relocations=0), "aaa", reason) == "hhf"


def test_without_end() -> None:
    assert moves(VmPolicy(max_restarts=-1), "a" * 50) == "h" * 50
    assert moves(VmPolicy(max_relocations=-1), "aabbaabb") == "hehehehe"


def test_every_host_has_its_turn_before_one_has_it_again() -> None:
    policy, attempts = VmPolicy(max_restarts=0, max_relocations=-1), Attempts()
    for epoch, host in enumerate("abc"):
        attempts = counting.after_failure(attempts, policy, ended(epoch, host=host))
    assert attempts.hosts == ("a", "b", "c")
    assert counting.after_failure(attempts, policy, ended(9, host="a")).hosts == ("a",)


def test_a_hosts_fault_only_slows_down() -> None:
    attempts = Attempts()
    for epoch in range(20):
        attempts = counting.after_failure(attempts, VmPolicy(), ended(epoch, Reason.HOST_FAULT))
    assert (attempts.restarts, attempts.relocations, attempts.failed, attempts.tries) == (0, 0, False, 20)
    assert counting.pause_after_failure(attempts) == 60 * SECOND


def test_each_failure_counts_once() -> None:
    attempts = counting.after_failure(Attempts(), VmPolicy(), ended(3))
    assert not counting.is_new_failure(attempts, ended(3))
    assert not counting.is_new_failure(attempts, ended(2))
    assert counting.is_new_failure(attempts, ended(5))


@pytest.mark.parametrize("reason", [Reason.ISOLATED, Reason.HOST_SHUTDOWN, Reason.SWITCHED_OFF, Reason.LOST])
def test_what_was_meant_is_no_failure(reason: Reason) -> None:
    assert not counting.is_new_failure(Attempts(), ended(1, reason))


def test_an_owned_register_tells_of_no_failure() -> None:
    assert not counting.is_new_failure(Attempts(), msgspec.structs.replace(ended(1), state=RegisterState.OWNED))


def test_the_first_crash_is_followed_at_once_and_the_next_ever_more_slowly() -> None:
    attempts, pauses = Attempts(), []
    for epoch in range(9):
        attempts = counting.after_failure(attempts, VmPolicy(max_restarts=-1), ended(epoch))
        pauses.append(counting.pause_after_failure(attempts) // SECOND)
    assert pauses == [0, 1, 2, 4, 8, 16, 32, 60, 60]


def test_what_is_up_and_ready_has_come_up() -> None:
    ordered = Attempts(tries=4, restarts=1, ordered=Epoch(6), asked=True)
    assert counting.runs_again(ordered, line(6)) == ordered
    assert counting.runs_again(ordered, line(7, ready=False)) == ordered
    assert counting.runs_again(ordered, line(7, state="starting")) == ordered
    assert counting.runs_again(ordered, line(7)) == Attempts(restarts=1)


def test_a_failed_one_that_somebody_starts_begins_anew() -> None:
    failed = Attempts(tries=3, restarts=1, relocations=1, counted=Epoch(8), failed=True)
    assert counting.runs_again(failed, line(7)) == failed, "an old list"
    assert counting.runs_again(failed, line(9)) == Attempts(counted=Epoch(8))


def test_an_operator_begins_it_anew() -> None:
    failed = Attempts(tries=3, restarts=1, counted=Epoch(8), failed=True, problem="why")
    assert counting.asked_again(failed) == Attempts(counted=Epoch(8), asked=True)


def test_what_an_operator_asks_for_is_the_next_attempt_alone() -> None:
    asked = counting.asked_again(Attempts(tries=3, restarts=1, failed=True, counted=Epoch(4)))
    assert counting.is_asked_for(asked)
    assert not counting.is_asked_for(counting.in_vain(asked, "it did not answer"))
    assert not counting.is_asked_for(counting.came_up(asked))
