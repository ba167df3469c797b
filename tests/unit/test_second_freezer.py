"""The agent as second freezer: what the keeper let pass is frozen, also what an agent was never told of."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from guests import wait_for_guest, wait_stopped

from outlast.keeper.homes import Homes, Memory
from outlast.keeper.lease_file import LeaseFile
from outlast.model.ids import BootId, DatastoreName, Epoch, HostId, HostName, KeeperSession, LeaseTerm, VmId, VmName
from outlast.model.inventory import DatastoreMember
from outlast.model.keeper_config import KeeperConfig
from outlast.model.keeping import KeeperReport, KeptVm
from outlast.model.records import Enforcement
from outlast.model.settings import Settings
from outlast.model.time import Instant, seconds
from outlast.runtime.second_freezer import SecondFreezer

BOOT, DS1, DS2 = BootId("boot-1"), DatastoreName("ds1"), DatastoreName("ds2")
SESSION = KeeperSession("session")
LEASE = seconds(6)
DEADLINE = Instant(seconds(100))
LATER = Instant(seconds(101))


@pytest.fixture(autouse=True)
def _no_other_guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests that others run on this machine are found by nobody here: only what our own pid files name counts."""
    (tmp_path / "pids").mkdir()
    monkeypatch.setattr("outlast.keeper.processes.PID_FILES", tmp_path / "pids")
    monkeypatch.setattr("outlast.keeper.processes.all_guests", list)


def config(run_dir: Path) -> KeeperConfig:
    return KeeperConfig(
        domain="d",
        host=HostId("h"),
        name=HostName("alpha"),
        hosts=(),
        datastores=(DatastoreMember(DS1, "/srv/ds1"), DatastoreMember(DS2, "/srv/ds2")),
        settings=Settings(),
        datastore_key="",
        run_dir=str(run_dir),
        state_dir="",
    )


def report(pid: int) -> KeeperReport:
    vm = KeptVm(VmId("u-1"), VmName("web"), DS1, Epoch(0), "running", pid)
    return KeeperReport(
        host=HostId("h"),
        boot_id=BOOT,
        session=KeeperSession("s"),
        enforcement=Enforcement.KEEPER,
        leases=(),
        vms=(vm,),
    )


def test_the_second_freezer_freezes_what_the_keeper_did_not(tmp_path: Path, guest: subprocess.Popen[bytes]) -> None:
    wait_for_guest(guest.pid)
    file = LeaseFile(tmp_path / "leases", BOOT, SESSION, (DS1,), {})
    freezer = SecondFreezer(config(tmp_path), BOOT)
    freezer.remember(report(guest.pid))
    deadline = Instant(seconds(100))
    file.publish(DS1, deadline, LeaseTerm(1), LEASE)
    assert freezer.look(deadline) == [], "the keeper may still be about to"
    file.publish(DS1, Instant(0), LeaseTerm(1), LEASE)
    assert freezer.look(Instant(deadline + seconds(1))) == [], "the keeper said that it lapsed, and froze"
    file.publish(DS1, deadline, LeaseTerm(1), LEASE)
    assert [vm.vm for vm in freezer.look(Instant(deadline + seconds(1)))] == ["u-1"]
    assert wait_stopped(guest.pid, True)
    assert freezer.look(Instant(deadline + seconds(2))) == [], "frozen once"


def test_an_agent_that_never_heard_of_the_keeper_finds_what_runs(tmp_path: Path, guest: subprocess.Popen[bytes]) -> None:
    wait_for_guest(guest.pid)
    (tmp_path / "pids" / "web.pid").write_text(f"{guest.pid}\n")
    file = LeaseFile(tmp_path / "leases", BOOT, SESSION, (DS1, DS2), {})
    freezer = SecondFreezer(config(tmp_path), BOOT)
    assert freezer.look(LATER) == [], "no keeper of this boot had a lease"
    file.publish(DS2, DEADLINE, LeaseTerm(1), LEASE)
    assert freezer.look(LATER) == [], "its home is another one"
    file.publish(DS1, Instant(seconds(200)), LeaseTerm(1), LEASE)
    Homes(tmp_path / "homes", (DS1, DS2)).remember(VmId("u-1"), Memory(DS2, SESSION, LeaseTerm(1), LEASE))
    assert [(vm.vm, vm.name, vm.home) for vm in freezer.look(LATER)] == [("u-1", "web", DS2)], "the keeper wrote it down"
    assert wait_stopped(guest.pid, True)
    assert freezer.look(LATER) == []


def test_without_a_keepers_word_its_disks_tell_its_home(tmp_path: Path, guest: subprocess.Popen[bytes]) -> None:
    wait_for_guest(guest.pid)
    (tmp_path / "pids" / "web.pid").write_text(f"{guest.pid}\n")
    LeaseFile(tmp_path / "leases", BOOT, SESSION, (DS1, DS2), {}).publish(DS1, DEADLINE, LeaseTerm(1), LEASE)
    assert [vm.home for vm in SecondFreezer(config(tmp_path), BOOT).look(LATER)] == [DS1]
    assert wait_stopped(guest.pid, True)
