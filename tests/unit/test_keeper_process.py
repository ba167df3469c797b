"""The keeper's process around its machine: what goes wrong with devices, pipes and processes never ends it."""

from __future__ import annotations

import contextlib
import selectors
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from guests import wait_for_guest, wait_stopped

from outlast.drivers import clock
from outlast.drivers.datastore import identity
from outlast.keeper import plugged, process
from outlast.keeper.process import KeeperProcess
from outlast.keeper.processes import inspect
from outlast.model.ids import BootId, DatastoreName, HostId, HostName, KeeperSession
from outlast.model.inventory import DatastoreMember, HostMember
from outlast.model.keeper_config import KeeperConfig
from outlast.model.keeper_effects import Freeze, Kill, PetWatchdog, Thaw
from outlast.model.keeper_events import DeviceSeen, KeeperEvent, ProcessExited
from outlast.model.records import Enforcement
from outlast.model.settings import Settings
from outlast.model.time import SECOND, Instant, after

ME = HostId("11111111-1111-1111-1111-111111111111")
DS1 = DatastoreName("ds1")


class FakeWatchdog:
    """Grants `grants_s`; takes no keep-alive once it is `broken`."""

    grants_s = 1

    def __init__(self, *_: object) -> None:
        self.timeout_s = self.grants_s
        self.pets = 0
        self.broken = False

    def pet(self) -> None:
        if self.broken:
            raise OSError(5, "Input/output error")
        self.pets += 1

    def disarm(self) -> None:
        self.pet()


@pytest.fixture
def config(tmp_path: Path) -> KeeperConfig:
    (tmp_path / "ds1").mkdir()
    (tmp_path / "run").mkdir()
    identity.initialise(tmp_path / "ds1", "ds1", "d")
    return KeeperConfig(
        domain="d",
        host=ME,
        name=HostName("alpha"),
        hosts=(HostMember(ME, HostName("alpha"), "192.0.2.1", 1),),
        datastores=(DatastoreMember(DS1, str(tmp_path / "ds1")),),
        settings=Settings(),
        datastore_key=bytes(32).hex(),
        run_dir=str(tmp_path / "run"),
        state_dir=str(tmp_path),
        watchdog_device="/dev/watchdog",
        enforcement=Enforcement.WATCHDOG,
        boot_id=BootId("boot-1"),
        session=KeeperSession("s"),
    )


@pytest.fixture(autouse=True)
def _no_real_guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "Watchdog", FakeWatchdog)
    monkeypatch.setattr("outlast.keeper.processes.PID_FILES", tmp_path / "pids")


@pytest.fixture
def keeper(config: KeeperConfig) -> Iterator[KeeperProcess]:
    with selectors.DefaultSelector() as selector:
        one = KeeperProcess(config, selector)
        yield one
        for storage in one._storage.values():
            storage.close()


def test_a_watchdog_that_fires_too_late_is_not_counted_on(
    config: KeeperConfig, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeWatchdog, "grants_s", 60)
    with selectors.DefaultSelector() as selector:
        assert KeeperProcess(config, selector).machine.config.enforcement is Enforcement.KEEPER
    assert "/dev/watchdog fires after 60 s at the earliest, and 1 s are configured" in capfd.readouterr().err


def test_a_watchdog_that_breaks_ends_nothing_and_is_counted_on_no_more(
    keeper: KeeperProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(keeper, "log", said.append)
    watchdog = keeper._watchdog
    assert isinstance(watchdog, FakeWatchdog)
    keeper._do(PetWatchdog())
    assert watchdog.pets == 1
    assert keeper.machine.config.enforcement is Enforcement.WATCHDOG
    watchdog.broken = True
    for _ in range(3):
        keeper._pet_at = Instant(0)
        keeper._do(PetWatchdog())
    keeper._disarm()
    assert keeper.machine.config.enforcement is Enforcement.KEEPER
    assert keeper.machine.report().enforcement is Enforcement.KEEPER
    assert ["takes no keep-alive (Input/output error)" in line for line in said] == [True, False]
    watchdog.broken = False
    keeper._pet_at = Instant(0)
    keeper._do(PetWatchdog())
    assert watchdog.pets == 2, "whatever is left of it is still petted"
    assert keeper.machine.config.enforcement is Enforcement.KEEPER


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """However the test ends, nobody waits for a process that is stopped."""
    try:
        yield
    finally:
        process.kill()


def test_all_who_claim_one_vm_are_guarded_and_it_has_ended_when_the_last_of_them_has(
    tmp_path: Path, keeper: KeeperProcess, guest: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_guest(guest.pid)
    monkeypatch.setattr("outlast.model.keeper_config.KeeperConfig.home_of", lambda *_: DS1)
    events: list[KeeperEvent] = []
    monkeypatch.setattr(keeper, "_events", events)
    with subprocess.Popen([*guest.args], executable=sys.executable) as other, ended(other):  # type: ignore[misc]
        wait_for_guest(other.pid)
        first, second = inspect(guest.pid), inspect(other.pid)
        assert first is not None
        assert second is not None
        found = keeper._guard(first)
        assert found is not None
        keeper.machine.ensure(found)
        keeper.machine.places[DS1].lease.deadline = after(clock.now(), SECOND * 60)  # type: ignore[arg-type]
        keeper._do(Freeze(first.vm))
        assert wait_stopped(guest.pid, True)
        assert keeper._guard(second) is None, "the first one speaks for both"
        assert wait_stopped(other.pid, True), "who joins a frozen VM is frozen"
        keeper._do(Thaw(first.vm))
        assert wait_stopped(guest.pid, False)
        assert wait_stopped(other.pid, False)
        guest.kill()
        guest.wait()
        keeper._guard(second)
        assert events == [], "one of them may still execute"
        keeper._do(Kill(first.vm))
        other.wait(10.0)
        keeper._guard(second)
        assert events == [ProcessExited(first.vm)]


def test_a_device_that_is_plugged_into_a_running_guest_is_seen(
    keeper: KeeperProcess, guest: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_guest(guest.pid)
    qemu = inspect(guest.pid)
    assert qemu is not None
    monkeypatch.setattr("outlast.model.keeper_config.KeeperConfig.home_of", lambda *_: DS1)
    found = keeper._guard(msgspec.structs.replace(qemu, unfreezable=False))
    assert found is not None
    assert not found.unfreezable
    keeper.machine.ensure(found)
    keeper._look_for_devices()
    assert not keeper._events
    monkeypatch.setattr(plugged, "device_of", lambda _: "/dev/vfio/12")
    keeper._look_for_devices()
    assert list(keeper._events) == [DeviceSeen(qemu.vm, "/dev/vfio/12")]
    keeper._happen(keeper._events.popleft())
    keeper._look_for_devices()
    assert not keeper._events, "it is known"
