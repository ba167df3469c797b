"""Starting and ending an I/O helper. Used by the agent (`client.py`) and by the keeper's own loop alike."""

import contextlib
import os
import signal
import socket
import subprocess
import sys


class HelperProcess:
    """One helper: its connection (non-blocking) and its process. `end` never waits for hung I/O."""

    def __init__(self, root: str, name: str, domain: str, host: str, role: str) -> None:
        """Raises OSError if the host has no room for another process (ENOMEM, EAGAIN, EMFILE)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "outlast.drivers.datastore.helper",
                    *(str(theirs.fileno()), root, name, domain, host, role, str(os.getpid())),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                close_fds=True,
                start_new_session=False,
            )
            undo.pop_all()
        ours.setblocking(False)
        self.connection = ours

    def end(self) -> None:
        """Close the connection and kill it; it is reaped when it can end."""
        self.connection.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.poll()
