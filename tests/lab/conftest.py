"""A lab of its own for the tests, apart from one that a developer may have up.

`lab` is fresh for each test and has no Outlast on it. `domain` is guarded by Outlast, with running VMs; it is kept from
test to test, whole again before each, and after each the guests' disks are looked at for a second instance. A file whose
tests need another domain keeps one for all of them (`xdist_group`: they go to one worker).

Several workers have a lab each, and one cache; each test goes to whoever is free. What came of the scenarios that were
played in both worlds is told at the end.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from outlast.lab import compare_cli, moving, outlast_view
from outlast.lab.errors import LabError
from outlast.lab.lab import Lab
from outlast.scenario.comparing import Comparison

# Not a temporary directory: the cache in it holds the guest's kernel, which is fetched once.
BASE = Path(os.environ.get("OUTLAST_LAB_TESTS", "/var/lib/outlast-lab-tests"))
ROOT = BASE.with_name(BASE.name + os.environ.get("PYTEST_XDIST_WORKER", ""))
COMPARISON = "comparison"
POLICY = '<outlast:vm xmlns:outlast="https://outlast.dev/ns/vm/1" isolation-response="power-off"/>'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a kept domain comes first, so that each worker makes one once; then the longest, in their file's order."""

    def place(item: pytest.Item) -> int:
        fixtures = getattr(item, "fixturenames", ())
        return 0 if "domain" in fixtures else 2 if "lab" in fixtures else 1

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One table of both worlds, and every difference, also of tests that passed."""
    reports = [each for outcome in ("passed", "failed") for each in terminalreporter.stats.get(outcome, ())]
    texts = [text for report in reports for name, text in report.user_properties if name == COMPARISON]
    if texts:
        terminalreporter.section("the simulated world and the lab")
        terminalreporter.write_line(told([msgspec.json.decode(text, type=Comparison) for text in texts]))


def told(comparisons: list[Comparison]) -> str:
    """What `outlast lab compare` shows."""
    console = Console(file=io.StringIO(), width=120)
    compare_cli.show(comparisons, console)
    return console.file.getvalue()


@pytest.fixture
def down_lab() -> Iterator[Lab]:
    """The tests' lab, not up; whatever a test leaves is removed."""
    lab = taken_down()
    yield lab
    lab.down()


def taken_down() -> Lab:
    """This worker's lab, not up."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    lab = the_lab()
    lab.down()
    return lab


def the_lab() -> Lab:
    """This worker's."""
    return Lab(ROOT, BASE / "cache")


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
def nothing_left() -> Iterator[None]:
    """Neither of a run before this one that was cut short, nor of this one."""
    taken_down()
    yield
    the_lab().down()


@pytest.fixture
def domain(nothing_left: None) -> Iterator[Lab]:
    """Three guarded hosts, two datastores, four VMs that run; the isolation response of vm4 is power-off."""
    lab = the_lab()
    if not _is_guarded(lab):
        moving.Running(taken_down(), hosts=3, datastores=2, vms=4, metadata={"vm4": POLICY}).__enter__()
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
