"""Where many VMs go at once: room and required rules are never broken, and nobody waits who could be placed."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_values import DS, domain, host, rule, snapshots, vm

from outlast.model.ids import HostId, VmId
from outlast.model.inventory import Needs
from outlast.model.planning import Assignment, Plan, PlanHost, Snapshot
from outlast.protocol.planning.board import Board
from outlast.protocol.planning.checking import flaw, worth
from outlast.protocol.planning.explaining import explain, judge
from outlast.protocol.planning.planner import MOST_SEARCHED, make_plan, to_place
from outlast.protocol.planning.problem import Problem
from outlast.protocol.planning.rulebook import place_of


def plan(snapshot: Snapshot, *lost: str) -> Plan:
    problem = Problem(snapshot)
    return make_plan(problem, frozenset(problem.number[HostId(name)] for name in lost))


def where(snapshot: Snapshot, *lost: str) -> dict[str, str | None]:
    return dict(plan(snapshot, *lost).targets)


# -- one VM -----------------------------------------------------------------------------------------------------------


def test_where_the_most_is_left() -> None:
    assert where(domain([host("a"), host("b", 6000)], [vm("v")])) == {"v": "a"}
    assert where(domain([host("a"), host("b", 6000)], [vm("v"), vm("w", 4096, on="a")])) == {"v": "b"}


def test_the_scarcer_of_memory_and_cpu_counts() -> None:
    assert where(domain([host("a", cpus=8), host("b", cpus=8)], [vm("v"), vm("w", 512, cpus=6, on="a")])) == {"v": "b"}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"unusable": "it is not connected"}, "it is not connected"),
        ({"leases": frozenset()}, "it does not reach ds1, or holds no lease there"),
        ({"free_memory_mib": 500}, "it has 500 MiB of memory free, and the VM needs 1024 MiB"),
        ({"free_reserved_cpu": 50}, "it has 0.5 cores free, and the VM needs 1"),
        ({"networks": frozenset({"bridge:br1"})}, "it has no network bridge:br0"),
        ({"cpu_models": frozenset({"Haswell"})}, "its CPU cannot be a Skylake-Server"),
    ],
)
def test_every_refusal_is_named(changed: dict[str, object], words: str) -> None:
    wanting = vm("v")
    needs = msgspec.structs.replace(wanting.needs, networks=("bridge:br0",), cpu_model="Skylake-Server")
    snapshot = domain([host("a", **changed)], [msgspec.structs.replace(wanting, needs=needs)])
    problem = Problem(snapshot)
    found = make_plan(problem)
    assert found.waiting == ("v",)
    assert explain(problem, found, VmId("v")).refused() == (("a", words),)


def test_all_its_datastores_count() -> None:
    near = host("a", leases=frozenset(DS[:1]))
    assert where(domain([near, host("b", 3000)], [vm("v", stores=DS)])) == {"v": "b"}


def test_a_host_that_failed_to_start_it_is_used_if_no_other_fits() -> None:
    failed = vm("v", failed_on=frozenset({HostId("a")}))
    assert where(domain([host("a"), host("b", 2048)], [failed])) == {"v": "b"}
    assert where(domain([host("a"), host("b", 512)], [failed])) == {"v": "a"}


def test_where_it_ran_before_is_tried_first() -> None:
    assert where(domain([host("a"), host("b", 2048)], [vm("v", prefer=HostId("b"))])) == {"v": "b"}


def test_a_last_resort_is_the_last() -> None:
    flapping = host("a", last_resort="it failed three times in an hour")
    assert where(domain([flapping, host("b", 1024)], [vm("v")])) == {"v": "b"}
    assert where(domain([flapping, host("b", 512)], [vm("v")])) == {"v": "a"}


def test_to_run_slowly_is_better_than_not_to_run() -> None:
    busy = [vm("w", 512, cpus=7, reserved=0, on="a")]
    found = plan(domain([host("a")], [*busy, vm("v", cpus=4, reserved=100)]))
    assert [(step.vm, step.host, step.squeezed) for step in found.steps][-1] == ("v", "a", True)
    assert where(domain([host("a")], [*busy, vm("v", cpus=4, reserved=900)])) == {"v": None}, "a reservation is one"


# -- rules ------------------------------------------------------------------------------------------------------------


def test_apart_from_what_runs_and_from_each_other() -> None:
    hosts = [host("a"), host("b"), host("c", 2048)]
    apart = rule("keep-apart", "u", "v", "w")
    found = where(domain(hosts, [vm("u", on="a"), vm("v"), vm("w")], apart))
    assert sorted(str(place) for place in found.values()) == ["b", "c"]
    assert where(domain(hosts[:2], [vm("u", on="a"), vm("v"), vm("w")], rule("keep-apart", "u", "v"))) == {
        "v": "b",
        "w": "b",
    }


def test_apart_by_rack_and_spread_over_racks() -> None:
    hosts = [host(name, labels={"rack": rack}) for name, rack in (("a", "1"), ("b", "1"), ("c", "2"))]
    hosts[2] = msgspec.structs.replace(hosts[2], memory_mib=20_000, free_memory_mib=2048)
    by_rack = rule("keep-apart", "u", "v", by="rack")
    assert where(domain(hosts, [vm("u", on="a"), vm("v")], by_rack)) == {"v": "c"}
    assert (
        where(domain(hosts[:2], [vm("u", on="a"), vm("v")], by_rack)) == {"v": None}
        or not domain(hosts[:2], [], by_rack).rules
    ), "two hosts of one rack: the rule itself cannot hold"
    assert where(domain(hosts, [vm("u", on="a"), vm("v")], rule("keep-apart", "u", "v"))) == {"v": "c"}, "other rack first"


def test_together_as_a_whole_or_as_many_as_fit() -> None:
    together = rule("keep-together", "u", "v", "w")
    hosts = [host("a", 8192), host("b", 3072)]
    three = [vm(name, 2048) for name in "uvw"]
    assert set(where(domain(hosts, three, together)).values()) == {"a"}
    assert list(where(domain(hosts[1:], three, together)).values()).count("b") == 1
    assert where(domain(hosts, [vm("u", on="b"), vm("v", 1024), vm("w", 4096)], together)) == {"v": "b", "w": None}


def test_a_member_that_fits_nowhere_keeps_nobody_waiting() -> None:
    found = where(domain([host("a", 2048)], [vm("big", 9000), vm("v")], rule("keep-together", "big", "v")))
    assert found == {"big": None, "v": "a"}


def test_run_on_avoid_and_preferences() -> None:
    hosts = [host("a"), host("b", 4096), host("c", 2048)]
    assert where(domain(hosts, [vm("v")], rule("run-on", "v", hosts={"b": 1, "c": 2}))) == {"v": "c"}
    assert where(domain(hosts, [vm("v", 3000)], rule("run-on", "v", hosts={"b": 1, "c": 2}))) == {"v": "b"}
    assert where(domain(hosts, [vm("v")], rule("avoid", "v", hosts={"a": 1}))) == {"v": "b"}
    assert where(domain(hosts[:1], [vm("v")], rule("avoid", "v", hosts={"a": 1}, required=False))) == {"v": "a"}
    prefer = rule("run-on", "v", hosts={"c": 1}, required=False)
    assert where(domain(hosts, [vm("v")], prefer)) == {"v": "c"}
    assert where(domain(hosts, [vm("v", 3000)], prefer)) == {"v": "a"}


def test_preferred_rules_yield_to_room() -> None:
    hosts = [host("a", 2048), host("b", 1024)]
    apart = rule("keep-apart", "u", "v", required=False)
    assert set(where(domain(hosts, [vm("u"), vm("v")], apart)).values()) == {"a", "b"}
    assert where(domain(hosts[:1], [vm("u"), vm("v")], apart)) == {"u": "a", "v": "a"}


# -- many -------------------------------------------------------------------------------------------------------------


def test_the_important_ones_first() -> None:
    found = where(domain([host("a", 1024)], [vm("low", tier=3), vm("high", tier=0)]))
    assert found == {"high": "a", "low": None}


def test_the_constrained_ones_first() -> None:
    hosts = [host("a", 2048), host("b", 2048, leases=frozenset(DS[:1]))]
    assert where(domain(hosts, [vm("any", 2048), vm("tied", 2048, stores=DS)])) == {"any": "b", "tied": "a"}


def test_room_is_made_and_things_are_packed() -> None:
    # Spread out, the four small ones would leave no host with room for the large one of a lower tier.
    hosts = [host("a", 4096), host("b", 4096)]
    small = [vm(f"s{i}", 1024, tier=0) for i in range(4)]
    found = where(domain(hosts, [*small, vm("large", 4096, tier=1)]))
    assert None not in found.values()


def test_what_runs_on_a_lost_host_needs_a_place() -> None:
    snapshot = domain([host("a"), host("b")], [vm("v", on="a"), vm("w", on="b"), vm("free", on="a", wanted=False)])
    assert where(snapshot) == {}
    assert where(snapshot, "a") == {"v": "b"}


# -- properties -------------------------------------------------------------------------------------------------------


def problems_of(snapshot: Snapshot, found: Plan) -> list[str]:
    """What is wrong with a plan, judged anew from the snapshot alone."""
    wrong: list[str] = []
    hosts, squeezed = {h.id: h for h in snapshot.hosts}, {s.vm for s in found.steps if s.squeezed}
    placed = {v.vm: found.targets.get(v.vm, v.host) for v in snapshot.vms}
    new = [v for v in snapshot.vms if found.targets.get(v.vm) is not None]
    for each in snapshot.hosts:
        there = [v for v in new if placed[v.vm] == each.id]
        if there and sum(v.needs.memory_mib for v in there) > each.free_memory_mib:
            wrong.append(f"{each.name} has too little memory")
        if there and sum(v.needs.reserved_cpu for v in there) > each.free_reserved_cpu:
            wrong.append(f"{each.name} has too little CPU")
        unsqueezed = [v for v in there if v.vm not in squeezed]
        if unsqueezed and sum(v.needs.cpu for v in unsqueezed) > each.free_cpu:
            wrong.append(f"{each.name} is crowded")
    for v in new:
        there_now = hosts[placed[v.vm] or HostId("")]
        closed = there_now.unusable or (there_now.kept_empty and v.only != there_now.id)
        if closed or not there_now.leases.issuperset(v.needs.datastores):
            wrong.append(f"{v.name} cannot run on {there_now.name}")
        others = [o for o in snapshot.vms if o is not v and placed[o.vm] is not None]
        for r in snapshot.rules:
            if not r.required or v.name not in r.vms:
                continue
            mates = [hosts[placed[o.vm] or HostId("")] for o in others if o.name in r.vms]
            if r.kind == "run-on" and there_now.name not in r.hosts:
                wrong.append(f"{v.name}: {r}")
            if r.kind == "avoid" and there_now.name in r.hosts:
                wrong.append(f"{v.name}: {r}")
            if r.kind == "keep-apart":
                mine = place_of(r, there_now.name, there_now.labels)
                wrong += [f"{v.name}: {r}" for m in mates if place_of(r, m.name, m.labels) == mine]
            # Those that run somewhere say where the others go; two that are placed apart from them are not together.
            settled = [hosts[o.host] for o in others if o.name in r.vms and o.host is not None]
            apart = there_now not in settled if settled else any(mate is not there_now for mate in mates)
            if r.kind == "keep-together" and apart:
                wrong.append(f"{v.name}: {r}")
    return wrong


@given(snapshots())
@settings(max_examples=150, deadline=None)
def test_no_plan_breaks_room_or_a_required_rule(snapshot: Snapshot) -> None:
    found = plan(snapshot)
    assert problems_of(snapshot, found) == []
    assert set(found.targets) == {v.vm for v in snapshot.vms if v.wanted and v.host is None}


@given(snapshots())
@settings(max_examples=60, deadline=None)
def test_the_same_snapshot_gives_the_same_plan_whatever_the_order(snapshot: Snapshot) -> None:
    assert plan(snapshot) == plan(msgspec.structs.replace(snapshot, vms=tuple(reversed(snapshot.vms))))


@given(snapshots())
@settings(max_examples=100, deadline=None)
def test_whoever_waits_is_refused_by_every_host_and_whoever_goes_is_explained(snapshot: Snapshot) -> None:
    problem = Problem(snapshot)
    found = make_plan(problem)
    for name, target in found.targets.items():
        explanation = explain(problem, found, name)
        assert len(explanation.considered) == len(snapshot.hosts)
        if target is None:
            assert all(not each.fits and each.why for each in explanation.considered)
        else:
            assert explanation.considered[0].chosen
            assert explanation.considered[0].host == target


@given(snapshots())
@settings(max_examples=60, deadline=None)
def test_numbers_and_sentences_agree(snapshot: Snapshot) -> None:
    problem = Problem(snapshot)
    board = Board(problem)
    for each in snapshot.vms:
        if each.host is None:
            for i in range(len(snapshot.hosts)):
                fits = i in problem.candidates(each) and board.fits(each, i)
                assert fits == (not board.refusal(each, i))
            assert len(judge(board, each, None).considered) == len(snapshot.hosts)


@given(snapshots(rules=False))
@settings(max_examples=60, deadline=None)
def test_a_host_more_leaves_nobody_waiting_who_fits_there(snapshot: Snapshot) -> None:
    waiting = [v for v in snapshot.vms if v.vm in plan(snapshot).waiting]
    need = Needs(memory_mib=sum(v.needs.memory_mib for v in snapshot.vms), cpu=sum(v.needs.cpu for v in snapshot.vms))
    large: PlanHost = host("more", memory=need.memory_mib, cpus=need.cpu // 100 + 1)
    more = msgspec.structs.replace(snapshot, hosts=(*snapshot.hosts, large))
    assert plan(more).waiting == ()
    assert len(waiting) <= len(snapshot.vms)


@given(snapshots(most_vms=1, rules=False))
@settings(max_examples=40, deadline=None)
def test_more_memory_never_takes_a_place_away(snapshot: Snapshot) -> None:
    if plan(snapshot).waiting or plan(snapshot).steps == ():
        return
    for i, each in enumerate(snapshot.hosts):
        richer = msgspec.structs.replace(each, free_memory_mib=each.free_memory_mib + 512)
        hosts = (*snapshot.hosts[:i], richer, *snapshot.hosts[i + 1 :])
        assert plan(msgspec.structs.replace(snapshot, hosts=hosts)).waiting == ()


def some_way(snapshot: Snapshot) -> bool:
    """Whether any assignment at all, of all that there are, has a place for everybody."""
    vms = [v.vm for v in snapshot.vms if v.wanted and v.host is None]
    for hosts in itertools.product([h.id for h in snapshot.hosts], repeat=len(vms)):
        steps = tuple(Assignment(name, target) for name, target in zip(vms, hosts, strict=True))
        if not problems_of(snapshot, Plan(steps)):
            return True
    return False


@given(snapshots(most_hosts=3, most_vms=6))
@settings(max_examples=150, deadline=None)
def test_where_few_are_to_be_placed_nobody_waits_who_need_not(snapshot: Snapshot) -> None:
    found = plan(snapshot)
    assert (found.obstacle is None) == some_way(snapshot)
    assert found.obstacle is None or found.obstacle.proven
    assert found.obstacle is not None or found.waiting == ()


# -- the check that every plan passes ---------------------------------------------------------------------------------


@given(snapshots())
@settings(max_examples=100, deadline=None)
def test_the_check_finds_nothing_wrong_with_a_plan(snapshot: Snapshot) -> None:
    problem = Problem(snapshot)
    assert flaw(problem, to_place(problem), make_plan(problem)) == ""


@given(snapshots(), st.data())
@settings(max_examples=200, deadline=None)
def test_the_check_finds_what_is_wrong_with_any_assignment(snapshot: Snapshot, data: st.DataObject) -> None:
    problem = Problem(snapshot)
    places = st.sampled_from([None, *(each.id for each in snapshot.hosts)])
    steps = [Assignment(v.vm, data.draw(places), data.draw(st.booleans())) for v in to_place(problem)]
    found = Plan(tuple(sorted(steps, key=lambda step: step.squeezed)))
    assert bool(flaw(problem, to_place(problem), found)) == bool(problems_of(snapshot, found))


def test_the_check_names_the_vm_the_host_and_the_reason() -> None:
    problem = Problem(domain([host("a", 1024)], [vm("v"), vm("w")]))
    both = Plan((Assignment(VmId("v"), HostId("a")), Assignment(VmId("w"), HostId("a"))))
    words = "w cannot go to a: it has 0 MiB of memory free, and the VM needs 1024 MiB"
    assert flaw(problem, to_place(problem), both) == words
    assert flaw(problem, to_place(problem), Plan(both.steps[:1])) == "it does not decide about w as it should"
    nowhere = Plan((both.steps[0], Assignment(VmId("w"), HostId("x"))))
    assert flaw(problem, to_place(problem), nowhere) == "w would go to x, which is no host"


def test_what_a_plan_is_worth() -> None:
    vms = [vm("high", tier=0), vm("low", 512, tier=1), vm("other", 512, tier=1)]
    some = [Assignment(VmId("high"), HostId("a")), Assignment(VmId("low"), HostId("a"), True)]
    first, both = worth(vms, Plan((some[0],))), worth(vms, Plan(tuple(some)))
    assert (first.tiers, first.memory_mib) == (((1, 1), (0, 0)), 1024)
    assert (both.tiers, both.memory_mib, both.placed) == (((1, 1), (1, 0)), 1536, 2)
    assert worth(vms, Plan((some[1],))) < first < both, "the important one first, and then the more the better"


def test_small_ones_go_first_if_more_of_them_find_a_place() -> None:
    # More than are searched through: one large one and the room of many small ones.
    small = [vm(f"s{i:02}", 512, cpus=0.1) for i in range(MOST_SEARCHED)]
    hosts = [host("a", 512 * MOST_SEARCHED, cpus=100)]
    found = plan(domain(hosts, [*small, vm("large", 8192)]))
    assert found.waiting == ("large",)
    assert plan(domain(hosts, [*small, vm("large", 8192, tier=-1)])).targets["large"] == "a", (
        "an important one is not small"
    )
