"""What there is in a simulated world: a fault domain built from a scenario's values, its time, its truth, its timeline.

What can be done to it, the verbs of the scenario language, is in `world.py`.
"""

import hashlib
import math
import random
from collections.abc import Callable, Iterable

import msgspec

from outlast.model.effects import Note
from outlast.model.events import StopReason
from outlast.model.ids import HostId, HostName, VmId
from outlast.model.inventory import DatastoreMember, HostMember, Needs, VmDefinition
from outlast.model.keeping import Happened
from outlast.model.policy import VmPolicy, parse_ready
from outlast.model.records import Enforcement, RegisterRecord
from outlast.model.rules import Rule
from outlast.model.settings import Settings
from outlast.model.time import SECOND
from outlast.scenario.model import DatastoreSpec, HostSpec, VmSpec
from outlast.sim.datastore import Datastore
from outlast.sim.domain import Domain
from outlast.sim.fence_device import FenceDevice
from outlast.sim.host import Host
from outlast.sim.invariants import Hazard, Invariants
from outlast.sim.network import Network
from outlast.sim.physics import Physics, drawn
from outlast.sim.recovery_watch import RecoveryWatch
from outlast.sim.scheduler import Scheduler

WANTED_AFTER = 8 * SECOND
"""How long a VM must have been there until everybody has had the time to learn that it is wanted."""
REST = 15 * SECOND
"""Longer than any window: when all has been well for so long, no takeover is on its way."""


class Entry(msgspec.Struct, frozen=True):
    """One line of the timeline. `vm` is empty where it is about none."""

    at: int
    host: str
    kind: str
    text: str
    vm: str = ""


def policy_of(spec: VmSpec) -> VmPolicy:
    """What a scenario says of a VM, as its definition has it."""
    return VmPolicy(
        priority=spec.priority,
        after=spec.after,
        ready=parse_ready(spec.ready),
        max_restarts=spec.max_restarts,
        max_relocations=spec.max_relocations,
        isolation_response=spec.isolation_response,
        guest_monitoring=spec.guest_monitoring,
    )


def needs_of(spec: VmSpec) -> Needs:
    """What a VM needs of a host: the larger of what is reserved for it and what it is measured to use."""
    reserved = spec.cpus * 100
    return Needs(
        memory_mib=max(spec.memory_mib, spec.memory_usage_mib or 0),
        cpu=max(reserved, math.ceil((spec.cpu_usage or 0) * 100)),
        reserved_cpu=reserved,
        datastores=(spec.datastore, *spec.disks_on),
        networks=spec.networks,
        cpu_model=spec.cpu_model,
    )


def disks_of(spec: VmSpec) -> tuple[str, ...]:
    """The files that a VM writes to, as every host sees them; the first one is on its home."""
    first = f"/srv/{spec.datastore}/disks/{spec.same_disk_as or spec.name}.raw"
    return (first, *(f"/srv/{other}/disks/{spec.name}.raw" for other in spec.disks_on))


class Ground:
    """Names are ids here: host "host1" has the id "host1"."""

    def __init__(
        self,
        hosts: Iterable[HostSpec],
        datastores: Iterable[DatastoreSpec],
        vms: Iterable[VmSpec],
        *,
        settings: Settings | None = None,
        rules: Iterable[Rule] = (),
        seed: int = 0,
        physics: Physics | None = None,
    ) -> None:
        """`physics` None: drawn from the seed."""
        self.scheduler = Scheduler()
        self.rng = random.Random(seed)
        self.host_specs, self.vm_specs = tuple(hosts), tuple(vms)
        self.timeline: list[Entry] = []
        self.starts: dict[VmId, list[tuple[int, HostId]]] = {}
        self.failing_starts: dict[tuple[str, str], int] = {}
        self.fenced: dict[HostId, int] = {}
        """The hosts that a fence device powered off, and when first."""
        self._instances = 0
        self._frozen: dict[VmId, int] = {}
        self._frozen_since: dict[VmId, int] = {}
        self._seen: set[int] = set()
        self.domain = self._make_domain(
            tuple(datastores), settings or Settings(), physics or drawn(random.Random(f"physics {seed}"))
        )
        self.domain.rules = tuple(rules)
        by_id: dict[HostId, Host] = {}
        self.invariants = Invariants(self.scheduler, self.domain, by_id, self.entry)
        self.hosts: dict[str, Host] = {}
        for spec, member in zip(self.host_specs, self.domain.hosts, strict=True):
            self.hosts[spec.name] = by_id[member.id] = self._make_host(spec, member.id)
        self.paused = False
        self.kept_empty: set[str] = set()
        """The hosts that an operator keeps empty."""
        """Whether the operator has been told that automatic recovery is held."""
        self.recovery = RecoveryWatch(self)
        self.switched_off: set[VmId] = set()
        """The VMs that an operator switched off on their hosts, and that nobody has started since."""
        for host in self.hosts.values():
            host.peers = by_id
        for store in self.domain.stores.values():
            store.on_link = self._linked
        for vm in self.vm_specs:
            self._define(vm)
        for spec in self.host_specs:
            if spec.fencing:
                self._add_fence_device(self.hosts[spec.name], seed)
        for spec in self.host_specs:
            if spec.power == "on":
                self.hosts[spec.name].power_on()
        self.recovery.begin()

    # -- building -------------------------------------------------------------------------------------------------

    def _make_domain(self, datastores: tuple[DatastoreSpec, ...], settings: Settings, physics: Physics) -> Domain:
        rng = random.Random(self.rng.getrandbits(64))
        network = Network(self.scheduler, rng, physics.duplicate)
        stores = {
            d.name: Datastore(d.name, d.filesystem, d.device or f"array-{d.name}", d.in_flight_bound) for d in datastores
        }
        for store in stores.values():
            store.now = lambda: self.scheduler.now
        members = tuple(
            HostMember(HostId(h.name), HostName(h.name), f"192.0.2.{i + 1}", 7710, h.labels, h.spare)
            for i, h in enumerate(self.host_specs)
        )
        stored = tuple(
            DatastoreMember(d.name, f"/srv/{d.name}", d.in_flight_bound, d.accept_in_flight_risk) for d in datastores
        )
        domain = Domain(settings, members, stored, stores, network, physics=physics)
        domain.reach = {HostId(h.name): h.datastores for h in self.host_specs if h.datastores is not None}
        return domain

    def _make_host(self, spec: HostSpec, host_id: HostId) -> Host:
        host = Host(host_id, self.domain, self.scheduler, random.Random(self.rng.getrandbits(64)))
        host.cpus, host.memory_mib, host.watchdog = spec.cpus, spec.memory_mib, spec.watchdog
        host.networks, host.cpu_models = spec.networks, spec.cpu_models
        default = Enforcement.WATCHDOG if spec.watchdog else Enforcement.KEEPER
        host.enforcement = Enforcement(spec.enforcement) if spec.enforcement else default
        host.on_note, host.on_happened, host.on_process = self._noted, self._happened, self._process_changed
        host.on_kill = lambda _, vm: self.invariants.killed(host, vm)
        host.on_lease = lambda _, datastore: self.invariants.lease_extended(host, datastore)
        host.on_write = self.invariants.wrote
        host.on_last_word = self.invariants.last_word
        host.on_takeover = self.invariants.takes_over
        host.on_reset = self.invariants.guest_reset
        host.on_entry = self.entry
        host.start_failures, host.next_instance = self._start_fails, self._next_instance
        host.start_time = lambda vm: self.spec(vm).start_time
        return host

    def _add_fence_device(self, host: Host, seed: int) -> None:
        """Its moods are drawn from a source of their own: a host with a device lives as it would without one."""
        rng = random.Random(f"fence device {host.id} {seed}")
        device = FenceDevice(host, self.scheduler, rng, lambda: self._fenced(host))
        self.domain.fence_devices[host.id] = device

    def _fenced(self, host: Host) -> None:
        self.fenced.setdefault(host.id, self.now)
        self.entry(host.id, "fenced", "its fence device cuts its power")
        self.recovery.disturbed()

    def _define(self, spec: VmSpec) -> None:
        vm = VmId(spec.name)
        definition = VmDefinition(
            vm=vm,
            name=spec.name,
            home=spec.datastore,
            datastores=(spec.datastore, *spec.disks_on),
            memory_mib=spec.memory_mib,
            protected=spec.state != "unprotected",
            unprotectable="",
            policy=policy_of(spec),
            xml=f"<domain>{spec.name}</domain>",
            needs=needs_of(spec),
            writes=disks_of(spec),
        )
        self.domain.define(definition)
        # What runs nowhere yet is defined everywhere, so that an operator can start it anywhere.
        for name in (spec.host,) if spec.host else self.hosts:
            self.hosts[name].definitions[vm] = definition

    def spec(self, vm: str) -> VmSpec:
        """A VM as the scenario describes it. Raises KeyError."""
        for spec in self.vm_specs:
            if spec.name == vm:
                return spec
        raise KeyError(vm)

    def _next_instance(self) -> int:
        self._instances += 1
        return self._instances

    # -- time -----------------------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """True time, nanoseconds."""
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

    def run_to_end(self, end: int, *, until_rest: bool) -> None:
        """Let time pass until `end`, or, with `until_rest`, until all has been well for `REST`."""
        while self.now < end and not (until_rest and self.recovery.rested_for(REST)):
            self.scheduler.run_until(min(self.now + REST // 3, end) if until_rest else end)

    def settle(self, *, hurried: bool = False) -> None:
        """Start every VM where it should run, and let the domain come to rest; `hurried`: not quite."""
        self.run(5 if hurried else 9)
        for spec in self.vm_specs:
            if spec.host and self.hosts[spec.host].powered:
                self._start(spec.name, spec.host)
        self.run(5 if hurried else 12)

    def _start(self, vm: str, host: str) -> list[str]:
        """Somebody starts a VM. The list will hold the problem; an empty string if it started."""
        outcome: list[str] = []

        def ended(problem: str) -> None:
            outcome.append(problem)
            if not problem:
                self.switched_off.discard(VmId(vm))
            if not problem and self.spec(vm).state != "unprotected":
                self.scheduler.after(WANTED_AFTER, lambda: self._is_wanted(VmId(vm)))

        if self.hosts[host].powered:
            self.hosts[host].start_process(VmId(vm), ended)
        else:
            outcome.append("the host is off")
        return outcome

    def _is_wanted(self, vm: VmId) -> None:
        """Unless the agent where it runs has had no time to tell of it: then it counts later, if it is there still."""
        if vm in self.switched_off:
            return  # By an operator, though its host may not have carried that out yet (random world 20261277).
        where = next((host for host in self.hosts.values() if vm in host.hypervisor.processes), None)
        aside = vm in self.domain.stores[self.domain.homes[vm]].aside_since
        if where is None or aside or where.hypervisor.processes[vm].ending is StopReason.DESTROYED:
            return
        if where.agent.works and self.now - where.agent.works_since >= WANTED_AFTER:
            self.recovery.wanted.add(vm)
        else:
            self.scheduler.after(WANTED_AFTER, lambda: self._is_wanted(vm))

    # -- what is true ---------------------------------------------------------------------------------------------

    @property
    def hazards(self) -> list[Hazard]:
        """What is not promised, and happened."""
        return self.invariants.hazards

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

    def register(self, vm: str) -> RegisterRecord | None:
        """The last record of a VM's ownership register."""
        return self.domain.stores[self.spec(vm).datastore].last(vm)

    def frozen_for(self, vm: str) -> int:
        """How long it was frozen in total, nanoseconds: a process of it existed, and none executed."""
        since = self._frozen_since.get(VmId(vm))
        return self._frozen.get(VmId(vm), 0) + (self.scheduler.now - since if since is not None else 0)

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

    def trace_hash(self) -> str:
        """One number for everything that happened, in order: the same for the same seed, in every process."""
        story = "\n".join(f"{e.at} {e.host} {e.kind} {e.vm} {e.text}" for e in self.timeline)
        return hashlib.blake2b(f"{self.scheduler.trace} {story}".encode(), digest_size=16).hexdigest()

    def story(self) -> str:
        """The timeline in words, one line an entry."""
        return "\n".join(f"{e.at / SECOND:9.3f}  {e.host:<8} {e.kind:<20} {e.vm} {e.text}".rstrip() for e in self.timeline)

    # -- what the hosts tell --------------------------------------------------------------------------------------

    def entry(self, host: str, kind: str, text: str, vm: str = "") -> None:
        """One more line of the timeline."""
        self.timeline.append(Entry(self.scheduler.now, host, kind, text, vm))

    def _noted(self, host: HostId, note: Note) -> None:
        about = " ".join(x for x in (note.host, note.datastore) if x)
        facts = " ".join(f"{key}={value}" for key, value in note.facts.items())
        self.entry(host, note.kind, f"{about} {facts}".strip(), note.vm or "")
        self.invariants.noted(host, note)

    def _happened(self, host: HostId, happened: Happened) -> None:
        self.entry(host, happened.kind, f"{happened.datastore or ''} {happened.detail}".strip(), happened.vm or "")

    def _process_changed(self, host: HostId, vm: VmId) -> None:
        process = self.hosts[host].hypervisor.processes.get(vm)
        if process is not None and process.instance not in self._seen and not process.incoming:
            self._seen.add(process.instance)
            self.starts.setdefault(vm, []).append((self.scheduler.now, host))
        self.invariants.process_changed(self.hosts[host], vm)
        stopped = any((p := h.hypervisor.processes.get(vm)) is not None and p.stopped for h in self.hosts.values())
        if stopped and not self.invariants.executing(vm):
            self._frozen_since.setdefault(vm, self.scheduler.now)
        elif vm in self._frozen_since:
            self._frozen[vm] = self._frozen.get(vm, 0) + self.scheduler.now - self._frozen_since.pop(vm)

    def _linked(self, store: Datastore, record: RegisterRecord) -> None:
        self.invariants.linked(store, record)

    def _start_fails(self, vm: VmId, host: HostId) -> bool:
        for key in ((vm, host), (vm, "")):
            left = self.failing_starts.get(key, 0)
            if left:
                self.failing_starts[key] = left - 1 if left > 0 else left
                self.recovery.failed(vm)
                return True
        return False
