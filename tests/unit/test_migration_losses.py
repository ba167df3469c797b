"""Whoever is lost at whichever step of a live migration, the VM has one owner, and runs again (decision 19).

vm1 goes from host1 to host2; host3 watches. The steps are looked at in the world itself: where the keepers are, what the
processes do, and what the register says.
"""

import pytest

from outlast.model.ids import DatastoreName, HostId, HostName, VmId, VmName
from outlast.model.records import RegisterState
from outlast.model.settings import Settings
from outlast.scenario.model import DatastoreSpec, HostSpec, VmSpec
from outlast.sim.hypervisor import Process
from outlast.sim.world import World

SOURCE, TARGET, VM = "host1", "host2", VmId("vm1")
STEPS = ("expected", "arriving", "copy", "paused", "whole", "exited", "released", "owned", "resumed")
LOSSES = ("power-off", "keeper-kill", "agent-kill", "hypervisor-kill", "network-cut", "storage-cut")
UNTIL_UNDONE_S = 12


def world(seed: int = 3) -> World:
    made = World(
        [HostSpec(name=HostName(name)) for name in ("host1", "host2", "host3")],
        [DatastoreSpec(name=DatastoreName("ds1"))],
        [VmSpec(name=VmName("vm1"), host=HostName(SOURCE), datastore=DatastoreName("ds1"))],
        settings=Settings(isolation_response="leave-running"),
        seed=seed,
    )
    made.settle()
    made.begin()
    return made


def process(made: World, host: str) -> Process | None:
    return made.hosts[HostId(host)].hypervisor.processes.get(VM)


def phase(made: World) -> str:
    machine = made.hosts[HostId(TARGET)].keeper.machine
    known = machine.vms.get(VM) if machine is not None else None
    return str(known.phase) if known is not None else ""


def is_at(made: World, step: str) -> bool:
    """Whether the migration has come to that step."""
    here, there, last = process(made, SOURCE), process(made, TARGET), made.register("vm1")
    assert last is not None
    match step:
        case "paused":
            return here is not None and here.paused
        case "whole":
            return there is not None and there.whole
        case "exited":
            return here is None
        case "released":
            return last.state is RegisterState.RELEASED
        case "owned":
            return last.owner == TARGET
        case "resumed":
            return made.where("vm1") == [TARGET]
        case _:
            return phase(made) == step


def lose(made: World, host: str, loss: str) -> None:
    if loss == "storage-cut":
        made.storage_cut(host, "ds1")
    elif loss == "network-cut":
        made.network_cut(host)
    else:
        getattr(made, loss.replace("-", "_"))(host)


def undo(made: World, host: str, loss: str) -> None:
    if loss == "power-off":
        made.power_on(host)
    elif loss == "storage-cut":
        made.storage_heal(host, "ds1")
    elif loss == "network-cut":
        made.network_heal(host)


def migrate_until(made: World, step: str) -> None:
    made.migrate("vm1", TARGET)
    assert made.run_until(lambda: is_at(made, step), 15, 0.0005) is not None, f"it never came to {step}"


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("lost", [(SOURCE,), (TARGET,), (SOURCE, TARGET)], ids=["source", "target", "both"])
@pytest.mark.parametrize("step", STEPS)
def test_whatever_is_lost_it_runs_again_and_only_once(step: str, lost: tuple[str, ...], loss: str) -> None:
    made = world()
    migrate_until(made, step)
    for host in lost:
        lose(made, host, loss)
    made.run(UNTIL_UNDONE_S)
    for host in lost:
        undo(made, host, loss)
    assert made.run_until(lambda: len(made.where("vm1")) == 1, 60) is not None, made.story()
    made.run(25)
    assert made.invariants.violations == [], made.story()
    assert len(made.where("vm1")) == 1


@pytest.mark.parametrize(
    ("step", "lost", "left"),
    [
        *((step, TARGET, SOURCE) for step in ("copy", "paused", "whole")),
        *((step, SOURCE, TARGET) for step in ("released", "owned", "resumed")),
    ],
)
def test_who_is_lost_before_it_has_the_vm_or_after_it_gave_it_away_costs_nothing(step: str, lost: str, left: str) -> None:
    made = world()
    migrate_until(made, step)
    made.power_off(lost)
    made.run(10)
    assert made.where("vm1") == [left]
    assert len(made.starts[VM]) == 1
    assert made.invariants.violations == []


def test_a_migration_leaves_the_guest_standing_for_a_moment_only() -> None:
    made = world()
    made.migrate("vm1", TARGET)
    assert made.run_until(lambda: made.where("vm1") == [], 15, 0.0005) is not None
    stood = made.run_until(lambda: made.where("vm1") == [TARGET], 5, 0.0005)
    assert stood is not None
    assert stood < 1
    assert made.run_until(lambda: process(made, SOURCE) is None, 1) is not None
    assert len(made.starts[VM]) == 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("step", ["copy", "paused", "whole", "exited", "released"])
def test_a_new_keeper_does_not_take_a_copy_for_what_ran_there_before(step: str, seed: int) -> None:
    """Its predecessor let the VM run by right in this very term; but that one has left since, and this is a copy."""
    made = world(seed)
    migrate_until(made, "resumed")
    made.run(1)
    made.migrate("vm1", SOURCE)
    there_again = {
        "copy": lambda: process(made, SOURCE) is not None,
        "paused": lambda: (p := process(made, TARGET)) is not None and p.paused,
        "whole": lambda: (p := process(made, SOURCE)) is not None and p.whole,
        "exited": lambda: process(made, TARGET) is None,
        "released": lambda: (r := made.register("vm1")) is not None and r.state is RegisterState.RELEASED,
    }[step]
    assert made.run_until(there_again, 15, 0.0005) is not None
    made.keeper_kill(SOURCE)
    made.run(5)
    assert made.invariants.violations == [], made.story()
    assert made.run_until(lambda: len(made.where("vm1")) == 1, 60) is not None, made.story()
    assert made.invariants.violations == []
