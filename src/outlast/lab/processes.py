"""Processes, named so that a number that was used again is never mistaken for the old process.

A process is known by its id and its start time. A signal goes through a pidfd that was opened before the start time was
checked, so that it reaches the process that was meant or none. The lab's own processes are found again by the marker in
their environment.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from outlast.lab.layout import MARKER


class Process(msgspec.Struct, frozen=True):
    """A process of this machine: its id, and its start time in clock ticks since boot."""

    pid: int
    start_time: int


def identify(pid: int) -> Process | None:
    """The process that has this id now; None if there is none, or only its exit status is left."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name is in parentheses and may hold spaces; the fields after it are counted from the state, which is
    # the third.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else Process(pid, int(fields[19]))


def is_alive(process: Process | None) -> bool:
    return process is not None and identify(process.pid) == process


def send_signal(process: Process, number: signal.Signals) -> bool:
    """Send a signal to exactly this process; False if it is gone."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if identify(process.pid) != process:
            return False
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def wait_gone(processes: Iterable[Process], timeout_s: float) -> list[Process]:
    """Wait until all of them have exited; those that have not after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    left = []
    for process in processes:
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:
            continue
        try:
            if is_alive(process):
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        finally:
            os.close(pidfd)
        # A child of ours would stay a zombie for as long as this program runs.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
        if is_alive(process):
            left.append(process)
    return left


def child_of(parent: int, timeout_s: float = 5.0) -> Process | None:
    """The first child of a process that is just about to fork; None if the parent ends or the time is over before."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            return None
        if children:
            return identify(int(children[0]))
        if identify(parent) is None:
            return None
        time.sleep(0.002)
    return None


def pids() -> Iterator[int]:
    """All process ids of this machine's own namespace, in no particular order."""
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


def find_marked(root: Path) -> list[Process]:
    """The processes that carry the marker of the lab in `root`, without this one and its ancestors."""
    wanted = f"{MARKER}={root}".encode()
    spared = _self_and_ancestors()
    found = []
    for pid in pids():
        if pid in spared:
            continue
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0") and (process := identify(pid)) is not None:
            found.append(process)
    return found


def _self_and_ancestors() -> set[int]:
    spared: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in spared:
        spared.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return spared
