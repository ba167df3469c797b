"""Placing in the simulated world: what the primary decides, and what it says about it."""

from __future__ import annotations

from outlast.model.ids import DatastoreName, HostName, VmName
from outlast.model.rules import Rule
from outlast.protocol.reporting import Reporter
from outlast.scenario.model import DatastoreSpec, HostSpec, VmSpec
from outlast.sim.world import World

DS1 = DatastoreName("ds1")


def world(vms: dict[str, tuple[str, int]], *rules: Rule, memory: int = 16384, hosts: int = 3) -> World:
    """`vms`: host and memory by name."""
    made = World(
        [HostSpec(name=HostName(f"host{i + 1}"), memory_mib=memory) for i in range(hosts)],
        [DatastoreSpec(name=DS1)],
        [VmSpec(name=VmName(n), host=HostName(h), datastore=DS1, memory_mib=m) for n, (h, m) in vms.items()],
        rules=rules,
        seed=3,
    )
    made.settle()
    assert all(made.where(name) == [host] for name, (host, _) in vms.items())
    return made


def explained(at: World, vm: str) -> str:
    primary = at.hosts[at.primaries()[0]]
    assert primary.agent.machine is not None
    return "\n".join(Reporter(primary.agent.machine, primary.clock()).explain_vm(vm) or [])


def test_a_restart_says_why_it_went_there() -> None:
    apart = Rule(kind="keep-apart", vms=(VmName("a"), VmName("b")))
    at = world({"a": ("host1", 1024), "b": ("host2", 1024)}, apart)
    at.power_off("host1")
    assert at.run_until(lambda: bool(at.where("a")), 20) is not None
    at.run(2)
    said = explained(at, "a")
    assert "When it was last restarted, it went to host3:" in said
    assert "host3 (chosen): no other host can take it" in said
    assert "host2: the rule 'required keep-apart of a and b' forbids it: another of them is on host2" in said
    assert "host1: it is not connected" in said


def test_who_waits_for_room_says_so_and_goes_on_when_there_is_some() -> None:
    at = world({"large": ("host1", 12000), "b": ("host2", 8000), "c": ("host3", 8000)})
    at.power_off("host1")
    at.run(40)
    assert at.where("large") == []
    assert "host2: it has 8384 MiB of memory free, and the VM needs 12000 MiB" in explained(at, "large")
    at.vm_power_off("b")
    # No back-off of a minute: it is looked for every two seconds, and the way back is as short as ever.
    assert at.run_until(lambda: at.where("large") == ["host2"], 5) is not None
    assert at.invariants.violations == []


def test_looking_for_room_asks_no_storage() -> None:
    at = world({"large": ("host1", 12000), "b": ("host2", 8000), "c": ("host3", 8000)})
    at.power_off("host1")
    at.run(70)
    tries = [entry for entry in at.timeline if entry.kind == "restart-failed"]
    assert 4 <= len(tries) <= 7, "it backs off, though it is looked for every two seconds"
