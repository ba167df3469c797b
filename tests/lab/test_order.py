"""What a host ran comes back in the order that was asked for.

Who depends on another boots when that one's guest is ready: guests themselves say when that was. Who is only less important
is started later, and may boot sooner all the same on a machine that has no processor left for the other one's firmware.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from looking import events_of, now_ms, wait_for

from outlast.lab import moving
from outlast.lab.lab import Lab

pytestmark = pytest.mark.lab

VICTIM = "host1"
POLICIES = {
    # The names are in no order that could help.
    "vm1": 'priority="lowest"',
    "vm2": 'priority="high" after="vm3"',
    "vm3": 'priority="medium" after="vm4" ready="guest-heartbeat"',
    "vm4": 'priority="low" ready="guest-heartbeat"',
    "vm5": 'priority="highest"',
}
ONE_AT_A_TIME = {"starts_at_once_per_host": 1, "starts_at_once_per_datastore": 1}


@pytest.fixture
def ranked(down_lab: Lab) -> Iterator[Lab]:
    """Three guarded hosts, one datastore, and VMs of all priorities on the first host, three of them in a chain."""
    metadata = {vm: f'<outlast:vm xmlns:outlast="https://outlast.dev/ns/vm/1" {said}/>' for vm, said in POLICIES.items()}
    size = {"hosts": 3, "datastores": 1, "vms": len(POLICIES)}
    with moving.Running(down_lab, **size, settings=ONE_AT_A_TIME, metadata=metadata, all_on=VICTIM) as lab:
        yield lab


READY = re.compile(r"^outlast-guest .* ready .* up=([\d.]+)$", re.MULTILINE)
ASKED = re.compile(r"^guest agent asked up=([\d.]+)$", re.MULTILINE)


class Boots:
    """When each guest booted elsewhere, and when its guest agent was first asked: seconds of this machine's clock.

    A guest says for how long it has been up; added is only when that line came.
    """

    def __init__(self, lab: Lab) -> None:
        hosts = [host for host in lab.state().hosts if host != VICTIM]
        self._logs = [(vm, lab.layout.guest_log(host, vm)) for vm in POLICIES for host in hosts]
        self.booted: dict[str, float] = {}
        self.asked: dict[str, float] = {}

    def look(self) -> bool:
        """Whether all have booted."""
        for vm, log in self._logs:
            text = log.read_text(errors="replace") if log.exists() else ""
            if vm not in self.booted and (said := READY.search(text)):
                self.booted[vm] = time.time() - float(said[1])
            if vm not in self.asked and (said := ASKED.search(text)):
                self.asked[vm] = self.booted[vm] + float(said[1])
        return len(self.booted) == len(POLICIES)


@pytest.mark.long
def test_guests_boot_in_the_order_of_priorities_and_dependencies(ranked: Lab) -> None:
    boots, began = Boots(ranked), now_ms()
    ranked.power_off(VICTIM)
    wait_for("all guests to boot elsewhere", boots.look, 90.0)
    at = boots.booted
    # The least important of a chain is as important as the most important that waits for it; who waits holds up nobody.
    started = [event.vm for event in sorted(events_of(ranked, "restart-started", began), key=lambda event: event.at_ms)]
    assert [vm for vm in started if vm in ("vm5", "vm4", "vm1")] == ["vm5", "vm4", "vm1"], (started, at)
    assert at["vm3"] > boots.asked["vm4"], (at, boots.asked)
    assert at["vm2"] > boots.asked["vm3"], (at, boots.asked)
    assert not [problem for vm in POLICIES for problem in ranked.disk_problems(vm)]
