"""Random scenarios from a seed: first faults of every kind, then all is healed, then recovery is demanded.

Swarm style: each seed draws its own size of the domain, its settings, and which kinds of fault it uses at all, so that rare
combinations are not drowned by the usual mixture. The result is a scenario like one that a person wrote, so a failing one
can be shrunk, kept in a file and played again.
"""

import random
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from outlast.model.ids import DatastoreName, HostName, VmName
from outlast.model.time import MILLISECOND, SECOND, Duration
from outlast.scenario.model import DatastoreSpec, HostSpec, Scenario, Step, VmSpec

FAULTS_FOR = 60 * SECOND
LAST_UNDO = 30 * SECOND
RECOVERY = 80 * SECOND
"""After the last heal: a minute for `all-recovered`, the time that a reset host needs to boot, and a little."""

_SIZES = (2, 3, 3, 3, 4, 4, 5, 5, 6, 8)
_LARGE = (12, 16, 24, 32)


def generate(seed: int) -> Scenario:
    """The random scenario of this seed."""
    rng = random.Random(f"scenario {seed}")
    large = rng.randrange(40) == 0
    datastores = _datastores(rng)
    names = [d.name for d in datastores]
    hosts = _hosts(rng, rng.choice(_LARGE if large else _SIZES), names)
    vms = _vms(rng, hosts, names, large)
    trouble = _Trouble(rng, hosts, datastores, vms)
    steps = trouble.steps(FAULTS_FOR if not large else FAULTS_FOR // 3)
    ended = max((step.at for step in steps), default=0)
    run_seed = rng.getrandbits(31)
    settings: dict[str, Any] = {
        "isolation_response": rng.choice(["leave-running", "leave-running", "shut-down", "power-off"])
    }
    vms = _policies(rng, vms)
    if any(vm.after for vm in vms):
        settings["dependency_timeout"] = 10 * SECOND
    return Scenario(
        title=f"random {seed}",
        story=f"Made from seed {seed}: {len(hosts)} hosts, {len(vms)} VMs, faults of the kinds {', '.join(trouble.kinds)}.",
        seed=run_seed,
        duration=Duration(ended + RECOVERY + sum(10 * SECOND for vm in vms if vm.after)),
        settings=settings,
        datastores=datastores,
        hosts=hosts,
        vms=vms,
        steps=steps,
    )


def _datastores(rng: random.Random) -> tuple[DatastoreSpec, ...]:
    bounds = [Duration(SECOND), Duration(SECOND), Duration(SECOND // 5), None]
    return tuple(
        DatastoreSpec(
            name=DatastoreName(f"ds{i + 1}"),
            filesystem=rng.choice(["nfs", "nfs", "cephfs", "ext4"]),
            device=rng.choice(["array-a", f"array-{i}"]),
            in_flight_bound=rng.choice(bounds),
            accept_in_flight_risk=rng.randrange(8) > 0,
        )
        for i in range(rng.choice([1, 2, 2, 3]))
    )


def _hosts(rng: random.Random, count: int, stores: list[DatastoreName]) -> tuple[HostSpec, ...]:
    watchdogs = rng.choice([0, 0, 0, 50, 100])
    nones = rng.choice([0, 0, 0, 30])
    partial = rng.choice([0, 0, 30])

    def host(i: int) -> HostSpec:
        level: Literal["", "none"] = "none" if rng.randrange(100) < nones else ""
        reached = None
        # Two hosts reach everything: a datastore that the elected primary does not reach has nobody who is responsible.
        if rng.randrange(100) < partial and len(stores) > 1 and i > 1:
            reached = tuple(sorted(rng.sample(stores, len(stores) - 1)))
        return HostSpec(
            name=HostName(f"host{i + 1}"),
            cpus=32,
            watchdog=not level and rng.randrange(100) < watchdogs,
            enforcement=level,
            datastores=reached,
        )

    return tuple(host(i) for i in range(count))


def _vms(rng: random.Random, hosts: tuple[HostSpec, ...], stores: list[DatastoreName], large: bool) -> tuple[VmSpec, ...]:
    def vm(i: int) -> VmSpec:
        home = rng.choice(stores)
        able = [h.name for h in hosts if h.datastores is None or home in h.datastores]
        return VmSpec(
            name=VmName(f"vm{i + 1}"),
            datastore=home,
            host=rng.choice(able) if able else HostName(""),
            start_time=Duration(rng.choice([100, 500, 500, 3000]) * MILLISECOND),
            isolation_response=rng.choice([None, None, None, "leave-running", "power-off"]),
        )

    return tuple(vm(i) for i in range(len(hosts) if large else rng.choice([1, 2, 3, 4, 6])))


def _policies(rng: random.Random, vms: tuple[VmSpec, ...]) -> tuple[VmSpec, ...]:
    """In half of the scenarios, policies of the VMs' own. Each waits only for earlier ones: there are no rings."""
    if rng.randrange(2):
        return vms

    def policy(i: int, vm: VmSpec) -> VmSpec:
        earlier = [each.name for each in vms[:i]]
        return msgspec.structs.replace(
            vm,
            priority=rng.choice(["highest", "high", "medium", "medium", "low", "lowest", "disabled"]),
            after=tuple(sorted(rng.sample(earlier, min(i, rng.choice([0, 0, 1, 2]))))),
            ready=rng.choice(["powered-on", "powered-on", "guest-heartbeat", "delay:3s"]),
            max_restarts=rng.choice([-1, 0, 1, 1, 3]),
            max_relocations=rng.choice([-1, 0, 1, 1, 3]),
        )

    return tuple(policy(i, vm) for i, vm in enumerate(vms))


class _Trouble:
    """Draws faults and their undoing. `kinds`: those that this scenario uses."""

    def __init__(
        self,
        rng: random.Random,
        hosts: tuple[HostSpec, ...],
        datastores: tuple[DatastoreSpec, ...],
        vms: tuple[VmSpec, ...],
    ) -> None:
        self._rng = rng
        self._hosts = [h.name for h in hosts]
        self._stores = [d.name for d in datastores]
        self._reach = {h.name: list(h.datastores) if h.datastores is not None else self._stores for h in hosts}
        self._devices = {d.name: d.device for d in datastores}
        self._vms = [v.name for v in vms]
        self._now = 0
        self._steps: list[Step] = []
        every: dict[str, Callable[[], None]] = {
            "power": self._power,
            "reboot": lambda: self._do("reboot", host=self._host(), for_=self._length(500, 30_000)),
            "network": self._network,
            "partition": self._partition,
            "loss": self._loss,
            "isolation-address": self._isolation_address,
            "storage": self._storage,
            "storage-lost": self._storage_lost,
            "storage-slow": self._storage_slow,
            "outage": self._outage,
            "both-cut": self._both_cut,
            "isolated-and-cut": self._cut_then_heal_early,
            "agent-kill": lambda: self._do("agent-kill", host=self._host()),
            "agent-stop": lambda: self._pair("agent-stop", "agent-resume", 30_000, host=self._host()),
            "keeper-kill": lambda: self._do("keeper-kill", host=self._host()),
            "keeper-stop": lambda: self._pair("keeper-stop", "keeper-resume", 12_000, host=self._host()),
            "both-stop": self._both_stop,
            "stall": lambda: self._do("host-stall", host=self._host(), for_=self._length(50, 20_000)),
            "libvirt-kill": lambda: self._do("hypervisor-kill", host=self._host()),
            "libvirt-hang": lambda: self._pair("hypervisor-hang", "hypervisor-resume", 15_000, host=self._host()),
            "crash": lambda: self._do("vm-crash", vm=self._vm()),
            "switch-off": lambda: self._do("vm-power-off", vm=self._vm()),
            "start": lambda: self._do("vm-start-elsewhere", vm=self._vm(), host=self._host()),
            "start-fails": lambda: self._do(
                "start-fails", vm=self._vm(), host=self._host(), times=self._rng.randrange(1, 4)
            ),
            "clock": lambda: self._do("clock-jump", host=self._host(), by=self._rng.choice([-1, 1]) * 3600 * SECOND),
            "damage": self._damage,
        }
        self.kinds = sorted(rng.sample(sorted(every), rng.randrange(2, 12)))
        self._faults = [every[kind] for kind in self.kinds]

    def steps(self, length: int) -> tuple[Step, ...]:
        """Faults for that long, at times that cluster; then everything is healed at once."""
        pace = self._rng.choice([1, 1, 3, 10])
        while self._now < length:
            self._rng.choice(self._faults)()
            pause = self._rng.choice([10, 500, 2000, 5000, 12_000]) * pace
            self._now += self._rng.randrange(1, pause) * MILLISECOND
        self._now = max([length, *(step.at for step in self._steps)]) + SECOND
        self._heal_all()
        return tuple(sorted(self._steps, key=lambda step: step.at))

    # -- drawing --------------------------------------------------------------------------------------------------

    def _host(self) -> HostName:
        return self._rng.choice(self._hosts)

    def _vm(self) -> VmName:
        return self._rng.choice(self._vms)

    def _length(self, least_ms: int, most_ms: int) -> int:
        """Short ones as likely as long ones."""
        return (
            self._rng.randrange(least_ms, self._rng.choice([most_ms // 8, most_ms // 3, most_ms]) + least_ms + 1)
            * MILLISECOND
        )

    def _do(self, verb: str, after: int = 0, **keys: Any) -> None:
        named = {("for" if key == "for_" else key): value for key, value in keys.items()}
        self._steps.append(Step(at=Duration(self._now + after), do=verb, keys=named))

    def _pair(self, verb: str, undo: str, most_ms: int = 30_000, **keys: Any) -> None:
        self._do(verb, **keys)
        self._do(undo, self._length(50, most_ms), **keys)

    # -- faults ---------------------------------------------------------------------------------------------------

    def _power(self) -> None:
        self._pair("power-off", "power-on", host=self._host())

    def _network(self) -> None:
        host = self._host()
        self._do("network-cut", host=host, one_way=self._rng.randrange(3) == 0)
        self._do("network-heal", self._length(50, 30_000), host=host)

    def _partition(self) -> None:
        names = list(self._hosts)
        self._rng.shuffle(names)
        at = self._rng.randrange(1, len(names))
        groups = (tuple(sorted(names[:at])), tuple(sorted(names[at:])))
        self._do("network-cut", between=groups, one_way=self._rng.randrange(3) == 0)
        self._do("network-heal", self._length(50, 30_000), between=groups)

    def _loss(self) -> None:
        host = self._host()
        self._do("network-loss", host=host, percent=self._rng.choice([5, 15, 30, 50]))
        self._do("network-loss", self._length(1000, 30_000), host=host, percent=0)

    def _isolation_address(self) -> None:
        self._do("isolation-address-cut")
        self._do("isolation-address-heal", self._length(1000, 30_000))

    def _path(self) -> tuple[HostName, DatastoreName]:
        host = self._host()
        return host, self._rng.choice(self._reach[host])

    def _storage(self) -> None:
        host, store = self._path()
        self._pair("storage-cut", "storage-heal", host=host, datastore=store)

    def _storage_lost(self) -> None:
        host, store = self._path()
        self._pair("storage-lost", "storage-heal", host=host, datastore=store)

    def _storage_slow(self) -> None:
        host, store = self._path()
        latency = self._rng.choice([20, 300, 1500, 3000, 7000]) * MILLISECOND
        self._do("storage-slow", host=host, datastore=store, latency=latency)
        self._do("storage-slow", self._length(1000, 30_000), host=host, datastore=store, latency=0)

    def _outage(self) -> None:
        device = self._devices[self._rng.choice(self._stores)]
        lasts = self._length(50, 30_000)
        for store in self._stores:
            if self._devices[store] == device:
                self._do("storage-outage", datastore=store)
                self._do("storage-restore", lasts, datastore=store)

    def _both_cut(self) -> None:
        host, lasts = self._host(), self._length(50, 30_000)
        self._do("network-cut", host=host)
        self._do("network-heal", lasts, host=host)
        for store in self._reach[host]:
            self._do("storage-cut", host=host, datastore=store)
            self._do("storage-heal", lasts, host=host, datastore=store)

    def _cut_then_heal_early(self) -> None:
        """Silent on every channel for about as long as a takeover takes: the heal falls among its steps."""
        host, lasts = self._host(), self._rng.randrange(6_500, 10_500) * MILLISECOND
        self._do("network-cut", host=host)
        self._do("network-heal", lasts + self._rng.randrange(4_000) * MILLISECOND, host=host)
        for store in self._reach[host]:
            self._do("storage-cut", self._rng.randrange(1000) * MILLISECOND, host=host, datastore=store)
            self._do("storage-heal", lasts, host=host, datastore=store)

    def _both_stop(self) -> None:
        host = self._host()
        for daemon in ("agent", "keeper"):
            self._do(f"{daemon}-stop", host=host)
            self._do(f"{daemon}-resume", self._length(50, 20_000), host=host)

    def _damage(self) -> None:
        host, store = self._path()
        self._do(self._rng.choice(["record-damage", "record-damage", "record-clone"]), host=host, datastore=store)

    def _heal_all(self) -> None:
        for step in list(self._steps):
            if step.do == "network-cut" and "between" in step.keys:
                self._do("network-heal", between=step.keys["between"])
        self._do("isolation-address-heal")
        for store in self._stores:
            self._do("storage-restore", datastore=store)
        for host in self._hosts:
            self._do("power-on", host=host)
            self._do("network-heal", host=host)
            for verb in ("agent-resume", "keeper-resume", "hypervisor-resume"):
                self._do(verb, host=host)
        for step in list(self._steps):
            if step.do == "start-fails" and step.keys["times"]:
                self._do("start-fails", vm=step.keys["vm"], host=step.keys["host"], times=0)
