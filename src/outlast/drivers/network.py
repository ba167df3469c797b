"""Network heartbeats and orders over UDP: seals what goes out, opens what comes in, counts what is not believed."""

import asyncio
import socket
from collections.abc import Callable

from outlast.codec.datagrams import MAX_BYTES, Opener, Sealer
from outlast.model.errors import OutlastError
from outlast.model.events import Event, Received
from outlast.model.ids import HostId
from outlast.model.inventory import HostMember
from outlast.model.messages import Message


class HeartbeatSocket(asyncio.DatagramProtocol):
    """This host's UDP socket. `happen` receives a `Received` for each authentic datagram."""

    def __init__(
        self,
        me: HostMember,
        members: tuple[HostMember, ...],
        sealer: Sealer,
        opener: Opener,
        happen: Callable[[Event], None],
    ) -> None:
        self._me = me
        self._addresses = {member.id: (member.address, member.port) for member in members}
        self._sealer = sealer
        self.opener = opener
        self._happen = happen
        self._transport: asyncio.DatagramTransport | None = None
        self.unsent = 0

    async def open(self) -> None:
        """Bind. Raises OutlastError naming the address."""
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: self, local_addr=(self._me.address, self._me.port), family=socket.AF_UNSPEC
            )
        except OSError as error:
            where = f"{self._me.address} port {self._me.port}/udp"
            remedy = "check this host's address in [[hosts]], and that no other agent runs here"
            raise OutlastError(f"heartbeats cannot be received on {where}: {error.strerror}", remedy) from None

    def close(self) -> None:
        """Receive nothing more."""
        if self._transport is not None:
            self._transport.close()

    def send(self, to: HostId, message: Message) -> None:
        """Send one message; what cannot be sent is counted, as what is lost on the way would be."""
        address = self._addresses.get(to)
        if self._transport is None or address is None:
            return
        datagram = self._sealer.seal(to, message)
        if len(datagram) > MAX_BYTES:
            self.unsent += 1
            return
        self._transport.sendto(datagram, address)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio: the socket is bound."""
        self._transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Asyncio: something arrived from anybody."""
        opened = self.opener.open(data)
        if opened is not None:
            self._happen(Received(*opened))

    def error_received(self, exc: Exception) -> None:
        """Asyncio: the kernel reports an unreachable peer; silence tells the same."""
        self.unsent += 1
