"""One simulated host: power, clock, keeper, agent, libvirt, and its ways to storage and network.

A boot makes everything anew: clock, boot id, processes, /run. What survives a power loss is on the datastores and in the
definitions that libvirt keeps on the host's own disk. A host that stands still (`stall`) handles nothing until it goes on;
its processes execute nothing meanwhile, and may do so again before its keeper does.
"""

import random
from collections.abc import Callable

from outlast.model.effects import Note
from outlast.model.events import KeeperAnswered, KeeperDid, KeeperReported, PingAnswered, Received, StopReason, VmStopped
from outlast.model.ids import BootId, DatastoreName, HostId, KeeperSession, VmId
from outlast.model.inventory import Capacity, VmDefinition
from outlast.model.keeper_config import KeeperConfig
from outlast.model.keeping import AskGate, AskLaunch, Happened, KeeperReply, KeeperReport, KeeperRequest
from outlast.model.messages import EventNotice, Message
from outlast.model.records import Enforcement
from outlast.model.time import MILLISECOND, SECOND, Instant
from outlast.protocol.knowledge import AgentConfig
from outlast.sim.agent_host import AgentHost
from outlast.sim.datastore import Way
from outlast.sim.domain import Domain
from outlast.sim.hypervisor import Hypervisor
from outlast.sim.keeper_host import KeeperHost
from outlast.sim.scheduler import Scheduler, Timer

DRIFT_PPM = 5_000
"""Clocks run up to half a percent wrong, either way: two hosts then differ by the 1 % that the margin covers."""


class Host:
    """See the top of this file. `peers` is filled by the world."""

    def __init__(self, host: HostId, domain: Domain, scheduler: Scheduler, rng: random.Random) -> None:
        self.id = host
        self.domain = domain
        self.scheduler = scheduler
        self.rng = rng
        self.peers: dict[HostId, Host] = {}
        self.powered = False
        self.boots = 0
        self.boot_id = BootId("")
        self.definitions: dict[VmId, VmDefinition] = {}
        self.memory_mib = 32 << 10
        self.enforcement = Enforcement.KEEPER
        self.on_note: Callable[[HostId, Note], None] = lambda _host, _note: None
        self.on_happened: Callable[[HostId, Happened], None] = lambda _host, _happened: None
        self.on_process: Callable[[HostId, VmId], None] = lambda _host, _vm: None
        self.start_failures: Callable[[VmId, HostId], bool] = lambda _vm, _host: False
        self.start_time: Callable[[VmId], int] = lambda _vm: SECOND // 2
        self.storage_modes: dict[DatastoreName, str] = {}
        self._drift = 0
        self._booted_at = 0
        self._offset = 0
        self._wall_offset = 0
        self._published: dict[DatastoreName, Instant] = {}
        self._ways: list[tuple[DatastoreName, Way]] = []
        self.hypervisor = Hypervisor(self._process_changed)
        self.keeper = KeeperHost(self, self._published)
        self.agent = AgentHost(self)

    # -- power ----------------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        """A new boot."""
        if self.powered:
            return
        self.powered = True
        self.boots += 1
        self.boot_id = BootId(f"{self.id}-boot{self.boots}")
        self._booted_at = self.scheduler.now
        self._offset = self.rng.randrange(10**15)
        self._drift = self.rng.randrange(-DRIFT_PPM, DRIFT_PPM)
        self._published = {}
        self._ways = []
        self.hypervisor = Hypervisor(self._process_changed)
        self.hypervisor.definitions = self.definitions
        self.keeper = KeeperHost(self, self._published)
        self.agent = AgentHost(self)
        keeper, agent = self.keeper, self.agent
        self.later(self.rng.randrange(200) * MILLISECOND, keeper.start)
        self.later((200 + self.rng.randrange(500)) * MILLISECOND, agent.start)

    def power_off(self) -> None:
        """The plug is pulled: nothing of it executes or answers any more; what is under way to storage may land."""
        if not self.powered:
            return
        self.powered = False
        self.keeper.kill(restart=False)
        self.agent.kill(restart=False)
        for _, way in self._ways:
            way.end(lands_late=False)
        for vm in list(self.hypervisor.processes):
            self.hypervisor.end(vm)

    # -- clocks ---------------------------------------------------------------------------------------------------

    def clock(self) -> Instant:
        """This boot's CLOCK_BOOTTIME, with its drift."""
        elapsed = self.scheduler.now - self._booted_at
        return Instant(self._offset + elapsed + elapsed * self._drift // 1_000_000)

    def at_clock(self, when: Instant, action: Callable[[], None]) -> Timer:
        """Do something when this host's clock shows `when`."""
        local = when - self.clock()
        delay = max(0, local - local * self._drift // 1_000_000) + 1_000
        boot = self.boots
        return self.scheduler.after(delay, lambda: action() if self.powered and self.boots == boot else None)

    def wall_clock_s(self) -> int:
        """Wall clock."""
        return (self.scheduler.now + self._wall_offset) // SECOND + 1_700_000_000

    def jump_wall_clock(self, by: int) -> None:
        """The wall clock alone is set."""
        self._wall_offset += by

    def later(self, delay: int, action: Callable[[], None]) -> None:
        """Do something after a while, if this boot lives still."""
        boot = self.boots
        self.scheduler.after(delay, lambda: action() if self.powered and self.boots == boot else None)

    # -- storage --------------------------------------------------------------------------------------------------

    def way(self, datastore: DatastoreName, master: str) -> Way:
        """A new I/O helper's way."""
        way = Way(self.scheduler, self.rng, self.domain.stores[datastore])
        way.set_mode(self.storage_modes.get(datastore, "ok"))
        self._ways.append((datastore, way))
        return way

    def set_storage(self, datastore: DatastoreName, mode: str) -> None:
        """ok, hang or fail, for all of this host's ways to a datastore."""
        self.storage_modes[datastore] = mode
        for name, way in self._ways:
            if name == datastore:
                way.set_mode(mode)

    def slow_storage(self, datastore: DatastoreName, latency: int) -> None:
        """Each request takes that much longer."""
        for name, way in self._ways:
            if name == datastore:
                way.slow = latency

    # -- what keeper and agent are told ---------------------------------------------------------------------------

    def members(self) -> tuple[HostId, ...]:
        return tuple(member.id for member in self.domain.hosts)

    def capacity(self) -> Capacity:
        used = sum(self.definitions[vm].memory_mib for vm in self.hypervisor.processes if vm in self.definitions)
        return Capacity(self.memory_mib, max(0, self.memory_mib - used), 8)

    def home_of(self, vm: VmId) -> DatastoreName | None:
        return self.domain.homes.get(vm)

    def keeper_config(self, session: KeeperSession) -> KeeperConfig:
        domain = self.domain
        return KeeperConfig(
            domain=domain.name,
            host=self.id,
            name=next(m.name for m in domain.hosts if m.id == self.id),
            hosts=domain.hosts,
            datastores=domain.datastores_of(self.id),
            settings=domain.settings,
            datastore_key="",
            run_dir="/run/outlast",
            state_dir="/var/lib/outlast",
            boot_id=self.boot_id,
            session=session,
            enforcement=self.enforcement,
        )

    def agent_config(self, session: str) -> AgentConfig:
        domain = self.domain
        return AgentConfig(
            domain=domain.name,
            host=self.id,
            hosts=domain.hosts,
            datastores=domain.datastores_of(self.id),
            settings=domain.settings,
            isolation_addresses=domain.isolation_addresses,
            boot_id=self.boot_id,
            session=session,
            first_sequence=self.scheduler.now // MILLISECOND + 1,
        )

    def ask_keeper(self, request: KeeperRequest) -> None:
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

    def freeze_overdue(self, grace: int) -> None:
        for vm in list(self.hypervisor.processes):
            home = self.home_of(vm)
            deadline = self._published.get(home, Instant(0)) if home is not None else Instant(0)
            if deadline and self.clock() > deadline + grace:
                self.hypervisor.stop(vm)

    # -- network --------------------------------------------------------------------------------------------------

    def send(self, to: HostId, message: Message) -> None:
        target = self.peers[to]
        if isinstance(message, EventNotice):
            return
        self.domain.network.send(self.id, to, lambda: target.receive(self.id, message))

    def receive(self, sender: HostId, message: Message) -> None:
        """A datagram arrives."""
        if self.powered:
            self.agent.happen(Received(sender, message))

    def ping(self, host: HostId | None, address: str) -> None:
        network, boot = self.domain.network, self.boots

        def answered() -> None:
            if self.powered and self.boots == boot:
                self.agent.happen(PingAnswered(host, address))

        if host is None:
            reachable = self.id not in network.cut and self.id not in network.muted
            if reachable and network.isolation_address_answers:
                self.scheduler.after(network.latency(), answered)
            return

        def echo() -> None:
            # The kernel answers, also while agent and keeper are stopped.
            if self.peers[host].powered:
                network.send(host, self.id, answered)

        network.send(self.id, host, echo)

    def note(self, note: Note) -> None:
        self.on_note(self.id, note)

    # -- virtual machines -----------------------------------------------------------------------------------------

    def _process_changed(self, vm: VmId) -> None:
        self.on_process(self.id, vm)

    def define(self, definition: VmDefinition) -> None:
        """Libvirt knows a definition from now on, also after a reboot."""
        self.definitions[definition.vm] = definition
        self.agent.hypervisor_changed()

    def start_process(self, vm: VmId, ended: Callable[[str], None]) -> None:
        """What `virsh start` does: the gate, then the process. `ended` gets the problem, or an empty string."""
        definition = self.domain.definitions.get(vm)
        if definition is None or not self.hypervisor.answers:
            ended("libvirt does not answer" if definition is not None else "no such definition")
            return
        self.definitions[vm] = definition
        if vm in self.hypervisor.processes:
            ended("")
            return
        if vm in self.hypervisor.starting:
            ended("domain is already being started")
            return
        self.hypervisor.starting.add(vm)
        boot, hypervisor, settled = self.boots, self.hypervisor, [False]

        def settle(problem: str) -> None:
            if not settled[0]:
                settled[0] = True
                hypervisor.starting.discard(vm)
                ended(problem)

        def replied(reply: KeeperReply) -> None:
            if self.boots != boot or not self.powered or settled[0]:
                return
            if not reply.allowed:
                settle(reply.sentence)
            elif self.start_failures(vm, self.id):
                self.keeper.ask(_ended(vm), lambda _: None)
                settle("internal error: process exited while connecting to monitor")
            else:
                self.later(self.rng.randrange(20, 100) * MILLISECOND, launch)

        def launch() -> None:
            self.keeper.ask(AskLaunch(2, vm), launched)  # type: ignore[arg-type]

        def launched(reply: KeeperReply) -> None:
            if self.boots != boot or not self.powered or settled[0]:
                return
            if reply.allowed:
                self._process_begins(vm, hypervisor, settle)
            else:
                settle(reply.sentence)

        disks = (f"/srv/{definition.home}/disks/{definition.name}.raw",)
        if not self.keeper.alive:
            settle("the keeper of this host cannot be asked")
            return
        self.keeper.ask(AskGate(1, vm, definition.name, disks), replied)  # type: ignore[arg-type]
        self.later(6 * SECOND, lambda: settle("the keeper of this host cannot be asked: no answer in time"))

    def _process_begins(self, vm: VmId, hypervisor: Hypervisor, settle: Callable[[str], None]) -> None:
        hypervisor.begin(self.definitions[vm])
        self.keeper.process_appeared(vm)
        self.later(self.start_time(vm), lambda: self._started(vm, settle))

    def _started(self, vm: VmId, settle: Callable[[str], None]) -> None:
        settle("" if vm in self.hypervisor.processes else "the process ended at once")
        self.agent.hypervisor_changed()

    def kill_process(self, vm: VmId) -> None:
        """SIGKILL by the keeper."""
        self.end_process(vm, StopReason.FAILED)

    def end_process(self, vm: VmId, reason: StopReason, delay: int = 5 * MILLISECOND) -> None:
        """The process ends after a while, for this reason; it executes nothing more if it was killed."""
        process = self.hypervisor.processes.get(vm)
        if process is None or process.ending is not None:
            return
        process.ending = reason
        hypervisor = self.hypervisor
        if reason is StopReason.FAILED:
            hypervisor.stop(vm)

        def gone() -> None:
            hypervisor.end(vm)
            self.keeper.process_exited(vm)
            if hypervisor.answers:
                self.agent.happen(VmStopped(vm, process.name, reason))
                self.agent.hypervisor_changed()

        self.later(delay, gone)

    def shut_down_guest(self, vm: VmId) -> None:
        """The guest is asked to shut down, and does, unless it is frozen."""
        process = self.hypervisor.processes.get(vm)
        if process is not None and process.executing and self.hypervisor.answers:
            self.end_process(vm, StopReason.SHUTDOWN, 2 * SECOND)


def _ended(vm: VmId) -> KeeperRequest:
    from outlast.model.ids import RequestId
    from outlast.model.keeping import AskEnded

    return AskEnded(RequestId(1), vm)
