"""The kernel's watchdog device: once opened, whoever stops petting it lets the host be reset.

Protocol: Linux Documentation/watchdog/watchdog-api.rst. Any write pets it; a write of "V" just before the close disarms it
("magic close"), so that a keeper that ends on purpose does not reset its host. A keeper that is killed never says so.
"""

import contextlib
import fcntl
import os
import struct

WDIOC_SETTIMEOUT = 0xC0045706


class Watchdog:
    """An armed watchdog. Raises OSError if the device cannot be opened (it has one owner at a time)."""

    def __init__(self, path: str, timeout_s: int) -> None:
        """`timeout_s` is asked for; `self.timeout_s` is what the device grants, which may be more."""
        self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self.timeout_s = timeout_s
        with contextlib.suppress(OSError):
            # A device without this request keeps the timeout of its module parameter; a plain file is for tests.
            granted = fcntl.ioctl(self._fd, WDIOC_SETTIMEOUT, struct.pack("i", timeout_s))
            (self.timeout_s,) = struct.unpack("i", granted)

    def pet(self) -> None:
        """Keep it from firing for another `timeout_s`. Raises OSError if the device is gone."""
        os.write(self._fd, b"\0")

    def disarm(self) -> None:
        """Let go of it without a reset: only when no VM is left to guard."""
        os.write(self._fd, b"V")
        os.close(self._fd)
