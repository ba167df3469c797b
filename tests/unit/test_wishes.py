"""What operators want of VMs: on storage before it is answered, followed by whoever runs them, and by every failover."""

from __future__ import annotations

import pytest
from test_sim_failover import domain, never_twice, secondary, vm_on

from outlast.model.commands import Outcome, Wanted, WantVm
from outlast.model.ids import DatastoreName, HostName, VmName
from outlast.model.records import ProtectedList
from outlast.model.settings import Settings
from outlast.model.status import VmStatus
from outlast.protocol.reporting import Reporter
from outlast.scenario.model import DatastoreSpec, HostSpec, VmSpec
from outlast.sim.world import World

_numbers = iter(range(1, 10_000))


def wants(world: World, vm: str, wanted: Wanted, host: str = "", within_s: float = 14.0) -> Outcome:
    """An operator says it on a host, the primary's if it does not matter, and waits for the outcome."""
    outcomes: list[Outcome] = []
    agent = world.hosts[host or world.primaries()[0]].agent
    agent.give_command(next(_numbers), WantVm(vm=vm, wanted=wanted), outcomes.append)
    assert world.run_until(lambda: bool(outcomes), within_s) is not None
    return outcomes[0]


def stored(world: World, vm: str) -> ProtectedList:
    content = world.domain.stores[world.spec(vm).datastore].newest_protected()
    assert content is not None
    return content


def on_list(world: World, vm: str) -> bool:
    content = world.domain.stores[world.spec(vm).datastore].newest_protected()
    return content is not None and any(entry.vm == vm for entry in content.vms)


def status(world: World, vm: str) -> VmStatus:
    host = world.primaries()[0]
    machine = world.hosts[host].agent.machine
    assert machine is not None
    found = Reporter(machine, world.hosts[host].clock()).snapshot("1", {})
    return next(each for each in found.vms if each.name == vm)


def test_a_vm_is_stopped_in_order_and_stays_off_when_its_host_dies() -> None:
    world = domain()
    host, vm = secondary(world)
    outcome = wants(world, vm, "stopped")
    assert outcome.ok
    assert outcome.sentences == (f"{host} shuts it down",)
    assert [aside.entry.vm for aside in stored(world, vm).aside] == [vm]
    assert world.run_until(lambda: not world.processes(vm), 4) is not None
    world.run(4)
    last = world.register(vm)
    assert last is not None
    assert last.reason == "as-wished"
    assert (status(world, vm).state, status(world, vm).protected) == ("stopped", False)
    world.power_off(host)
    world.run(30)
    assert world.processes(vm) == {}
    never_twice(world)


def test_a_guest_that_does_not_shut_down_is_killed_when_its_time_is_over() -> None:
    world = domain()
    _, vm = secondary(world)
    world.vm_hang(vm)
    assert wants(world, vm, "stopped").ok
    world.run(50)
    assert world.processes(vm)
    world.run(15)
    assert not world.processes(vm)
    never_twice(world)


def test_a_host_that_nobody_can_talk_to_reads_what_is_wanted_from_storage() -> None:
    world = domain()
    host, vm = secondary(world)
    world.network_cut(host)
    world.run(3)
    assert wants(world, vm, "stopped").ok
    assert world.run_until(lambda: not world.processes(vm), 9) is not None
    world.run(30)
    assert not world.processes(vm)
    never_twice(world)


def test_what_is_stopped_can_be_started_again_by_outlast() -> None:
    world = domain()
    host, vm = secondary(world)
    wants(world, vm, "stopped")
    world.run(6)
    world.power_off(host)
    world.run(15)
    outcome = wants(world, vm, "running")
    assert outcome.ok
    assert outcome.sentences == ("it is started where it may run",)
    assert world.run_until(lambda: bool(world.where(vm)), 5) is not None
    assert stored(world, vm).aside == ()
    never_twice(world)


def test_a_stop_that_is_taken_back_before_the_guest_was_down_costs_a_restart_and_not_the_vm() -> None:
    world = domain()
    _, vm = secondary(world)
    wants(world, vm, "stopped")
    world.run(0.5)
    wants(world, vm, "running")
    world.run(3)
    assert world.run_until(lambda: bool(world.where(vm)), 10) is not None
    assert on_list(world, vm)
    assert stored(world, vm).aside == ()


def test_what_is_stopped_and_started_by_hand_is_protected_again() -> None:
    world = domain()
    host, vm = secondary(world)
    wants(world, vm, "stopped")
    world.run(8)
    world.vm_start(vm, host)
    world.run(8)
    assert world.where(vm) == [host]
    assert on_list(world, vm)
    assert stored(world, vm).aside == ()
    world.power_off(host)
    assert world.run_until(lambda: world.where(vm) not in ([], [host]), 15) is not None


def test_who_is_stopping_is_not_taken_for_started_by_hand_when_it_is_frozen_and_thawed() -> None:
    world = domain()
    host, vm = secondary(world)
    world.vm_hang(vm)
    wants(world, vm, "stopped")
    home = world.spec(vm).datastore
    world.storage_cut(host, home)
    world.run(12)
    world.storage_heal(host, home)
    world.run(8)
    assert world.where(vm) == [host], "thawed, on a later epoch"
    assert not on_list(world, vm)
    world.run(60)
    assert not world.processes(vm)


def test_an_unprotected_vm_is_left_alone_and_still_runs_only_once() -> None:
    world = domain(response="power-off", hosts=("host1", "host2", "host3", "host4"))
    host, vm = secondary(world)
    assert wants(world, vm, "unprotected").ok
    world.run(7)
    assert status(world, vm).protected is False
    assert "wants it left alone" in status(world, vm).note
    elsewhere = next(h for h in world.hosts if h != host)
    refused = world.vm_start_elsewhere(vm, elsewhere)
    world.run(3)
    assert "is owned by" in refused[0], "rule 7 is about every VM on our datastores"
    world.network_cut(host)
    world.run(15)
    assert world.where(vm) == [host], "no isolation response"
    world.power_off(host)
    world.run(20)
    assert world.where(vm) == []
    never_twice(world)


def test_a_vm_that_its_definition_leaves_alone_is_protected_when_an_operator_says_so() -> None:
    world = World(
        [HostSpec(name=HostName(name)) for name in ("host1", "host2", "host3")],
        [DatastoreSpec(name=DatastoreName("ds1"))],
        [VmSpec(name=VmName("vm1"), host=HostName("host1"), datastore=DatastoreName("ds1"), state="unprotected")],
        settings=Settings(),
        seed=3,
    )
    world.settle()
    assert not on_list(world, "vm1")
    assert wants(world, "vm1", "protected").ok
    world.run(7)
    assert on_list(world, "vm1")
    assert status(world, "vm1").protected
    world.power_off("host1")
    assert world.run_until(lambda: bool(world.where("vm1")), 15) is not None
    never_twice(world)


def test_a_vm_that_never_ran_is_started_and_gets_its_first_epoch() -> None:
    world = World(
        [HostSpec(name=HostName(name)) for name in ("host1", "host2")],
        [DatastoreSpec(name=DatastoreName("ds1"))],
        [VmSpec(name=VmName("vm1"), datastore=DatastoreName("ds1"))],
        seed=3,
    )
    world.settle()
    assert wants(world, "vm1", "running", host="host1").ok
    assert world.run_until(lambda: bool(world.where("vm1")), 5) is not None
    last = world.register("vm1")
    assert last is not None
    assert (last.epoch, last.reason) == (0, "started")
    world.run(6)
    assert on_list(world, "vm1")
    never_twice(world)


def test_what_an_operator_starts_is_not_held_by_a_pause_and_what_crashes_is() -> None:
    world = domain()
    _, vm = secondary(world)
    other = next(spec.name for spec in world.vm_specs if spec.name != vm)
    wants(world, vm, "stopped")
    world.run(6)
    world.pause()
    world.run(2)
    wants(world, vm, "running")
    world.vm_crash(other)
    assert world.run_until(lambda: bool(world.where(vm)), 6) is not None
    world.run(10)
    assert world.where(other) == []
    world.vm_crash(vm)
    world.run(10)
    assert world.where(vm) == [], "asked for once, and not for ever"
    assert world.invariants.violations == []


def test_a_wish_outlives_whoever_was_responsible() -> None:
    world = domain()
    host, vm = secondary(world)
    wants(world, vm, "stopped")
    primary = world.primaries()[0]
    world.run(1)
    world.power_off(primary)
    world.power_off(host)
    world.run(3)
    world.power_on(primary)
    world.power_on(host)
    world.run(40)
    assert world.where(vm) == []
    assert all(len(world.where(spec.name)) == 1 for spec in world.vm_specs if spec.name != vm)


@pytest.mark.parametrize("wanted", ["running", "stopped", "protected"])
def test_what_is_so_already_is_no_change(wanted: Wanted) -> None:
    world = domain()
    _, vm = secondary(world)
    if wanted == "stopped":
        wants(world, vm, "stopped")
        world.run(6)
    outcome = wants(world, vm, wanted)
    assert outcome.ok
    assert "nothing to change" in outcome.sentences[0]


def test_what_was_asked_for_first_is_not_done_after_what_was_asked_for_later() -> None:
    world = domain()
    host, vm = secondary(world)
    outcomes: list[Outcome] = []
    world.hosts[host].agent.give_command(0, WantVm(vm=vm, wanted="running"), outcomes.append)
    world.run(0.5)
    assert wants(world, vm, "stopped").ok
    world.run(10)
    assert not world.processes(vm)
    (first,) = outcomes
    assert not first.ok
    assert "wants it to be stopped since" in first.sentences[0]


def test_whoever_switches_it_off_after_it_was_asked_for_overrules() -> None:
    world = domain()
    _, vm = secondary(world)
    wants(world, vm, "unprotected")
    wants(world, vm, "protected")
    world.run(2)
    assert on_list(world, vm)
    world.vm_power_off(vm)
    world.run(15)
    assert world.processes(vm) == {}
    assert not on_list(world, vm)


def test_a_name_that_nobody_knows_is_told_at_once() -> None:
    world = domain()
    outcome = wants(world, "vm99", "running", within_s=0.5)
    assert not outcome.ok
    assert not outcome.try_again
    assert "no VM vm99 is known on any host that can be asked" in outcome.sentences[0]


def test_without_anybody_responsible_it_is_to_be_tried_again() -> None:
    world = domain(hosts=("host1", "host2"))
    vm = vm_on(world, "host1")
    for host in world.hosts:
        world.storage_cut(host, world.spec(vm).datastore)
    outcome = wants(world, vm, "stopped", within_s=14)
    assert not outcome.ok
    assert outcome.try_again


def test_what_had_failed_is_tried_no_more_once_stopped_and_begins_anew_when_it_is_started() -> None:
    ds1, host1 = DatastoreName("ds1"), HostName("host1")
    web = VmSpec(name=VmName("web"), datastore=ds1, host=host1, max_restarts=0, max_relocations=0)
    world = World([HostSpec(name=HostName(name)) for name in ("host1", "host2")], [DatastoreSpec(name=ds1)], [web], seed=3)
    world.settle()
    world.vm_crash("web")
    assert world.run_until(lambda: any(entry.attempts.failed for entry in stored(world, "web").vms), 10) is not None
    assert wants(world, "web", "stopped").ok
    (aside,) = stored(world, "web").aside
    assert not aside.entry.attempts.failed
    world.run(5)
    assert (world.processes("web"), status(world, "web").state) == ({}, "stopped")
    assert wants(world, "web", "running").ok
    assert world.run_until(lambda: bool(world.processes("web")), 10) is not None
    never_twice(world)
