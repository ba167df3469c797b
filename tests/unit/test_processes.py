"""QEMU processes: who is one, whoever claims it and whatever its command line holds; and how they are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from guests import wait_for_guest, wait_stopped

from outlast.keeper import processes
from outlast.keeper.processes import (
    LOOKS_BEFORE_FOREIGN,
    PidFiles,
    WatchedProcess,
    all_guests,
    by_pid_file,
    inspect,
    pid_file_names_a_process,
)


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


@pytest.mark.parametrize(
    ("blockdev", "expected"),
    [
        ('{"driver":"virtio-blk-vhost-vdpa","path":"/dev/vhost-vdpa-0","node-name":"d"}', True),
        ('{"driver":"virtio-blk-vhost-user","path":"/run/blk.sock","node-name":"d"}', True),
        ("driver=virtio-blk-vhost-vdpa,path=/dev/vhost-vdpa-0,node-name=d", True),
        ('{"driver":"file","filename":"/srv/ds1/vfio-notes.raw","node-name":"d"}', False),
    ],
)
def test_a_block_driver_that_a_freeze_does_not_stop_is_seen(proc: FakeProc, blockdev: str, expected: bool) -> None:
    proc.add(7, ["/usr/bin/qemu-system-x86_64", "-name", "web", "-uuid", "u-1", "-blockdev", blockdev])
    found = inspect(7)
    assert found is not None
    assert found.unfreezable is expected


class FakeProc:
    """A /proc and pid files of our own making."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.read: list[int] = []
        (root / "pids").mkdir()

    def add(
        self, pid: int, arguments: list[str], *, exe: str = "", comm: bytes = b"", uids: str = "0 0 0 0", start: int = 1
    ) -> None:
        place = self.root / "proc" / str(pid)
        place.mkdir(parents=True)
        name = comm or os.path.basename(arguments[0])[:15].encode()
        (place / "comm").write_bytes(name + b"\n")
        (place / "cmdline").write_bytes(b"".join(argument.encode() + b"\0" for argument in arguments))
        (place / "stat").write_bytes(b"%d (%s) S %s %d 0" % (pid, name, b" ".join([b"0"] * 18), start))
        (place / "status").write_text(f"Name:\tx\nUid:\t{uids}\nGid:\t0 0 0 0\n")
        (place / "exe").symlink_to(exe or arguments[0])

    def become(self, pid: int, arguments: list[str]) -> None:
        """What an exec does."""
        for path in (self.root / "proc" / str(pid)).iterdir():
            path.unlink()
        (self.root / "proc" / str(pid)).rmdir()
        self.add(pid, arguments)

    def pid_file(self, name: str, pid: int) -> None:
        (self.root / "pids" / f"{name}.pid").write_text(f"{pid}\n")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProc:
    fake = FakeProc(tmp_path)
    passwd = tmp_path / "passwd"
    passwd.write_text("root:x:0:0::/root:/bin/sh\nlibvirt-qemu:x:64055:108::/:/bin/false\n")
    monkeypatch.setattr(processes, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(processes, "_PASSWD", passwd)
    monkeypatch.setattr(processes, "PID_FILES", tmp_path / "pids")

    def counted(pid: int) -> processes.Qemu | None:
        fake.read.append(pid)
        return inspect(pid)

    monkeypatch.setattr(processes, "inspect", counted)
    return fake


GUEST = ["-name", "guest=web", "-uuid", "u-1"]


def test_a_guest_in_a_pid_file_counts_whatever_its_program_is_called(proc: FakeProc) -> None:
    proc.add(7, ["/usr/local/bin/emulate", *GUEST], uids="1000 1000 1000 1000")
    proc.pid_file("web", 7)
    found = by_pid_file("web")
    assert found is not None
    assert found.vm == "u-1"
    assert [qemu.pid for qemu in PidFiles().look(set())] == [7]


def test_without_a_pid_file_it_is_the_program_and_its_users_that_count(proc: FakeProc) -> None:
    proc.add(1, ["/usr/bin/qemu-system-x86_64", *GUEST])
    proc.add(2, ["/usr/bin/kvm-spice", *GUEST], uids="64055 64055 64055 64055")
    proc.add(3, ["wrapper", *GUEST], exe="/usr/libexec/qemu-kvm")
    proc.add(4, ["/home/eve/qemu", *GUEST], uids="1000 1000 1000 1000")
    proc.add(5, ["/home/eve/qemu", *GUEST], exe="/usr/bin/sudo", uids="1000 0 0 0")
    proc.add(6, ["/usr/bin/editor", *GUEST])
    assert sorted(qemu.pid for qemu in all_guests()) == [1, 2, 3]
    assert sorted(proc.read) == [1, 2, 3], "no other's memory is touched"


def test_a_program_may_be_called_anything(proc: FakeProc) -> None:
    proc.add(1, ["/usr/bin/qemu-system-x86_64", *GUEST], comm=b"qemu \xff) Z 1")
    assert [qemu.pid for qemu in all_guests()] == [1]


@pytest.mark.parametrize("uuid", ["/dev/zero", "../keeper.sock", "", "x" * 65])
def test_what_is_no_uuid_never_becomes_a_files_name(proc: FakeProc, uuid: str) -> None:
    proc.add(1, ["/usr/bin/qemu-system-x86_64", "-name", "web", "-uuid", uuid])
    assert all_guests() == []


def test_what_is_not_ours_is_not_read_for_ever(proc: FakeProc) -> None:
    """It may hang. But it may not be QEMU yet, too; and the pid file's process may become another."""
    proc.add(7, ["/usr/sbin/libvirtd"])
    proc.pid_file("web", 7)
    files = PidFiles()
    for _ in range(LOOKS_BEFORE_FOREIGN + 5):
        assert files.look(set()) == []
    assert len(proc.read) == LOOKS_BEFORE_FOREIGN
    proc.become(7, ["/usr/bin/qemu-system-x86_64", *GUEST])
    assert [qemu.pid for qemu in files.look(set())] == [7]
    assert files.look({7}) == [], "it is guarded"


def test_a_process_that_is_not_qemu_yet_is_not_missing(proc: FakeProc) -> None:
    assert not pid_file_names_a_process("web")
    proc.pid_file("web", 7)
    assert not pid_file_names_a_process("web"), "it is gone"
    proc.add(7, ["/usr/sbin/libvirtd"])
    assert pid_file_names_a_process("web")
    assert by_pid_file("web") is None
