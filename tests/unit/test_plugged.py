"""Devices that are plugged into a running guest: found in its open files and in libvirt's note, without looking in vain."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from outlast.keeper import plugged, processes
from outlast.keeper.plugged import TURNS, Plugged, device_of
from outlast.keeper.processes import Qemu
from outlast.model.ids import VmId, VmName


class Host:
    """A /proc and libvirt's notes of our own making."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.read: list[int] = []

    def guest(self, pid: int, *held: str) -> Qemu:
        place = self.root / "proc" / str(pid) / "fd"
        place.mkdir(parents=True)
        for number, target in enumerate(["/dev/null", "socket:[7]", "anon_inode:[eventfd]", *held]):
            (place / str(number)).symlink_to(target)
        return Qemu(pid, VmId(f"u-{pid}"), VmName(f"vm{pid}"), (), False)

    def plug(self, pid: int, target: str) -> None:
        (self.root / "proc" / str(pid) / "fd" / "30").symlink_to(target)

    def note(self, pid: int, device: str) -> None:
        path = self.root / f"vm{pid}.xml"
        path.write_text(f"<domstatus state='running'><domain><devices>{device}</devices></domain></domstatus>")
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path)
    monkeypatch.setattr(plugged, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(processes, "PID_FILES", tmp_path)

    def counted(qemu: Qemu) -> str:
        host.read.append(qemu.pid)
        return device_of(qemu)

    monkeypatch.setattr(plugged, "device_of", counted)
    return host


@pytest.mark.parametrize(
    "held",
    ["/dev/vfio/12", "/dev/vfio/devices/vfio0", "/dev/iommu", "/dev/vhost-vdpa-0", "/dev/vhost-scsi", "anon_inode:[vfio]"],
)
def test_what_its_process_holds_is_seen(host: Host, held: str) -> None:
    assert device_of(host.guest(7, held)) == held


@pytest.mark.parametrize("held", ["/dev/vhost-net", "/dev/kvm", "/srv/ds1/dev/vfio/notes.raw", "/dev/net/tun"])
def test_what_stands_still_with_its_process_is_none(host: Host, held: str) -> None:
    assert device_of(host.guest(7, held)) == ""


@pytest.mark.parametrize(
    ("device", "seen"),
    [
        ("<hostdev mode='subsystem' type='pci' managed='yes'/>", "hostdev"),
        ("<interface type='vhostuser'><source type='unix' path='/run/ovs.sock'/></interface>", "type='vhostuser'"),
        ("<filesystem type='mount'><driver type='virtiofs'/></filesystem>", "type='virtiofs'"),
        ("<interface type='bridge'><driver name='vhost'/></interface>", ""),
    ],
)
def test_what_libvirt_notes_is_seen(host: Host, device: str, seen: str) -> None:
    guest = host.guest(7)
    host.note(7, device)
    assert device_of(guest) == seen


def test_whose_note_was_rewritten_is_looked_at_at_once_and_the_others_in_turn(host: Host) -> None:
    guests, looks = [host.guest(pid) for pid in range(1, 11)], Plugged()
    for pid in range(1, 11):
        host.note(pid, "")
    assert looks.look(guests) == {}
    assert sorted(host.read) == list(range(1, 11)), "nobody knows any of them yet"
    host.read.clear()
    assert looks.look(guests) == {}
    assert len(host.read) == TURNS
    host.note(9, "<hostdev mode='subsystem' type='pci'/>")
    assert looks.look(guests) == {9: "hostdev"}
    host.plug(4, "/dev/vfio/3")
    found: dict[int, str] = {}
    for _ in range(10 // TURNS):
        found |= looks.look(guests)
    assert found[4] == "/dev/vfio/3", "behind libvirt's back"


def test_nobody_is_looked_at_when_there_is_nobody(host: Host) -> None:
    assert Plugged().look([]) == {}
    assert device_of(Qemu(99, VmId("u"), VmName("gone"), (), False)) == ""
