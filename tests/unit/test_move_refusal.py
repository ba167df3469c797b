"""An operator's move is refused for what a restart there would be refused for, unless he insists."""

from __future__ import annotations

from outlast.model.ids import DatastoreName, HostName, VmName
from outlast.model.rules import Rule
from outlast.model.time import SECOND, Duration
from outlast.scenario.model import DatastoreSpec, HostSpec, Scenario, Step, VmSpec
from outlast.sim.world import World


def played(*, room_mib: int = 8192, rules: tuple[Rule, ...] = ()) -> World:
    """vm1 is to be moved to host2, where vm2 runs."""
    hosts = (
        HostSpec(name=HostName("host1")),
        HostSpec(name=HostName("host2"), memory_mib=room_mib),
        HostSpec(name=HostName("host3")),
    )
    vms = tuple(
        VmSpec(name=VmName(f"vm{i}"), datastore=DatastoreName("ds1"), host=HostName(f"host{i}"), memory_mib=2048)
        for i in (1, 2)
    )
    scenario = Scenario(
        title="a move",
        story="",
        duration=Duration(30 * SECOND),
        datastores=(DatastoreSpec(name=DatastoreName("ds1")),),
        hosts=hosts,
        vms=vms,
        rules=rules,
        steps=(Step(at=Duration(SECOND), do="migrate", keys={"vm": "vm1", "host": "host2"}),),
    )
    world = World.of(scenario)
    world.settle()
    world.begin()
    for step in scenario.steps:
        world.scheduler.run_until(world.now + step.at)
        world.do(step)
    world.run(15)
    return world


def test_where_there_is_room_it_goes() -> None:
    assert played().where("vm1") == ["host2"]


def test_where_there_is_none_it_stays() -> None:
    assert played(room_mib=3072).where("vm1") == ["host1"]


def test_nor_does_it_go_where_a_required_rule_forbids_it() -> None:
    apart = Rule(kind="keep-apart", vms=(VmName("vm1"), VmName("vm2")))
    assert played(rules=(apart,)).where("vm1") == ["host1"]
