"""The faults of a random scenario: each kind draws its steps, with those that undo it, at times that cluster.

`KINDS` at the end is the list of them; one more kind is one more line there. What a fault undoes is done once more when
all faults are over, so that nothing is wrong any more from then on, however faults of one kind overlapped.
"""

import random
from collections.abc import Callable
from typing import Any

from outlast.model.ids import DatastoreName, HostName, VmName
from outlast.model.settings import Settings
from outlast.model.time import MILLISECOND, SECOND, Duration
from outlast.scenario.model import DatastoreSpec, HostSpec, Step, VmSpec
from outlast.sim import random_settings


class Trouble:
    """Steps, in the making. Lengths are nanoseconds, but where a name says `ms`."""

    def __init__(
        self,
        rng: random.Random,
        hosts: tuple[HostSpec, ...],
        datastores: tuple[DatastoreSpec, ...],
        vms: tuple[VmSpec, ...],
        settings: Settings,
    ) -> None:
        """Draws `kinds`, the kinds of fault that this scenario uses."""
        self.rng = rng
        self.hosts = [h.name for h in hosts]
        self.stores = [d.name for d in datastores]
        self.reach = {h.name: list(h.datastores) if h.datastores is not None else self.stores for h in hosts}
        self.devices = {d.name: d.device for d in datastores}
        self.settings = settings
        self._vms = [v.name for v in vms]
        self.time = 0
        self._steps: list[Step] = []
        self._undoing: list[tuple[str, dict[str, Any]]] = []
        self.kinds = sorted(rng.sample(sorted(KINDS), rng.randrange(2, 12)))

    def steps(self, length: int) -> tuple[Step, ...]:
        """Faults for that long; then everything is healed at once."""
        pace = self.rng.choice([1, 1, 3, 10])
        while self.time < length:
            KINDS[self.rng.choice(self.kinds)](self)
            pause = self.rng.choice([10, 500, 2000, 5000, 12_000]) * pace
            self.time += self.rng.randrange(1, pause) * MILLISECOND
        self.time = max([length, *(step.at for step in self._steps)]) + SECOND
        for verb, keys in self._undoing:
            self.do(verb, **keys)
        return tuple(sorted(self._steps, key=lambda step: step.at))

    # -- drawing --------------------------------------------------------------------------------------------------

    def host(self) -> HostName:
        """Any host."""
        return self.rng.choice(self.hosts)

    def vm(self) -> VmName:
        """Any VM."""
        return self.rng.choice(self._vms)

    def path(self) -> dict[str, Any]:
        """A host and a datastore that it reaches."""
        host = self.host()
        return {"host": host, "datastore": self.rng.choice(self.reach[host])}

    def length(self, least_ms: int, most_ms: int) -> int:
        """Short ones as likely as long ones."""
        most = self.rng.choice([most_ms // 8, most_ms // 3, most_ms])
        return self.rng.randrange(least_ms, most + least_ms + 1) * MILLISECOND

    def reboots(self) -> dict[str, Any]:
        """In every second shutdown, with the time that the power is off. Drawn apart: all else goes by the seed alone."""
        rng = random.Random(f"reboot {self.time}")
        return {"reboot": True, "for": Duration(rng.randrange(1_000, 60_000) * MILLISECOND)} if rng.randrange(2) else {}

    # -- steps ----------------------------------------------------------------------------------------------------

    def do(self, verb: str, after: int = 0, **keys: Any) -> None:
        """One step, so long after now. The key `for` is `for_` here."""
        named = {("for" if key == "for_" else key): value for key, value in keys.items()}
        self._steps.append(Step(at=Duration(self.time + after), do=verb, keys=named))

    def undo(self, verb: str, after: int | None, **keys: Any) -> None:
        """One step that undoes something: after a while (None: not yet), and once more at the end of all faults."""
        if after is not None:
            self.do(verb, after, **keys)
        if (verb, keys) not in self._undoing:
            self._undoing.append((verb, keys))

    def pair(self, verb: str, undo: str, most_ms: int = 30_000, **keys: Any) -> None:
        """A step, and after a while the one that undoes it."""
        self.do(verb, **keys)
        self.undo(undo, self.length(50, most_ms), **keys)


# -- power ----------------------------------------------------------------------------------------------------------------


def _reboot(t: Trouble) -> None:
    host = t.host()
    t.do("reboot", host=host, for_=t.length(500, 30_000))
    t.undo("power-on", None, host=host)


def _flapping(t: Trouble) -> None:
    host, at = t.host(), 0
    for _ in range(t.rng.randrange(2, 6)):
        t.do("power-off", at, host=host)
        at += t.length(50, 8_000)
        t.undo("power-on", at, host=host)
        at += t.length(50, 15_000)


def _shut_down(t: Trouble) -> None:
    host = t.host()
    t.do("shut-down", host=host, **t.reboots())
    t.undo("power-on", t.length(1_000, 60_000), host=host)


# -- network --------------------------------------------------------------------------------------------------------------


def _network(t: Trouble) -> None:
    host = t.host()
    t.do("network-cut", host=host, one_way=t.rng.randrange(3) == 0)
    t.undo("network-heal", t.length(50, 30_000), host=host)


def _vm_network(t: Trouble) -> None:
    t.pair("network-cut", "network-heal", host=t.host(), network="vm")


def _partition(t: Trouble) -> None:
    names = list(t.hosts)
    t.rng.shuffle(names)
    cuts = sorted(t.rng.sample(range(1, len(names)), min(t.rng.choice([1, 1, 1, 2]), len(names) - 1)))
    groups = tuple(tuple(sorted(names[a:b])) for a, b in zip([0, *cuts], [*cuts, len(names)], strict=True))
    t.do("network-cut", between=groups, one_way=t.rng.randrange(3) == 0)
    t.undo("network-heal", t.length(50, 30_000), between=groups)


def _loss(t: Trouble) -> None:
    host = t.host()
    t.do("network-loss", host=host, percent=t.rng.choice([5, 15, 30, 50]))
    t.undo("network-loss", t.length(1000, 30_000), host=host, percent=0)


def _isolation_address(t: Trouble) -> None:
    t.do("isolation-address-cut")
    t.undo("isolation-address-heal", t.length(1000, 30_000))


# -- storage --------------------------------------------------------------------------------------------------------------


def _storage_slow(t: Trouble) -> None:
    path = t.path()
    t.do("storage-slow", **path, latency=t.rng.choice([20, 300, 1500, 3000, 7000]) * MILLISECOND)
    t.undo("storage-slow", t.length(1000, 30_000), **path, latency=0)


def _outage(t: Trouble) -> None:
    """An array hangs, or gives errors, for every host."""
    device, lasts, errors = t.devices[t.rng.choice(t.stores)], t.length(50, 30_000), t.rng.randrange(3) == 0
    for store in (name for name in t.stores if t.devices[name] == device):
        _out(t, store, errors)
        t.undo("storage-restore", lasts, datastore=store)


def _out(t: Trouble, store: DatastoreName, errors: bool) -> None:
    if not errors:
        t.do("storage-outage", datastore=store)
        return
    for host in (name for name in t.hosts if store in t.reach[name]):
        t.do("storage-lost", host=host, datastore=store)


# -- network and storage at once ------------------------------------------------------------------------------------------


def _both_cut(t: Trouble) -> None:
    _cut_off(t, t.host(), t.length(50, 30_000))


def _switch(t: Trouble) -> None:
    """The switch that carries everything: nobody reaches anybody, nor any storage."""
    lasts = t.length(50, 30_000)
    for host in t.hosts:
        _cut_off(t, host, lasts)


def _cut_off(t: Trouble, host: HostName, lasts: int) -> None:
    t.do("network-cut", host=host)
    t.undo("network-heal", lasts, host=host)
    for store in t.reach[host]:
        t.do("storage-cut", host=host, datastore=store)
        t.undo("storage-heal", lasts, host=host, datastore=store)


def _cut_then_heal_early(t: Trouble) -> None:
    """Silent on every channel for about as long as a takeover takes: the heal falls among its steps."""
    host, lasts = t.host(), t.settings.window + t.rng.randrange(-1_000, 3_000) * MILLISECOND
    t.do("network-cut", host=host)
    t.undo("network-heal", lasts + t.rng.randrange(4_000) * MILLISECOND, host=host)
    for store in t.reach[host]:
        t.do("storage-cut", t.rng.randrange(1000) * MILLISECOND, host=host, datastore=store)
        t.undo("storage-heal", lasts, host=host, datastore=store)


# -- daemons, VMs and records ---------------------------------------------------------------------------------------------


def _both_stop(t: Trouble) -> None:
    host = t.host()
    for daemon in ("agent", "keeper"):
        t.do(f"{daemon}-stop", host=host)
        t.undo(f"{daemon}-resume", t.length(50, 20_000), host=host)


def _off_and_on(t: Trouble) -> None:
    """An operator switches a VM off, and starts it again, perhaps before anybody has noticed."""
    vm = t.vm()
    t.do("vm-power-off", vm=vm)
    t.do("vm-start", t.length(10, 12_000), vm=vm, host=t.host())


def _start_fails(t: Trouble) -> None:
    vm, host = t.vm(), t.host()
    t.do("start-fails", vm=vm, host=host, times=t.rng.randrange(1, 4))
    t.undo("start-fails", None, vm=vm, host=host, times=0)


def _fencing(t: Trouble) -> None:
    host = t.host()
    t.do("fencing-break", host=host, how=t.rng.choice(["fails", "hangs"]))
    t.undo("fencing-mend", t.length(50, 30_000), host=host)


def _wish(t: Trouble) -> None:
    vm = t.vm()
    t.do("set-state", vm=vm, state=t.rng.choice(["stopped", "stopped", "unprotected", "running"]))
    t.undo("set-state", t.length(50, 40_000), vm=vm, state="running")


def _health(t: Trouble) -> None:
    host = t.host()
    t.do("health", host=host, level=t.rng.choice(["degraded", "failing"]))
    t.undo("health", t.length(50, 40_000), host=host, level="ok")


def _guest_hang(t: Trouble) -> None:
    """How it hangs is drawn apart, and only where it matters: all else goes by the seed as ever."""
    vm, keys = t.vm(), {}
    if t.settings.guest_monitoring == "on":
        apart = random.Random(f"hang {vm} {t.time}")
        keys = {key: True for key in ("io", "lasting") if apart.randrange(3) == 0}
    t.do("vm-hang", vm=vm, **keys)


def _migrations(t: Trouble) -> None:
    """An operator moves VMs about, now and then the same one on and on."""
    vm, at = t.vm(), 0
    for _ in range(t.rng.randrange(1, 4)):
        t.do("migrate", at, vm=vm, host=t.host())
        at += t.length(10, 8_000)
        vm = t.rng.choice([vm, t.vm()])


KINDS: dict[str, Callable[[Trouble], None]] = {
    "power": lambda t: t.pair("power-off", "power-on", host=t.host()),
    "reboot": _reboot,
    "flapping": _flapping,
    "shut-down": _shut_down,
    "stall": lambda t: t.do("host-stall", host=t.host(), for_=t.length(50, 20_000)),
    "network": _network,
    "vm-network": _vm_network,
    "partition": _partition,
    "loss": _loss,
    "isolation-address": _isolation_address,
    "storage": lambda t: t.pair("storage-cut", "storage-heal", **t.path()),
    "storage-lost": lambda t: t.pair("storage-lost", "storage-heal", **t.path()),
    "storage-slow": _storage_slow,
    "outage": _outage,
    "both-cut": _both_cut,
    "switch": _switch,
    "isolated-and-cut": _cut_then_heal_early,
    "agent-kill": lambda t: t.do("agent-kill", host=t.host()),
    "agent-stop": lambda t: t.pair("agent-stop", "agent-resume", host=t.host()),
    "keeper-kill": lambda t: t.do("keeper-kill", host=t.host()),
    "keeper-stop": lambda t: t.pair("keeper-stop", "keeper-resume", 12_000, host=t.host()),
    "both-stop": _both_stop,
    "libvirt-kill": lambda t: t.do("hypervisor-kill", host=t.host()),
    "libvirt-hang": lambda t: t.pair("hypervisor-hang", "hypervisor-resume", 15_000, host=t.host()),
    "crash": lambda t: t.do("vm-crash", vm=t.vm()),
    "guest-hang": _guest_hang,
    "switch-off": lambda t: t.do("vm-power-off", vm=t.vm()),
    "off-and-on": _off_and_on,
    "start": lambda t: t.do("vm-start-elsewhere", vm=t.vm(), host=t.host()),
    "start-fails": _start_fails,
    "fencing": _fencing,
    "clock": lambda t: t.do("clock-jump", host=t.host(), by=t.rng.choice([-1, 1]) * 3600 * SECOND),
    "damage": lambda t: t.do(t.rng.choice(["record-damage", "record-damage", "record-clone"]), **t.path()),
    "newer": lambda t: t.pair("record-newer", "record-older", host=t.host()),
    "settings": lambda t: t.do("set", **dict[str, Any](random_settings.one(t.rng))),
    "pause": lambda t: t.pair("pause", "resume", 20_000),
    "wish": _wish,
    "maintenance": lambda t: t.pair("maintenance-on", "maintenance-off", 40_000, host=t.host()),
    "health": _health,
    "migrate": _migrations,
}
"""Each draws one fault, at the present moment of the scenario."""
