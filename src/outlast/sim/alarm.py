"""A daemon's timer on a simulated host: it rings at the deadline of the daemon's machine, by the host's own clock."""

from collections.abc import Callable

from outlast.model.time import Instant
from outlast.sim.machine_host import HostServices
from outlast.sim.scheduler import Timer


class Alarm:
    """Set after every event; most of them leave the deadline as it was, and that costs nothing."""

    def __init__(self, host: HostServices, ring: Callable[[], None]) -> None:
        self._host = host
        self._ring = ring
        self._timer: Timer | None = None
        self._at: Instant | None = None

    def set(self, deadline: Instant | None) -> None:
        """Ring then, and at no other time; None: not at all."""
        if self._timer is not None and deadline == self._at:
            return
        self.cancel()
        if deadline is not None:
            self._timer, self._at = self._host.at_clock(deadline, self._rings), deadline

    def cancel(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rings(self) -> None:
        self._timer = None
        self._ring()
