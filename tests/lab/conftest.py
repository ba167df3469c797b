"""A lab of its own for the tests, apart from one that a developer may have up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.lab.lab import Lab

# Not a temporary directory: the cache in it holds the guest's kernel, which is fetched once.
ROOT = Path(os.environ.get("OUTLAST_LAB_TESTS", "/var/lib/outlast-lab-tests"))


@pytest.fixture
def down_lab() -> Iterator[Lab]:
    """The tests' lab, not up; whatever a test leaves is removed."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    lab = Lab(ROOT)
    lab.down()
    yield lab
    lab.down()


@pytest.fixture
def lab(down_lab: Lab) -> Lab:
    """Three hosts with libvirtd alone, two datastores, four VMs that are defined and do not run."""
    down_lab.up(hosts=3, datastores=2, vms=4, services=["libvirtd"])
    return down_lab
