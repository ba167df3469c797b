"""The agent's local socket: `outlast status` and `outlast explain` ask here. One JSON line in, one JSON line out.

{"do": "status"}                                  -> {"ok": true, "status": {...}}
{"do": "explain", "what": "vm", "name": "vm1"}    -> {"ok": true, "lines": [...]}
{"do": "retry", "name": "vm1", "token": "..."}    -> {"ok": true, "pending": true}, until it is done or refused: ask again
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Literal

import msgspec

from outlast.model.errors import OutlastError
from outlast.model.status import DomainStatus

_LINE_LIMIT = 1 << 16


class ControlRequest(msgspec.Struct, frozen=True):
    """What can be asked."""

    do: Literal["status", "explain", "retry"]
    what: Literal["host", "vm", "datastore"] = "host"
    name: str = ""
    token: str = ""


class ControlReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer. `ok` False: `problem` says why. `pending`: the question was taken up, and is not answered yet."""

    ok: bool
    pending: bool = False
    problem: str = ""
    status: DomainStatus | None = None
    lines: list[str] = []


class ControlServer:
    """`answer` makes the reply; it must not wait for anything."""

    def __init__(self, path: str, answer: Callable[[ControlRequest], ControlReply]) -> None:
        self._path = path
        self._answer = answer
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OutlastError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        old_mask = os.umask(0o177)
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            self._server = await asyncio.start_unix_server(self._serve, self._path, limit=_LINE_LIMIT)
        except OSError as error:
            raise OutlastError(f"the socket {self._path} cannot be made: {error.strerror}", "check [paths] run") from None
        finally:
            os.umask(old_mask)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := await reader.readline():
                try:
                    reply = self._answer(msgspec.json.decode(line, type=ControlRequest))
                except msgspec.DecodeError as error:
                    reply = ControlReply(ok=False, problem=f"the agent does not understand the request: {error}")
                writer.write(msgspec.json.encode(reply) + b"\n")
                await writer.drain()
        writer.close()

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
