"""A host without its storage is frozen before anybody may take what it ran, and thaws only what is still its own."""

from __future__ import annotations

import time

import pytest
from looking import events_of, holds_for, now_ms, processes, secondary_with_guests, wait_for

from outlast.lab import moving, outlast_view
from outlast.lab.lab import Lab
from outlast.lab.outlast_commands import outlast

pytestmark = pytest.mark.lab
LEASE_DURATION_S = 6.0


def cut_storage(lab: Lab, host: str) -> None:
    for datastore in lab.state().datastores:
        lab.storage_cut(host, datastore)


def heal_storage(lab: Lab, host: str) -> None:
    for datastore in lab.state().datastores:
        lab.storage_heal(host, datastore)


def test_ten_seconds_without_storage_are_a_pause(domain: Lab) -> None:
    victim = secondary_with_guests(domain)
    before = processes(domain)
    began = time.monotonic()
    cut_storage(domain, victim)
    # The second that is added is for looking, not for the keeper.
    wait_for("the VMs to be frozen", lambda: all(g.stopped for g in domain.guests(victim)), LEASE_DURATION_S + 1.0)
    time.sleep(max(0.0, began + 10.0 - time.monotonic()))
    heal_storage(domain, victim)
    wait_for("the VMs to be thawed", lambda: not any(g.stopped for g in domain.guests(victim)), 3.0)
    outlast_view.wait_ready(domain)
    assert processes(domain) == before


def test_without_network_and_storage_the_old_copies_never_run_again(domain: Lab) -> None:
    victim = secondary_with_guests(domain)
    stale = {guest.name: guest.pid for guest in domain.guests(victim)}
    domain.network_cut(victim)
    cut_storage(domain, victim)
    cut_off = now_ms()
    wait_for("its VMs to run elsewhere", lambda: all(set(domain.where(vm)) - {victim} for vm in stale), 40.0)
    assert all(guest.stopped for guest in domain.guests(victim)), "frozen copies are all that may be left"

    heal_storage(domain, victim)
    domain.network_heal(victim)
    # A stopped process that is killed is for a moment no longer stopped; whether it ran is told by the events and disks.
    wait_for("the stale copies to be killed", lambda: not {g.name for g in domain.guests(victim)} & set(stale), 15.0)
    outlast_view.wait_ready(domain)
    assert all(victim not in domain.where(vm) for vm in stale)
    assert not [event for event in events_of(domain, "thawed", cut_off) if event.vm in stale]
    processes(domain)


def on_a_secondary(lab: Lab, vms: list[str]) -> str:
    """The host where these are now, which is not the primary's."""
    primary = outlast_view.primary(lab)
    victim = next(host for host in lab.state().hosts if host != primary)
    for vm in vms:
        moving.move(lab, vm, victim)
    return victim


def elsewhere(lab: Lab, vm: str, host: str) -> bool:
    return bool(set(lab.where(vm)) - {host})


def test_what_fails_for_one_host_alone_is_given_up_by_it_at_once(domain: Lab) -> None:
    victim = on_a_secondary(domain, ["vm1", "vm2"])
    before, began = processes(domain), now_ms()
    domain.storage_lost(victim, "ds1")
    wait_for("vm1 to run where its disk is", lambda: elsewhere(domain, "vm1", victim), 25.0)
    (word,) = events_of(domain, "given-up", began, vm="vm1")
    assert (word.host, victim in domain.where("vm1")) == (victim, False)
    proofs = {event.vm: event.facts["proof"] for event in events_of(domain, "restart-proof", began)}
    assert proofs["vm1"] == "renounced"
    # Its other datastore, and whoever else uses this one, notice nothing.
    vms = domain.state().vms
    others = [vm for vm, (host, _) in before.items() if host != victim or vms[vm].datastore != "ds1"]
    now = processes(domain)
    assert {vm: now[vm] for vm in others} == {vm: before[vm] for vm in others}
    domain.storage_heal(victim, "ds1")
    outlast_view.wait_ready(domain)


def test_what_hangs_for_one_host_alone_is_given_up_if_its_process_can_end(domain: Lab) -> None:
    """A process that has I/O under way in a hanging file system cannot end, and so nobody may take its VM."""
    victim = on_a_secondary(domain, ["vm1", "vm3"])
    observer = next(host for host in domain.state().hosts if host != victim)
    kept = domain.run(observer, outlast("settings", "set", "storage_loss_after", "4s"))
    assert kept.returncode == 0, kept.stderr
    # Stopped inside QEMU it has nothing under way; the other one writes once a second.
    assert domain.run(victim, ["virsh", "suspend", "vm1"]).returncode == 0
    time.sleep(1.0)
    began = now_ms()
    domain.storage_cut(victim, "ds1")
    wait_for("vm1 to run where its disk is", lambda: elsewhere(domain, "vm1", victim), 40.0)
    assert [event.host for event in events_of(domain, "given-up", began, vm="vm1")] == [victim]

    wait_for("vm3 to be killed", lambda: bool(events_of(domain, "killed", began, vm="vm3")), 20.0)
    holds_for(4.0, lambda: not elsewhere(domain, "vm3", victim), "vm3 was started although its old process is there still")
    assert not events_of(domain, "given-up", began, vm="vm3")
    told = domain.run(outlast_view.primary(domain), outlast("explain", "vm", "vm3")).stdout
    assert "its process was killed, and has not ended" in " ".join(told.split())

    domain.storage_heal(victim, "ds1")
    wait_for("vm3 to run again", lambda: bool(domain.where("vm3")), 30.0)
    moving.wait_writing(domain, ["vm1", "vm3"])
    processes(domain)
    domain.run(observer, outlast("settings", "set", "storage_loss_after", "30s"))


def test_storage_that_is_gone_for_all_is_waited_for(domain: Lab) -> None:
    before = processes(domain)
    hosts = list(domain.state().hosts)
    for host in hosts:
        domain.storage_cut(host, "ds1")
    on_ds1 = [name for name, vm in domain.state().vms.items() if vm.datastore == "ds1"]

    def frozen() -> bool:
        return all(guest.stopped == (guest.name in on_ds1) for host in hosts for guest in domain.guests(host))

    wait_for("the VMs on ds1, and only they, to be frozen", frozen, 20.0)
    time.sleep(10.0)
    assert frozen()
    for host in hosts:
        domain.storage_heal(host, "ds1")
    wait_for("all to be thawed", lambda: not any(g.stopped for h in hosts for g in domain.guests(h)), 20.0)
    outlast_view.wait_ready(domain)
    assert processes(domain) == before
