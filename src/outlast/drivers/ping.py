"""ICMP echo requests through unprivileged sockets, one small task each.

Raw sockets can take a reply to somebody else's ping for their own; the kernel's ping sockets cannot. They need
net.ipv4.ping_group_range to cover our group, which `check` tells.
"""

import asyncio
import contextlib
from collections.abc import Callable

from icmplib import async_ping
from icmplib.exceptions import ICMPLibError, SocketPermissionError

from outlast.model.events import Event, PingAnswered
from outlast.model.ids import HostId


class Pinger:
    """`timeout_s`: how long one echo request waits for its reply."""

    def __init__(self, timeout_s: float, happen: Callable[[Event], None]) -> None:
        self._timeout_s = timeout_s
        self._happen = happen
        self._tasks: set[asyncio.Task[None]] = set()

    def ping(self, host: HostId | None, address: str) -> None:
        """Send one echo request; only an answer is told."""
        task = asyncio.get_running_loop().create_task(self._ping(host, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ping(self, host: HostId | None, address: str) -> None:
        with contextlib.suppress(ICMPLibError, OSError):
            answer = await async_ping(address, count=1, timeout=self._timeout_s, privileged=False)
            if answer.is_alive:
                self._happen(PingAnswered(host, address))


async def problem() -> str:
    """Why no ping can be sent from this process, or an empty string."""
    try:
        await async_ping("127.0.0.1", count=1, timeout=0.2, privileged=False)
    except SocketPermissionError:
        return "unprivileged pings are not allowed: sysctl -w net.ipv4.ping_group_range='0 2147483647'"
    except (ICMPLibError, OSError) as error:
        return f"pings cannot be sent: {error}"
    return ""
