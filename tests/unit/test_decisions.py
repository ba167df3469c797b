"""Small pure decisions: election, isolation of oneself, what is protected."""

from __future__ import annotations

import msgspec
import pytest

from outlast.model.ids import BootId, DatastoreName, ElectionTerm, HostId, VmId, VmName
from outlast.model.inventory import Capacity
from outlast.model.messages import Heartbeat, Rank
from outlast.model.policy import VmPolicy
from outlast.model.records import Attempts, PoweredVm, PowerOnList, ProtectedList
from outlast.model.settings import Settings
from outlast.model.time import Instant, seconds
from outlast.protocol.election import Election
from outlast.protocol.isolation import Isolation
from outlast.protocol.protection import Protection

S = Settings()
DS1 = DatastoreName("ds1")


def at(second: float) -> Instant:
    return Instant(seconds(second))


def rank(host: str, *, isolated: bool = False, datastores: int = 2, version: int = 1) -> Rank:
    return Rank(not isolated, datastores, version, HostId(host))


def beat(sender: str, *, term: int = 0, primary: str | None = None, leaving: bool = False) -> Heartbeat:
    return Heartbeat(
        sender=HostId(sender),
        boot_id=BootId("b"),
        sequence=1,
        rank=rank(sender),
        term=ElectionTerm(term),
        primary=HostId(primary) if primary else None,
        lapsed=(),
        reach=(),
        capacity=Capacity(),
        hypervisor_up=True,
        leaving=leaving,
    )


# -- election ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (rank("a"), rank("z", isolated=True)),
        (rank("a", datastores=3), rank("z")),
        (rank("a", version=2), rank("z")),
        (rank("b"), rank("a")),
    ],
)
def test_rank(better: Rank, worse: Rank) -> None:
    assert better > worse


def test_the_best_rank_leads_after_the_timeout() -> None:
    election = Election(S, HostId("b"), at(0))
    for second in (0.5, 1.5, 2.5):
        election.heard(beat("a"), lambda: rank("b"), at(second))
        assert not election.judge(rank("b"), True, at(second))
    assert election.judge(rank("b"), True, at(3.1))
    assert (election.primary, election.term, election.am_primary) == ("b", 1, True)


def test_a_better_rank_within_hearing_is_waited_for() -> None:
    election = Election(S, HostId("a"), at(0))
    election.heard(beat("b"), lambda: rank("a"), at(2.5))
    assert not election.judge(rank("a"), True, at(3.1))
    assert election.primary is None


def test_a_primary_is_followed_until_it_is_silent() -> None:
    election = Election(S, HostId("b"), at(0))
    election.heard(beat("a", term=4, primary="a"), lambda: rank("b"), at(1))
    assert (election.primary, election.term) == ("a", 4)
    election.judge(rank("b"), True, at(3.9))
    assert election.primary == "a"
    election.judge(rank("b"), True, at(4.1))
    assert (election.primary, election.term) == ("b", 5)


def test_one_that_leaves_is_succeeded_at_once() -> None:
    election = Election(S, HostId("b"), at(0))
    election.heard(beat("a", term=1, primary="a"), lambda: rank("b"), at(1))
    election.heard(beat("a", leaving=True), lambda: rank("b"), at(1.5))
    assert election.judge(rank("b"), True, at(1.5))
    assert election.primary == "b"


def test_of_two_primaries_the_better_rank_stays_whoever_is_heard_first() -> None:
    election = Election(S, HostId("b"), at(0))
    election.judge(rank("b"), True, at(3.1))
    election.heard(beat("a", term=2, primary="a"), lambda: rank("b"), at(3.2))
    assert (election.primary, election.term) == ("b", 2), "a higher term, a worse rank"
    election.heard(beat("x", term=7, primary="c"), lambda: rank("b"), at(3.3))
    assert (election.primary, election.term) == ("b", 7), "what a secondary follows"
    election.heard(beat("c", term=1, primary="c"), lambda: rank("b"), at(3.4))
    assert election.primary == "c", "a lower term, a better rank"


def test_a_secondary_goes_with_the_higher_term_and_in_one_term_with_the_better_rank() -> None:
    election = Election(S, HostId("z"), at(0))
    election.heard(beat("b", term=1, primary="b"), lambda: rank("z"), at(1.0))
    election.heard(beat("a", term=2, primary="a"), lambda: rank("z"), at(1.1))
    assert election.primary == "a", "as after the loss of a primary that was the best"
    election.heard(beat("b", term=1, primary="b"), lambda: rank("z"), at(1.2))
    assert election.primary == "a"
    election.heard(beat("b", term=2, primary="b"), lambda: rank("z"), at(1.3))
    assert election.primary == "b", "it has learned of the other's term, and stays"
    election.heard(beat("a", term=2, primary="a"), lambda: rank("z"), at(1.4))
    assert election.primary == "b"


def test_somebody_who_still_follows_a_primary_is_believed() -> None:
    election = Election(S, HostId("z"), at(0))
    election.heard(beat("a", term=3, primary="m"), lambda: rank("z"), at(2.5))
    election.judge(rank("z"), True, at(3.1))
    assert not election.am_primary


def test_an_isolated_primary_steps_down_and_who_may_not_lead_does_not() -> None:
    election = Election(S, HostId("b"), at(0))
    election.judge(rank("b"), True, at(3.1))
    assert election.judge(rank("b", isolated=True), False, at(9))
    assert election.primary is None
    election.judge(rank("b", isolated=True), False, at(20))
    assert election.primary is None
    election.judge(rank("b"), True, at(20.5))
    assert election.primary is None, "it listens first"


# -- isolation --------------------------------------------------------------------------------------------------------


def test_a_host_that_hears_nobody_and_reaches_nothing_is_isolated() -> None:
    isolation = Isolation(S, 2, 1, at(0))
    isolation.heard_peer(at(1))
    assert not isolation.judge(at(5.9))
    assert isolation.silent(at(3))
    assert isolation.judge(at(6.1))
    assert isolation.isolated
    isolation.heard_peer(at(7))
    assert isolation.judge(at(7))
    assert not isolation.isolated


def test_an_isolation_address_that_answers_means_that_the_others_are_gone() -> None:
    isolation = Isolation(S, 2, 1, at(0))
    for second in (4, 6, 8, 10):
        isolation.address_answered(at(second))
        assert not isolation.judge(at(second))
    assert isolation.judge(at(13.1))


def test_a_host_without_peers_is_never_isolated() -> None:
    assert not Isolation(S, 0, 0, at(0)).judge(at(100))


# -- protection -------------------------------------------------------------------------------------------------------


def listed(host: str, *lines: PoweredVm) -> PowerOnList:
    return PowerOnList(host=HostId(host), boot_id=BootId("b"), sequence=1, isolated=False, vms=lines)


def line(vm: str, *, protected: bool = True, home: str = "ds1") -> PoweredVm:
    return PoweredVm(VmId(vm), VmName(vm), DatastoreName(home), None, "running", 100, protected)


def test_whatever_runs_is_protected_unless_it_says_no() -> None:
    protection = Protection()
    new = protection.learn(DS1, HostId("a"), [line("v1"), line("v2", protected=False), line("v3", home="ds2")])
    assert [entry.vm for entry in new] == ["v1"]
    assert protection.changed
    assert [entry.vm for entry in protection.take_changed()[0]] == ["v1"]
    assert not protection.changed


def test_a_vm_that_vanished_from_a_list_is_still_wanted() -> None:
    protection = Protection()
    protection.learn(DS1, HostId("a"), [line("v1")])
    protection.learn(DS1, HostId("a"), [])
    assert set(protection.vms) == {"v1"}


def test_a_vm_that_becomes_unprotected_is_dropped() -> None:
    protection = Protection()
    protection.learn(DS1, HostId("a"), [line("v1")])
    protection.learn(DS1, HostId("a"), [line("v1", protected=False)])
    assert protection.vms == {}
    assert not protection.drop(VmId("v1"))


def test_a_predecessors_list_does_not_undo_what_was_learnt() -> None:
    protection = Protection()
    protection.learn(DS1, HostId("b"), [line("v1")])
    old = Protection()
    old.learn(DS1, HostId("a"), [line("v1"), line("v2")])
    content = ProtectedList(
        datastore=DS1,
        sequence=1,
        writer=HostId("a"),
        primary_epoch=0,  # type: ignore[arg-type]
        term=ElectionTerm(1),
        vms=old.take_changed()[0],
    )
    protection.load(content)
    assert {vm: entry.last_host for vm, entry in protection.vms.items()} == {"v1": "b", "v2": "a"}


def test_what_its_host_does_not_know_now_stays_as_it_was() -> None:
    protection, policy = Protection(), VmPolicy(priority="disabled")
    protection.learn(DS1, HostId("a"), [msgspec.structs.replace(line("v1"), policy=policy)])
    protection.learn(DS1, HostId("a"), [msgspec.structs.replace(line("v1"), policy=None, memory_mib=0)])
    entry = protection.vms[VmId("v1")]
    assert (entry.policy, entry.memory_mib) == (policy, 100)


def test_what_was_tried_lies_with_the_vm_and_outlives_the_primary() -> None:
    old, new = Protection(), Protection()
    old.learn(DS1, HostId("a"), [line("v1")])
    old.take_changed()
    old.tried(VmId("v1"), Attempts(restarts=1))
    assert old.changed
    content = ProtectedList(
        datastore=DS1,
        sequence=1,
        writer=HostId("a"),
        primary_epoch=0,  # type: ignore[arg-type]
        term=ElectionTerm(1),
        vms=old.take_changed()[0],
    )
    new.learn(DS1, HostId("b"), [line("v1")])
    new.load(content)
    entry = new.vms[VmId("v1")]
    assert (entry.last_host, entry.attempts.restarts) == ("b", 1)
