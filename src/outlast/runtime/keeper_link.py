"""The agent's connection to its keeper: JSON lines over a UNIX socket, made again for ever when it breaks.

What the keeper says arrives as events. What is asked while the connection is down is lost, and the machine's own
deadlines deal with it; only `KeeperGone` tells it so.
"""

import asyncio
import contextlib
from collections.abc import Callable

import msgspec
import structlog

from outlast.model.events import Event, KeeperAnswered, KeeperDid, KeeperGone, KeeperReported
from outlast.model.keeping import Happened, KeeperMessage, KeeperReply, KeeperReport, KeeperRequest, Subscribe

RECONNECT_S = 0.5
LINE_LIMIT = 1 << 20

_log = structlog.get_logger()


class KeeperLink:
    """`happen` receives the events. Runs as one task from `start` to `stop`."""

    def __init__(self, path: str, happen: Callable[[Event], None]) -> None:
        self._path = path
        self._happen = happen
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._encode = msgspec.json.Encoder().encode
        self._decoder: msgspec.json.Decoder[KeeperMessage] = msgspec.json.Decoder(KeeperMessage)

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """End the connection."""
        if self._task is not None:
            self._task.cancel()

    def ask(self, request: KeeperRequest) -> None:
        """Send a request if there is a connection."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(self._encode(request) + b"\n")

    async def _run(self) -> None:
        while True:
            try:
                with contextlib.suppress(OSError):
                    await self._converse()
            except Exception:
                # Without this task the agent would never hear of its keeper again, and would look well.
                _log.exception("the conversation with the keeper broke off; it is begun anew")
            await asyncio.sleep(RECONNECT_S)

    async def _converse(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._path, limit=LINE_LIMIT)
        self._writer = writer
        try:
            self.ask(Subscribe())
            while (message := await self._next(reader)) is not None:
                self._received(message)
        finally:
            self._writer = None
            writer.close()
            self._happen(KeeperGone())

    async def _next(self, reader: asyncio.StreamReader) -> KeeperMessage | None:
        """None: the connection is over, or this is no keeper that we understand (an upgrade under way)."""
        try:
            line = await reader.readline()
            return self._decoder.decode(line) if line else None
        except ValueError:  # A DecodeError is one, and so is a line beyond the limit.
            return None

    def _received(self, message: KeeperMessage) -> None:
        match message:
            case KeeperReply():
                self._happen(KeeperAnswered(message))
            case KeeperReport():
                self._happen(KeeperReported(message))
            case Happened():
                self._happen(KeeperDid(message))
