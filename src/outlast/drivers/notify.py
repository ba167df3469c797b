"""systemd's readiness protocol (sd_notify(3)): a datagram to the socket that NOTIFY_SOCKET names, if there is one."""

import contextlib
import os
import socket


def notify(*assignments: str) -> None:
    """Tell the service manager, for example "READY=1" or "STATUS=...". Without one, nothing happens."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.sendto("\n".join(assignments).encode(), address)


def watchdog_interval_s() -> float | None:
    """How often "WATCHDOG=1" is due: half of what the service manager allows; None if it does not watch us."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000
