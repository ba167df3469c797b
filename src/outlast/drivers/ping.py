"""ICMP echo requests through unprivileged sockets, one small task each.

Raw sockets can take a reply to somebody else's ping for their own; the kernel's ping sockets cannot. They need
net.ipv4.ping_group_range to cover our group, which `check` tells.
"""

import asyncio
from collections.abc import Callable

import structlog
from icmplib import async_ping
from icmplib.exceptions import ICMPLibError, SocketPermissionError

from outlast.model.events import Event, PingAnswered, PingNotSent
from outlast.model.ids import HostId

NOT_ALLOWED = "unprivileged pings are not allowed: sysctl -w net.ipv4.ping_group_range='0 2147483647'"
_log = structlog.get_logger()


class Pinger:
    """`timeout_s`: how long one echo request waits for its reply."""

    def __init__(self, timeout_s: float, happen: Callable[[Event], None]) -> None:
        self.timeout_s = timeout_s
        self._happen = happen
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsent: dict[str, str] = {}

    def ping(self, host: HostId | None, address: str) -> None:
        """Send one echo request. An answer is told, and that none could be sent; silence is silence."""
        task = asyncio.get_running_loop().create_task(self._ping(host, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ping(self, host: HostId | None, address: str) -> None:
        why = await _ping_once(address, self.timeout_s, lambda: self._happen(PingAnswered(host, address)))
        if why:
            self._not_sent(host, address, why)
        else:
            self._unsent.pop(address, None)

    def _not_sent(self, host: HostId | None, address: str, why: str) -> None:
        """Silence after a ping that never left is not the other host's silence, which rule 6 trusts. Logged once each."""
        self._happen(PingNotSent(host, address, why))
        if self._unsent.get(address) != why:
            self._unsent[address] = why
            _log.warning("a ping cannot be sent", address=address, host=host, problem=why)


async def _ping_once(address: str, timeout_s: float, answered: Callable[[], None]) -> str:
    """Why no echo request left this host, or an empty string."""
    try:
        answer = await async_ping(address, count=1, timeout=timeout_s, privileged=False)
    except SocketPermissionError:
        return NOT_ALLOWED
    except (ICMPLibError, OSError) as error:
        return str(error)
    if answer.is_alive:
        answered()
    # The library keeps quiet about why it could not send: no route, an address that is gone, a packet filter.
    return "" if answer.packets_sent else "the network of this host takes none: no route, or a packet filter"


async def problem() -> str:
    """Why no ping can be sent from this process, or an empty string."""
    why = await _ping_once("127.0.0.1", 0.2, lambda: None)
    return f"pings cannot be sent: {why}" if why else ""
