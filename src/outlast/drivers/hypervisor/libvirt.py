"""libvirt: what runs here, why it stopped, starting and shutting down. It may be down, hang or restart at any time.

libvirt's own event loop runs in one thread; calls run in a pool of two, and nobody waits for them. The keepalive breaks a
connection to a hung libvirtd after 8 s; a connection that is gone is made again for ever. After each connection, and
whenever an event says that something changed, the whole inventory is read and told; what vanished while nobody looked is
told as stopped, with the reason that libvirt remembers.

QEMU processes do not depend on any of this: the keeper guards them without libvirt.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import structlog

from outlast.drivers.host_shutdown import host_goes_down
from outlast.drivers.hypervisor import domains, host_facts
from outlast.drivers.hypervisor.needs import CpuUse, with_use
from outlast.drivers.hypervisor.policy_memory import PolicyMemory
from outlast.drivers.hypervisor.traces import last_words
from outlast.model.effects import Note
from outlast.model.errors import OutlastError
from outlast.model.events import (
    Event,
    HypervisorState,
    InventoryChanged,
    StopReason,
    VmLookedAt,
    VmMigrationEnded,
    VmMigrationProgress,
    VmResumed,
    VmStartEnded,
    VmStopped,
)
from outlast.model.ids import RequestId, VmId, VmName
from outlast.model.inventory import Capacity, DatastoreMember, VmDefinition

try:
    import libvirt
except ImportError as error:  # pragma: no cover - depends on the machine
    raise OutlastError("libvirt's Python binding is not installed", "apt-get install python3-libvirt libvirt0") from error

from outlast.drivers.hypervisor import migration, starting
from outlast.drivers.hypervisor.faults import is_host_fault
from outlast.drivers.hypervisor.guests import Guests

_log = structlog.get_logger()

RECONNECT_FIRST_S, RECONNECT_LAST_S = 0.5, 5.0
CALL_TIMEOUT_S = 12.0
_METADATA_CHANGE = libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE
_DEVICE_ADDED, _DEVICE_REMOVED = libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED
SETTLE_S = 0.1
LOOK_EVERY_S = 15.0
MIGRATIONS_AT_ONCE = 4
PROGRESS_EVERY_S = 1.0
"""From one host; who asks for more waits for a thread."""

_STOPPED = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: StopReason.SHUTDOWN,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: StopReason.DESTROYED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: StopReason.CRASHED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: StopReason.MIGRATED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SAVED: StopReason.SAVED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: StopReason.FAILED,
}
_SHUT_OFF = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: StopReason.SHUTDOWN,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: StopReason.DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: StopReason.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: StopReason.MIGRATED,
    libvirt.VIR_DOMAIN_SHUTOFF_SAVED: StopReason.SAVED,
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: StopReason.FAILED,
}


class _Inventory(msgspec.Struct):
    """One reading of all domains. `off`: why those that are shut off are."""

    definitions: tuple[VmDefinition, ...]
    running: frozenset[VmId]
    off: dict[VmId, StopReason]
    left_paused: frozenset[VmId]
    capacity: Capacity
    notes: list[Note]


class Hypervisor:
    """See the top of this file. `happen` and `on_note` are called on the event loop that `start` was called on."""

    def __init__(
        self,
        uri: str,
        datastores: tuple[DatastoreMember, ...],
        state_dir: Path,
        happen: Callable[[Event], None],
        on_note: Callable[[Note], None],
        *,
        reserved: tuple[int, int] = (0, 0),
        migration_uri: str = "",
    ) -> None:
        """`reserved`: the memory (MiB) and CPU (hundredths of a core) that the host keeps for itself.

        `migration_uri`: where another host's libvirt is, with `{address}` in the place of its address.
        """
        self._migration_uri = migration_uri
        self._uri = uri
        self._datastores = datastores
        self._reserved = reserved
        self._cpu_use = CpuUse()
        self._cpu_models: tuple[str, ...] = ()
        self._happen = happen
        self._on_note = on_note
        self._policies = PolicyMemory(state_dir / "policies.json")
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="libvirt-call")
        self._migration_pool = ThreadPoolExecutor(MIGRATIONS_AT_ONCE, thread_name_prefix="libvirt-migration")
        self.connection: Any = None
        """To libvirt; None while there is none."""
        self._up = False
        self._told_problem = ""
        self._pause_s = RECONNECT_FIRST_S
        self._running: dict[VmId, VmName] = {}
        self._told: tuple[Any, ...] = ()
        self._noted: dict[VmId, str] = {}
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self.guests = Guests(self, happen, state_dir / "guests")

    def start(self) -> None:
        """Begin to connect."""
        _run_event_loop_once()
        self._task = self._loop.create_task(self._keep_connected())

    async def stop(self) -> None:
        """Let go of libvirt; calls that hang are left behind."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        connection, self.connection = self.connection, None
        if connection is not None and self._up:
            with contextlib.suppress(libvirt.libvirtError, TimeoutError):
                await self.call(connection.close)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.guests.stop()
        self._migration_pool.shutdown(wait=False, cancel_futures=True)

    # -- the connection -------------------------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        while True:
            try:
                await self._one_connection()
            except Exception:
                # Without this task no VM would ever be started here again, and nobody would know why.
                _log.exception("following libvirt failed; it is begun anew")
                self._let_go()
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, RECONNECT_LAST_S)

    async def _one_connection(self) -> None:
        """Connect, and follow what happens until the connection ends."""
        try:
            await self._connect()
            self._pause_s = RECONNECT_FIRST_S
            await self._follow()
        except libvirt.libvirtError as error:
            self._down(_words(error))
        except TimeoutError:
            self._down(f"libvirtd does not answer within {CALL_TIMEOUT_S:g} s: it hangs; restart it")

    async def _connect(self) -> None:
        self._wanted.clear()
        self.connection = await self.call(self._open)
        self.spawn(self._ask_cpu_models())

    async def _ask_cpu_models(self) -> None:
        """Beside everything else: QEMU may have to be asked for long, and nothing waits for the answer."""
        connection = self.connection
        with contextlib.suppress(libvirt.libvirtError, ElementTree.ParseError, TimeoutError):
            self._cpu_models = await self.call(host_facts.cpu_models, connection)
            self._wanted.set()

    def _open(self) -> Any:
        connection = libvirt.open(self._uri)
        connection.setKeepAlive(2, 3)
        connection.registerCloseCallback(self._closed, None)
        connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle, None)
        for event in (_METADATA_CHANGE, _DEVICE_ADDED, _DEVICE_REMOVED):
            connection.domainEventRegisterAny(None, event, self._definition_changed, None)
        return connection

    def _let_go(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            # Closing a connection to a hung daemon may hang as well.
            self._pool.submit(_close_quietly, connection)

    def _down(self, problem: str) -> None:
        self._let_go()
        if self._up or problem != self._told_problem:
            self._up, self._told_problem = False, problem
            self._happen(HypervisorState(False, problem))

    async def _follow(self) -> None:
        """Tell the inventory now, and whenever it changed, until the connection ends."""
        while True:
            await self._tell_inventory(await self.call(self._read_inventory))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), LOOK_EVERY_S)
            await asyncio.sleep(SETTLE_S)
            self._wanted.clear()

    async def call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run a call in the pool. Raises TimeoutError: then a fresh pool replaces the one whose threads may be stuck."""
        future = self._loop.run_in_executor(self._pool, work, *arguments)
        try:
            return await asyncio.wait_for(asyncio.shield(future), CALL_TIMEOUT_S)
        except TimeoutError:
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._pool.shutdown(wait=False)
            self._pool = ThreadPoolExecutor(2, thread_name_prefix="libvirt-call")
            raise

    # -- called by libvirt in its thread --------------------------------------------------------------------------

    def _closed(self, _connection: Any, reason: int, _opaque: Any) -> None:
        self._loop.call_soon_threadsafe(self._wanted.set)

    def _definition_changed(self, *_: Any) -> None:
        self._loop.call_soon_threadsafe(self._wanted.set)

    def _lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
        stopped = None
        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            name, reason = VmName(domain.name()), _meant(_STOPPED.get(detail, StopReason.UNKNOWN))
            stopped = VmStopped(VmId(domain.UUIDString()), name, reason, _trace(name, reason))
        self._loop.call_soon_threadsafe(self._changed, stopped)

    def _changed(self, stopped: VmStopped | None) -> None:
        if stopped is not None:
            self._running.pop(stopped.vm, None)
            self._happen(stopped)
        self._wanted.set()

    # -- the inventory --------------------------------------------------------------------------------------------

    def _read_inventory(self) -> _Inventory:
        connection = self.connection
        if connection is None:
            raise libvirt.libvirtError("the connection to libvirt is closed")
        found: list[VmDefinition] = []
        running: set[VmId] = set()
        left_paused: set[VmId] = set()
        off: dict[VmId, StopReason] = {}
        notes: list[Note] = []
        for domain in connection.listAllDomains():
            vm = VmId(domain.UUIDString())
            with contextlib.suppress(libvirt.libvirtError, ElementTree.ParseError):
                active = bool(domain.isActive())
                definition = self._definition(vm, domain, notes)
                found.append(self._as_it_runs(definition, domain) if active else definition)
                if active:
                    running.add(vm)
                    if migration.is_left_paused(domain):
                        left_paused.add(vm)
                else:
                    off[vm] = _meant(_SHUT_OFF.get(domain.state()[1], StopReason.UNKNOWN))
        if not connection.isAlive():
            # What could not be asked must not look as if it had vanished.
            raise libvirt.libvirtError("the connection to libvirt broke")
        self._cpu_use.keep(running)
        return _Inventory(tuple(found), frozenset(running), off, frozenset(left_paused), self._capacity(connection), notes)

    def _as_it_runs(self, definition: VmDefinition, domain: Any) -> VmDefinition:
        """With what is only to be seen while it runs: how much it uses, and the disks that were plugged in or out."""
        writes = domains.writes_of(domains.parse(domain.XMLDesc()), self._datastores)
        return msgspec.structs.replace(with_use(definition, self._cpu_of(definition.vm, domain)), writes=writes)

    def _cpu_of(self, vm: VmId, domain: Any) -> int:
        with contextlib.suppress(libvirt.libvirtError):
            return self._cpu_use.observe(vm, domain.info()[4], time.monotonic())
        return 0

    def _capacity(self, connection: Any) -> Capacity:
        info, known = connection.getInfo(), host_facts.memory_mib()
        total, free = known if known is not None else (info[1], connection.getFreeMemory() >> 20)
        memory, cpu = self._reserved
        return Capacity(
            memory_mib=total,
            free_memory_mib=free,
            cpus=info[2],
            reserved_memory_mib=memory,
            reserved_cpu=cpu,
            networks=host_facts.networks(connection),
            cpu_models=self._cpu_models,
        )

    def _definition(self, vm: VmId, domain: Any, notes: list[Note]) -> VmDefinition:
        persistent = bool(domain.isPersistent())
        flags = libvirt.VIR_DOMAIN_XML_SECURE | (libvirt.VIR_DOMAIN_XML_INACTIVE if persistent else 0)
        xml = domain.XMLDesc(flags)
        found = domains.find_policy(domains.parse(xml))
        policy, kept = self._policies.take(vm, found)
        said = "its definition has lost its Outlast metadata; its last policy is kept" if kept else found.problem
        if said != self._noted.get(vm, ""):
            self._noted[vm] = said
            if said:
                kind = "policy-kept" if kept else "policy-problem"
                notes.append(Note(kind=kind, vm=vm, facts={"name": domain.name(), "problem": said}))
        return domains.define(xml, policy, self._datastores)

    async def _tell_inventory(self, found: _Inventory) -> None:
        if not self._up:
            self._up, self._told_problem = True, ""
            self._happen(HypervisorState(True))
        names = {d.vm: d.name for d in found.definitions}
        vanished = {vm: name for vm, name in self._running.items() if vm not in found.running}
        self._running = {vm: names.get(vm, VmName(vm)) for vm in found.running}
        for vm, name in vanished.items():
            reason = found.off.get(vm, StopReason.UNKNOWN)
            self._happen(VmStopped(vm, name, reason, _trace(name, reason)))
        for note in found.notes:
            self._on_note(note)
        # Free memory moves all the time; only a change that matters to a placement is news.
        coarse = msgspec.structs.replace(found.capacity, free_memory_mib=found.capacity.free_memory_mib // 64)
        content = (found.definitions, found.running, found.left_paused, coarse)
        if content != self._told:
            self._told = content
            self._happen(InventoryChanged(found.definitions, found.running, found.capacity, found.off, found.left_paused))

    # -- what the agent asks for ----------------------------------------------------------------------------------

    def start_vm(self, request: RequestId, vm: VmId, xml: str) -> None:
        """Define and start; answered by `VmStartEnded`. A VM that runs already is a success."""

        async def work() -> None:
            try:
                await starting.start(lambda: self.call(self._begin, xml))
                self._happen(VmStartEnded(request, vm, True))
            except libvirt.libvirtError as error:
                self._happen(VmStartEnded(request, vm, False, _words(error), is_host_fault(error)))
            except TimeoutError:
                problem = f"libvirtd gave no answer within {CALL_TIMEOUT_S:g} s"
                self._happen(VmStartEnded(request, vm, False, problem, host_fault=True))
            self._wanted.set()

        self.spawn(work())

    def _begin(self, xml: str) -> bool:
        if self.connection is None:
            raise libvirt.libvirtError(f"libvirt is not connected: {self._told_problem or 'not yet'}")
        return starting.begin(self.connection, xml)

    def migrate_vm(self, request: RequestId, vm: VmId, address: str) -> None:
        """Migrate to the host at `address`; answered by `VmMigrationEnded`, however long it takes."""

        async def work() -> None:
            connection, uri = self.connection, self._migration_uri.replace("{address}", address)
            try:
                if connection is None:
                    raise libvirt.libvirtError("libvirt is not connected")
                target = migration.Target(address, uri, self._datastores)
                copying = self._loop.run_in_executor(self._migration_pool, migration.migrate, connection, vm, target)
                while not (await asyncio.wait([copying], timeout=PROGRESS_EVERY_S))[0]:
                    await self._tell_progress(request, vm, connection)
                await copying
                self._happen(VmMigrationEnded(request, vm, True))
            except libvirt.libvirtError as error:
                self._happen(VmMigrationEnded(request, vm, False, _words(error)))
            self._wanted.set()

        self.spawn(work())

    async def _tell_progress(self, request: RequestId, vm: VmId, connection: Any) -> None:
        # For people alone: whatever it does not say now, it may say a second later.
        with contextlib.suppress(libvirt.libvirtError, TimeoutError):
            found = await self.call(migration.progress, connection, vm)
            if found is not None:
                facts = found.total_mib, found.remaining_mib, found.mib_s, found.downtime_ms
                self._happen(VmMigrationProgress(request, vm, *facts))

    def resume_vm(self, request: RequestId, vm: VmId) -> None:
        """Let a guest go on; answered by `VmResumed`."""

        async def work() -> None:
            try:
                if self.connection is None:
                    raise libvirt.libvirtError("libvirt is not connected")
                await self.call(migration.resume, self.connection, vm)
                self._happen(VmResumed(request, vm, True))
            except libvirt.libvirtError as error:
                self._happen(VmResumed(request, vm, False, _words(error)))
            except TimeoutError:
                self._happen(VmResumed(request, vm, False, f"libvirtd gave no answer within {CALL_TIMEOUT_S:g} s"))
            self._wanted.set()

        self.spawn(work())

    def look_at(self, request: RequestId, vm: VmId) -> None:
        """Ask whether a domain is off; answered by `VmLookedAt`, unless libvirt gives no answer."""

        async def work() -> None:
            with contextlib.suppress(libvirt.libvirtError, TimeoutError):
                self._happen(VmLookedAt(request, vm, await self.call(self._is_off, vm)))

        self.spawn(work())

    def _is_off(self, vm: VmId) -> bool:
        connection = self.connection
        if connection is None:
            raise libvirt.libvirtError("libvirt is not connected")
        try:
            return not connection.lookupByUUIDString(vm).isActive()
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return True
            raise

    def shut_down(self, vm: VmId) -> None:
        """Ask the guest to shut down; what comes of it is an event, or the caller's deadline."""

        async def work() -> None:
            connection = self.connection
            if connection is not None:
                with contextlib.suppress(libvirt.libvirtError, TimeoutError):
                    await self.call(lambda: connection.lookupByUUIDString(vm).shutdown())

        self.spawn(work())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside everything else."""
        task = self._loop.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)


def _meant(reason: StopReason) -> StopReason:
    """A guest that libvirt-guests or systemd shut down with its host was not switched off on purpose."""
    orderly = reason in (StopReason.SHUTDOWN, StopReason.DESTROYED)
    return StopReason.HOST_SHUTDOWN if orderly and host_goes_down() else reason


def _trace(name: VmName, reason: StopReason) -> str:
    """What QEMU wrote last, if it ended without being told to."""
    return last_words(name) if reason in (StopReason.CRASHED, StopReason.FAILED) else ""


def _words(error: Any) -> str:
    text = error.get_error_message() or str(error)
    if "Failed to connect socket" in text or "No such file" in text:
        return f"{text} (is libvirtd installed and started? systemctl status libvirtd)"
    return str(text)


def _close_quietly(connection: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        connection.close()


_event_loop = threading.Lock()


def _run_event_loop_once() -> None:
    """Start libvirt's event loop in a thread of its own, once a process."""
    if not _event_loop.acquire(blocking=False):
        return
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def turn() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=turn, name="libvirt-events", daemon=True).start()
