"""A host without its network lives on: its virtual machines are left to it, or given up by it, never taken."""

from __future__ import annotations

import pytest
from looking import holds_for, processes, verdict, wait_for

from outlast.lab import moving, outlast_view
from outlast.lab.lab import Lab

pytestmark = pytest.mark.lab


def test_an_isolated_host_keeps_some_vms_and_gives_up_others(domain: Lab) -> None:
    primary = outlast_view.primary(domain)
    victim = next(name for name in domain.state().hosts if name != primary)
    moving.move(domain, "vm1", victim)  # leave-running, the default
    moving.move(domain, "vm4", victim)  # power-off
    before = processes(domain)

    domain.network_cut(victim)
    seconds = wait_for("vm4 to run elsewhere", lambda: set(domain.where("vm4")) - {victim} != set(), 40.0)
    assert seconds < 20.0
    wait_for("the verdict", lambda: verdict(domain, primary, victim) == "isolated")
    holds_for(8.0, lambda: set(domain.where("vm1")) == {victim}, "vm1 is to be left running")

    now = processes(domain)
    assert now["vm4"][0] != victim
    assert {vm: now[vm] for vm in ("vm1", "vm2", "vm3")} == {vm: before[vm] for vm in ("vm1", "vm2", "vm3")}
    domain.network_heal(victim)
    outlast_view.wait_ready(domain)
    assert processes(domain) == now
