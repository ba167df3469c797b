"""What a loss of power ends in the simulated world."""

from __future__ import annotations

from pathlib import Path

import msgspec

from outlast.scenario.reading import read_file
from outlast.sim.world import World

FILE = Path(__file__).parents[2] / "scenarios" / "fencing" / "11-storage-comes-back-to-a-host-without-power.toml"


def test_a_kernel_without_power_holds_no_write() -> None:
    """Not even the one that its guest was in when the power went, while the storage hung (random world 20263238)."""
    world = World.of(read_file(FILE))
    world.settle()
    world.domain.physics = msgspec.structs.replace(world.domain.physics, late=1000)  # Whatever may land late does.
    world.storage_cut("host1", "ds1")
    host, landed = world.hosts["host1"], list[object]()
    host.power_off()
    host.on_write = lambda *what: landed.append(what)  # type: ignore[method-assign]
    world.storage_heal("host1", "ds1")
    world.run(10)
    assert landed == []
