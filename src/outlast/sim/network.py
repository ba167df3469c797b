"""The network between hosts: latency, loss, and who cannot reach whom. Pings and datagrams take the same ways."""

import random

from outlast.model.ids import HostId
from outlast.sim.scheduler import Action, Scheduler

MICROSECOND = 1_000


class Network:
    """`cut`: hosts that nothing reaches and that reach nothing. `blocked`: ordered pairs. `loss`: percent, by host."""

    def __init__(self, scheduler: Scheduler, rng: random.Random) -> None:
        self._scheduler = scheduler
        self._rng = rng
        self.cut: set[HostId] = set()
        self.muted: set[HostId] = set()
        self.blocked: set[tuple[HostId, HostId]] = set()
        self.loss: dict[HostId, int] = {}
        self.duplicate_percent = 0
        self.isolation_address_answers = True

    def carries(self, source: HostId, target: HostId) -> bool:
        """Whether a packet sent now arrives; random where packets are lost."""
        if source in self.cut or target in self.cut or source in self.muted or (source, target) in self.blocked:
            return False
        percent = self.loss.get(source, 0) + self.loss.get(target, 0)
        return not percent or self._rng.randrange(100) >= percent

    def latency(self) -> int:
        """One way: 50 to 500 microseconds, now and then up to 20 ms."""
        if self._rng.randrange(200) == 0:
            return self._rng.randrange(20_000) * MICROSECOND
        return (50 + self._rng.randrange(450)) * MICROSECOND

    def send(self, source: HostId, target: HostId, arrive: Action) -> None:
        """Carry one packet, if it is carried; packets may overtake each other."""
        if self.carries(source, target):
            self._scheduler.after(self.latency(), arrive)
            if self.duplicate_percent and self._rng.randrange(100) < self.duplicate_percent:
                self._scheduler.after(self.latency(), arrive)
