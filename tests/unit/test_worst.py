"""Which hosts would be the worst to lose, and how many losses the domain survives: proven, or honestly not."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from planning_values import DS, domain, host, rule, snapshots, vm

from outlast.model.planning import Snapshot
from outlast.protocol.planning.planner import make_plan
from outlast.protocol.planning.problem import Problem
from outlast.protocol.planning.worst import Survival, Worst, survival, worst_losses


def worst(snapshot: Snapshot, count: int) -> Worst:
    return list(worst_losses(Problem(snapshot), count))[-1]


def survives(snapshot: Snapshot, up_to: int = 9) -> Survival:
    return list(survival(Problem(snapshot), up_to))[-1]


def test_the_host_with_what_fits_nowhere_else() -> None:
    snapshot = domain(
        [host("a"), host("b", 2048), host("c", 2048)], [vm("big", 6000, on="a"), vm("v", on="b"), vm("w", on="b")]
    )
    found = worst(snapshot, 1)
    assert (found.hosts, found.waiting, found.proven) == (("a",), ("big",), True)


def test_what_concerns_few_need_not_be_looked_at() -> None:
    hosts = [host(f"h{i}", 2048) for i in range(8)]
    found = worst(domain(hosts, [vm("a", 2000, on="h0"), vm("b", 2000, on="h0")][:1]), 1)
    assert (found.waiting, found.proven, found.losses) == ((), True, 8)
    assert found.looked_at == 1, "the others run nothing, so nothing can wait"


def test_a_search_that_is_cut_short_says_how_bad_it_could_still_be() -> None:
    hosts = [host(name, 2048) for name in "abc"]
    vms = [vm(f"{name}{i}", 500, on=name) for name in "abc" for i in range(4)]
    first = next(worst_losses(Problem(domain(hosts, vms)), 2))
    assert (first.looked_at, first.losses, first.at_most, first.proven) == (1, 3, 8, True), (
        "all eight wait: nothing is worse"
    )
    roomy = next(worst_losses(Problem(domain([host(n, 4096) for n in "abc"], vms)), 2))
    assert len(roomy.waiting) < roomy.at_most == 8
    assert not roomy.proven


def test_how_many_losses_are_survived_and_who_stands_in_the_way() -> None:
    hosts = [host(name, 4096) for name in "abc"]
    found = survives(domain(hosts, [vm("v", 2000, on="a"), vm("w", 2000, on="b"), vm("x", 2000, on="c")]))
    assert (found.survives, found.proven, found.done) == (1, True, True)
    assert len(found.hosts) == 2
    assert "2 VMs need 4000 MiB" in found.why
    assert survives(domain(hosts, [])).survives == 3


def test_rules_and_reach_count() -> None:
    hosts = [host("a"), host("b"), host("c", leases=frozenset(DS[:1]))]
    apart = rule("keep-apart", "v", "w")
    assert survives(domain(hosts[:2], [vm("v", on="a"), vm("w", on="b")])).survives == 1
    found = survives(domain(hosts[:2], [vm("v", on="a"), vm("w", on="b")], apart))
    assert (found.survives, found.vm, found.proven) == (0, "v", True)
    both = survives(domain(hosts, [vm("v", on="a", stores=DS), vm("w", on="b", stores=DS)], apart))
    assert (both.survives, both.vm) == (0, "v"), "the third host does not reach ds2"


def test_who_waits_already_is_a_loss_that_was_not_survived() -> None:
    found = survives(domain([host("a", 1000), host("b", 1000)], [vm("v", 2000)]))
    assert (found.survives, found.hosts, found.vm) == (0, (), "v")


@given(snapshots(most_hosts=4, most_vms=8))
@settings(max_examples=60, deadline=None)
def test_as_if_every_loss_had_been_tried(snapshot: Snapshot) -> None:
    problem, hosts = Problem(snapshot), range(len(snapshot.hosts))
    for count in (1, 2):
        plans = {lost: make_plan(problem, frozenset(lost)) for lost in itertools.combinations(hosts, count)}
        found = worst(snapshot, count)
        assert len(found.waiting) == max((len(each.waiting) for each in plans.values()), default=0)
        assert found.proven
    survived = survives(snapshot, 2)
    for count in (1, 2):
        fine = all(make_plan(problem, frozenset(lost)).obstacle is None for lost in itertools.combinations(hosts, count))
        assert (survived.survives >= count) <= fine
