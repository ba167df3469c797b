"""The I/O helper: one process for one datastore and one master, doing its requests one after the other.

    python -m outlast.drivers.datastore.helper FD ROOT NAME DOMAIN HOST ROLE PARENT

A process with a thread in hung I/O cannot be ended until the I/O returns, so the master never touches storage itself. The
helper writes only on command, and dies with its master (PR_SET_PDEATHSIG), as soon as the kernel can let it.
"""

import ctypes
import os
import signal
import socket
import sys

import msgspec

from outlast.drivers.datastore.posix import PosixDatastore
from outlast.drivers.datastore.wire import Answer, Inbox, Request, pack

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; end now if it has ended already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)


def serve(connection: socket.socket, datastore: PosixDatastore) -> None:
    """Answer requests until the master closes the connection."""
    inbox = Inbox(Request)
    while data := connection.recv(1 << 16):
        for request in inbox.feed(data):
            connection.sendall(pack(Answer(request.number, datastore.do(request.op))))


def main() -> None:
    """Be the helper that the arguments describe."""
    descriptor, root, name, domain, host, role, parent = sys.argv[1:]
    die_with_parent(int(parent))
    # Ctrl-C in a terminal is for the master, which then closes our connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=int(descriptor)) as connection:
        try:
            serve(connection, PosixDatastore(root, name, domain, host, role))
        except (ConnectionError, msgspec.DecodeError, ValueError) as error:
            sys.exit(f"outlast I/O helper of {name}: its master speaks another language or is gone: {error}")


if __name__ == "__main__":
    main()
