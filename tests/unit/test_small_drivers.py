"""The watchdog's protocol, the leases in shared memory, the second freezer, the event log, the service manager."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.drivers.notify import notify, watchdog_interval_s
from outlast.drivers.watchdog import UNKNOWN_S, WDIOC_SETTIMEOUT, Watchdog
from outlast.keeper.homes import Homes, Memory
from outlast.keeper.lease_file import LeaseFile, Published, read_leases
from outlast.keeper.processes import WatchedProcess, inspect
from outlast.model.ids import BootId, DatastoreName, Epoch, HostId, KeeperSession, LeaseTerm, VmId, VmName
from outlast.model.keeping import KeeperReport, KeptVm
from outlast.model.records import Enforcement
from outlast.model.time import Instant, seconds
from outlast.runtime.event_log import EventLog, LoggedEvent, old_path, read
from outlast.runtime.second_freezer import SecondFreezer

SESSION = KeeperSession("session")
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
    file.publish(DS1, Instant(seconds(100)), LeaseTerm(3))
    file.publish(DS2, Instant(seconds(200)), LeaseTerm(1))
    file.publish(DS2, Instant(0), LeaseTerm(1))
    assert read_leases(path, BOOT) == {DS1: Published(Instant(seconds(100)), LeaseTerm(3), SESSION)}
    assert read_leases(path, BootId("boot-2")) == {}


def test_a_successors_file_keeps_the_deadlines_until_it_has_frozen_what_is_past_them(tmp_path: Path) -> None:
    path = tmp_path / "leases"
    LeaseFile(path, BOOT, SESSION, (DS1, DS2), {}).publish(DS1, Instant(seconds(100)), LeaseTerm(3))
    successor = LeaseFile(path, BOOT, KeeperSession("next"), (DS1, DS2), read_leases(path, BOOT))
    assert read_leases(path, BOOT)[DS1].deadline == seconds(100)
    successor.publish(DS1, Instant(0), LeaseTerm(0))
    assert read_leases(path, BOOT) == {}


def test_what_is_remembered_of_a_vm(tmp_path: Path) -> None:
    homes = Homes(tmp_path / "homes", (DS1,))
    memory = Memory(DS1, SESSION, LeaseTerm(3))
    assert homes.recall(VmId("u-1")) is None
    homes.remember(VmId("u-1"), memory)
    assert homes.recall(VmId("u-1")) == memory
    homes.remember(VmId("u-2"), Memory(DS2, SESSION, LeaseTerm(1)))
    assert homes.recall(VmId("u-2")) is None, "that datastore is not in the settings any more"
    (tmp_path / "homes" / "u-1").write_bytes(b"\xff{")
    assert homes.recall(VmId("u-1")) is None


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * 200, bytes(64)])
def test_a_damaged_lease_file_holds_no_lease(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "leases"
    path.write_bytes(content)
    assert read_leases(path, BOOT) == {}
    assert read_leases(tmp_path / "no", BOOT) == {}


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like a QEMU guest."""
    program = tmp_path / "qemu-system-x86_64"
    program.symlink_to(sys.executable)
    script = "import time; time.sleep(60)"
    arguments = [str(program), "-c", script, "-name", "guest=web,debug-threads=on", "-uuid", "u-1"]
    nodes = [
        # The template behind the first disk comes first, as libvirt puts it, and is no disk of the guest.
        '{"driver":"file","filename":"/srv/ds2/template.qcow2","node-name":"libvirt-3-storage"}',
        '{"node-name":"libvirt-3-format","driver":"qcow2","file":"libvirt-3-storage"}',
        '{"driver":"file","filename":"/srv/ds1/web.qcow2","node-name":"libvirt-2-storage"}',
        '{"node-name":"libvirt-2-format","driver":"qcow2","file":"libvirt-2-storage","backing":"libvirt-3-format"}',
    ]
    for node in nodes:
        arguments += ["-blockdev", node]
    arguments += ["-device", '{"driver":"virtio-blk-pci","drive":"libvirt-2-format","id":"virtio-disk0"}']
    arguments += ["-drive", "file=/srv/ds2/b.raw,if=none", "-device", "vfio-pci,host=0000:01:00.0"]
    with subprocess.Popen(arguments) as process:
        yield process
        process.kill()


def wait_for_guest(pid: int) -> None:
    end = time.monotonic() + 10.0
    while inspect(pid) is None and time.monotonic() < end:
        time.sleep(0.01)


def test_a_guest_is_known_by_its_command_line(guest: subprocess.Popen[bytes]) -> None:
    wait_for_guest(guest.pid)
    found = inspect(guest.pid)
    assert found is not None
    assert (found.vm, found.name, found.stopped) == ("u-1", "web", False)
    assert found.disks == ("/srv/ds1/web.qcow2", "/srv/ds2/b.raw")
    assert found.unfreezable
    assert inspect(os.getpid()) is None


def test_a_guest_is_frozen_thawed_and_killed_through_its_pidfd(guest: subprocess.Popen[bytes]) -> None:
    wait_for_guest(guest.pid)
    qemu = inspect(guest.pid)
    assert qemu is not None
    watched = WatchedProcess(qemu)
    assert watched.freeze()
    assert wait_stopped(guest.pid, True)
    watched.thaw()
    assert wait_stopped(guest.pid, False)
    assert not watched.has_exited()
    watched.freeze()
    watched.kill()
    assert guest.wait(10.0) == -signal.SIGKILL
    assert watched.has_exited()
    assert watched.freeze(), "what has ended cannot be left running"


def wait_stopped(pid: int, wanted: bool) -> bool:
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        found = inspect(pid)
        if found is not None and found.stopped is wanted:
            return True
        time.sleep(0.01)
    return False


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
    path = tmp_path / "leases"
    file = LeaseFile(path, BOOT, SESSION, (DS1,), {})
    freezer = SecondFreezer(path, BOOT)
    freezer.remember(report(guest.pid))
    deadline = Instant(seconds(100))
    file.publish(DS1, deadline, LeaseTerm(1))
    assert freezer.look(deadline) == [], "the keeper may still be about to"
    file.publish(DS1, Instant(0), LeaseTerm(1))
    assert freezer.look(Instant(deadline + seconds(1))) == [], "the keeper said that it lapsed, and froze"
    file.publish(DS1, deadline, LeaseTerm(1))
    assert [vm.vm for vm in freezer.look(Instant(deadline + seconds(1)))] == ["u-1"]
    assert wait_stopped(guest.pid, True)
    assert freezer.look(Instant(deadline + seconds(2))) == [], "frozen once"


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
