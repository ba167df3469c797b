"""VMs that run and go on elsewhere: which, where to, how many at once, and what comes of it. The hosts here only answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from agent_values import BOOT, agent_config
from planning_values import domain, host, rule, vm
from test_shared_settings import agent, asked
from test_sim_failover import domain as world_of
from test_sim_failover import secondary

from outlast.model.commands import Command, DrainHost, MoveVm
from outlast.model.effects import Note, Send
from outlast.model.health import Health
from outlast.model.ids import BootId, DatastoreName, HostId, HostName, VmId, VmName
from outlast.model.inventory import Capacity, DatastoreMember, DatastoreReach, HostMember, Needs
from outlast.model.messages import CommandRequest, Heartbeat, MigrateOrder, OrderReport, Rank
from outlast.model.planning import PlanVm
from outlast.model.records import PoweredVm, PowerOnList
from outlast.model.settings import Maintenance as InMaintenance
from outlast.model.settings import Pause, Settings, SettingsMark, SettingsRecord
from outlast.model.time import SECOND, Duration, Instant, after, seconds
from outlast.protocol.knowledge import BeatSeen, Knowledge, Outbox
from outlast.protocol.maintenance import Maintenance
from outlast.protocol.moving import Mover
from outlast.protocol.placement import Placement
from outlast.protocol.planning.emptying import Leaving, plan_emptying
from outlast.protocol.reporting import Reporter
from outlast.protocol.settings_changing import SettingsWork
from outlast.protocol.verdict import Verdict

HOME = DatastoreName("ds1")
HOSTS = tuple(HostMember(HostId(f"h{i}"), HostName(f"host{i}"), f"192.0.2.{i}", 1) for i in range(1, 5))
H1, H2, H3, H4 = (member.id for member in HOSTS)


# -- where they would go ----------------------------------------------------------------------------------------------


def test_all_are_planned_together_and_what_cannot_go_is_named() -> None:
    snapshot = domain(
        [host("a"), host("b", 4096), host("c", 2048)],
        [vm("big", 3000, on="a"), vm("web", 1000, on="a"), vm("huge", 8000, on="a", wanted=False), vm("x", 1024, on="b")],
    )
    found = plan_emptying(snapshot, {HostId("a")})
    assert {each.vm.name: each.vm.host for each in found.moves} == {"big": "b", "web": "c"}
    assert {each.origin for each in found.moves} == {"a"}
    assert set(found.stays) == {"huge"}
    assert "c: it has 1048 MiB" in found.stays[VmId("huge")] or "c: it has 2048 MiB" in found.stays[VmId("huge")]


def test_who_waits_for_a_restart_has_its_place_first() -> None:
    snapshot = domain([host("a"), host("b", 1024)], [vm("lost", tier=4), vm("web", on="a", tier=0)])
    found = plan_emptying(snapshot, {HostId("a")})
    assert found.moves == ()
    assert set(found.stays) == {"web"}


def test_rules_hold_and_a_vm_without_a_datastore_stays() -> None:
    apart = rule("keep-apart", "v", "w")
    snapshot = domain(
        [host("a"), host("b"), host("c", 512)], [vm("v", on="a"), vm("w", on="b"), vm("l", on="a", stores=())], apart
    )
    found = plan_emptying(snapshot, {HostId("a")})
    assert set(found.stays) == {"v", "l"}
    assert "keep-apart" in found.stays[VmId("v")]


def test_two_hosts_are_emptied_past_each_other() -> None:
    snapshot = domain([host("a"), host("b"), host("c")], [vm("v", on="a"), vm("w", on="b")])
    assert {each.vm.host for each in plan_emptying(snapshot, {HostId("a"), HostId("b")}).moves} == {"c"}


# -- having them go ---------------------------------------------------------------------------------------------------


class Primary:
    """Host 1 of four, primary. `vms`: what stands on each host's list, by name, with its state."""

    def __init__(self, **settings: Any) -> None:
        stores = (DatastoreMember(HOME, "/srv/ds1"),)
        config = agent_config(host=H1, hosts=HOSTS, datastores=stores, first_sequence=1000)
        self.known, self.out = Knowledge(config, Instant(0)), Outbox(1000)
        self.known.record = SettingsRecord(mark=SettingsMark(1), settings=Settings(**settings))
        self.known.settings = self.known.record.settings
        self.known.verdict = self._verdict  # type: ignore[method-assign]
        self.known.has_lease = lambda _host, _name: True  # type: ignore[method-assign]
        self.known.hypervisor_up = True
        self.verdicts = {each.id: Verdict.CONNECTED for each in HOSTS}
        self.lists: dict[HostId, dict[str, str]] = {each.id: {} for each in HOSTS}
        self.health: dict[HostId, Health] = {}
        self.placement = Placement(self.known, {})
        self.mover = Mover(self.known, self.out)
        self.maintenance = Maintenance(self.known, self.out, self.mover, self.placement, self._change)
        self.notes: list[str] = []
        self.changes: list[Command] = []
        self.sequence = 0

    def _change(self, request: CommandRequest) -> SettingsWork:
        self.changes.append(request.command)
        return SettingsWork(request, self.known.now)

    def _verdict(self, host: HostId) -> Verdict:
        return self.verdicts[host]

    def lists_say(self, **vms: dict[str, str]) -> Primary:
        self.lists |= {HostId(host): there for host, there in vms.items()}
        return self

    def drains(self, *hosts: HostId) -> Primary:
        assert self.known.record is not None
        kept = dict.fromkeys(hosts, InMaintenance("ann@host1", 0, "new DIMMs"))
        self.known.record = msgspec.structs.replace(self.known.record, maintenance=kept)
        return self

    def turn(self, at_s: float, *, primary: bool = True) -> list[tuple[str, VmId, HostId, int]]:
        """The orders of one turn: to whom, for which VM, where to, and their numbers."""
        self.known.now = Instant(round(at_s * SECOND))
        self.sequence += 1
        for member in HOSTS:
            self._hear(member.id)
        self.maintenance.tick(primary)
        effects = self.out.take()
        self.notes += [f"{e.kind} {e.vm or e.host}" for e in effects if isinstance(e, Note)]
        sent = [(e.to, e.message) for e in effects if isinstance(e, Send)] + [
            (H1, o) for o in self.mover.own_orders.values()
        ]
        self.mover.own_orders.clear()
        return [(to, o.vm, o.destination, o.order) for to, o in sent if isinstance(o, MigrateOrder)]

    def _hear(self, host: HostId) -> None:
        capacity = Capacity(8192, 8192, 8)
        self.known.capacity = capacity
        beat = Heartbeat(
            sender=host,
            boot_id=BOOT,
            sequence=self.sequence,
            rank=Rank(True, 1, 1, host),
            term=1,  # type: ignore[arg-type]
            primary=H1,
            lapsed=(),
            reach=(DatastoreReach(HOME, True, "nfs", "a", 0),),
            capacity=capacity,
            hypervisor_up=True,
            health=self.health.get(host, Health()),
        )
        if host != H1 and self.verdicts[host] is Verdict.CONNECTED:
            self.known.beats[host] = BeatSeen(self.known.now, beat)
        lines = tuple(
            PoweredVm(
                VmId(n), VmName(n), HOME if s != "local" else None, None, "running" if s == "local" else s, 1024, True
            )
            for n, s in self.lists[host].items()
        )
        self.known.take_list(
            PowerOnList(host=host, boot_id=BootId(BOOT), sequence=self.sequence, isolated=False, vms=lines)
        )

    def answers(self, order: tuple[str, VmId, HostId, int], stage: str, detail: str = "", sender: str = "") -> None:
        report = OrderReport(order=order[3], vm=order[1], stage=stage, detail=detail)
        self.mover.reported(HostId(sender or order[0]), report)

    def goes(self, vm: str, to: HostId) -> None:
        for there in self.lists.values():
            there.pop(vm, None)
        self.lists[to][vm] = "running"

    @property
    def said(self) -> dict[str, str]:
        return {each.host: each.text for each in self.maintenance.emptying}


def running(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "running")


def test_a_host_is_emptied_two_at_a_time_until_nothing_is_left() -> None:
    at = Primary().lists_say(h2=running("v1", "v2", "v3")).drains(H2)
    orders = at.turn(1)
    assert [order[:2] for order in orders] == [("h2", "v1"), ("h2", "v2")]
    assert {order[2] for order in orders} <= {H1, H3, H4}
    assert at.said == {"h2": f"v3 is to move to {at.known.name(_planned(at, 'v3'))}; {_moves(at, *orders)}"}
    assert at.turn(1.2) == []
    assert at.turn(1.6) == orders, "repeated until it is answered"
    for order in orders:
        at.answers(order, "migrating")
    assert at.turn(2.2) == []
    assert at.turn(4.7) == orders, "and more slowly while it is carried out"
    for order in orders:
        at.answers(order, "migrated")
        at.goes(order[1], order[2])
    assert at.turn(5) == [], "nothing is begun by an old plan"
    (third,) = at.turn(5.8)
    assert third[:2] == ("h2", "v3")
    assert third[3] not in {order[3] for order in orders}
    at.answers(third, "migrated")
    at.goes("v3", third[2])
    assert at.turn(6.9) == []
    assert at.said == {}
    assert at.notes.count("host-emptied h2") == 1
    at.turn(8)
    assert at.notes.count("host-emptied h2") == 1
    assert at.mover.next_deadline() is None


def _planned(at: Primary, name: str) -> HostId | None:
    return next(each.vm.host for each in at.maintenance._plan.moves if each.vm.name == name)


def _moves(at: Primary, *orders: tuple[str, VmId, HostId, int]) -> str:
    return "; ".join(f"{order[1]} moves to {at.known.name(order[2])}" for order in orders)


def test_the_limit_counts_where_they_come_from_and_where_they_go() -> None:
    at = Primary(moves_at_once_per_host=1).lists_say(h1=running("a1", "a2"), h2=running("b1", "b2")).drains(H1, H2)
    orders = at.turn(1)
    assert sorted(order[0] for order in orders) == ["h1", "h2"], "this host's own orders are for itself to carry out"
    assert len({order[2] for order in orders}) == 2
    only_one = Primary(moves_at_once_per_host=1).lists_say(h1=running("a"), h2=running("b")).drains(H1, H2, H3)
    assert len(only_one.turn(1)) == 1, "host4 receives one at a time"


def test_what_fails_rests_for_twice_as_long_each_time_and_prefers_another_host() -> None:
    at = Primary().lists_say(h2=running("v")).drains(H2)
    now, tried = 1.0, list[HostId]()
    for rest in (30, 60, 120, 240, 480, 600, 600):
        (order,) = at.turn(now)
        tried.append(order[2])
        at.answers(order, "failed", "it has a host device")
        assert at.turn(now + 0.1) == []
        assert at.turn(now + rest - 1.1) == []
        assert at.said["h2"] == "v is tried again later: it has a host device"
        now += rest + 1.1
    assert len(set(tried[:3])) == 3
    assert at.notes.count("move-failed v") == 7


def test_a_host_that_gives_no_answer_is_not_waited_for_for_ever() -> None:
    at = Primary().lists_say(h2=running("v")).drains(H2)
    (order,) = at.turn(1)
    assert at.turn(15.9) == [order]
    assert at.turn(16.1) == []
    assert "move-failed v" in at.notes
    at.answers(order, "migrated")
    assert at.turn(20) == [], "what it says later is about a move that is none any more"


def test_a_migration_may_take_as_long_as_it_takes_while_its_host_says_so() -> None:
    at = Primary().lists_say(h2=running("v")).drains(H2)
    (order,) = at.turn(1)
    for now in range(2, 300, 3):
        at.answers(order, "migrating")
        at.turn(now)
    assert "move-failed v" not in at.notes


def test_a_vm_that_is_said_to_have_moved_and_stands_where_it_stood_has_not() -> None:
    at = Primary().lists_say(h2=running("v")).drains(H2)
    (order,) = at.turn(1)
    at.answers(order, "migrated")
    assert at.turn(10.9) == []
    assert "move-failed v" not in at.notes
    at.turn(11.1)
    assert "move-failed v" in at.notes


@pytest.mark.parametrize(
    ("order", "sender"), [(("h2", VmId("v"), H1, 999), ""), (("h2", VmId("other"), H1, 1001), ""), (None, "h3")]
)
def test_reports_about_other_orders_and_of_other_hosts_are_for_others(
    order: tuple[str, VmId, HostId, int] | None, sender: str
) -> None:
    at = Primary().lists_say(h2=running("v")).drains(H2)
    (real,) = at.turn(1)
    at.answers(order or real, "failed", "no", sender)
    at.answers(real, "owned")
    at.turn(2)
    assert "move-failed v" not in at.notes


def test_an_undrain_begins_nothing_more_and_calls_nothing_back() -> None:
    at = Primary(moves_at_once_per_host=1).lists_say(h2=running("v1", "v2")).drains(H2)
    (order,) = at.turn(1)
    at.answers(order, "migrating")
    at.drains()
    assert at.turn(4.1) == [order], "it is followed to its end"
    at.answers(order, "migrated")
    at.goes("v1", order[2])
    for now in (5, 7, 40):
        assert at.turn(now) == []
    assert (at.said, at.mover.moving, at.maintenance.next_deadline()) == ({}, {}, None)


def test_who_is_frozen_started_or_has_a_local_disk_stays_and_who_ends_is_nobody() -> None:
    there = {"f": "frozen", "s": "starting", "e": "ending", "l": "local", "v": "running"}
    at = Primary().lists_say(h2=there).drains(H2)
    (order,) = at.turn(1)
    assert order[1] == "v"
    said = at.said["h2"]
    assert "f stays: it is frozen" in said
    assert "s stays: it is starting" in said
    assert "l stays: not all that it needs is on a datastore" in said
    assert "and 1 more" in said
    at.lists[H2]["f"] = "running"
    assert [each[1] for each in at.turn(2.1)][-1] == "f"


def test_no_move_takes_the_room_that_another_one_needs() -> None:
    at = Primary(moves_at_once_per_host=20).drains(H2, H3)
    at.lists_say(h2=running(*(f"v{i}" for i in range(12))), h3=running(*(f"w{i}" for i in range(12))))
    orders = at.turn(1)
    assert len(orders) == 16, "two hosts of 8 GiB take 16 VMs of 1 GiB"
    assert all(sum(order[2] == to for order in orders) == 8 for to in (H1, H4))
    snapshot = at.placement.snapshot()
    assert {each.vm: each.host for each in snapshot.vms if each.vm in at.mover.moving} == {o[1]: o[2] for o in orders}
    assert at.said["h3"].count("stays: no other host can take it") == 3, "those come first for whom nothing is done"
    assert at.said["h3"].endswith("; and 9 more")


def test_a_host_whose_end_is_suspected_is_recoverys() -> None:
    at = Primary().lists_say(h2=running("v")).drains(H2)
    at.turn(1)
    at.verdicts[H2] = Verdict.PRESUMED_DEAD
    assert at.turn(5) == []
    assert at.mover.moving == {}
    assert at.placement.moving == {}
    assert "move-failed v" not in at.notes


def test_whoever_is_not_primary_orders_nothing_and_forgets() -> None:
    at = Primary().lists_say(h2=running("v")).drains(H2)
    assert at.turn(1, primary=False) == []
    assert len(at.turn(2)) == 1
    assert at.turn(3, primary=False) == []
    assert (at.mover.moving, at.said, at.maintenance.next_deadline()) == ({}, {}, None)


@pytest.mark.parametrize("paused", [False, True])
def test_a_pause_holds_what_a_monitor_asks_for_and_not_what_an_operator_does(paused: bool) -> None:
    at = Primary().lists_say(h2=running("v"), h3=running("w")).drains(H3)
    at.health[H2] = Health("failing", "DIMM 3", "bmc", 1)
    assert at.known.record is not None
    pause = Pause("ann@host1", 0) if paused else None
    at.known.record = msgspec.structs.replace(at.known.record, pause=pause)
    assert {order[1] for order in at.turn(1)} == ({"w"} if paused else {"v", "w"})


def test_nothing_is_looked_at_while_no_host_is_kept_empty() -> None:
    at = Primary().lists_say(h2=running("v"))
    assert at.turn(1) == []
    assert at.maintenance.next_deadline() is None


def test_anybody_may_want_a_move_of_the_mover() -> None:
    """A rule that wants a VM back on a better host will say so in the same words."""
    at = Primary().lists_say(h2=running("v"))
    at.turn(1)
    placed = PlanVm(vm=VmId("v"), name=VmName("v"), needs=Needs(memory_mib=1024), host=H3)
    at.mover.tick([Leaving(placed, H2, "the rule 'run-on' prefers it")], {VmId("v")})
    assert at.mover.moving == {"v": placed}
    assert at.mover.next_deadline() == after(Instant(SECOND), Duration(seconds(0.5)))


# -- with real agents -------------------------------------------------------------------------------------------------


def test_the_primary_orders_it_and_every_screen_says_how_far_it_is() -> None:
    world = world_of()
    name, vm_name = secondary(world)
    assert asked(world, name, DrainHost(name)).ok
    machine = agent(world, world.primaries()[0]).machine
    assert machine is not None
    mover = machine.mover
    assert world.run_until(lambda: vm_name in mover.moving, 5, 0.01) is not None
    world.run(0.5)
    move = mover.moving[vm_name]
    assert move.host != name
    assert machine.recovery.placement.whole().vms[0].host is not None
    for each in world.hosts.values():
        assert each.agent.machine is not None
        shown = Reporter(each.agent.machine, each.clock()).snapshot("1", {}).hosts
        said = {host.name: host.emptying for host in shown}
        assert f"{vm_name} moves to {move.host}" in said.pop(name)
        assert set(said.values()) == {""}
    assert world.run_until(lambda: world.where(vm_name) == [move.host], 20) is not None
    world.run(2)
    assert (machine.mover.moving, machine.mover.rests, machine.maintenance.emptying) == ({}, {}, ())
    refused = asked(world, name, MoveVm(vm=vm_name, host=name), number=2)
    assert not refused.ok
    assert f"{name} is kept empty: it is in maintenance" in refused.sentences[0]
    assert world.where(vm_name) == [move.host]
    assert world.invariants.violations == []


def test_a_primary_that_is_to_be_empty_orders_itself() -> None:
    world = world_of()
    name = world.primaries()[0]
    assert asked(world, name, DrainHost(name)).ok
    machine = agent(world, name).machine
    assert machine is not None
    assert world.run_until(lambda: bool(machine.mover.own_orders), 3, 0.001) is not None
    assert set(machine.mover.own_orders) <= set(machine.mover.moving)
