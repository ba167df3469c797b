"""Who goes back to a better host, and who stays."""

from __future__ import annotations

import msgspec
from planning_values import domain, host, rule, vm

from outlast.model.ids import HostId, VmId
from outlast.model.planning import Snapshot
from outlast.protocol.planning.failback import plan_failback

PREFERS = rule("run-on", "web", hosts={"a": 2, "b": 1}, required=False, failback=True)
ALL = [HostId(name) for name in "abc"]


def moves(snapshot: Snapshot, steady: list[HostId] = ALL) -> dict[VmId, HostId | None]:
    return {each.vm.vm: each.vm.host for each in plan_failback(snapshot, [each.vm for each in snapshot.vms], steady)}


def test_it_goes_to_the_best_host_that_can_take_it() -> None:
    hosts = [host("a"), host("b"), host("c")]
    assert moves(domain(hosts, [vm("web", on="b")], PREFERS)) == {"web": "a"}
    assert moves(domain(hosts, [vm("web", on="c")], PREFERS)) == {"web": "a"}
    full = [host("a", memory=512), *hosts[1:]]
    assert moves(domain(full, [vm("web", on="c")], PREFERS)) == {"web": "b"}
    assert moves(domain(full, [vm("web", on="b")], PREFERS)) == {}


def test_who_is_where_it_should_be_stays() -> None:
    assert moves(domain([host("a"), host("b")], [vm("web", on="a")], PREFERS)) == {}
    calm = msgspec.structs.replace(PREFERS, failback=False)
    assert moves(domain([host("a"), host("b")], [vm("web", on="b")], calm)) == {}


def test_a_host_that_is_not_steady_or_is_avoided_gets_nothing_back() -> None:
    hosts = [host("a"), host("b")]
    assert moves(domain(hosts, [vm("web", on="b")], PREFERS), [HostId("b")]) == {}
    avoided = [host("a", last_resort="it failed three times within an hour"), host("b")]
    assert moves(domain(avoided, [vm("web", on="b")], PREFERS)) == {}
    kept_empty = [host("a", kept_empty="it is in maintenance"), host("b")]
    assert moves(domain(kept_empty, [vm("web", on="b")], PREFERS)) == {}


def test_two_do_not_take_the_room_of_one() -> None:
    both = rule("run-on", "web", "app", hosts={"a": 2, "b": 1}, required=False, failback=True)
    hosts = [host("a", memory=1536), host("b")]
    found = moves(domain(hosts, [vm("web", on="b"), vm("app", on="b", tier=-1)], both))
    assert found == {"app": "a"}


def test_nobody_leaves_those_that_it_is_to_be_together_with() -> None:
    together = rule("keep-together", "web", "app")
    assert moves(domain([host("a"), host("b")], [vm("web", on="b"), vm("app", on="b")], PREFERS, together)) == {}
