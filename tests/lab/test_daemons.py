"""Agents, keepers and libvirt die, hang and are upgraded: no virtual machine is touched."""

from __future__ import annotations

import time

import pytest
from looking import processes, wait_for

from outlast.lab import outlast_view
from outlast.lab.lab import Lab

pytestmark = pytest.mark.lab


def no_vm_stops(lab: Lab, before: dict[str, tuple[str, int]]) -> None:
    assert processes(lab) == before
    assert not any(guest.stopped for host in lab.state().hosts for guest in lab.guests(host))


def test_an_agent_that_is_killed(domain: Lab) -> None:
    before = processes(domain)
    for host in domain.state().hosts:
        domain.service_kill(host, "agent")
    time.sleep(1.0)
    no_vm_stops(domain, before)
    outlast_view.wait_ready(domain)
    no_vm_stops(domain, before)


def test_libvirt_that_is_killed(domain: Lab) -> None:
    before = processes(domain)
    for host in domain.state().hosts:
        domain.service_kill(host, "libvirtd")

    def seen_down() -> bool:
        view = outlast_view.status(domain, "host1")
        return view is not None and not all(h.hypervisor_up for h in view.hosts)

    wait_for("the status to say so", seen_down, 5.0)
    no_vm_stops(domain, before)
    outlast_view.wait_ready(domain)
    no_vm_stops(domain, before)


def test_an_upgrade_restarts_the_agents_in_turn(domain: Lab) -> None:
    before = processes(domain)
    for host in domain.state().hosts:
        domain.service_restart(host, "agent")
        outlast_view.wait_until(f"the agent of {host}", lambda h=host: outlast_view.status(domain, h) is not None, 20.0)
        no_vm_stops(domain, before)
    outlast_view.wait_ready(domain)
    no_vm_stops(domain, before)


def test_a_keeper_that_is_killed_finds_its_vms_again(domain: Lab) -> None:
    before = processes(domain)
    for host in domain.state().hosts:
        domain.service_kill(host, "keeper")
    wait_for("the keepers", lambda: all(domain.service_state(h, "keeper") == "running" for h in domain.state().hosts))
    outlast_view.wait_ready(domain)
    assert processes(domain) == before
    wait_for("all to be thawed", lambda: not any(g.stopped for h in domain.state().hosts for g in domain.guests(h)))
