"""What the agent asks of guests through libvirt: whether they answer, and to be reset. Nobody waits for it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import libvirt

from outlast.drivers.hypervisor import guest_agent, last_sight
from outlast.drivers.hypervisor.domains import parse
from outlast.model.events import Event, GuestLookedAt, GuestProbed, GuestReset
from outlast.model.ids import RequestId, VmId

AT_ONCE = 8
"""As many as the agent asks at one time: for readiness, and for those that are watched."""
KEEP_TIMEOUT_S = 5.0
"""How long a reset waits until what the guest shows is kept."""


class Libvirt(Protocol):
    """`Hypervisor`, as far as it is needed here."""

    @property
    def connection(self) -> Any: ...
    def call(self, work: Callable[..., Any], *arguments: Any) -> Awaitable[Any]: ...
    def spawn(self, work: Coroutine[Any, Any, None]) -> None: ...


class Guests:
    """See the top of this file. `directory` is where the last sight of guests is kept."""

    def __init__(self, libvirtd: Libvirt, happen: Callable[[Event], None], directory: Path) -> None:
        self._libvirt = libvirtd
        self._happen = happen
        self._directory = directory
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="guest-agent")

    def stop(self) -> None:
        """No more calls."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def probe(self, request: RequestId, vm: VmId) -> None:
        """Ask the guest agent whether it is there; answered by `GuestProbed`, or never if libvirt hangs."""

        async def work() -> None:
            connection, answered = self._libvirt.connection, False
            if connection is not None:
                answered = await self._loop.run_in_executor(self._pool, guest_agent.answers, connection, vm)
            self._happen(GuestProbed(request, vm, answered))

        self._libvirt.spawn(work())

    def look(self, request: RequestId, vm: VmId) -> None:
        """The same, and a look from outside at one that does not answer; answered by `GuestLookedAt`, or never."""

        async def work() -> None:
            connection = self._libvirt.connection
            if connection is not None:
                found = await self._loop.run_in_executor(self._pool, guest_agent.look, connection, vm)
                self._happen(GuestLookedAt(request, vm, *found))

        self._libvirt.spawn(work())

    def reset(self, request: RequestId, vm: VmId) -> None:
        """Keep what it shows, as far as that is quick, and reset it; answered by `GuestReset`."""

        async def work() -> None:
            connection = self._libvirt.connection
            if connection is None:
                self._happen(GuestReset(request, vm, False, "libvirt is not connected"))
                return
            kept = await self._last_sight(connection, vm)
            try:
                await self._libvirt.call(_reset, connection, vm)
                self._happen(GuestReset(request, vm, True, kept=kept))
            except libvirt.libvirtError as error:
                self._happen(GuestReset(request, vm, False, str(error.get_error_message() or error), kept))
            except TimeoutError:
                self._happen(GuestReset(request, vm, False, "libvirtd gave no answer", kept))

        self._libvirt.spawn(work())

    async def _last_sight(self, connection: Any, vm: VmId) -> str:
        future = self._loop.run_in_executor(self._pool, last_sight.keep, connection, vm, self._directory)
        try:
            return await asyncio.wait_for(asyncio.shield(future), KEEP_TIMEOUT_S)
        except TimeoutError:
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            return f"what it showed was not kept within {KEEP_TIMEOUT_S:g} s"


def _reset(connection: Any, vm: str) -> None:
    """Raises libvirtError. A machine that ends where others begin anew is left alone."""
    domain = connection.lookupByUUIDString(vm)
    if parse(domain.XMLDesc(0)).findtext("on_reboot") == "destroy":
        raise libvirt.libvirtError("a reset would end it: its definition says on_reboot destroy; set it to restart")
    domain.reset(0)
