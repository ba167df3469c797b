"""The lab's power strip: one outlet a host, which fence agents switch off (fence_agent.py).

It is a process outside all hosts. They reach it by a socket that is mounted into each of them, as by a management network
that no fault of the lab's own network cuts. How an outlet does its work is in lab.json, and is read at every order:

    works    it pulls the host's plug, as `outlast lab power-off` does, and then says so; its status is the truth
    fails    it answers with an error
    hangs    it takes the order and never answers
    lies     it does nothing, and says that the host is off (docs/safety.md tells what that means)
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from outlast.lab.errors import LabError
from outlast.lab.host import launch
from outlast.lab.layout import Layout

if TYPE_CHECKING:
    from outlast.lab.lab import Lab  # Which starts the power strip.

OUTLETS = ("works", "fails", "hangs", "lies")
_START_TIMEOUT_S = 10.0


def start(layout: Layout) -> None:
    """Start the power strip of a lab that is being made. Raises LabError."""
    log_file = layout.power / "strip.log"
    argv = [sys.executable, "-m", "outlast.lab.power_strip", str(layout.root), str(layout.cache)]
    with log_file.open("ab") as log:
        child = launch(layout, argv, log)
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not layout.power_socket.exists():
        if child.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"the power strip did not start; {log_file} tells why")
        time.sleep(0.01)


def serve(lab: Lab, listener: socket.socket) -> None:
    """Answer one order after the other, for ever."""
    unanswered: list[socket.socket] = []
    while True:
        connection, _ = listener.accept()
        with contextlib.suppress(OSError):
            with connection.makefile() as orders:
                answer = _carry_out(lab, orders.readline().split())
            if answer is None:
                unanswered.append(connection)  # Left open.
                continue
            connection.sendall(f"{answer}\n".encode())
        connection.close()


def _carry_out(lab: Lab, words: list[str]) -> str | None:
    """The answer to an order: on, off, or what is wrong. None: it gives none."""
    if not words or words[0] not in ("off", "status", "monitor"):
        return f"the power strip does not understand {' '.join(words) or 'an empty order'}"
    if words[0] == "monitor":
        return "on"
    outlets = lab.state().outlets
    if len(words) != 2 or words[1] not in outlets:
        return f"there is no outlet {' '.join(words[1:])}; outlets are {', '.join(outlets)}"
    action, host = words
    match outlets[host]:
        case "hangs":
            return None
        case "fails":
            return f"outlet {host} is out of order"
        case "lies":
            return "off"
    if action == "off":
        try:
            lab.fence(host)
        except LabError as error:
            return str(error)
    return "on" if lab.is_on(host) else "off"


if __name__ == "__main__":
    from outlast.lab.lab import Lab

    ours = Lab(Path(sys.argv[1]), Path(sys.argv[2]))
    place = socket.socket(socket.AF_UNIX)
    place.bind(str(ours.layout.power_socket))
    place.listen(64)
    serve(ours, place)
