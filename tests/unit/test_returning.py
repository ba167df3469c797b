"""Who goes back to a host that was emptied: what the record says of it, and who can."""

from __future__ import annotations

from agent_values import agent_config
from planning_values import domain, host, rule, vm
from test_moving import H2, Primary, running

from outlast.model.commands import DrainHost, EndReturn, UndrainHost
from outlast.model.ids import BootId, HostId, VmId
from outlast.model.messages import CommandRequest
from outlast.model.planning import Snapshot
from outlast.model.settings import MOST_BROUGHT_BACK, Maintenance, Returning, Settings, SettingsMark, SettingsRecord
from outlast.model.time import Instant
from outlast.protocol.knowledge import Knowledge
from outlast.protocol.maintenance_record import HostsKept, changed_by
from outlast.protocol.planning.returning import plan_returns

A = HostId("a")


def goes(snapshot: Snapshot, *names: str, settled: bool = True) -> tuple[dict[VmId, HostId | None], dict[VmId, str]]:
    back = {VmId(name): A for name in names}
    moves, stays = plan_returns(snapshot, back, set(back) if settled else ())
    return {each.vm.vm: each.vm.host for each in moves}, stays


def test_who_ran_there_goes_back_if_it_can() -> None:
    hosts = [host("a"), host("b")]
    assert goes(domain(hosts, [vm("web", on="b"), vm("app", on="b")]), "web") == ({"web": "a"}, {})
    assert goes(domain(hosts, [vm("web", on="a")]), "web") == ({}, {}), "it is there"
    assert goes(domain(hosts, [vm("web", on="b")]), "web", settled=False)[0] == {}


def test_never_against_room_or_rules_and_nobody_takes_the_room_of_another() -> None:
    small = [host("a", 1536), host("b")]
    moves, stays = goes(domain(small, [vm("web", 1024, on="b"), vm("app", 1024, on="b", tier=-1)]), "web", "app")
    assert moves == {"app": "a"}
    assert "MiB" in stays[VmId("web")]
    apart = rule("keep-apart", "web", "app")
    moves, stays = goes(domain([host("a"), host("b")], [vm("web", on="b"), vm("app", on="a")], apart), "web")
    assert moves == {}
    assert "keep-apart" in stays[VmId("web")]
    unwell = [host("a", last_resort="its hardware is degraded"), host("b")]
    assert goes(domain(unwell, [vm("web", on="b")]), "web") == ({}, {"web": "its hardware is degraded"})


# -- the record ---------------------------------------------------------------------------------------------------------


def request(command: DrainHost | UndrainHost | EndReturn) -> CommandRequest:
    return CommandRequest(number=1, by="ann", at_ms=5, command=command)


def changed(kept: HostsKept, command: DrainHost | UndrainHost | EndReturn) -> HostsKept | str:
    return changed_by(Knowledge(agent_config(), Instant(0)), kept, request(command))


def vms(*names: str) -> tuple[VmId, ...]:
    return tuple(VmId(name) for name in names)


def test_an_undrain_with_its_vms_back_moves_them_to_those_that_go_back() -> None:
    kept = HostsKept({A: Maintenance("bob", 1, "", vms("v", "w"))}, {HostId("b"): Returning("bob", 1, vms("w", "x"))})
    assert changed(kept, UndrainHost("a")) == HostsKept({}, kept.returning)
    found = changed(kept, UndrainHost("a", back=True))
    assert found == HostsKept({}, {HostId("b"): Returning("bob", 1, vms("x")), A: Returning("ann", 5, vms("v", "w"))}), (
        "a VM goes back to one host"
    )


def test_another_undrain_ends_the_return_and_what_was_seen_to_is_named_no_more() -> None:
    kept = HostsKept({}, {A: Returning("bob", 1, vms("v", "w"))})
    assert changed(kept, UndrainHost("a")) == HostsKept({}, {})
    assert isinstance(changed(kept, UndrainHost("a", back=True)), str)
    assert changed(kept, EndReturn("a", vms("v"))) == HostsKept({}, {A: Returning("bob", 1, vms("w"))})
    assert changed(kept, EndReturn("a", vms("v", "w"))) == HostsKept({}, {})
    assert changed(kept, EndReturn("b", vms("v"))) == kept


def test_a_drain_keeps_in_mind_who_was_on_its_way_back_and_is_bounded() -> None:
    kept = HostsKept({}, {A: Returning("bob", 1, vms("v", "w"))})
    assert changed(kept, DrainHost("a", "again")) == HostsKept({A: Maintenance("ann", 5, "again", vms("v", "w"))}, {})
    many = HostsKept({}, {HostId("b"): Returning("bob", 1, vms(*map(str, range(MOST_BROUGHT_BACK - 1)))), **kept.returning})
    found = changed(many, DrainHost("a"))
    assert isinstance(found, HostsKept)
    assert found.maintenance[A].vms == vms("v")


# -- the primary --------------------------------------------------------------------------------------------------------


class Returner(Primary):
    """With VMs that are to go back to host 2."""

    def wants_back(self, *names: str, by_boot: str = "") -> Returner:
        returning = {H2: Returning("ann", 1, vms(*names))} if names else {}
        kept = {H2: Maintenance("the shutdown", 1, boot=BootId(by_boot))} if by_boot else {}
        self.known.record = SettingsRecord(mark=SettingsMark(1), settings=Settings(), returning=returning, maintenance=kept)
        self.maintenance.back._failback.is_back = lambda _: True  # type: ignore[method-assign]
        return self


def test_they_are_moved_and_then_named_no_more() -> None:
    at = Returner().lists_say(h1=running("v"), h3=running("w", "x")).wants_back("v", "w")
    orders = at.turn(1)
    assert {(order[1], order[2]) for order in orders} == {("v", H2), ("w", H2)}
    for order in orders:
        at.answers(order, "migrated")
        at.goes(order[1], H2)
    at.turn(2.1)
    at.turn(3.2)
    assert at.changes == [EndReturn(H2, vms("v", "w"))]


def test_a_host_that_has_booted_again_is_undrained_with_its_vms() -> None:
    at = Returner().lists_say(h3=running("v")).wants_back(by_boot="boot")
    at.turn(1)
    assert at.changes == []
    again = Returner().lists_say(h3=running("v")).wants_back(by_boot="an earlier one")
    again.turn(1)
    assert again.changes == [UndrainHost(H2, back=True)]


def test_it_is_not_tried_for_ever() -> None:
    at = Returner().lists_say(h1=running("v")).wants_back("v")
    at.maintenance.back._failback.is_back = lambda _: False  # type: ignore[method-assign]
    at.turn(1)
    at.turn(3599)
    assert at.changes == []
    at.turn(3602)
    assert at.changes == [EndReturn(H2, vms("v"))]
    assert "return-given-up v" in at.notes
