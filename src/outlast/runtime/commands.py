"""Commands that operators give on this host, on their way: who gave one waits for its answer, nobody else does."""

import asyncio
from collections.abc import Callable

from outlast.drivers import clock
from outlast.model.commands import Command, Outcome
from outlast.model.events import CommandGiven
from outlast.model.ids import HostName


class Commands:
    """`first`: a number higher than those of every earlier agent of this host. `happen` feeds the machine."""

    def __init__(self, host: HostName, first: int, happen: Callable[[CommandGiven], None]) -> None:
        self._host = host
        self._last = first
        self._happen = happen
        self._waiting: dict[int, asyncio.Future[Outcome]] = {}

    async def give(self, command: Command, by: str) -> Outcome:
        """What came of it: when the primary has answered, or when the machine has given up on that."""
        self._last += 1
        number = self._last
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._happen(CommandGiven(number, f"{by or 'somebody'}@{self._host}", clock.wall_ms(), command))
        return await future

    def ended(self, number: int, outcome: Outcome) -> None:
        """The machine says what came of one."""
        future = self._waiting.pop(number, None)
        if future is not None and not future.done():
            future.set_result(outcome)
