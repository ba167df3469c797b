"""A simulated watchdog device: it resets a host that has not petted it for its timeout, also one that stands still."""

from collections.abc import Callable

from outlast.sim.scheduler import Scheduler


class WatchdogDevice:
    """Armed by the first pet of a boot; `fire` resets the host."""

    def __init__(self, scheduler: Scheduler, timeout: int, fire: Callable[[], None]) -> None:
        self._scheduler = scheduler
        self._timeout = timeout
        self._fire = fire
        self._deadline: int | None = None
        self._looks = False

    def pet(self) -> None:
        """Keep it from firing for another `timeout`."""
        self._deadline = self._scheduler.now + self._timeout
        if not self._looks:
            self._looks = True
            self._scheduler.at(self._deadline, self._look)

    def disarm(self) -> None:
        """It never fires again, unless somebody pets it."""
        self._deadline = None

    def _look(self) -> None:
        self._looks = False
        if self._deadline is None:
            return
        if self._scheduler.now < self._deadline:
            self._looks = True
            self._scheduler.at(self._deadline, self._look)
            return
        self._deadline = None
        self._fire()
