"""Hosts that are kept empty, or used last: by an operator's word, which the gate knows too, or by their own hardware."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from agent_values import agent_config
from planning_values import domain, host, vm
from test_keeping import DS, GATE, ME, OTHER, VM, Keeper, owned
from test_shared_settings import agent, asked
from test_sim_failover import THREE, secondary
from test_sim_failover import domain as world_of

from outlast.model.commands import ChangeSettings, DrainHost, ReportHealth, UndrainHost
from outlast.model.health import Health, HealthLevel
from outlast.model.ids import Epoch, HostId, HostName, Incarnation
from outlast.model.inventory import HostMember
from outlast.model.keeping import Admission, AskTakeover, UseSettings
from outlast.model.records import Proof, ProofKind, Reason, RegisterState
from outlast.model.settings import Maintenance, Settings, SettingsMark, SettingsRecord
from outlast.model.time import Instant
from outlast.protocol.host_condition import condition_problems, emptied_for_health, kept_empty, last_resort
from outlast.protocol.knowledge import Knowledge
from outlast.protocol.planning.admission import Policy, percent_problem
from outlast.protocol.planning.planner import make_plan
from outlast.protocol.planning.problem import Problem
from outlast.protocol.reporting import Reporter
from outlast.runtime.health_file import HealthFile
from outlast.sim.world import World

NOW = Instant(0)
IN_MAINTENANCE = Maintenance("root@host1", 0, "new DIMMs")


def known(count: int, *levels: tuple[int, HealthLevel, int]) -> Knowledge:
    """A domain of so many hosts, of which this one has heard; `levels`: (number, level, since)."""
    hosts = tuple(HostMember(HostId(f"h{i}"), HostName(f"host{i}"), "192.0.2.1", 1) for i in range(1, count + 1))
    found = Knowledge(agent_config(host=HostId("h1"), hosts=hosts), NOW)
    said = {HostId(f"h{i}"): Health(level, "a fan", "bmc", since) for i, level, since in levels}
    found.health = said.pop(found.me, Health())
    for each, health in said.items():
        found.beats[each] = _Seen(_Beat(health))  # type: ignore[assignment]
    return found


class _Beat(msgspec.Struct):
    health: Health
    avoided: dict[HostId, int] = {}


class _Seen(msgspec.Struct):
    beat: _Beat


def test_one_host_at_least_and_a_quarter_at_most_those_that_began_first() -> None:
    assert set(emptied_for_health(known(2, (2, "failing", 5)))) == {"h2"}
    assert set(emptied_for_health(known(4, (3, "failing", 9), (2, "failing", 5)))) == {"h2"}
    assert set(emptied_for_health(known(8, (1, "failing", 9), (2, "failing", 5), (3, "failing", 7)))) == {"h2", "h3"}
    assert emptied_for_health(known(4, (1, "degraded", 1))) == {}


def test_who_is_not_well_is_a_last_resort_and_maintenance_has_no_bound() -> None:
    found = known(4, (1, "degraded", 1), (2, "failing", 2), (3, "failing", 3))
    assert last_resort(found)[HostId("h1")] == "its hardware is degraded: a fan"
    assert set(last_resort(found)) == {"h1", "h2", "h3"}
    everybody = dict.fromkeys(found.members, IN_MAINTENANCE) | {HostId("gone"): IN_MAINTENANCE}
    found.record = SettingsRecord(mark=SettingsMark(1), settings=Settings(), maintenance=everybody)
    assert set(kept_empty(found)) == {"h1", "h2", "h3", "h4"}, "also where its hardware is at fault; who has left is nobody"
    assert kept_empty(found)[HostId("h2")] == "it is in maintenance (root@host1: new DIMMs)"


def test_what_people_are_told_of_it() -> None:
    found = known(4, (1, "degraded", 1), (2, "failing", 2), (3, "failing", 3))
    first, *others = condition_problems(found)
    assert first == "host2 is kept empty until its hardware is well again: its hardware is failing: a fan"
    assert [each.split(" ")[0] for each in others] == ["host1", "host3"]
    found.record = SettingsRecord(
        mark=SettingsMark(1), settings=Settings(), maintenance=dict.fromkeys(found.members, IN_MAINTENANCE)
    )
    assert "until `outlast host undrain host1`" in " ".join(condition_problems(found))
    assert "no VM would be restarted anywhere" in condition_problems(found)[-1]


# -- plans ------------------------------------------------------------------------------------------------------------


def test_no_plan_uses_it_but_for_what_it_alone_may_start() -> None:
    big = host("a", 65536, kept_empty="it is in maintenance (root)")
    snapshot = domain([big, host("b")], [vm("v"), vm("w", 16384), vm("x", only=HostId("a"))])
    plan = make_plan(Problem(snapshot))
    assert plan.targets == {"v": "b", "w": None, "x": "a"}
    assert Problem(snapshot).never(vm("v"), 0) == "it is in maintenance (root)"


def test_its_room_is_set_aside_for_nobody() -> None:
    hosts = [host("a", kept_empty="it is in maintenance (root)"), host("b", 1024)]
    assert percent_problem(domain(hosts, [vm("v", 1024, on="b")]), Policy("percent", 1, 25)).startswith("0 %")


# -- the gate ---------------------------------------------------------------------------------------------------------

CLOSED = SettingsRecord(mark=SettingsMark(1), settings=Settings(), maintenance={ME: IN_MAINTENANCE}).closed(ME)


@pytest.mark.parametrize("told", [UseSettings(Settings(), SettingsMark(1), CLOSED), Admission({}, CLOSED)])
def test_a_start_by_hand_is_refused_and_one_that_the_domain_orders_is_not(told: UseSettings | Admission) -> None:
    keeper = Keeper().guarded()
    keeper.asks(told)
    keeper.asks(GATE)
    allowed, sentence = keeper.reply()
    assert not allowed
    assert "it is in maintenance (root@host1: new DIMMs), and kept empty until `outlast host undrain`" in sentence
    assert "`outlast vm start web` starts it on another host" in sentence
    proof = Proof(kind=ProofKind.RENOUNCED, owner=OTHER, incarnation=Incarnation(1), epoch=Epoch(4), observer=OTHER)
    keeper.asks(AskTakeover(GATE.request, VM, GATE.name, DS, proof))
    keeper.links()
    assert keeper.reply()[0]
    keeper.asks(GATE)
    assert keeper.reply()[0]


def test_the_operators_word_outlasts_the_agent_and_is_taken_back_by_a_newer_record() -> None:
    keeper = Keeper().guarded()
    keeper.asks(UseSettings(Settings(), SettingsMark(2), CLOSED))
    for _ in range(8):
        keeper.now += 4
        keeper.renews()
    keeper.asks(UseSettings(Settings(), SettingsMark(1)))
    keeper.asks(GATE)
    assert not keeper.reply()[0], "an older record says nothing"
    keeper.asks(UseSettings(Settings(), SettingsMark(3)))
    keeper.asks(GATE)
    keeper.reads(None)
    keeper.links()
    assert keeper.reply() == (True, "")


def test_what_an_agent_saw_is_forgotten_with_it() -> None:
    keeper = Keeper().guarded()
    keeper.asks(Admission({}, "its hardware is failing"))
    for _ in range(4):
        keeper.now += 4
        keeper.renews()
    keeper.asks(GATE)
    keeper.reads(msgspec.structs.replace(owned(OTHER, 4, state=RegisterState.RELEASED), reason=Reason.CRASHED))
    keeper.links()
    assert keeper.reply() == (True, "")


# -- commands, in the simulated world ---------------------------------------------------------------------------------


def kept_by(world: World, name: str) -> dict[HostId, str]:
    machine = agent(world, name).machine
    assert machine is not None
    return kept_empty(machine.known)


def test_a_host_is_drained_from_anywhere_and_used_again() -> None:
    world = world_of()
    host, _ = secondary(world)
    outcome = asked(world, host, DrainHost("host2", "new DIMMs"))
    assert outcome.ok
    assert outcome.version == 1
    world.run(2)
    for name in world.hosts:
        assert kept_by(world, name) == {"host2": f"it is in maintenance (root@{host}: new DIMMs)"}
    keeper = world.hosts["host2"].keeper.machine
    assert keeper is not None
    assert "new DIMMs" in keeper.closed
    again = asked(world, "host2", DrainHost("host2", "again"), number=2)
    assert again.ok
    assert "nothing to change: host2: it is in maintenance" in again.sentences[0]
    # What else is in the record stays, whichever part of it is changed.
    assert asked(world, host, ChangeSettings({"admission_percent": 30}), number=3).ok
    assert asked(world, host, DrainHost("host3"), number=4).ok
    assert set(kept_by(world, host)) == {"host2", "host3"}
    machine = agent(world, host).machine
    assert machine is not None
    assert machine.known.settings.admission_percent == 30
    assert asked(world, host, UndrainHost("host2"), number=5).ok
    assert asked(world, host, UndrainHost("host2"), number=6).sentences[0].startswith("nothing to change: host2 is not in")
    assert set(kept_by(world, host)) == {"host3"}


def test_a_host_that_is_none_is_named_with_those_that_are() -> None:
    outcome = asked(world_of(), "host1", DrainHost("host9"))
    assert not outcome.ok
    assert outcome.sentences == ("there is no host host9; there are host1, host2, host3",)


def test_health_is_carried_out_by_the_host_that_it_is_about() -> None:
    world = world_of()
    assert asked(world, "host1", ReportHealth("host2", "failing", "DIMM 3")).sentences == (
        "host2: its hardware is failing: DIMM 3",
    )
    said = world.hosts["host2"].health
    assert (said.level, said.by) == ("failing", "root@host1")
    assert asked(world, "host2", ReportHealth("", "failing", "DIMM 3")).sentences[0].startswith("nothing to change")
    assert asked(world, "host2", ReportHealth("", "failing", "DIMMs 3 and 4"), number=2).ok
    assert world.hosts["host2"].health.since_ms == said.since_ms, "a monitor that repeats itself is no news"
    world.run(1)
    for name in THREE:
        assert set(kept_by(world, name)) == {"host2"}
        machine = agent(world, name).machine
        assert machine is not None
        shown = Reporter(machine, world.hosts[name].clock()).snapshot("1", {})
        two = next(each for each in shown.hosts if each.name == "host2")
        assert (two.health, two.health_reason, two.kept_empty != "", two.maintenance) == (
            "failing",
            "DIMMs 3 and 4",
            True,
            None,
        )
    assert asked(world, "host1", ReportHealth("host2", "ok"), number=3).ok
    world.run(1)
    assert kept_by(world, "host3") == {}


def test_what_was_said_is_read_again_or_all_is_well(tmp_path: Path) -> None:
    file = HealthFile(tmp_path / "state" / "health.json")
    assert file.read() == Health()
    file.write(Health("degraded", "PSU 2", "root@a", 7))
    assert file.read() == Health("degraded", "PSU 2", "root@a", 7)
    (tmp_path / "state" / "health.json").write_text('{"level": "purple"}')
    assert file.read() == Health()
