"""A host is emptied by live migration of real guests that work all the time, and loses its power in the middle of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from looking import alone_on, boots, host_of, slow_migrations, wait_for

from outlast.lab import moving, outlast_view
from outlast.lab.lab import Lab
from outlast.lab.outlast_commands import outlast
from outlast.model.status import HostStatus

pytestmark = pytest.mark.lab

DRAINED, VMS = "host1", ["vm1", "vm2", "vm3"]


@pytest.fixture
def busy(down_lab: Lab) -> Iterator[Lab]:
    """Three guarded hosts, one datastore, three VMs on the first host whose guests work all the time."""
    with moving.Running(down_lab, hosts=3, datastores=1, vms=len(VMS), all_on=DRAINED, busy=True) as lab:
        yield lab


def ask(lab: Lab, *arguments: str) -> str:
    """What the operator reads, on a host that is not drained."""
    done = lab.run("host2", outlast(*arguments))
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


def printed(lab: Lab, vm: str, path: list[str], pattern: str) -> list[int]:
    """The numbers that a guest printed, over the whole of its way from host to host."""
    text = "".join(lab.layout.guest_log(host, vm).read_text(errors="replace") for host in path)
    assert "memory differs" not in text
    return [int(number) for number in re.findall(rf"^{pattern} (\d+)$", text, re.MULTILINE)]


def kept_empty(lab: Lab) -> HostStatus:
    """The host that is drained first, as another one sees it."""
    view = outlast_view.status(lab, "host2")
    assert view is not None
    return next(host for host in view.hosts if host.name == DRAINED)


@pytest.mark.long
def test_a_host_is_drained_under_load_and_loses_its_power_in_its_next_drain(busy: Lab) -> None:
    ask(busy, "host", "drain", DRAINED, "--reason", "a fan is loud")
    wait_for(f"{DRAINED} to be empty", lambda: not busy.guests(DRAINED), 90.0)
    moving.wait_writing(busy, VMS)
    places = {vm: host_of(busy, vm) for vm in VMS}
    assert DRAINED not in places.values()
    for vm, place in places.items():
        assert alone_on(busy, vm, place)
        assert boots(busy, vm) == 1
        for pattern in ("beat", "lap"):
            numbers = printed(busy, vm, [DRAINED, place], pattern)
            assert numbers == list(range(1, len(numbers) + 1)), f"{vm} lost something of its way, or did it twice"

    wait_for("the last move to be over", lambda: not kept_empty(busy).vms, 10.0)
    assert f"{DRAINED.upper()} IS IN MAINTENANCE by root@host2" in (screen := ask(busy, "status"))
    assert "a fan is loud; no VM is left" in screen
    assert "it is in maintenance (root@host2: a fan is loud)" in (screen := ask(busy, "host", "show", DRAINED))
    assert "VMs: none" in screen
    ask(busy, "host", "undrain", DRAINED)
    wait_for("its end", lambda: not kept_empty(busy).kept_empty, 10.0)

    # Now the other way, so slowly that the end comes before any of them has arrived.
    drained = places["vm1"]
    leaving = [vm for vm in VMS if places[vm] == drained]
    for vm in leaving:
        slow_migrations(busy, vm)
    ask(busy, "host", "drain", drained)
    wait_for("a copy elsewhere", lambda: any(len(busy.where(vm)) == 2 for vm in leaving), 20.0)
    busy.power_off(drained)
    wait_for("all to run afresh", lambda: all(boots(busy, vm) == 2 for vm in leaving), 60.0)
    moving.wait_writing(busy, VMS)
    wait_for("no copy to be left", lambda: all(len(busy.where(vm)) == 1 for vm in VMS), 20.0)
    assert {vm: boots(busy, vm) for vm in VMS} == {vm: 2 if vm in leaving else 1 for vm in VMS}
    assert not [problem for vm in VMS for problem in busy.disk_problems(vm)]
    busy.power_on(drained)
    outlast_view.wait_ready(busy)
    assert busy.guests(drained) == []
