"""Doing what the agent's machine asks for. One turn: an event in, effects out, each begun in order, none waited for.

The order of a batch is a contract (`model/effects.py`). Requests to storage, libvirt and the keeper are begun as tasks or
queued to their own threads and processes; their answers come back through `Runtime.happen` as events. So a hung datastore
or a hung libvirtd holds up nothing but the answers about itself.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from outlast.drivers import clock
from outlast.drivers.datastore.store import StorageEffect, Store
from outlast.drivers.fencing import Fencer
from outlast.drivers.hypervisor.libvirt import Hypervisor
from outlast.drivers.network import HeartbeatSocket
from outlast.drivers.ping import Pinger
from outlast.model.commands import Outcome
from outlast.model.effects import (
    AnswerOperator,
    AskKeeper,
    CancelFence,
    Effect,
    FenceHost,
    FenceStatus,
    KeepSettings,
    LinkPrimary,
    LookAtGuest,
    LookAtVm,
    MigrateVm,
    Note,
    Ping,
    ProbeGuest,
    ReadPowerOnLists,
    ReadProtectedList,
    ReadRegisters,
    ReadSettings,
    ReadSightings,
    RememberHealth,
    RememberTold,
    ResetGuest,
    ResumeVm,
    Send,
    ShutDownVm,
    StartVm,
    StopVm,
    StoreDefinition,
    WritePowerOnList,
    WriteProtectedList,
    WriteSettings,
)
from outlast.model.events import Event, VmStartEnded, Woken
from outlast.model.ids import DatastoreName
from outlast.model.settings import SettingsRecord
from outlast.protocol.agent import AgentMachine
from outlast.runtime.health_file import HealthFile
from outlast.runtime.keeper_link import KeeperLink
from outlast.runtime.told_file import ToldFile

_log = structlog.get_logger()


class Executor:
    """Runs one `AgentMachine`. Everything happens on one event loop.

    `on_note` receives what is to be logged, `on_settings` what this host is to keep, `on_outcome` what came of a command.
    """

    def __init__(
        self,
        machine: AgentMachine,
        *,
        stores: dict[DatastoreName, Store],
        hypervisor: Hypervisor,
        network: HeartbeatSocket,
        pinger: Pinger,
        keeper: KeeperLink,
        fencer: Fencer,
        told: ToldFile,
        health: HealthFile,
        on_note: Callable[[Note], None],
        on_settings: Callable[[SettingsRecord], None],
        on_outcome: Callable[[int, Outcome], None],
    ) -> None:
        self.machine = machine
        self._stores = stores
        self._hypervisor = hypervisor
        self._network = network
        self._pinger = pinger
        self._keeper = keeper
        self._fencer = fencer
        self._told = told
        self._told_is_written = False
        self._health = health
        self._on_note, self._on_settings, self._on_outcome = on_note, on_settings, on_outcome
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self.stopped = False

    def happen(self, event: Event) -> None:
        """Feed one event; called on the event loop only."""
        if self.stopped:
            return
        now = clock.now()
        self.run(self.machine.handle(event, now))
        self._set_timer()

    def run(self, effects: list[Effect]) -> None:
        """Begin each effect, in order. One that cannot be begun is told of, and the others are begun all the same.

        The machine takes every effect of a batch as begun, and its deadlines deal with an answer that does not come. A
        heartbeat that is not sent because a line could not be logged before it would cost this host its good name.
        """
        for effect in effects:
            try:
                self._begin(effect)
            except Exception:
                _log.exception("an effect could not be begun", effect=type(effect).__name__)

    def _set_timer(self) -> None:
        deadline = self.machine.deadline()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            wait_s = max(0.0, (deadline - clock.now()) / 1_000_000_000)
            self._timer = self._loop.call_later(wait_s, self.happen, Woken())

    def _begin(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._network.send(effect.to, effect.message)
            case Ping():
                self._pinger.ping(effect.host, effect.address)
            case (
                ReadSightings()
                | ReadPowerOnLists()
                | ReadRegisters()
                | LinkPrimary()
                | ReadProtectedList()
                | WriteProtectedList()
                | WritePowerOnList()
                | StoreDefinition()
                | ReadSettings()
                | WriteSettings()
            ):
                self._spawn(self._storage(effect))
            case AskKeeper():
                self._keeper.ask(effect.request)
            case StartVm():
                self._spawn(self._start_vm(effect))
            case MigrateVm():
                member = self.machine.known.members[effect.destination]
                self._hypervisor.migrate_vm(effect.request, effect.vm, member.address)
            case ResumeVm():
                self._hypervisor.resume_vm(effect.request, effect.vm)
            case RememberTold():
                self._told_is_written = False
                self._told.write(effect.told)
                self._told_is_written = True
            case ShutDownVm():
                # Who is not told to shut down is killed when its time is over; whose end is misunderstood stays off.
                if self._told_is_written:
                    self._hypervisor.shut_down(effect.vm)
            case StopVm():
                self._hypervisor.shut_down(effect.vm)
            case ProbeGuest():
                self._hypervisor.guests.probe(effect.request, effect.vm)
            case LookAtGuest():
                self._hypervisor.guests.look(effect.request, effect.vm)
            case ResetGuest():
                self._hypervisor.guests.reset(effect.request, effect.vm)
            case LookAtVm():
                self._hypervisor.look_at(effect.request, effect.vm)
            case KeepSettings():
                self._on_settings(effect.record)
            case RememberHealth():
                self._health.write(effect.health)
            case AnswerOperator():
                self._on_outcome(effect.number, effect.outcome)
            case FenceHost():
                self._fencer.switch_off(effect.request, effect.host, effect.level)
            case FenceStatus():
                self._fencer.ask(effect.request, effect.host, effect.level)
            case CancelFence():
                self._fencer.cancel(effect.request)
            case Note():
                self._on_note(effect)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # The machine's own deadlines deal with the answer that does not come; people must hear of it.
            _log.error("an effect failed", exc_info=task.exception())

    async def _storage(self, effect: StorageEffect) -> None:
        # An effect that names a datastore which this host does not have comes from another host's wrong settings.
        store = self._stores.get(effect.datastore)
        if store is None:
            _log.warning("a datastore that is not in this host's settings was asked for", datastore=effect.datastore)
            return
        self.happen(await store.execute(effect))

    async def _start_vm(self, effect: StartVm) -> None:
        store = self._stores.get(effect.home)
        xml, problem = await store.read_definition(effect.vm) if store is not None else (None, "no such datastore here")
        if xml is None:
            problem = f"its definition cannot be read: {problem}"
            self.happen(VmStartEnded(effect.request, effect.vm, False, problem, host_fault=True))
            return
        self._hypervisor.start_vm(effect.request, effect.vm, xml)

    async def stop(self) -> None:
        """Leave in good order; what storage still owes us is not waited for."""
        self.run(self.machine.leave(clock.now()))
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=0.5)
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
