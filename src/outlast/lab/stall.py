"""A host that stands still as a whole, as under a hypervisor that does not schedule it, and then goes on.

Every process of the host is stopped, PID 1 included, until a pass over /proc finds none that runs; afterwards exactly
those are resumed that this stall had stopped, so that a VM that was frozen before stays frozen. Its clocks go on, as
those of a stalled host do.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from outlast.lab.processes import Process, identify, pids, send_signal

_PASSES = 20


def stall(init: Process, seconds: float) -> None:
    """Let nothing run in the host of this PID 1 for so long. Resumes it also when interrupted."""
    stopped: dict[Process, None] = {}
    try:
        for _ in range(_PASSES):
            running = [process for process in _inhabitants(init) if process not in stopped and not _is_stopped(process)]
            if not running:
                break
            for process in running:
                if send_signal(process, signal.SIGSTOP):
                    stopped[process] = None
        time.sleep(seconds)
    finally:
        for process in stopped:
            send_signal(process, signal.SIGCONT)


def _inhabitants(init: Process) -> list[Process]:
    """The processes of a host, as the machine numbers them."""
    namespace = os.stat(f"/proc/{init.pid}/ns/pid").st_ino
    found = []
    for pid in pids():
        try:
            inside = os.stat(f"/proc/{pid}/ns/pid").st_ino == namespace
        except OSError:
            continue
        if inside and (process := identify(pid)) is not None:
            found.append(process)
    return found


def _is_stopped(process: Process) -> bool:
    try:
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return True
