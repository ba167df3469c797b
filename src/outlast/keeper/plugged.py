"""Devices that are plugged into a guest while it runs, and that work on while its process is stopped (safety rule 6).

A command line tells only what a guest began with. Two places tell the rest. The open files of its process name what it
holds itself: vfio, vdpa, vhost-scsi. libvirt's note of the running domain names who works for it elsewhere, vhost-user and
virtiofs, whose sockets look like any other. libvirt rewrites that note with every device: so its times are looked at each
second, and when they changed, both places are read. What was plugged in behind libvirt's back is found when it is that
guest's turn.
"""

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from outlast.keeper import processes
from outlast.keeper.processes import Qemu

TURNS = 2
"""How many guests' open files are read at each look in any case; a guest has some eighty, which take 0.3 ms."""
_PROC = Path("/proc")
_HELD = re.compile(r"/dev/(?:vfio/|iommu$|vhost-(?:vdpa|scsi))|anon_inode:\[?vfio")
_NOTED = re.compile(r"<hostdev\b|type='(?:hostdev|vhostuser|vhostvdpa|vdpa|virtiofs)'")


class Plugged:
    """Looks at the guests again and again."""

    def __init__(self) -> None:
        self._notes: dict[int, tuple[int, int]] = {}
        self._turn = 0

    def look(self, guests: Sequence[Qemu]) -> dict[int, str]:
        """The pids of those guests that hold such a device, as far as it is their turn, and which one."""
        now = {qemu.pid: _written(qemu.name) for qemu in guests}
        due = {qemu.pid for qemu in guests if self._notes.get(qemu.pid) != now[qemu.pid]}
        self._notes = now
        for _ in range(min(TURNS, len(guests))):
            self._turn = (self._turn + 1) % len(guests)
            due.add(guests[self._turn].pid)
        return {qemu.pid: device for qemu in guests if qemu.pid in due and (device := device_of(qemu))}


def device_of(qemu: Qemu) -> str:
    """A device of this guest that works on while it is stopped; empty if it has none."""
    with contextlib.suppress(OSError):
        place = f"{_PROC}/{qemu.pid}/fd"
        for descriptor in os.listdir(place):
            with contextlib.suppress(OSError):
                target = os.readlink(f"{place}/{descriptor}")
                if _HELD.match(target):
                    return target
    with contextlib.suppress(OSError):
        noted = _NOTED.search(_note_of(qemu.name).read_text(errors="replace"))
        return noted[0].lstrip("<") if noted is not None else ""
    return ""


def _note_of(name: str) -> Path:
    return processes.PID_FILES / f"{name}.xml"


def _written(name: str) -> tuple[int, int]:
    """When libvirt wrote its note last, as far as a file tells; zeros if there is none."""
    try:
        found = os.stat(_note_of(name))
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)
