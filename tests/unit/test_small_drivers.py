"""The watchdog's protocol, the leases in shared memory, the second freezer, the event log, the service manager."""

from __future__ import annotations

import errno
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from outlast.drivers.notify import notify, watchdog_interval_s
from outlast.drivers.watchdog import UNKNOWN_S, WDIOC_SETTIMEOUT, Watchdog
from outlast.keeper.homes import Homes, Memory
from outlast.keeper.lease_file import LeaseFile, Published, read_leases
from outlast.model.ids import BootId, DatastoreName, KeeperSession, LeaseTerm, VmId
from outlast.model.time import Instant, seconds
from outlast.runtime.event_log import EventLog, LoggedEvent, old_path, read

SESSION = KeeperSession("session")
LEASE = seconds(6)
BOOT, DS1, DS2 = BootId("boot-1"), DatastoreName("ds1"), DatastoreName("ds2")


class Device:
    """How a watchdog's driver answers ioctls: `own_s` is its present timeout; None: it knows none of these requests."""

    def __init__(self, own_s: int | None, settable: bool = True, least_s: int = 1) -> None:
        self._own_s, self._settable, self._least_s = own_s, settable, least_s

    def ioctl(self, _: int, request: int, argument: bytes) -> bytes:
        if self._own_s is None:
            raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
        if request == WDIOC_SETTIMEOUT:
            if not self._settable:
                raise OSError(errno.EOPNOTSUPP, "Operation not supported")
            self._own_s = max(self._least_s, struct.unpack("i", argument)[0])
        return struct.pack("i", self._own_s)


@pytest.mark.parametrize(
    ("device", "holds_s"),
    [
        (Device(60), 5),
        (Device(60, least_s=10), 10),
        (Device(60, settable=False), 60),
        (Device(0, settable=False), UNKNOWN_S),
        (Device(None), UNKNOWN_S),
    ],
)
def test_a_watchdogs_timeout_is_what_the_device_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Device, holds_s: int
) -> None:
    (tmp_path / "watchdog").touch()
    monkeypatch.setattr("outlast.drivers.watchdog.fcntl.ioctl", device.ioctl)
    assert Watchdog(str(tmp_path / "watchdog"), 5).timeout_s == holds_s


def test_a_watchdog_is_petted_and_disarmed_by_the_magic_close(tmp_path: Path) -> None:
    device = tmp_path / "watchdog"
    device.touch()
    watchdog = Watchdog(str(device), 5)
    assert watchdog.timeout_s == UNKNOWN_S, "a plain file tells nothing"
    watchdog.pet()
    watchdog.pet()
    watchdog.disarm()
    assert device.read_bytes() == b"\0\0V"


def test_a_keeper_that_just_ends_does_not_disarm_it(tmp_path: Path) -> None:
    device = tmp_path / "watchdog"
    device.touch()
    script = f"from outlast.drivers.watchdog import Watchdog; Watchdog({str(device)!r}, 5).pet()"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert device.read_bytes() == b"\0"


def test_a_watchdog_that_is_missing_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no-watchdog"):
        Watchdog(str(tmp_path / "no-watchdog"), 5)


def test_deadlines_are_read_by_the_same_boot_alone(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    file = LeaseFile(path, BOOT, SESSION, (DS1, DS2), {})
    assert read_leases(path, BOOT) == {}
    file.publish(DS1, Instant(seconds(100)), LeaseTerm(3), LEASE)
    file.publish(DS2, Instant(seconds(200)), LeaseTerm(1), LEASE)
    file.publish(DS2, Instant(0), LeaseTerm(1), LEASE)
    assert read_leases(path, BOOT) == {DS1: Published(Instant(seconds(100)), LeaseTerm(3), SESSION, LEASE)}
    assert read_leases(path, BootId("boot-2")) == {}


def test_a_successors_file_keeps_the_deadlines_until_it_has_frozen_what_is_past_them(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    LeaseFile(path, BOOT, SESSION, (DS1, DS2), {}).publish(DS1, Instant(seconds(100)), LeaseTerm(3), LEASE)
    successor = LeaseFile(path, BOOT, KeeperSession("next"), (DS1, DS2), read_leases(path, BOOT))
    assert read_leases(path, BOOT)[DS1].deadline == seconds(100)
    successor.publish(DS1, Instant(0), LeaseTerm(0), LEASE)
    assert read_leases(path, BOOT) == {}


def test_what_is_remembered_of_a_vm(tmp_path: Path) -> None:
    homes = Homes(tmp_path / "homes", (DS1,))
    memory = Memory(DS1, SESSION, LeaseTerm(3), LEASE)
    assert homes.recall(VmId("u-1")) is None
    homes.remember(VmId("u-1"), memory)
    assert homes.recall(VmId("u-1")) == memory
    homes.remember(VmId("u-2"), Memory(DS2, SESSION, LeaseTerm(1), LEASE))
    assert homes.recall(VmId("u-2")) is None, "that datastore is not in the settings any more"
    (tmp_path / "homes" / "u-1").write_bytes(b"\xff{")
    assert homes.recall(VmId("u-1")) is None


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 200, bytes(64)])
def test_a_damaged_lease_file_holds_no_lease(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "leases"
    path.write_bytes(content)
    assert read_leases(path, BOOT) == {}
    assert read_leases(tmp_path / "no", BOOT) == {}


def event(number: int) -> LoggedEvent:
    return LoggedEvent(at_ms=number, reporter="host1", kind="verdict", text=f"event {number}")


def test_the_event_log_keeps_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.append(event(1))
    with path.open("ab") as file:
        file.write(b'{"at_ms": 2, "repor')
        file.write(b"\nnot json\n")
    EventLog(path).append(event(3))
    assert [each.at_ms for each in read(path)] == [1, 3]
    assert list(read(tmp_path / "none.jsonl")) == []


def test_the_event_log_is_put_aside_when_it_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.runtime.event_log._LIMIT_BYTES", 200)
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for number in range(6):
        log.append(event(number))
    assert old_path(path).exists()
    numbers = [each.at_ms for each in read(path)]
    assert numbers == list(range(numbers[0], 6)), "the newest are kept, in order"


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    log = EventLog(tmp_path / "file" / "events.jsonl")
    log.append(event(1))
    log.append(event(2))
    said = capsys.readouterr().err
    assert said.count("cannot be written") == 1, "said once"


def test_the_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        notify("READY=1", "STATUS=well")
        assert manager.recv(100) == b"READY=1\nSTATUS=well"
    notify("READY=1")  # A manager that is gone is no error.
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")


def test_the_service_manager_says_how_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    assert watchdog_interval_s() == 5.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert watchdog_interval_s() is None
    monkeypatch.setenv("WATCHDOG_USEC", "soon")
    assert watchdog_interval_s() is None
