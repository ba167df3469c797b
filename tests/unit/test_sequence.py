"""Whose turn it is, among VMs that are to be started anew."""

from __future__ import annotations

from outlast.model.dependency import Dependency, Standing
from outlast.model.ids import DatastoreName, HostId, HostName, VmId, VmName
from outlast.model.policy import Priority
from outlast.model.time import Duration, Instant, seconds
from outlast.protocol.sequence import Slots, Turns, Waiter, turns

NOW = Instant(1000 * 10**9)
TIMEOUT = seconds(60)


def vm(
    name: str,
    *after: str,
    priority: Priority = "medium",
    queued: bool = True,
    since: float = 10.0,
    waited: float = 0.0,
) -> Waiter:
    """`since`: how many seconds ago it was queued."""
    return Waiter(
        vm=VmId(f"id-{name}"),
        name=VmName(name),
        priority=priority,
        after=tuple(VmName(each) for each in after),
        queued=queued,
        queued_since=Instant(NOW - seconds(since)),
        waited=seconds(waited),
    )


def look(*waiters: Waiter, **standings: Standing | Dependency) -> Turns:
    found = {VmName(n): s if isinstance(s, Dependency) else Dependency(s) for n, s in standings.items()}
    return turns(waiters, found, TIMEOUT, NOW)


def names(found: Turns) -> list[str]:
    return [each.removeprefix("id-") for each in found.go]


def test_a_vm_alone_goes_at_once() -> None:
    found = look(vm("web", since=0))
    assert (names(found), found.held, found.look_again) == (["web"], {}, None)


def test_the_most_important_goes_first_and_then_who_has_waited_longest() -> None:
    found = look(vm("a", priority="low"), vm("b", priority="highest"), vm("c", since=3), vm("d", since=4), vm("e", since=4))
    assert names(found) == ["b", "d", "e", "c", "a"]


def test_who_waits_for_others_goes_when_they_are_ready() -> None:
    assert names(look(vm("web", "db"), db=Standing.READY)) == ["web"]
    found = look(vm("web", "db", waited=20), db=Standing.COMING)
    assert names(found) == []
    assert found.held == {"id-web": "it waits until db is ready"}
    assert found.look_again == NOW + seconds(40)


def test_a_wait_has_an_end_and_it_is_said() -> None:
    found = look(vm("web", "db", "cache", waited=60), db=Standing.COMING, cache=Standing.READY)
    assert names(found) == ["web"]
    assert [(each.dependency, each.why) for each in found.unheeded] == [("db", "it was waited for in vain")]


def test_the_delay_of_a_dependency_lengthens_the_wait() -> None:
    slow = Dependency(Standing.COMING, seconds(90))
    assert names(look(vm("web", "db", waited=149), db=slow)) == []
    assert names(look(vm("web", "db", waited=150), db=slow)) == ["web"]


def test_a_wait_stands_still_while_the_turn_of_a_dependency_has_not_come() -> None:
    found = look(vm("web", "db", waited=1000), db=Standing.QUEUED)
    assert (names(found), found.standing_still) == ([], {"id-web"})


def test_what_nobody_will_start_is_not_waited_for() -> None:
    found = look(vm("web", "db"), db=Dependency(Standing.NEVER, why="db is off"))
    assert names(found) == ["web"]
    assert [(each.vm, each.why) for each in found.unheeded] == [("id-web", "db is off")]


def test_who_is_waited_for_is_as_important_as_who_waits() -> None:
    found = look(
        vm("crm", "app", priority="highest"),
        vm("app", "db", priority="lowest"),
        vm("db", priority="low"),
        vm("mail", priority="high"),
        app=Standing.QUEUED,
        db=Standing.QUEUED,
    )
    assert names(found) == ["db", "mail"]


def test_of_a_ring_the_least_important_does_not_wait() -> None:
    found = look(
        vm("a", "b", priority="high"),
        vm("b", "c", priority="low"),
        vm("c", "a"),
        a=Standing.QUEUED,
        b=Standing.QUEUED,
        c=Standing.QUEUED,
    )
    assert names(found) == ["b"]
    assert [(each.vm, each.dependency) for each in found.unheeded] == [("id-b", "c")]
    assert "wait for each other" in found.unheeded[0].why


def test_rings_within_rings_end() -> None:
    standing = dict.fromkeys("abcd", Standing.QUEUED)
    found = look(vm("a", "b", "c", "d"), vm("b", "a", "c"), vm("c", "b", "a", "d"), vm("d", "a"), **standing)
    assert names(found) == ["d"]
    assert len(found.unheeded) <= 5


def test_two_vms_of_one_name_in_a_ring() -> None:
    first = vm("a", "b")
    twin = Waiter(vm=VmId("twin"), name=VmName("a"), priority="lowest", queued_since=NOW)
    found = look(first, twin, vm("b", "a", priority="high"), a=Standing.QUEUED, b=Standing.QUEUED)
    assert names(found) == ["a", "twin"]


def test_a_lower_one_waits_a_moment_for_the_proof_about_a_higher_one() -> None:
    higher = vm("crm", priority="highest", queued=False)
    assert names(look(vm("web", since=0.2), higher)) == []
    assert names(look(vm("web", since=1.1), higher)) == ["web"]
    assert names(look(vm("web", since=0.2, priority="highest"), higher)) == ["web"]


def test_a_higher_one_that_waits_for_others_holds_nobody_up() -> None:
    assert names(look(vm("crm", "db", priority="highest"), vm("web", since=0), db=Standing.COMING)) == ["web"]


def test_slots_are_taken_on_hosts_and_datastores() -> None:
    h1, h2, ds1, ds2 = HostId("h1"), HostId("h2"), DatastoreName("ds1"), DatastoreName("ds2")
    slots = Slots(2, 3, [(h1, ds1), (h1, ds1)])
    assert "h1 is starting 2 VMs" in slots.refusal_of_host(h1, HostName("h1"))
    assert slots.refusal_of_host(h2, HostName("h2")) == ""
    assert slots.refusal_of_datastore(ds1) == ""
    slots.take(h2, ds1)
    assert "3 VMs of ds1 are being started" in slots.refusal_of_datastore(ds1)
    assert slots.refusal_of_datastore(ds2) == ""


def test_a_wait_that_is_over_is_counted_from_what_was_waited() -> None:
    assert look(vm("web", "db"), db=Dependency(Standing.COMING, Duration(0))).look_again == NOW + TIMEOUT
