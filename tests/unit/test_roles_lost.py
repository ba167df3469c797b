"""Whoever is lost at whichever stage of a failover, the VM runs again, once.

Each row of the table is played in a small world made for it: host1 loses its power, host4 is the primary that brings its VM
back, and host3, which has the most memory free, is where it sends it. At the moment when the VM's case enters a stage of
`protocol/restart.py`, which is looked at in the world itself, the loss happens to the role.
"""

import msgspec
import pytest

from outlast.model.ids import DatastoreName, HostId, HostName, VmId, VmName
from outlast.model.time import SECOND, Duration
from outlast.protocol.restart import Stage
from outlast.scenario.model import DatastoreSpec, HostSpec, Scenario, Step, VmSpec
from outlast.sim.world import World

OWNER, PRIMARY, TARGET = "host1", "host4", "host3"
CLAIMED, STARTED = "claimed", "started"
STAGES = (
    *(str(stage) for stage in (Stage.READING, Stage.PROVING, Stage.CONFIRMING, Stage.ORDERED)),
    CLAIMED,
    str(Stage.STARTING),
    STARTED,
)
UNDO = {
    "power-off": "power-on",
    "power-on": "power-on",
    "agent-kill": "agent-resume",
    "agent-stop": "agent-resume",
    "keeper-kill": "keeper-resume",
    "keeper-stop": "keeper-resume",
    "hypervisor-kill": "hypervisor-resume",
    "hypervisor-hang": "hypervisor-resume",
    "network-cut": "network-heal",
}


class Row(msgspec.Struct, frozen=True):
    """At this stage, this happens to this host. `others`: what the VM may be restarted beside the once that it must.

    `waits`: not before this is undone. A host whose keeper hangs owns it and answers ping: nothing proves its end (rule 6).
    One whose libvirt hangs before it has the gate's last word gives the start back; after that, it would be waited for.
    """

    stage: str
    host: str
    loss: str
    others: int = 1
    waits: bool = False

    def __str__(self) -> str:
        role = {OWNER: "owner", PRIMARY: "primary", TARGET: "target"}[self.host]
        return f"{self.stage}-{role}-{self.loss}"


TABLE = (
    *(Row(stage, PRIMARY, "power-off", 0) for stage in STAGES),
    *(Row(stage, TARGET, "power-off") for stage in STAGES),
    *(Row(stage, OWNER, "power-on", 0) for stage in STAGES),
    *(Row(str(Stage.ORDERED), PRIMARY, loss) for loss in ("agent-kill", "agent-stop", "keeper-kill", "network-cut")),
    *(Row(str(Stage.ORDERED), TARGET, loss) for loss in ("agent-kill", "keeper-kill", "keeper-stop", "network-cut")),
    *(
        Row(str(Stage.STARTING), TARGET, loss, waits=loss == "keeper-stop")
        for loss in UNDO
        if loss not in ("power-off", "power-on")
    ),
)


def scenario() -> Scenario:
    """Four hosts; what they have of memory says who is chosen."""
    memory = {"host1": 32, "host2": 16, TARGET: 32, PRIMARY: 8}
    return Scenario(
        title="a role is lost",
        seed=7,
        duration=Duration(SECOND),
        datastores=(DatastoreSpec(name=DatastoreName("ds1")), DatastoreSpec(name=DatastoreName("ds2"))),
        hosts=tuple(HostSpec(name=HostName(name), memory_mib=gib << 10) for name, gib in memory.items()),
        vms=(
            VmSpec(
                name=VmName("web1"), datastore=DatastoreName("ds1"), host=HostName(OWNER), start_time=Duration(2 * SECOND)
            ),
            *(
                VmSpec(name=VmName(f"vm-{name}"), datastore=DatastoreName("ds2"), host=HostName(name))
                for name in ("host2", TARGET, PRIMARY)
            ),
        ),
    )


def is_at(stage: str, world: World) -> bool:
    """Whether web1's case stands there, by what the primary's machine holds, or by what is true of the VM.

    It is starting once the target's libvirt has begun to, and not when an order for it is under way.
    """
    if stage == CLAIMED:
        last = world.register("web1")
        return last is not None and last.owner == TARGET
    if stage == STARTED:
        return world.where("web1") == [TARGET]
    machine = world.hosts[PRIMARY].agent.machine
    case = machine.recovery.cases.get(VmId("web1")) if machine is not None else None
    begun = stage != Stage.STARTING or VmId("web1") in world.hosts[TARGET].hypervisor.starting
    return case is not None and case.stage == stage and begun


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_a_role_is_lost_at_a_stage(row: Row) -> None:
    world = World.of(scenario())
    world.settle()
    assert world.primaries() == [PRIMARY]
    world.power_off(OWNER)
    assert world.run_until(lambda: is_at(row.stage, world), 20, 0.0002) is not None
    if row.stage in (str(Stage.ORDERED), str(Stage.STARTING)):
        machine = world.hosts[PRIMARY].agent.machine
        assert machine is not None
        assert machine.recovery.cases[VmId("web1")].target == HostId(TARGET)

    world.do(Step(at=Duration(0), do=row.loss, keys={"host": row.host}))
    lost = {row.host} if row.loss == "power-off" else set[str]()
    back = world.run_until(lambda: len(world.where("web1")) == 1 and not lost & set(world.where("web1")), 30)
    assert (back is None) is row.waits, world.story()
    world.run(8)
    assert world.invariants.violations == [], world.story()

    world.do(Step(at=Duration(0), do=UNDO[row.loss], keys={"host": row.host}))
    world.power_on(OWNER)
    world.run(15)
    everywhere = world.run_until(lambda: all(len(world.where(vm.name)) == 1 for vm in world.vm_specs), 45)
    assert everywhere is not None, world.story()
    assert world.invariants.violations == [], world.story()
    assert 2 <= len(world.starts[VmId("web1")]) <= 2 + row.others
