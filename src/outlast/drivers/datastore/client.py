"""The agent's side of an I/O helper: requests with deadlines over asyncio.

A request that is not answered in time is given up, not cancelled: the helper is still in it. Until it answers, new
requests are refused at once, so that nothing queues up behind hung storage. Answers to what was given up are dropped. A
helper that ended is started again, at most once in `RESPAWN_S`.

Requests go out one after the other, each as a whole. One that could not be sent in time leaves half a message behind, to
which nothing can be added and no answer will come: its helper is ended too.
"""

import asyncio
import contextlib
import errno
import time

import msgspec

from outlast.drivers.datastore.helper_process import HelperProcess
from outlast.drivers.datastore.wire import Answer, Failed, Inbox, Op, Request, Result, pack
from outlast.model.ids import HostId
from outlast.model.inventory import DatastoreMember

DEADLINE_S = 2.5
RESPAWN_S = 2.0


class HelperClient:
    """One datastore, through one helper. Everything runs on one event loop."""

    def __init__(self, member: DatastoreMember, domain: str, host: HostId, role: str) -> None:
        self._member = member
        self._arguments = (member.path, member.name, domain, host, role)
        self._helper: HelperProcess | None = None
        self._started_at = -RESPAWN_S
        self._inbox = Inbox(Answer)
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Result]] = {}
        self._overdue: dict[int, float] = {}
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()

    async def ask(self, op: Op) -> Result:
        """The result, or `Failed` when none came within 2.5 seconds. Never raises for what storage does."""
        refusal = self._refusal()
        if refusal:
            return Failed(refusal)
        self._number += 1
        number = self._number
        future: asyncio.Future[Result] = self._loop.create_future()
        self._waiting[number] = future
        sent = False
        try:
            async with asyncio.timeout(DEADLINE_S):
                async with self._sending:
                    if not future.done():  # Else the helper ended while we waited for our turn.
                        await self._send(pack(Request(number, op)))
                        sent = True
                return await future
        except TimeoutError:
            if future.done() and not future.cancelled():
                return future.result()
            if sent:
                self._overdue[number] = time.monotonic()
            return Failed(f"{self._member.name} gave no answer within {DEADLINE_S:g} s: its storage hangs")
        except OSError as error:
            self._ended()
            return Failed(f"the I/O helper of {self._member.name} ended: {error.strerror}")
        finally:
            self._waiting.pop(number, None)

    def _refusal(self) -> str:
        if self._helper is not None and self._overdue:
            waited = time.monotonic() - next(iter(self._overdue.values())) + DEADLINE_S
            return f"{self._member.name} has not answered for {waited:.0f} s: its storage hangs"
        if self._helper is None:
            if time.monotonic() - self._started_at < RESPAWN_S:
                return f"the I/O helper of {self._member.name} does not run; a new one is started soon"
            return self._start()
        return ""

    def _start(self) -> str:
        """Why there is no helper now, or an empty string."""
        self._started_at = time.monotonic()
        try:
            self._helper = HelperProcess(*self._arguments)
        except OSError as error:
            return f"the I/O helper of {self._member.name} cannot be started ({error.strerror}); it is tried again soon"
        self._inbox = Inbox(Answer)
        self._loop.add_reader(self._helper.connection, self._readable)
        return ""

    async def _send(self, data: bytes) -> None:
        if self._helper is None:
            raise BrokenPipeError(errno.EPIPE, "it does not run")
        try:
            await self._loop.sock_sendall(self._helper.connection, data)
        except asyncio.CancelledError:
            self._ended(f"{self._member.name} takes no request within {DEADLINE_S:g} s: its storage hangs")
            raise

    def _readable(self) -> None:
        if self._helper is None:
            return
        try:
            data = self._helper.connection.recv(1 << 18)
            if not data:
                raise ConnectionResetError(0, "it was ended")
            answers = self._inbox.feed(data)
        except BlockingIOError:
            return
        except (OSError, ValueError, msgspec.DecodeError):
            self._ended()
            return
        for answer in answers:
            self._overdue.pop(answer.number, None)
            future = self._waiting.get(answer.number)
            if future is not None and not future.done():
                future.set_result(answer.result)

    def _ended(self, why: str = "") -> None:
        """End the helper, and answer whoever waits for it."""
        helper, self._helper = self._helper, None
        if helper is None:
            return
        self._loop.remove_reader(helper.connection)
        helper.end()
        self._overdue.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_result(Failed(why or f"the I/O helper of {self._member.name} ended"))

    def close(self) -> None:
        """End the helper."""
        with contextlib.suppress(OSError):
            self._ended()
