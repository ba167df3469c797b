"""Standard error for processes that nothing may hold up: what cannot be written at once is dropped and counted.

Whoever reads our standard error (journald, a pipe of a service manager, a terminal that is held) may stop reading, or be
gone. A blocking write would then stop a keeper at the very moment when it has to freeze, and EPIPE would end it. Other
processes share the descriptor, so it is not made non-blocking itself: we open our own, or send on a socket without waiting.
"""

import contextlib
import os
import socket
import stat

MOST_BYTES = 4096
"""A line is cut there (PIPE_BUF): what a pipe takes up to this length it takes as a whole."""


class Stderr:
    """A text file to write lines to, one call a line. Never blocks, never raises."""

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._socket: socket.socket | None = None
        self._dropped = 0
        with contextlib.suppress(OSError):
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISSOCK(mode):
                self._socket = socket.socket(fileno=os.dup(descriptor))
            elif not stat.S_ISREG(mode):  # A file has no reader to wait for, and an offset that is shared as well.
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._descriptor = os.open(f"/proc/self/fd/{descriptor}", flags)

    def write(self, line: str) -> int:
        """Write one line, or drop it."""
        if self._dropped and self._take(f"outlast: {self._dropped} lines were dropped here: nobody read them\n"):
            self._dropped = 0
        if not self._take(line):
            self._dropped += 1
        return len(line)

    def _take(self, line: str) -> bool:
        data = line.encode(errors="replace")
        if len(data) > MOST_BYTES:
            data = data[: MOST_BYTES - 1] + b"\n"
        try:
            if self._socket is not None:
                self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            else:
                os.write(self._descriptor, data)
        except OSError:
            return False
        return True

    def flush(self) -> None:
        """Nothing is held back."""
