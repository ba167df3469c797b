"""Live migration of real guests: they go on, and whoever loses its power in the middle of it, each has one owner."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
from conftest import taken_down
from looking import alone_on, boots, host_of, slow_migrations, wait_for

from outlast.lab import moving
from outlast.lab.lab import Lab
from outlast.lab.outlast_commands import outlast

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("migration")]


@pytest.fixture(scope="module")
def guarded(nothing_left: None) -> Iterator[Lab]:
    """Three guarded hosts, one datastore, two VMs that run."""
    with moving.Running(taken_down(), hosts=3, datastores=1, vms=2) as lab:
        yield lab


def migrate(lab: Lab, vm: str, target: str) -> None:
    done = lab.run(target, outlast("vm", "migrate", vm, target))
    assert done.returncode == 0, done.stderr


def begin_slowly(lab: Lab, vm: str, target: str) -> None:
    """A migration that is in the middle of its memory now."""
    slow_migrations(lab, vm)
    migrate(lab, vm, target)
    wait_for("a copy at the destination", lambda: target in lab.where(vm) and lab.where(vm)[target].waits)


def test_guests_go_on_where_they_migrate_to(guarded: Lab) -> None:
    hosts, before = sorted(guarded.state().hosts), {vm: boots(guarded, vm) for vm in guarded.state().vms}
    source = host_of(guarded, "vm1")
    target = next(host for host in hosts if host not in (source, host_of(guarded, "vm2")))
    refused = guarded.run(source, ["virsh", "migrate", "--live", "--unsafe", "vm1", f"qemu+tcp://{target}/system"])
    assert refused.returncode != 0
    assert "outlast vm migrate" in refused.stderr
    for place in (target, source):
        migrate(guarded, "vm1", place)
        wait_for(f"vm1 on {place} alone", functools.partial(alone_on, guarded, "vm1", place))
        moving.wait_writing(guarded, ["vm1"])
    assert {vm: boots(guarded, vm) for vm in before} == before
    assert not [problem for vm in before for problem in guarded.disk_problems(vm)]


def test_whoever_loses_its_power_on_the_way(guarded: Lab) -> None:
    source, before = host_of(guarded, "vm1"), boots(guarded, "vm1")
    target, other = (host for host in sorted(guarded.state().hosts) if host != source)
    begin_slowly(guarded, "vm1", target)
    guarded.power_off(target)
    wait_for("the source to be alone", lambda: set(guarded.where("vm1")) == {source}, 20.0)
    moving.wait_writing(guarded, ["vm1"])
    assert boots(guarded, "vm1") == before

    # The operator's first word may come while libvirt still cleans up behind the destination that was lost.
    wait_for("a migration to begin", lambda: begun(guarded, "vm1", other), 40.0)
    guarded.power_off(source)
    wait_for("vm1 to run afresh", lambda: boots(guarded, "vm1") == before + 1, 60.0)
    moving.wait_writing(guarded, ["vm1"])
    assert set(guarded.where("vm1")) == {other}
    assert "on this host already" not in guarded.run(other, outlast("events", "--vm", "vm1")).stdout
    assert not guarded.disk_problems("vm1")


def begun(lab: Lab, vm: str, target: str) -> bool:
    if target in lab.where(vm):
        return lab.where(vm)[target].waits
    lab.run(target, outlast("vm", "migrate", vm, target))
    return False
