"""The network between hosts: latency, loss, duplicates, and who cannot reach whom. Pings take the ways of datagrams."""

import random

from outlast.model.ids import HostId
from outlast.sim.scheduler import Action, Scheduler

MICROSECOND = 1_000


class Network:
    """`cut`: hosts that nothing reaches and that reach nothing. `muted`: what they send is lost, and they still hear.

    `blocked`: ordered pairs. `loss`: percent, by host. Packets may overtake each other, and a duplicate may come later.
    """

    def __init__(self, scheduler: Scheduler, rng: random.Random, duplicate_permille: int = 0) -> None:
        self._scheduler = scheduler
        self._rng = rng
        self._duplicate = duplicate_permille
        self.cut: set[HostId] = set()
        self.muted: set[HostId] = set()
        self.blocked: set[tuple[HostId, HostId]] = set()
        self.loss: dict[HostId, int] = {}
        self.isolation_address_answers = True
        self.changed_at = 0

    @property
    def whole(self) -> bool:
        """Whether every packet arrives."""
        return not (self.cut or self.muted or self.blocked or any(self.loss.values()))

    def carries(self, source: HostId, target: HostId) -> bool:
        """Whether a packet sent now arrives; random where packets are lost."""
        if source in self.cut or target in self.cut or source in self.muted or (source, target) in self.blocked:
            return False
        if not self.loss:
            return True
        percent = self.loss.get(source, 0) + self.loss.get(target, 0)
        return not percent or self._rng.randrange(100) >= percent

    def connects(self, one: HostId, other: HostId) -> bool:
        """Whether packets pass both ways, as far as nothing is cut."""
        apart = {one, other} & (self.cut | self.muted)
        return not apart and (one, other) not in self.blocked and (other, one) not in self.blocked

    def answers_isolation_ping(self, host: HostId) -> bool:
        """Whether a ping of a host to an isolation address comes back."""
        lost = host in self.cut or host in self.muted or self._rng.randrange(100) < self.loss.get(host, 0)
        return self.isolation_address_answers and not lost

    def latency(self) -> int:
        """One way: 50 to 500 microseconds, now and then up to 20 ms."""
        rare, usual = divmod(self._rng.getrandbits(32), 450)
        if rare % 200 == 0:
            return self._rng.randrange(20_000) * MICROSECOND
        return (50 + usual) * MICROSECOND

    def send(self, source: HostId, target: HostId, arrive: Action) -> None:
        """Carry one packet, if it is carried."""
        if self.carries(source, target):
            self._scheduler.after(self.latency(), arrive)
            if self._duplicate and self._rng.randrange(1000) < self._duplicate:
                self._scheduler.after(self.latency(), arrive)
