"""How a lab ends, however it was left: nothing of it that runs or is mounted is taken from its own notes alone."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from pathlib import Path

from outlast.lab import mounts
from outlast.lab.errors import LabError
from outlast.lab.host import DEATH_TIMEOUT_S
from outlast.lab.layout import Layout
from outlast.lab.processes import Process, find_marked, is_alive, send_signal, wait_gone
from outlast.lab.state import load

_FUSE_CONNECTIONS = Path("/sys/fs/fuse/connections")


def end_processes(layout: Layout) -> None:
    """SIGKILL everything that belongs to the lab, hosts first. Raises LabError if something does not end."""
    inits = _inits(layout)
    for init in inits:
        send_signal(init, signal.SIGKILL)
    marked = find_marked(layout.root)
    for process in marked:
        send_signal(process, signal.SIGKILL)
    # A process in I/O that hangs ends only when its file system is gone.
    abort_file_systems(layout.root)
    deadline = time.monotonic() + DEATH_TIMEOUT_S
    left = wait_gone([*inits, *marked], DEATH_TIMEOUT_S)
    while left and time.monotonic() < deadline:
        left = wait_gone(left, 0.1)
    # Started by something that was just about to die.
    late = [process for process in find_marked(layout.root) if send_signal(process, signal.SIGKILL)]
    left += wait_gone(late, DEATH_TIMEOUT_S)
    if left:
        raise LabError(
            f"processes {', '.join(str(process.pid) for process in left)} of the lab cannot end; see their /proc/PID/stack"
        )


def _inits(layout: Layout) -> list[Process]:
    """Every PID 1 of a host: those in lab.json, and those that are marked and first in a namespace."""
    found: set[Process] = set()
    with contextlib.suppress(LabError):
        state = load(layout)
        if state is not None:
            found |= {each.init for each in state.hosts.values() if each.init is not None and is_alive(each.init)}
    for process in find_marked(layout.root):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
            if len(numbers) > 1 and numbers[-1] == "1":
                found.add(process)
    return sorted(found, key=lambda process: process.pid)


def abort_file_systems(root: Path) -> None:
    """Break the connections of the lab's FUSE file systems, so that what waits for an answer gets an error."""
    if not _FUSE_CONNECTIONS.is_dir() or not any(_FUSE_CONNECTIONS.iterdir()):
        # Not mounted everywhere; without it, the end of the file system's process does the same.
        return
    for mount in mounts.below(root):
        with contextlib.suppress(OSError):
            (_FUSE_CONNECTIONS / str(mount.minor) / "abort").write_text("1")


def unmount(root: Path) -> None:
    """Unmount everything below the lab's directory. Raises LabError if something stays."""
    for mount in mounts.below(root):
        mounts.unmount(mount.path)
    left = [mount.path for mount in mounts.below(root)]
    if left:
        raise LabError(f"{left[0]} could not be unmounted; find its user with `fuser -vm {left[0]}`")


def remove_files(layout: Layout) -> None:
    """Remove what the lab wrote, except the cache."""
    for directory in (layout.hosts, layout.datastores, layout.power):
        shutil.rmtree(directory, ignore_errors=True)
    for file in (layout.state_file, layout.state_file.with_suffix(".part"), layout.lock_file):
        file.unlink(missing_ok=True)


def is_clear(layout: Layout) -> list[str]:
    """What of a lab still exists, as sentences; empty after `down`."""
    found = [f"process {process.pid}" for process in find_marked(layout.root)]
    found += [f"mount {mount.path}" for mount in mounts.below(layout.root)]
    return found + [f"directory {path}" for path in (layout.hosts, layout.datastores, layout.power) if path.exists()]
