"""Fence devices that work, hang, and lie: the lab's power strip really takes a host's power, or really does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import taken_down
from looking import events_of, now_ms, secondary_with_guests, wait_for

from outlast.lab import moving, outlast_view
from outlast.lab.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("fencing")]


@pytest.fixture(scope="module")
def with_devices(nothing_left: None) -> Iterator[Lab]:
    """Three guarded hosts with a fence device each, two datastores, two VMs that run."""
    with moving.Running(taken_down(), hosts=3, datastores=2, vms=2, fencing=True) as lab:
        yield lab


@pytest.fixture
def fenced(with_devices: Lab) -> Lab:
    """The same, whole again."""
    with_devices.heal()
    outlast_view.wait_ready(with_devices)
    return with_devices


def cut_off(lab: Lab, host: str) -> None:
    """Neither network nor storage reaches the host any more; its VMs run on, until its leases end."""
    lab.network_cut(host)
    for datastore in lab.state().datastores:
        lab.storage_cut(host, datastore)


def runs_elsewhere(lab: Lab, vms: list[str], victim: str) -> None:
    wait_for("its VMs to run elsewhere", lambda: all(set(lab.where(vm)) - {victim} for vm in vms), 40.0)
    moving.wait_writing(lab, vms)


def proofs(lab: Lab, since_ms: int) -> dict[str, str]:
    return {event.vm: event.facts["proof"] for event in events_of(lab, "restart-proof", since_ms)}


def test_a_device_that_works_is_proof_and_one_that_hangs_costs_nothing(fenced: Lab) -> None:
    victim = secondary_with_guests(fenced)
    vms = [guest.name for guest in fenced.guests(victim)]
    began = now_ms()
    cut_off(fenced, victim)
    runs_elsewhere(fenced, vms, victim)
    assert (fenced.state().fenced, fenced.is_on(victim)) == ([victim], False)
    assert proofs(fenced, began) == dict.fromkeys(vms, "power_fenced")

    fenced.heal()
    outlast_view.wait_ready(fenced)
    victim = secondary_with_guests(fenced)
    vms = [guest.name for guest in fenced.guests(victim)]
    fenced.outlet(victim, "hangs")
    began = now_ms()
    fenced.power_off(victim)
    runs_elsewhere(fenced, vms, victim)
    assert proofs(fenced, began) == dict.fromkeys(vms, "lease_expired")
    assert events_of(fenced, "fence-asked", began, host=victim)
    assert not [problem for vm in fenced.state().vms for problem in fenced.disk_problems(vm)]


def test_a_device_that_lies_is_believed_until_the_host_is_heard_again(fenced: Lab) -> None:
    """What docs/safety.md says of it: the proof is false, the lease still ends the old copy, and it never runs again."""
    victim, before = secondary_with_guests(fenced), fenced.state().fenced
    vms = [guest.name for guest in fenced.guests(victim)]
    fenced.outlet(victim, "lies")
    began = now_ms()
    cut_off(fenced, victim)
    runs_elsewhere(fenced, vms, victim)
    assert proofs(fenced, began) == dict.fromkeys(vms, "power_fenced")
    assert (fenced.state().fenced, fenced.is_on(victim)) == (before, True)
    wait_for("the old copies to be frozen", lambda: all(guest.stopped for guest in fenced.guests(victim)), 20.0)

    fenced.heal()
    wait_for("the old copies to be killed", lambda: not {g.name for g in fenced.guests(victim)} & set(vms), 20.0)
    wait_for("the lie to be noticed", lambda: bool(events_of(fenced, "fence-void", began, host=victim)), 20.0)
    assert not [event for event in events_of(fenced, "thawed", began) if event.vm in vms]
