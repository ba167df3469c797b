"""A simulated fence device: it cuts a host's power from outside, as unpunctually as real ones do.

    on its way    a command takes a while to reach the device, now and then many seconds; until then it can be called off
    carried out   the power goes, and then the answer comes; every third time the answer comes first: "done" means "begun"
    broken        it answers with an error at once, or hangs: then whoever asked gives up after the level's timeout

Its status is always the truth at the moment at which the device looks. (What one that lies does is in docs/safety.md.)
"""

import random
from collections.abc import Callable
from typing import Protocol

from outlast.model.events import PowerState
from outlast.model.inventory import FenceLevel
from outlast.model.time import MILLISECOND, SECOND, Duration
from outlast.sim.scheduler import Action, Scheduler

LEVEL = FenceLevel("simulated-fence", Duration(10 * SECOND))
"""The one level of every host that has a device."""
BEGUN_FOR = 3 * SECOND
"""How long after its answer a device that has only begun cuts the power."""


class FencedHost(Protocol):
    """What a device sees of its host."""

    powered: bool
    resetting: bool

    def power_off(self) -> None: ...


class FenceDevice:
    """See the top of this file. `on_off` is called when it has cut the power."""

    def __init__(self, host: FencedHost, scheduler: Scheduler, rng: random.Random, on_off: Action) -> None:
        self._host = host
        self._scheduler = scheduler
        self._rng = rng
        self._on_off = on_off
        self.mode = "ok"
        """ok, fails or hangs."""

    @property
    def works(self) -> bool:
        """Whether a command would be carried out."""
        return self.mode == "ok"

    def _way_ms(self) -> int:
        """How long a command is on its way: rarely almost as long as anybody waits."""
        return 50 + self._rng.randrange(self._rng.choice([300, 300, 300, 300, 9_000]))

    def switch_off(self, answer: Callable[[str], None]) -> Action:
        """Cut the power; `answer` gets the problem, or an empty string. Returns what calls it off, if it is in time."""
        called_off: list[bool] = []

        def arrive() -> None:
            if not called_off:
                self._carry_out(answer)

        self._scheduler.after(self._way_ms() * MILLISECOND, arrive)
        return lambda: called_off.append(True)

    def _carry_out(self, answer: Callable[[str], None]) -> None:
        if self.mode == "hangs":
            self._scheduler.after(LEVEL.timeout, lambda: answer("it gave no answer in time"))
        elif self.mode == "fails":
            self._scheduler.after(self._short(), lambda: answer("it refuses the connection"))
        elif self._rng.randrange(3) == 0:
            self._scheduler.after(self._short(), lambda: answer(""))
            self._scheduler.after(self._short() + self._rng.randrange(BEGUN_FOR), self._cut)
        else:
            self._cut()
            self._scheduler.after(self._short(), lambda: answer(""))

    def _cut(self) -> None:
        self._on_off()
        self._host.power_off()

    def _short(self) -> int:
        return (50 + self._rng.randrange(250)) * MILLISECOND

    def status(self, answer: Callable[[PowerState, str], None]) -> None:
        """Say whether it is on or off. A host that its watchdog resets has its power all the time."""

        def look() -> None:
            if self.mode == "hangs":
                self._scheduler.after(LEVEL.timeout, lambda: answer(PowerState.UNKNOWN, "it gave no answer in time"))
            elif self.mode == "fails":
                self._scheduler.after(self._short(), lambda: answer(PowerState.UNKNOWN, "it refuses the connection"))
            else:
                on = self._host.powered or self._host.resetting
                state = PowerState.ON if on else PowerState.OFF
                self._scheduler.after(self._short(), lambda: answer(state, ""))

        self._scheduler.after(self._way_ms() * MILLISECOND, look)
