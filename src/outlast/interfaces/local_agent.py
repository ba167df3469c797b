"""Asking this host's agent over its local socket."""

import socket
from pathlib import Path

import msgspec
import rich_click as click

from outlast.model.errors import OutlastError
from outlast.runtime.control import ControlReply, ControlRequest

ANSWER_TIMEOUT_S = 5.0
DEFAULT_SOCKET = Path("/run/outlast/agent.sock")
SOCKET = click.option("--socket", "path", type=click.Path(path_type=Path), default=DEFAULT_SOCKET, hidden=True)
"""The option of a command that asks the agent, as `path: Path`."""


def ask(path: Path, request: ControlRequest, timeout_s: float = ANSWER_TIMEOUT_S) -> ControlReply:
    """The agent's reply. Raises OutlastError if there is none, or if it says no."""
    received = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(msgspec.json.encode(request) + b"\n")
            while not received.endswith(b"\n"):
                data = connection.recv(1 << 18)
                if not data:
                    break
                received += data
        reply = msgspec.json.decode(received, type=ControlReply)
    except PermissionError:
        raise OutlastError(f"{path} may not be opened", "run as root") from None
    except TimeoutError:
        remedy = "systemctl status outlast-agent; this host's VMs and keeper do not depend on it"
        raise OutlastError(f"the agent of this host does not answer within {timeout_s:g} s", remedy) from None
    except OSError:
        remedy = "systemctl status outlast-agent; `outlast events` works without it"
        raise OutlastError(f"no agent answers on {path}", remedy) from None
    except msgspec.DecodeError as error:
        raise OutlastError(f"the agent's answer is not understood: {error}", "restart it after an upgrade") from None
    if not reply.ok:
        raise OutlastError(reply.problem)
    return reply
