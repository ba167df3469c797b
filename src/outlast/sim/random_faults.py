"""Random trouble from a seed: first faults of every kind, then all is healed, then recovery is demanded.

Swarm style: each seed draws its own size of the domain, and which kinds of fault it uses at all, so that rare combinations
are not drowned by the usual mixture.
"""

import random
from collections.abc import Callable

import msgspec

from outlast.model.settings import IsolationResponse
from outlast.model.time import SECOND
from outlast.sim.host import Host
from outlast.sim.world import VmSpec, World

SETTLE_S = 90.0


class Outcome(msgspec.Struct, frozen=True):
    """How one run ended. `lost`: wanted VMs that do not run exactly once in the end."""

    seed: int
    events: int
    violations: tuple[str, ...]
    lost: tuple[str, ...]
    story: str


class Trouble:
    """Draws and injects faults into one world; `unwanted`: the VMs that an operator switched off."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self.unwanted: set[str] = set()
        self._acts: dict[str, int] = {}
        every: dict[str, Callable[[], None]] = {
            "power": self._power,
            "network": self._network,
            "partition": self._partition,
            "loss": self._loss,
            "storage": self._storage,
            "storage-fail": self._storage_fail,
            "agent-kill": self._agent_kill,
            "agent-stop": self._agent_stop,
            "keeper-kill": self._keeper_kill,
            "keeper-stop": self._keeper_stop,
            "both-cut": self._both_cut,
            "crash": lambda: self._world.vm_crash(self._vm()),
            "switch-off": self._switch_off,
            "start-elsewhere": lambda: self._start_elsewhere(self._vm()),
            "start-fails": self._start_fails,
            "libvirt": self._libvirt,
            "outage": self._outage,
        }
        kinds = rng.sample(sorted(every), rng.randrange(2, len(every)))
        self._faults = [every[kind] for kind in kinds]

    def inject(self) -> None:
        """One fault; those that last heal by themselves after a while."""
        self._rng.choice(self._faults)()

    def _name(self) -> str:
        return self._rng.choice(sorted(self._world.hosts))

    def _host(self) -> Host:
        return self._world.hosts[self._name()]

    def _vm(self) -> str:
        return self._rng.choice([spec.name for spec in self._world.specs])

    def _lasting(self, undo: Callable[[], None], longest_s: float = 30.0) -> None:
        self._world.scheduler.after(round(self._rng.uniform(0.05, longest_s) * SECOND), undo)

    def _power(self) -> None:
        name = self._name()
        self._world.power_off(name)
        self._lasting(lambda: self._world.power_on(name))

    def _network(self) -> None:
        name = self._name()
        if self._rng.randrange(3):
            self._world.network_cut(name)
        else:
            self._world.domain.network.muted.add(self._world.hosts[name].id)
        self._lasting(lambda: self._world.network_heal(name))

    def _partition(self) -> None:
        names = sorted(self._world.hosts)
        self._rng.shuffle(names)
        at = self._rng.randrange(1, len(names))
        self._world.partition(names[:at], names[at:])
        self._lasting(self._world.partition_heal)

    def _loss(self) -> None:
        name = self._name()
        self._world.network_loss(name, self._rng.randrange(5, 50))
        self._lasting(lambda: self._world.network_heal(name))

    def _store(self) -> str:
        return self._rng.choice(sorted(self._world.domain.stores))

    def _storage(self) -> None:
        name, store = self._name(), self._store()
        self._world.storage(name, store, "hang")
        self._lasting(lambda: self._world.storage(name, store, "ok"))

    def _storage_fail(self) -> None:
        name, store = self._name(), self._store()
        self._world.storage(name, store, "fail")
        self._lasting(lambda: self._world.storage(name, store, "ok"))

    def _outage(self) -> None:
        store = self._store()
        for name in self._world.hosts:
            self._world.storage(name, store, "hang")

        def restore() -> None:
            for name in self._world.hosts:
                self._world.storage(name, store, "ok")

        self._lasting(restore)

    def _both_cut(self) -> None:
        name = self._name()
        self._world.network_cut(name)
        for store in self._world.domain.stores:
            self._world.storage(name, store, "hang")

        def heal() -> None:
            self._world.network_heal(name)
            for store in self._world.domain.stores:
                self._world.storage(name, store, "ok")

        self._lasting(heal)

    def _agent_kill(self) -> None:
        self._host().agent.kill()

    def _keeper_kill(self) -> None:
        self._host().keeper.kill()

    def _agent_stop(self) -> None:
        agent = self._host().agent
        agent.stop()
        self._lasting(agent.resume)

    def _keeper_stop(self) -> None:
        # With its agent well, which is the second freezer; both stopped at once is what nobody promises.
        host = self._host()
        if not host.agent.works:
            return
        keeper = host.keeper
        keeper.stop()
        self._lasting(keeper.resume, 4.0)

    def _operator_acts(self, vm: str) -> int:
        self._acts[vm] = self._acts.get(vm, 0) + 1
        return self._acts[vm]

    def _switch_off(self) -> None:
        vm = self._vm()
        if self._world.processes(vm):
            self._operator_acts(vm)
            self.unwanted.add(vm)
            self._world.vm_power_off(vm)

    def _start_elsewhere(self, vm: str) -> None:
        act, outcome = self._operator_acts(vm), self._world.vm_start(vm, self._name())

        def judge() -> None:
            # Wanted again, unless an operator switched it off meanwhile.
            if outcome == [""] and self._acts[vm] == act:
                self.unwanted.discard(vm)

        self._world.scheduler.after(8 * SECOND, judge)

    def _start_fails(self) -> None:
        self._world.start_fails(self._vm(), self._name(), self._rng.randrange(1, 4))

    def _libvirt(self) -> None:
        name = self._name()
        self._world.hypervisor_mode(name, self._rng.choice(["dead", "hung"]))
        self._lasting(lambda: self._world.hypervisor_mode(name, "up"), 10.0)

    def heal_all(self) -> None:
        """Everything is well again, now."""
        world = self._world
        world.partition_heal()
        for name, host in world.hosts.items():
            world.network_heal(name)
            for store in world.domain.stores:
                world.storage(name, store, "ok")
            host.power_on()
            host.agent.resume()
            host.keeper.resume()
            world.hypervisor_mode(name, "up")
        world.failing_starts.clear()


def run(seed: int, *, faults_s: float = 60.0, keep_story: bool = False) -> Outcome:
    """One world of this seed: what came of it."""
    rng = random.Random(seed)
    hosts = [f"host{i + 1}" for i in range(rng.choice([2, 3, 3, 4, 5]))]
    stores = [f"ds{i + 1}" for i in range(rng.choice([1, 2, 2, 3]))]
    responses: list[IsolationResponse] = ["leave-running", "shut-down", "power-off"]
    response = rng.choice(responses)
    vms = [
        VmSpec(f"vm{i + 1}", rng.choice(hosts), rng.choice(stores), isolation_response=response)
        for i in range(rng.choice([1, 3, 4]))
    ]
    world = World(hosts, stores, vms, seed=rng.getrandbits(32))
    world.settle()
    trouble = Trouble(world, rng)
    left_s = faults_s
    while left_s > 0:
        trouble.inject()
        pause_s = rng.choice([0.01, 0.5, 2.0, 5.0, 12.0]) * rng.random()
        world.run(pause_s)
        left_s -= pause_s + 0.1
    world.run(31.0)
    trouble.heal_all()
    wanted = [spec.name for spec in vms if spec.name not in trouble.unwanted]
    world.run_until(lambda: all(len(world.where(vm)) == 1 for vm in wanted), SETTLE_S, 0.5)
    world.run(5.0)
    lost = tuple(vm for vm in wanted if len(world.where(vm)) != 1)
    violations = tuple(f"{v.at / SECOND:.3f} s {v.invariant}: {v.detail}" for v in world.invariants.violations)
    keep = keep_story or lost or violations
    return Outcome(seed, world.scheduler.events, violations, lost, world.story() if keep else "")
