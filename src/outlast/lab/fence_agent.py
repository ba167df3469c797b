"""The fence agent of a lab's hosts, as those of ClusterLabs are: options on standard input, `action` and `plug` among them.

    action=status    "Status: ON", exit code 0; "Status: OFF", exit code 2
    action=off       exit code 0 once the outlet has no power
    action=monitor   exit code 0 if the power strip answers

It runs inside a host and asks the lab's power strip (power_strip.py) outside. Exit code 1: it could not be done.
"""

from __future__ import annotations

import socket
import sys

SOCKET = "/var/lib/outlast-power/strip.sock"
"""Where every host finds the power strip."""
_PATIENCE_S = 60.0
_ON, _FAILED, _OFF = 0, 1, 2


def main() -> int:
    """Do what the options ask for; the exit code."""
    options = dict(line.strip().split("=", 1) for line in sys.stdin if "=" in line and not line.startswith("#"))
    action, plug = options.get("action", ""), options.get("plug", "")
    if action not in ("off", "status", "monitor"):
        return _fail(f"it can do off, status and monitor, not {action or 'nothing'}: give it action=")
    if action != "monitor" and not plug:
        return _fail("it needs to know which outlet is meant: give it plug=")
    try:
        answer = ask(f"{action} {plug}")
    except OSError as error:
        return _fail(f"the power strip does not answer: {error}")
    if answer not in ("on", "off"):
        return _fail(answer)
    if action == "status":
        print(f"Status: {answer.upper()}")  # noqa: T201
        return _ON if answer == "on" else _OFF
    return 0


def ask(order: str) -> str:
    """The power strip's answer to one line. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE_S)
        connection.connect(SOCKET)
        connection.sendall(f"{order}\n".encode())
        with connection.makefile() as answers:
            return answers.readline().strip()


def _fail(why: str) -> int:
    print(why, file=sys.stderr)  # noqa: T201
    return _FAILED
