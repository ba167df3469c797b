"""A host without its storage is frozen before anybody may take what it ran, and thaws only what is still its own."""

from __future__ import annotations

import time

import pytest
from looking import events_of, now_ms, processes, secondary_with_guests, wait_for

from outlast.lab import outlast_view
from outlast.lab.lab import Lab

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
