"""The kernel's watchdog device: once opened, whoever stops petting it lets the host be reset.

Protocol: Linux Documentation/watchdog/watchdog-api.rst. Any write pets it; a write of "V" just before the close disarms it
("magic close"), so that a keeper that ends on purpose does not reset its host. A keeper that is killed never says so.
"""

import errno
import fcntl
import os
import struct

WDIOC_SETTIMEOUT = 0xC0045706
WDIOC_GETTIMEOUT = 0x80045707
UNKNOWN_S = 1 << 31
"""The timeout of a device that will not tell: longer than anything that could be counted on."""


class Watchdog:
    """An armed watchdog. Raises OSError if the device cannot be opened (it has one owner at a time)."""

    def __init__(self, path: str, timeout_s: int) -> None:
        """`timeout_s` is asked for; `self.timeout_s` is what holds: the granted one, the device's own, or `UNKNOWN_S`."""
        self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self.timeout_s = self._set_timeout(timeout_s)

    def _set_timeout(self, timeout_s: int) -> int:
        for request, argument in ((WDIOC_SETTIMEOUT, timeout_s), (WDIOC_GETTIMEOUT, 0)):
            # A device may refuse to be set and keep, say, its module parameter's 60 s: then it is asked for that.
            try:
                answer: bytes = fcntl.ioctl(self._fd, request, struct.pack("i", argument))
            except OSError:
                continue
            granted: int = struct.unpack("i", answer)[0]
            if granted > 0:
                return granted
        return UNKNOWN_S

    def pet(self) -> None:
        """Keep it from firing for another `timeout_s`. Raises OSError if the device is gone, or takes nothing."""
        if os.write(self._fd, b"\0") != 1:
            raise OSError(errno.EIO, "the watchdog took no keep-alive")

    def disarm(self) -> None:
        """Let go of it without a reset: only when no VM is left to guard."""
        os.write(self._fd, b"V")
        os.close(self._fd)
