"""One simulated host: power, clock, keeper, agent, libvirt, watchdog, and its ways to storage and network.

A boot makes everything anew: clock, boot id, processes, /run. What survives a power loss is on the datastores and in the
definitions that libvirt keeps on the host's own disk. A host that stands still (`stall`) handles nothing until it goes on;
its VMs execute nothing meanwhile, and do so again before its keeper does: for that instant nothing guards them.
"""

import random
from collections.abc import Callable
from typing import Literal

from outlast.model.claims import DiskClaim
from outlast.model.effects import Note
from outlast.model.events import KeeperAnswered, KeeperDid, KeeperReported, PingAnswered, Received, StopReason
from outlast.model.health import Health
from outlast.model.ids import BootId, DatastoreName, DiskId, HostId, KeeperSession, VmId
from outlast.model.inventory import Capacity, VmDefinition
from outlast.model.keeper_config import KeeperConfig
from outlast.model.keeping import AskTakeover, Happened, KeeperReply, KeeperReport, KeeperRequest
from outlast.model.messages import EventNotice, Message
from outlast.model.records import Enforcement, RegisterRecord
from outlast.model.settings import Settings, SettingsRecord
from outlast.model.time import MILLISECOND, SECOND, Instant
from outlast.protocol.knowledge import AgentConfig
from outlast.protocol.lease import Adopted
from outlast.sim import configurations
from outlast.sim.agent_host import AgentHost
from outlast.sim.datastore import Datastore
from outlast.sim.domain import Domain
from outlast.sim.fence_device import FenceDevice
from outlast.sim.guest_care import GuestCare
from outlast.sim.guests import Ended, Guests
from outlast.sim.hypervisor import Hypervisor, Process
from outlast.sim.keeper_host import KeeperHost
from outlast.sim.migrating import MigrationRun
from outlast.sim.physics import DAEMON_STARTS, WATCHDOG_TIMEOUT, within
from outlast.sim.scheduler import Action, Scheduler, Timer
from outlast.sim.shutting_down import OrderlyShutdown
from outlast.sim.truth import LeaseTruth
from outlast.sim.watchdog import WatchdogDevice
from outlast.sim.way import Way

DRIFT_PPM = 5_000
"""Clocks run up to half a percent wrong, either way: two hosts then differ by the 1 % that the margin covers."""
BOOT_TIME = SECOND
"""From power to the start of the daemons; more than the fabric holds what an earlier boot sent."""
AWAKENING = 100 * MILLISECOND
"""The longest time for which processes may execute after a stall before keeper and agent do."""
RESET_TIME = 20 * SECOND
"""From a reset by the watchdog until the host boots."""


class Host:
    """See the top of this file. `peers` is filled by the world."""

    def __init__(self, host: HostId, domain: Domain, scheduler: Scheduler, rng: random.Random) -> None:
        self.id = host
        self.domain = domain
        self.scheduler = scheduler
        self.rng = rng
        self.peers: dict[HostId, Host] = {}
        self.powered = False
        self.stalled = False
        self.boots = 0
        self.boot_id = BootId("")
        self.definitions: dict[VmId, VmDefinition] = {}
        self.record: SettingsRecord | None = None
        self.health = Health()
        self.memory_mib = 32 << 10
        self.cpus = 8
        self.networks: tuple[str, ...] | None = None
        self.cpu_models: tuple[str, ...] = ()
        self.enforcement = Enforcement.KEEPER
        self.watchdog = False
        self.resetting = False
        self.awake_since = 0
        self.on_note: Callable[[HostId, Note], None] = lambda _host, _note: None
        self.on_happened: Callable[[HostId, Happened], None] = lambda _host, _happened: None
        self.on_process: Callable[[HostId, VmId], None] = lambda _host, _vm: None
        self.on_kill: Callable[[HostId, VmId], None] = lambda _host, _vm: None
        self.on_takeover: Callable[[Host, AskTakeover], None] = lambda _host, _ask: None
        self.on_last_word: Callable[[Host], None] = lambda _host: None
        self.on_write: Callable[[VmId, int], None] = lambda _vm, _instance: None
        self.on_lease: Callable[[HostId, DatastoreName], None] = lambda _host, _datastore: None
        self.on_reset: Callable[[Host, Process], None] = lambda _host, _process: None
        self.on_entry: Callable[[HostId, str, str], None] = lambda _host, _kind, _text: None
        self.start_failures: Callable[[VmId, HostId], bool] = lambda _vm, _host: False
        self.start_time: Callable[[VmId], int] = lambda _vm: SECOND // 2
        self.next_instance: Callable[[], int] = lambda: 0
        self.storage_modes: dict[DatastoreName, str] = {}
        self._storage_slow: dict[DatastoreName, int] = {}
        self.storage_changed_at: dict[DatastoreName, int] = {}
        self._drift = 0
        self.booted_at = self.off_since = 0
        """When this boot began, and when the last one ended, in true time."""
        self._offset = 0
        self._wall_offset = 0
        self._stalled_work: list[Action] = []
        self._boot()

    def _boot(self) -> None:
        """Everything that lives as long as one boot."""
        self._published: dict[DatastoreName, Adopted] = {}
        self._ways: list[tuple[DatastoreName, Way]] = []
        self._stalled_work.clear()
        self.stalled = self._waking = self.goes_down = False
        self.hypervisor = Hypervisor(self._process_changed)
        self.hypervisor.definitions = self.definitions
        self.truth = LeaseTruth()
        self.keeper = KeeperHost(self, self._published)
        self.agent = AgentHost(self)
        self.guests = Guests(self)
        self.care = GuestCare(self)
        self._device = WatchdogDevice(self.scheduler, WATCHDOG_TIMEOUT, self._watchdog_fires)

    # -- power ----------------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        """A new boot."""
        if self.powered:
            return
        self.powered, self.resetting = True, False
        self.boots += 1
        self.boot_id = BootId(f"{self.id}-boot{self.boots}")
        self.booted_at = self.awake_since = self.scheduler.now
        self._offset = self.rng.randrange(10**15)
        self._drift = self.rng.randrange(-DRIFT_PPM, DRIFT_PPM)
        self._boot()
        keeper, agent = self.keeper, self.agent
        self.later(BOOT_TIME + within(self.rng, DAEMON_STARTS), keeper.start)
        self.later(BOOT_TIME + within(self.rng, DAEMON_STARTS), agent.start)

    def power_off(self) -> None:
        """The plug is pulled: nothing of it executes or answers any more; what is under way to storage may land."""
        self.resetting = False
        if not self.powered:
            return
        self.powered, self.goes_down, self.off_since = False, False, self.scheduler.now
        self._device.disarm()
        self.keeper.kill(restart=False)
        self.agent.kill(restart=False)
        for _, way in self._ways:
            way.end(power_lost=True)
        self.guests.power_lost()

    def _watchdog_fires(self) -> None:
        if not self.powered:
            return
        self.on_entry(self.id, "watchdog-fired", "is reset by its watchdog")
        self.power_off()
        self.resetting = True
        self.scheduler.after(RESET_TIME, lambda: self.power_on() if self.resetting else None)

    def pet_watchdog(self) -> None:
        """The keeper is well."""
        if self.watchdog:
            self._device.pet()

    def shut_down(self, how: Literal["reboot", "power-off"] = "power-off", off: Action = lambda: None) -> None:
        """An orderly shutdown. `off`: its power is gone, and it was this that took it."""
        if not self.goes_down:
            self.goes_down = True
            OrderlyShutdown(self, off).begin(how)

    # -- standing still -------------------------------------------------------------------------------------------

    def stall(self, length: int) -> None:
        """Nothing of it runs for that long."""
        if not self.powered or self.stalled:
            return
        self.stalled = True
        boot = self.boots
        for vm in self.hypervisor.processes:
            self._process_changed(vm)
        self.scheduler.after(length, lambda: self._awake() if self.powered and self.boots == boot else None)

    def _awake(self) -> None:
        """Its VMs execute at once; its daemons, and whatever they are told, come a little later."""
        self.on_entry(self.id, "unguarded", "goes on after it stood still; its VMs may execute before its keeper does")
        self._waking = True
        for vm in self.hypervisor.processes:
            self._process_changed(vm)
        boot = self.boots
        self.scheduler.after(
            self.rng.randrange(AWAKENING), lambda: self._daemons_awake() if self.powered and self.boots == boot else None
        )

    def _daemons_awake(self) -> None:
        self.stalled = self._waking = False
        self.awake_since = self.scheduler.now
        boot, (work, self._stalled_work) = self.boots, (self._stalled_work, [])
        for each in work:
            self._run(boot, each)

    def executes(self, vm: VmId) -> bool:
        """Whether a VM executes on this host now."""
        process = self.hypervisor.processes.get(vm)
        return process is not None and process.executing and (not self.stalled or self._waking)

    def when_awake(self, action: Action) -> None:
        """Now; on a host that stands still, when it goes on: a signal wakes nobody there."""
        self._run(self.boots, action)

    def _run(self, boot: int, action: Action) -> None:
        if not self.powered or self.boots != boot:
            return
        if self.stalled:
            self._stalled_work.append(action)
        else:
            action()

    @property
    def now(self) -> int:
        """True time."""
        return self.scheduler.now

    # -- clocks ---------------------------------------------------------------------------------------------------

    def clock(self) -> Instant:
        """This boot's CLOCK_BOOTTIME, with its drift."""
        elapsed = self.scheduler.now - self.booted_at
        return Instant(self._offset + elapsed + elapsed * self._drift // 1_000_000)

    @property
    def booted_clock(self) -> int:
        """What the clock showed when this boot began."""
        return self._offset

    def true_time(self, clock: Instant) -> int:
        """When this boot's clock showed that."""
        ago = self.clock() - clock
        return self.scheduler.now - ago * 1_000_000 // (1_000_000 + self._drift)

    def until_clock(self, when: Instant) -> int:
        """How much true time is left until this host's clock shows `when`."""
        local = when - self.clock()
        return max(0, local * 1_000_000 // (1_000_000 + self._drift)) + 1_000

    def at_clock(self, when: Instant, action: Action) -> Timer:
        """Do something when this host's clock shows `when`."""
        boot = self.boots
        return self.scheduler.after(self.until_clock(when), lambda: self._run(boot, action))

    def wall_clock_s(self) -> int:
        """Wall clock."""
        return (self.scheduler.now + self._wall_offset) // SECOND + 1_700_000_000

    def jump_wall_clock(self, by: int) -> None:
        """The wall clock alone is set."""
        self._wall_offset += by

    def later(self, delay: int, action: Action) -> None:
        """Do something after a while, if this boot lives still."""
        boot = self.boots
        self.scheduler.after(delay, lambda: self._run(boot, action))

    # -- storage --------------------------------------------------------------------------------------------------

    def reached(self) -> frozenset[DatastoreName]:
        """The datastores that are mounted on this host."""
        return frozenset(d.name for d in self.domain.datastores_of(self.id))

    def way(self, datastore: DatastoreName) -> Way:
        """A new I/O helper's way."""
        boot = self.boots
        store = self.domain.stores[datastore]
        way = Way(self.scheduler, self.rng, store, self.domain.physics, lambda action: self._run(boot, action))
        way.set_mode(self.storage_mode(datastore))
        way.slow = self.storage_delay(datastore)
        self._ways = [(name, each) for name, each in self._ways if not each.over]
        self._ways.append((datastore, way))
        return way

    def storage_mode(self, datastore: DatastoreName) -> str:
        """How this host's paths to a datastore are: ok, hang or fail."""
        return self.storage_modes.get(datastore, "ok")

    def storage_delay(self, datastore: DatastoreName) -> int:
        """How much longer than usual each request takes."""
        return self._storage_slow.get(datastore, 0)

    def set_storage(self, datastore: DatastoreName, mode: str) -> None:
        """ok, hang or fail, for all of this host's ways to a datastore."""
        self.storage_modes[datastore], self.storage_changed_at[datastore] = mode, self.now
        for name, way in self._ways:
            if name == datastore:
                way.set_mode(mode)
        self.guests.storage_changed(datastore, mode)

    def slow_storage(self, datastore: DatastoreName, latency: int) -> None:
        """Each request takes that much longer."""
        self._storage_slow[datastore], self.storage_changed_at[datastore] = latency, self.now
        for name, way in self._ways:
            if name == datastore:
                way.slow = latency

    def lease_extended(self, datastore: DatastoreName) -> None:
        """A heartbeat write was confirmed in time."""
        self.on_lease(self.id, datastore)

    @property
    def storage_is_well(self) -> bool:
        """Whether all its paths work, at the usual speed."""
        return all(mode == "ok" for mode in self.storage_modes.values()) and not any(self._storage_slow.values())

    # -- what keeper and agent are told ---------------------------------------------------------------------------

    def members(self) -> tuple[HostId, ...]:
        return tuple(member.id for member in self.domain.hosts)

    def capacity(self) -> Capacity:
        used = sum(self.definitions[vm].needs.memory_mib for vm in self.hypervisor.processes if vm in self.definitions)
        free = max(0, self.memory_mib - used)
        return Capacity(self.memory_mib, free, self.cpus, networks=self.networks, cpu_models=self.cpu_models)

    def home_of(self, vm: VmId) -> DatastoreName | None:
        return self.domain.homes.get(vm)

    def read_register(self, store: Datastore, subject: str) -> RegisterRecord | None:
        """A register as this host's client sees it: now and then as its cache does."""
        return store.last_as_cached(subject, self.id) if self._reads_its_cache() else store.last(subject)

    def read_claim(self, store: Datastore, disk: DiskId) -> DiskClaim | None:
        """The last claim of a disk, likewise."""
        return store.last_claim(disk, self.id if self._reads_its_cache() else None)

    def _reads_its_cache(self) -> bool:
        stale = self.domain.physics.stale
        return bool(stale) and self.rng.randrange(1000) < stale

    def keeper_config(self, session: KeeperSession) -> KeeperConfig:
        return configurations.of_keeper(self, session)

    def agent_config(self, session: str, told: dict[VmId, Instant]) -> AgentConfig:
        return configurations.of_agent(self, session, told)

    @property
    def settings(self) -> Settings:
        """What an agent or a keeper that starts on this host now would use: the file's, or the record that was kept."""
        return self.record.settings if self.record is not None else self.domain.settings

    def keep_settings(self, record: SettingsRecord) -> None:
        """The agent keeps them on the host's own disk."""
        self.record = record
        self.domain.used(record.settings)

    def keep_health(self, health: Health) -> None:
        """Likewise what was said of its hardware."""
        self.health = health

    def ask_keeper(self, request: KeeperRequest) -> None:
        if type(request) is AskTakeover:
            self.on_takeover(self, request)
        self.keeper.agent_asks(request)

    def agent_connects(self) -> bool:
        if not self.keeper.works:
            return False
        self.keeper.agent_connects()
        return True

    def keeper_gone(self) -> None:
        self.later(MILLISECOND, self.agent.keeper_gone)

    def keeper_did(self, happened: Happened) -> None:
        self.on_happened(self.id, happened)
        self.later(MILLISECOND // 2, lambda: self.agent.happen(KeeperDid(happened)))

    def keeper_answered(self, reply: KeeperReply) -> None:
        self.agent.happen(KeeperAnswered(reply))

    def keeper_reported(self, report: KeeperReport) -> None:
        self.agent.happen(KeeperReported(report))

    # -- network --------------------------------------------------------------------------------------------------

    def send(self, to: HostId, message: Message) -> None:
        target = self.peers[to]
        if isinstance(message, EventNotice):
            return
        self.domain.network.send(self.id, to, lambda: target.receive(self.id, message))

    def receive(self, sender: HostId, message: Message) -> None:
        """A datagram arrives."""
        if self.powered:
            self._run(self.boots, lambda: self.agent.happen(Received(sender, message)))

    def ping(self, host: HostId | None, address: str) -> None:
        network, boot = self.domain.network, self.boots

        def answered() -> None:
            self._run(boot, lambda: self.agent.happen(PingAnswered(host, address)))

        if host is None:
            if network.answers_isolation_ping(self.id):
                self.scheduler.after(network.latency(), answered)
            return
        target = self.peers[host]

        def echo() -> None:
            # The kernel answers, also while agent and keeper are stopped.
            if target.powered and not target.stalled:
                network.send(host, self.id, answered)

        network.send(self.id, host, echo)

    def fence_device_of(self, host: HostId) -> FenceDevice:
        """A device stands beside its host, on a network of its own that every host reaches."""
        return self.domain.fence_devices[host]

    def note(self, note: Note) -> None:
        self.on_note(self.id, note)

    # -- virtual machines -----------------------------------------------------------------------------------------

    def _process_changed(self, vm: VmId) -> None:
        self.on_process(self.id, vm)

    def start_process(self, vm: VmId, ended: Ended) -> None:
        """What `virsh start` does. `ended` gets the problem, or an empty string."""
        self.guests.start(vm, ended)

    def migrate(self, vm: VmId, to: HostId, life: int, ended: Ended) -> None:
        """What `virsh migrate` does, called by the agent of that life. `ended` gets the problem, or an empty string."""
        MigrationRun(self, self.peers[to], vm, life, ended).begin()

    def let_guest_go_on(self, vm: VmId, ended: Ended) -> None:
        """What `virsh resume` does."""
        self.guests.go_on(vm, ended)

    def shut_down_guest(self, vm: VmId) -> None:
        """The guest is asked to shut down, and does, unless it is frozen or hangs."""
        process = self.hypervisor.processes.get(vm)
        if process is not None and process.executing and not process.hung and self.hypervisor.answers:
            self.guests.end(vm, StopReason.SHUTDOWN, 2 * SECOND)

    def freeze(self, vm: VmId) -> None:
        """SIGSTOP, in the middle of a write. Guests of a host with level `none` execute on (vfio, vhost-user)."""
        process = self.hypervisor.processes.get(vm)
        if process is not None and not process.stopped and self.enforcement is not Enforcement.NONE:
            self.guests.last_write(process)
            self.hypervisor.stop(vm)

    def thaw(self, vm: VmId) -> None:
        """SIGCONT."""
        self.hypervisor.resume(vm)

    def kill_process(self, vm: VmId) -> None:
        """SIGKILL by the keeper."""
        self.on_kill(self.id, vm)
        self.guests.end(vm, StopReason.FAILED)

    def says_last_word(self) -> None:
        """The keeper writes that this incarnation has ended, and that no VM is left."""
        self.on_last_word(self)

    def freeze_overdue(self, grace: int) -> None:
        """The agent as second freezer: what executes past a deadline that still stands in shared memory is frozen."""
        for vm in list(self.hypervisor.processes):
            home = self.home_of(vm)
            published = self._published.get(home) if home is not None else None
            if published is not None and published.deadline and self.clock() > published.deadline + grace:
                self.freeze(vm)
