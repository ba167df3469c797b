"""Waiting for what a process that looks like a QEMU guest does."""

from __future__ import annotations

import time

from outlast.keeper.processes import inspect


def wait_for_guest(pid: int) -> None:
    end = time.monotonic() + 10.0
    while inspect(pid) is None and time.monotonic() < end:
        time.sleep(0.01)


def wait_stopped(pid: int, wanted: bool) -> bool:
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        found = inspect(pid)
        if found is not None and found.stopped is wanted:
            return True
        time.sleep(0.01)
    return False
