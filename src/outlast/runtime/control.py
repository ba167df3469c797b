"""The agent's local socket: `outlast status` and its kin ask here. One JSON line in, one JSON line out.

{"do": "status"}                                  -> {"ok": true, "status": {...}}
{"do": "explain", "what": "vm", "name": "vm1"}    -> {"ok": true, "lines": [...]}
{"do": "settings"}                                -> {"ok": true, "settings": {...}}
{"do": "command", "command": {...}, "by": "..."}  -> {"ok": true, "outcome": {...}}, when the primary has answered
{"do": "retry", "name": "vm1", "token": "..."}    -> {"ok": true, "pending": true}, until it is done or refused: ask again
{"do": "plan"}                                    -> {"ok": true, "basis": {...}}
{"do": "going-down", "name": "reboot"}            -> {"ok": true, "pending": true, "lines": [...]}, until it may: ask again
{"do": "fence-marks", "name": "host1"}            -> {"ok": true, "lines": [...], "marks": [...]}

A question that takes its time (a fence device is asked) holds up its own connection alone.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from outlast.model.commands import Command, Outcome
from outlast.model.errors import OutlastError
from outlast.model.planning import PlanBasis
from outlast.model.records import RecordMark
from outlast.model.status import DomainStatus, SettingsView

_LINE_LIMIT = 1 << 16


class ControlRequest(msgspec.Struct, frozen=True):
    """What can be asked."""

    do: Literal[
        "status",
        "explain",
        "plan",
        "settings",
        "command",
        "retry",
        "going-down",
        "fence-test",
        "fence-marks",
        "fence-confirm",
    ]
    what: Literal["host", "vm", "datastore"] = "host"
    name: str = ""
    token: str = ""
    marks: tuple[RecordMark, ...] = ()
    command: Command | None = None
    by: str = ""


class ControlReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer. `ok` False: `problem` says why. `failed`: it was done, and what it found is bad.

    `pending`: the question was taken up, and is not answered yet: ask again.
    """

    ok: bool
    pending: bool = False
    problem: str = ""
    status: DomainStatus | None = None
    lines: list[str] = []
    settings: SettingsView | None = None
    outcome: Outcome | None = None
    basis: PlanBasis | None = None
    marks: tuple[RecordMark, ...] = ()
    failed: bool = False


class ControlServer:
    """`answer` makes the reply."""

    def __init__(self, path: str, answer: Callable[[ControlRequest], Awaitable[ControlReply]]) -> None:
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
                    reply = await self._answer(msgspec.json.decode(line, type=ControlRequest))
                except msgspec.DecodeError as error:
                    reply = ControlReply(ok=False, problem=f"the agent does not understand the request: {error}")
                writer.write(msgspec.json.encode(reply) + b"\n")
                await writer.drain()
        writer.close()

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
