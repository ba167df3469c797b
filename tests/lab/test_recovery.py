"""Hosts lose power, virtual machines crash: what runs again, where, and what is left alone."""

from __future__ import annotations

import pytest
from looking import events_of, holds_for, now_ms, processes, secondary_with_guests, wait_for

from outlast.lab import moving, outlast_view
from outlast.lab.lab import Lab
from outlast.lab.stages import STAGES, Failover

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("role", ["secondary", "primary"])
def test_power_loss(domain: Lab, role: str) -> None:
    primary = outlast_view.primary(domain)
    if role == "primary" and not domain.guests(primary):
        moving.move(domain, "vm1", primary)
    victim = primary if role == "primary" else secondary_with_guests(domain)
    others = {vm: at for vm, at in processes(domain).items() if at[0] != victim}
    failover = Failover(domain, victim)
    began = now_ms()
    failover.begin()
    stages = failover.follow()
    for vm, found in stages.items():
        assert set(found) == set(STAGES), f"{vm} did not come through every stage"
        # No proof before the window: the lease and its margin since the last record that anybody can have seen.
        assert found["proof"] > 5.0
        assert found["unreachable"] <= found["presumed_dead"] <= found["proof"] <= found["ownership"] <= found["guest"]
    now = processes(domain)
    assert {vm: now[vm] for vm in others} == others
    proofs = {event.vm: event.facts["proof"] for event in events_of(domain, "restart-proof", began)}
    assert proofs == dict.fromkeys(failover.vms, "lease_expired")

    domain.power_on(victim)
    outlast_view.wait_ready(domain)
    assert domain.guests(victim) == []
    assert processes(domain) == now


def test_a_crashed_vm_runs_again_and_one_switched_off_does_not(domain: Lab) -> None:
    host, pid = processes(domain)["vm1"]
    domain.vm_crash("vm1")
    wait_for("vm1 to run again", lambda: any(guest.pid != pid for guest in domain.where("vm1").values()))
    moving.wait_writing(domain, ["vm1"])

    host, _ = processes(domain)["vm2"]
    began = now_ms()
    assert domain.run(host, ["virsh", "destroy", "vm2"]).returncode == 0
    wait_for("the event", lambda: bool(events_of(domain, "vm-switched-off", began, vm="vm2")))
    holds_for(10.0, lambda: not domain.where("vm2"), "vm2 was switched off on purpose and runs again")


def test_the_power_button_inside_the_guest_is_meant(domain: Lab) -> None:
    host, _ = processes(domain)["vm3"]
    assert domain.run(host, ["virsh", "shutdown", "vm3"]).returncode == 0
    wait_for("vm3 to end", lambda: not domain.where("vm3"))
    holds_for(8.0, lambda: not domain.where("vm3"), "vm3 was shut down on purpose and runs again")


def test_a_host_that_its_operator_shuts_down_gives_its_vms_away(domain: Lab) -> None:
    victim = secondary_with_guests(domain)
    vms = [guest.name for guest in domain.guests(victim)]
    domain.shut_down(victim)
    # Not switched off on purpose: they ended with their host.
    wait_for(f"{', '.join(vms)} to run elsewhere", lambda: all(len(domain.where(vm)) == 1 for vm in vms), 40.0)
    moving.wait_writing(domain, vms)


def test_a_full_datastore_stops_no_takeover_and_no_reassertion(domain: Lab) -> None:
    victim = secondary_with_guests(domain)
    frozen_host = outlast_view.primary(domain)
    if not domain.guests(frozen_host):
        moving.move(domain, "vm2", frozen_host)
    kept = {guest.name: guest.pid for guest in domain.guests(frozen_host)}
    lost = [guest.name for guest in domain.guests(victim)]
    for name in domain.state().hosts:
        for datastore in domain.state().datastores:
            domain.storage_full(name, datastore)
    domain.power_off(victim)
    wait_for(f"{', '.join(lost)} to run elsewhere", lambda: all(domain.where(vm) for vm in lost), 40.0)
    moving.wait_writing(domain, lost)

    for datastore in domain.state().datastores:
        domain.storage_cut(frozen_host, datastore)
    wait_for("the VMs to be frozen", lambda: all(guest.stopped for guest in domain.guests(frozen_host)), 20.0)
    for datastore in domain.state().datastores:
        domain.storage_full(frozen_host, datastore)
    wait_for("the VMs to be thawed", lambda: not any(guest.stopped for guest in domain.guests(frozen_host)), 20.0)
    now = {guest.name: guest.pid for guest in domain.guests(frozen_host)}
    assert {vm: now.get(vm) for vm in kept} == kept
