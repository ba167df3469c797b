"""The whole simulated world: builds a fault domain, lets things happen to it, and keeps the timeline.

The verbs (`power_off`, `network_cut`, ...) are those of the scenario language. Times are nanoseconds of true time.
"""

import random
from collections.abc import Callable, Iterable

import msgspec

from outlast.model.effects import Note
from outlast.model.events import StopReason
from outlast.model.ids import DatastoreName, HostId, HostName, VmId, VmName
from outlast.model.inventory import DatastoreMember, HostMember, VmDefinition
from outlast.model.keeping import Happened
from outlast.model.records import RegisterRecord
from outlast.model.settings import IsolationResponse, Settings
from outlast.model.time import SECOND
from outlast.sim.datastore import Datastore
from outlast.sim.domain import Domain
from outlast.sim.host import Host
from outlast.sim.invariants import Invariants
from outlast.sim.network import Network
from outlast.sim.scheduler import Scheduler


class Entry(msgspec.Struct, frozen=True):
    """One line of the timeline."""

    at: int
    host: str
    kind: str
    text: str


class VmSpec(msgspec.Struct, frozen=True):
    """One VM at the start of a world. `host` empty: it does not run."""

    name: str
    host: str
    datastore: str
    memory_mib: int = 2048
    protected: bool = True
    isolation_response: IsolationResponse | None = None


class World:
    """Names are ids here: host "host1" has the id "host1"."""

    def __init__(
        self,
        hosts: Iterable[str],
        datastores: Iterable[str],
        vms: Iterable[VmSpec],
        *,
        settings: Settings | None = None,
        seed: int = 0,
        powered: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.scheduler = Scheduler()
        self.rng = random.Random(seed)
        self.invariants = Invariants()
        self.timeline: list[Entry] = []
        self.starts: dict[VmId, list[tuple[int, HostId]]] = {}
        self.failing_starts: dict[tuple[str, str], int] = {}
        self._seen: set[tuple[VmId, HostId, int, int]] = set()
        network = Network(self.scheduler, random.Random(self.rng.getrandbits(64)))
        names = tuple(datastores)
        stores = {DatastoreName(n): Datastore(DatastoreName(n), "nfs", f"array-{n}") for n in names}
        members = tuple(HostMember(HostId(n), HostName(n), f"192.0.2.{i + 1}", 7710) for i, n in enumerate(hosts))
        self.domain = Domain(
            settings or Settings(),
            members,
            tuple(DatastoreMember(DatastoreName(n), f"/srv/{n}", SECOND) for n in names),
            stores,
            network,
        )
        for store in stores.values():
            store.on_link = self._linked
        self.hosts: dict[str, Host] = {}
        for member in members:
            host = Host(member.id, self.domain, self.scheduler, random.Random(self.rng.getrandbits(64)))
            host.on_note, host.on_happened, host.on_process = self._noted, self._happened, self._process_changed
            host.start_failures = self._start_fails
            self.hosts[member.name] = host
        for host in self.hosts.values():
            host.peers = {h.id: h for h in self.hosts.values()}
        self.specs = tuple(vms)
        for spec in self.specs:
            self._define(spec)
        for name, host in self.hosts.items():
            if powered(name):
                host.power_on()

    def _define(self, spec: VmSpec) -> None:
        vm, home = VmId(spec.name), DatastoreName(spec.datastore)
        definition = VmDefinition(
            vm=vm,
            name=VmName(spec.name),
            home=home,
            datastores=(home,),
            memory_mib=spec.memory_mib,
            protected=spec.protected,
            unprotectable="",
            isolation_response=spec.isolation_response,
            xml=f"<domain>{spec.name}</domain>",
        )
        self.domain.definitions[vm] = definition
        if spec.host:
            self.hosts[spec.host].definitions[vm] = definition

    # -- time -----------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """True time."""
        return self.scheduler.now

    def run(self, seconds: float) -> None:
        """Let that much time pass."""
        self.scheduler.run_until(self.scheduler.now + round(seconds * SECOND))

    def run_until(self, condition: Callable[[], bool], within_s: float, step_s: float = 0.05) -> float | None:
        """Let time pass until something is true: how many seconds it took; None if it did not become true in time."""
        began = self.scheduler.now
        while not condition():
            if self.scheduler.now - began > within_s * SECOND:
                return None
            self.run(step_s)
        return (self.scheduler.now - began) / SECOND

    def settle(self) -> None:
        """Start every VM where it should run, and let the domain come to rest."""
        self.run(8)
        for spec in self.specs:
            if spec.host:
                self.vm_start(spec.name, spec.host)
        self.run(12)

    # -- what is true ---------------------------------------------------------------------------------------------

    def where(self, vm: str) -> list[str]:
        """The hosts on which a VM executes now."""
        return sorted(self.invariants.executing(VmId(vm)))

    def processes(self, vm: str) -> dict[str, tuple[int, bool]]:
        """(pid, whether it executes) by host."""
        return {
            name: (process.pid, process.executing)
            for name, host in self.hosts.items()
            if (process := host.hypervisor.processes.get(VmId(vm))) is not None
        }

    def primaries(self) -> list[str]:
        """The hosts whose agents take themselves for primary."""
        return [
            n for n, h in self.hosts.items() if h.agent.works and h.agent.machine and h.agent.machine.election.am_primary
        ]

    def verdict(self, host: str) -> str:
        """The verdict about a host by the primary (the first, if there are several)."""
        for primary in self.primaries():
            if primary != host:
                machine = self.hosts[primary].agent.machine
                if machine is not None:
                    return str(machine.known.verdict(HostId(host)))
        return "unknown"

    # -- verbs ----------------------------------------------------------------------------------------------------

    def power_off(self, host: str) -> None:
        """Pull the plug."""
        self._entry(host, "fault", "loses its power")
        self.hosts[host].power_off()

    def power_on(self, host: str) -> None:
        """Put it in again."""
        self._entry(host, "fault", "gets its power back")
        self.hosts[host].power_on()

    def network_cut(self, host: str) -> None:
        """Nothing reaches it, and it reaches nothing."""
        self._entry(host, "fault", "is cut off from the network")
        self.domain.network.cut.add(HostId(host))

    def network_heal(self, host: str) -> None:
        """Its network is whole again."""
        self._entry(host, "fault", "has its network back")
        self.domain.network.cut.discard(HostId(host))
        self.domain.network.muted.discard(HostId(host))
        self.domain.network.loss.pop(HostId(host), None)

    def partition(self, *groups: Iterable[str]) -> None:
        """Nothing passes between the groups."""
        parts = [list(group) for group in groups]
        self._entry("", "fault", f"partition {parts}")
        for i, one in enumerate(parts):
            for other in parts[i + 1 :]:
                for a in one:
                    for b in other:
                        self.domain.network.blocked |= {(HostId(a), HostId(b)), (HostId(b), HostId(a))}

    def partition_heal(self) -> None:
        """Every partition ends."""
        self._entry("", "fault", "the partition ends")
        self.domain.network.blocked.clear()

    def network_loss(self, host: str, percent: int) -> None:
        """Lose that share of its packets."""
        self.domain.network.loss[HostId(host)] = percent

    def storage(self, host: str, datastore: str, mode: str) -> None:
        """ok, hang or fail."""
        self._entry(host, "fault", f"storage {datastore}: {mode}")
        self.hosts[host].set_storage(DatastoreName(datastore), mode)

    def vm_start(self, vm: str, host: str) -> list[str]:
        """An operator runs `virsh start`. Returns a list that will hold the problem (empty string: it started)."""
        outcome: list[str] = []
        if self.hosts[host].powered:
            self.hosts[host].start_process(VmId(vm), outcome.append)
        else:
            outcome.append("the host is off")
        return outcome

    def vm_power_off(self, vm: str) -> None:
        """An operator destroys it."""
        self._entry("", "fault", f"{vm} is switched off by an operator")
        for name in self.processes(vm):
            self.hosts[name].end_process(VmId(vm), StopReason.DESTROYED)

    def vm_crash(self, vm: str) -> None:
        """Its process dies."""
        self._entry("", "fault", f"{vm} crashes")
        for name in self.processes(vm):
            self.hosts[name].end_process(VmId(vm), StopReason.FAILED)

    def start_fails(self, vm: str, host: str, times: int) -> None:
        """The next starts fail; host "": everywhere; times -1: always."""
        self.failing_starts[vm, host] = times

    def hypervisor_mode(self, host: str, mode: str) -> None:
        """up, dead or hung."""
        self._entry(host, "fault", f"libvirtd is {mode}")
        self.hosts[host].hypervisor.mode = mode
        self.hosts[host].agent.hypervisor_changed()

    # -- what the hosts tell --------------------------------------------------------------------------------------

    def _entry(self, host: str, kind: str, text: str) -> None:
        self.timeline.append(Entry(self.scheduler.now, host, kind, text))

    def _noted(self, host: HostId, note: Note) -> None:
        about = " ".join(x for x in (note.vm, note.host, note.datastore) if x)
        facts = " ".join(f"{key}={value}" for key, value in note.facts.items())
        self._entry(host, note.kind, f"{about} {facts}")

    def _happened(self, host: HostId, happened: Happened) -> None:
        about = " ".join(x for x in (happened.vm, happened.datastore) if x)
        self._entry(host, happened.kind, f"{about} {happened.detail}")

    def _process_changed(self, host: HostId, vm: VmId) -> None:
        process = self.hosts[host].hypervisor.processes.get(vm)
        executes = process is not None and process.executing
        home = self.domain.homes[vm]
        self.invariants.now = self.scheduler.now
        if process is not None and (key := (vm, host, self.hosts[host].boots, process.pid)) not in self._seen:
            self._seen.add(key)
            self.starts.setdefault(vm, []).append((self.scheduler.now, host))
        self.invariants.process_changed(host, vm, executes, self.domain.stores[home].last(vm))

    def _linked(self, store: Datastore, record: RegisterRecord) -> None:
        self.invariants.now = self.scheduler.now
        self.invariants.linked(store, record)

    def _start_fails(self, vm: VmId, host: HostId) -> bool:
        for key in ((vm, host), (vm, "")):
            left = self.failing_starts.get(key, 0)
            if left:
                self.failing_starts[key] = left - 1 if left > 0 else left
                return True
        return False

    def story(self) -> str:
        """The timeline in words, one line an entry."""
        return "\n".join(f"{e.at / SECOND:9.3f}  {e.host:<8} {e.kind:<20} {e.text}" for e in self.timeline)
