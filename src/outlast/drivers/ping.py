"""ICMP echo requests through unprivileged sockets, one small task each.

Raw sockets can take a reply to somebody else's ping for their own; the kernel's ping sockets cannot. They need
net.ipv4.ping_group_range to cover our group, which `check` tells.
"""

import asyncio
from collections.abc import Callable

from icmplib import async_ping
from icmplib.exceptions import ICMPLibError, SocketPermissionError

from outlast.model.events import Event, PingAnswered, PingNotSent
from outlast.model.ids import HostId

NOT_ALLOWED = "unprivileged pings are not allowed: sysctl -w net.ipv4.ping_group_range='0 2147483647'"


class Pinger:
    """`timeout_s`: how long one echo request waits for its reply."""

    def __init__(self, timeout_s: float, happen: Callable[[Event], None]) -> None:
        self._timeout_s = timeout_s
        self._happen = happen
        self._tasks: set[asyncio.Task[None]] = set()

    def ping(self, host: HostId | None, address: str) -> None:
        """Send one echo request. An answer is told, and that none could be sent; silence is silence."""
        task = asyncio.get_running_loop().create_task(self._ping(host, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ping(self, host: HostId | None, address: str) -> None:
        problem = ""
        try:
            answer = await async_ping(address, count=1, timeout=self._timeout_s, privileged=False)
        except SocketPermissionError:
            problem = NOT_ALLOWED
        except (ICMPLibError, OSError) as error:
            problem = str(error)
        else:
            if answer.is_alive:
                self._happen(PingAnswered(host, address))
                return
            if answer.packets_sent:
                return
            problem = f"no packet could be sent to {address}: is this host's network up?"
        self._happen(PingNotSent(host, address, problem))


async def problem() -> str:
    """Why no ping can be sent from this process, or an empty string."""
    try:
        await async_ping("127.0.0.1", count=1, timeout=0.2, privileged=False)
    except SocketPermissionError:
        return NOT_ALLOWED
    except (ICMPLibError, OSError) as error:
        return f"pings cannot be sent: {error}"
    return ""
