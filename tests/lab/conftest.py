"""A lab of its own for the tests, apart from one that a developer may have up.

`lab` is fresh for each test and has no Outlast on it. `domain` is guarded by Outlast, with running VMs; it is kept from
test to test, whole again before each, and after each the guests' disks are looked at for a second instance.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.lab import moving, outlast_view
from outlast.lab.errors import LabError
from outlast.lab.lab import Lab

# Not a temporary directory: the cache in it holds the guest's kernel, which is fetched once. Tests that run side by side
# have a lab each.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
ROOT = Path(os.environ.get("OUTLAST_LAB_TESTS", "/var/lib/outlast-lab-tests") + WORKER)
POLICY = '<outlast:vm xmlns:outlast="https://outlast.dev/ns/vm/1" isolation-response="power-off"/>'


@pytest.fixture
def down_lab() -> Iterator[Lab]:
    """The tests' lab, not up; whatever a test leaves is removed."""
    lab = _taken_down()
    yield lab
    lab.down()


def _taken_down() -> Lab:
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    lab = Lab(ROOT)
    lab.down()
    return lab


def _is_guarded(lab: Lab) -> bool:
    try:
        return "agent" in lab.state().services
    except LabError:
        return False


@pytest.fixture
def lab(down_lab: Lab) -> Lab:
    """Three hosts with libvirtd alone, two datastores, four VMs that are defined and do not run."""
    down_lab.up(hosts=3, datastores=2, vms=4, services=["libvirtd"])
    return down_lab


@pytest.fixture(scope="session")
def _at_the_end() -> Iterator[None]:
    yield
    if os.geteuid() == 0:
        Lab(ROOT).down()


@pytest.fixture
def domain(_at_the_end: None) -> Iterator[Lab]:
    """Three guarded hosts, two datastores, four VMs that run; the isolation response of vm4 is power-off."""
    lab = Lab(ROOT)
    if not _is_guarded(lab):
        moving.Running(_taken_down(), hosts=3, datastores=2, vms=4, metadata={"vm4": POLICY}).__enter__()
    try:
        _make_whole(lab)
    except BaseException:
        lab.down()  # The next test gets a new one.
        raise
    yield lab
    assert {vm: lab.disk_problems(vm) for vm in lab.state().vms if lab.disk_problems(vm)} == {}


def _make_whole(lab: Lab) -> None:
    lab.heal()
    outlast_view.wait_ready(lab)
    for vm in lab.state().vms:
        if not lab.where(vm):
            moving.move(lab, vm, lab.state().vms[vm].host)
    moving.wait_writing(lab, list(lab.state().vms))
