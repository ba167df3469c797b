"""Those who ask the keeper: JSON lines over a UNIX socket that root alone may open.

Nobody who is slow, silent or speaks nonsense holds the keeper up: what cannot be sent is kept up to a limit, and then the
connection is ended.
"""

import contextlib
import os
import selectors
import socket
from collections.abc import Callable

import msgspec

from outlast.model.keeper_events import Asked, ClientGone, KeeperEvent
from outlast.model.keeping import KeeperMessage, KeeperRequest, Subscribe

_MAX_LINE = 1 << 18
_MAX_BACKLOG = 4 << 20


class _Client:
    def __init__(self, number: int, connection: socket.socket) -> None:
        self.number = number
        self.connection = connection
        self.received = bytearray()
        self.unsent = bytearray()
        self.subscribed = False


class Clients:
    """The keeper's socket and its connections."""

    def __init__(self, path: str, selector: selectors.BaseSelector, happen: Callable[[KeeperEvent], None]) -> None:
        """A stale socket is replaced: the lock says that we are the only keeper. Raises OSError if it cannot be made."""
        self._selector = selector
        self._happen = happen
        self._clients: dict[int, _Client] = {}
        self._number = 0
        self._decoder = msgspec.json.Decoder(KeeperRequest)
        self._encode = msgspec.json.Encoder().encode
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        old_mask = os.umask(0o177)
        try:
            self._listener.bind(path)
        finally:
            os.umask(old_mask)
        self._listener.listen(64)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self, _: int) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        self._number += 1
        client = _Client(self._number, connection)
        self._clients[client.number] = client
        self._selector.register(connection, selectors.EVENT_READ, lambda mask: self._ready(client, mask))

    def _ready(self, client: _Client, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._flush(client)
        if not mask & selectors.EVENT_READ or client.number not in self._clients:
            return
        try:
            data = client.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.received += data
        if not data or len(client.received) > _MAX_LINE:
            self._end(client)
            return
        *lines, rest = bytes(client.received).split(b"\n")
        client.received = bytearray(rest)
        for line in lines:
            self._line(client, line)

    def _line(self, client: _Client, line: bytes) -> None:
        try:
            request = self._decoder.decode(line)
        except msgspec.DecodeError:
            self._end(client)
            return
        if isinstance(request, Subscribe):
            client.subscribed = True
        self._happen(Asked(client.number, request))

    def send(self, number: int, message: KeeperMessage) -> None:
        """Send to one client, if it is still there."""
        client = self._clients.get(number)
        if client is not None:
            client.unsent += self._encode(message) + b"\n"
            self._flush(client)

    def broadcast(self, message: KeeperMessage) -> None:
        """Send to every subscriber."""
        line = self._encode(message) + b"\n"
        for client in list(self._clients.values()):
            if client.subscribed:
                client.unsent += line
                self._flush(client)

    def _flush(self, client: _Client) -> None:
        try:
            while client.unsent:
                del client.unsent[: client.connection.send(client.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._end(client)
            return
        if len(client.unsent) > _MAX_BACKLOG:
            self._end(client)
            return
        mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        self._selector.modify(client.connection, mask, lambda ready: self._ready(client, ready))

    def _end(self, client: _Client) -> None:
        if self._clients.pop(client.number, None) is not None:
            self._selector.unregister(client.connection)
            client.connection.close()
            self._happen(ClientGone(client.number))
