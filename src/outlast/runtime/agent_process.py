"""One agent as a process: `outlast agent --config FILE`. Puts the drivers around the machine, and ends in good order.

The machine decides; the executor does; what is here only starts things, tells people, and stops things. Nothing that is
missing at the start (libvirt, the keeper, a datastore) keeps the agent from starting: it says so, and goes on trying.
"""

import asyncio
import contextlib
import importlib.metadata
import os
import secrets
import signal
from pathlib import Path
from typing import Any, Literal, TextIO, cast

import structlog

from outlast.codec.datagrams import Opener, Sealer
from outlast.drivers import clock, ping
from outlast.drivers.datastore.client import HelperClient
from outlast.drivers.datastore.store import Store
from outlast.drivers.fencing import Fencer
from outlast.drivers.hypervisor.libvirt import Hypervisor
from outlast.drivers.network import HeartbeatSocket
from outlast.drivers.notify import notify, watchdog_interval_s
from outlast.drivers.ping import Pinger
from outlast.drivers.stderr import Stderr
from outlast.model.effects import Note
from outlast.model.event_texts import WARNINGS, sentence
from outlast.model.events import DatastoreSurveyed, Event, HostGoesDown, KeeperReported, Received, RetryAsked, Woken
from outlast.model.ids import DatastoreName
from outlast.model.messages import EventNotice
from outlast.model.settings import SettingsRecord
from outlast.model.time import after, in_seconds
from outlast.protocol import plan_basis
from outlast.protocol.agent import AgentMachine
from outlast.protocol.knowledge import AgentConfig
from outlast.protocol.own_host import LAST_WORDS
from outlast.protocol.reporting import Reporter
from outlast.runtime import settings_file
from outlast.runtime.commands import Commands
from outlast.runtime.config import Config, fencing_warnings
from outlast.runtime.control import ControlReply, ControlRequest, ControlServer
from outlast.runtime.event_log import EventLog, LoggedEvent
from outlast.runtime.executor import Executor
from outlast.runtime.fence_desk import FenceDesk
from outlast.runtime.health_file import HealthFile
from outlast.runtime.keeper_link import KeeperLink
from outlast.runtime.second_freezer import SecondFreezer
from outlast.runtime.told_file import ToldFile

SURVEY_EVERY_S = 5.0
FREEZER_LOOKS_EVERY_S = 0.5
LOOKS_FOR_WORDS_S = 0.05


def session_number(state_dir: Path) -> int:
    """A number higher than that of every earlier agent of this host: wall clock in ms, or the stored one plus 1."""
    path = state_dir / "session"
    before = 0
    with contextlib.suppress(OSError, ValueError):
        before = int(path.read_text())
    number = max(clock.wall_ms(), before + 1)
    # A full disk leaves the wall clock, which is enough unless it is set back at the same time.
    with contextlib.suppress(OSError):
        state_dir.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(f"{number}\n")
        temporary.replace(path)
    return number


def _health_file(config: Config) -> HealthFile:
    return HealthFile(Path(config.state_dir) / "health.json")


def _kept_for_the_domain(config: Config) -> dict[str, Any]:
    """What an agent needs for the settings of the whole domain, and what others need to know of this host."""
    return {
        "record": settings_file.load(config.state_dir),
        "least_margin": config.least_margin,
        "health": _health_file(config).read(),
    }


def _stores(config: Config) -> dict[DatastoreName, Store]:
    ids = tuple(member.id for member in config.hosts)
    return {
        d.name: Store(d, HelperClient(d, config.domain, config.host.id, "agent"), config.datastore_key, ids)
        for d in config.datastores
    }


class AgentProcess:
    """See the top of this file."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._log = structlog.get_logger()
        self._version = importlib.metadata.version("outlast")
        number, random = session_number(Path(config.state_dir)), secrets.token_bytes(8)
        boot_id, members = clock.boot_id(), config.hosts
        self._events, self._notices = EventLog(Path(config.state_dir) / "events.jsonl"), 0
        self._freezer = SecondFreezer(config.for_keeper(), boot_id)
        told = ToldFile(Path(config.run_dir) / "told", boot_id)
        machine = AgentMachine(
            AgentConfig(
                domain=config.domain,
                host=config.host.id,
                hosts=members,
                datastores=config.datastores,
                settings=config.settings,
                isolation_addresses=config.isolation_addresses,
                boot_id=boot_id,
                session=random.hex(),
                first_sequence=number,
                fencing={host: tuple(method.level for method in methods) for host, methods in config.fencing.items()},
                told=told.read(),
                rules=config.rules,
                **_kept_for_the_domain(config),
            ),
            clock.now(),
        )
        self._stores = _stores(config)
        opener = Opener(config.cluster_key, config.host.id, frozenset(member.id for member in members))
        sealer = Sealer(config.cluster_key, config.host.id, number, random)
        self._network = HeartbeatSocket(config.host, members, sealer, opener, self._happen)
        self._hypervisor = self._follow_libvirt(config)
        self._keeper = KeeperLink(config.keeper_socket, self._happen)
        self._commands = Commands(config.host.name, number, self._happen)
        self._pinger = Pinger(in_seconds(machine.known.settings.ping_timeout), self._happen)
        self._fencer = Fencer(config.fencing, self._happen)
        self._executor = Executor(
            machine,
            stores=self._stores,
            hypervisor=self._hypervisor,
            network=self._network,
            pinger=self._pinger,
            keeper=self._keeper,
            fencer=self._fencer,
            told=told,
            health=_health_file(config),
            on_note=self._note,
            on_settings=self._keep_settings,
            on_outcome=self._commands.ended,
        )
        self._fence_desk = FenceDesk(machine, self._fencer, self._happen)
        self._control = ControlServer(config.control_socket, self._answer)
        self._tasks: list[asyncio.Task[None]] = []

    def _follow_libvirt(self, config: Config) -> Hypervisor:
        return Hypervisor(
            config.libvirt_uri,
            config.datastores,
            Path(config.state_dir),
            self._happen,
            self._note,
            reserved=(config.reserved_memory_mib, config.reserved_cpu),
            migration_uri=config.migration_uri,
        )

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. Raises OutlastError if the agent cannot start at all."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await self._network.open()
        await self._control.start()
        problem = await ping.problem()
        if problem:
            self._log.warning(problem)
        for warning in fencing_warnings(self._config):
            self._log.warning(warning)
        self._keeper.start()
        self._hypervisor.start()
        self._tasks = [loop.create_task(self._survey(name)) for name in self._stores]
        self._tasks += [loop.create_task(self._look_as_freezer()), loop.create_task(self._tell_manager())]
        self._note(Note("agent-started", host=self._config.host.id, facts={"version": self._version}))
        for dropped in self._executor.machine.known.rulebook.dropped:
            self._note(Note("rule-dropped", facts={"problem": str(dropped)}))
        self._happen(Woken())
        notify("READY=1", f"STATUS=Agent of {self._config.host.name} in the fault domain {self._config.domain}")
        await stop.wait()
        notify("STOPPING=1")
        await self._stop()

    async def _stop(self) -> None:
        # A host that shuts down stops its agent right after its last guest has ended.
        deadline = after(clock.now(), LAST_WORDS)
        while self._executor.machine.own.owes_words and clock.now() < deadline:
            await asyncio.sleep(LOOKS_FOR_WORDS_S)
        self._note(Note("agent-stopped", host=self._config.host.id))
        for task in self._tasks:
            task.cancel()
        await self._executor.stop()
        self._fencer.stop()
        self._control.stop()
        self._keeper.stop()
        self._network.close()
        for store in self._stores.values():
            store.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hypervisor.stop(), 1.0)

    # -- what happens ---------------------------------------------------------------------------------------------

    def _happen(self, event: Event) -> None:
        if isinstance(event, KeeperReported):
            self._freezer.remember(event.report)
        if isinstance(event, Received) and isinstance(event.message, EventNotice):
            self._log_notice(event.message, self._executor.machine.known.name(event.sender))
        self._executor.happen(event)

    def _keep_settings(self, record: SettingsRecord) -> None:
        self._pinger.timeout_s = in_seconds(record.settings.ping_timeout)
        try:
            settings_file.save(self._config.state_dir, record)
        except OSError as error:
            # It counts all the same: this host hears of it again after its next start.
            self._log.warning("the settings cannot be kept on this host", problem=error.strerror)

    async def _survey(self, name: DatastoreName) -> None:
        store = self._stores[name]
        while True:
            try:
                self._happen(DatastoreSurveyed(await store.survey()))
            except Exception:
                self._log.exception("a survey failed; the next one comes", datastore=name)
            await asyncio.sleep(SURVEY_EVERY_S)

    async def _look_as_freezer(self) -> None:
        while True:
            await asyncio.sleep(FREEZER_LOOKS_EVERY_S)
            try:
                # In a thread: it reads command lines, and a process whose storage hangs may make it wait.
                for vm in await asyncio.to_thread(self._freezer.look, clock.now()):
                    self._note(Note("second-freeze", host=self._config.host.id, vm=vm.vm, datastore=vm.home, relay=True))
            except Exception:
                # Nobody else freezes when the keeper is gone: this loop goes on whatever happens.
                self._log.exception("a look as second freezer failed; the next one comes")

    async def _tell_manager(self) -> None:
        interval_s = watchdog_interval_s()
        while interval_s is not None:
            notify("WATCHDOG=1")
            await asyncio.sleep(interval_s)

    # -- telling people -------------------------------------------------------------------------------------------

    def _note(self, note: Note) -> None:
        known = self._executor.machine.known
        reporter = self._config.host.name
        vm = note.facts.get("name") or (known.vm_name(note.vm) if note.vm is not None else "")
        names = {
            **note.facts,
            "reporter": reporter,
            "host": known.name(note.host) if note.host is not None else "",
            "vm": vm,
            "datastore": note.datastore or "",
        }
        text = sentence(note.kind, names)
        event = LoggedEvent(
            at_ms=clock.wall_ms(),
            reporter=reporter,
            kind=note.kind,
            host=names["host"],
            vm=vm,
            datastore=names["datastore"],
            text=text,
            facts=note.facts,
        )
        self._events.append(event)
        (self._log.warning if note.kind in WARNINGS else self._log.info)(text, kind=note.kind)
        if note.relay:
            self._relay(note, event)

    def _relay(self, note: Note, event: LoggedEvent) -> None:
        self._notices += 1
        notice = EventNotice(
            sequence=self._notices,
            kind=note.kind,
            host=note.host,
            vm=note.vm,
            datastore=note.datastore,
            text=event.text,
            wall_clock_ms=event.at_ms,
            vm_name=event.vm,
        )
        for member in self._config.hosts:
            if member.id != self._config.host.id:
                self._network.send(member.id, notice)

    def _log_notice(self, notice: EventNotice, sender: str) -> None:
        known = self._executor.machine.known
        self._events.append(
            LoggedEvent(
                at_ms=notice.wall_clock_ms,
                reporter=sender,
                kind=notice.kind,
                host=known.name(notice.host) if notice.host is not None else "",
                vm=notice.vm_name,
                datastore=notice.datastore or "",
                text=notice.text,
            )
        )

    async def _answer(self, request: ControlRequest) -> ControlReply:
        if request.do == "command" and request.command is not None:
            return ControlReply(ok=True, outcome=await self._commands.give(request.command, request.by))
        if request.do == "retry":
            return self._retry(request)
        if request.do == "going-down":
            return self._goes_down(request)
        if request.do.startswith("fence-"):
            return await self._fence_desk.answer(request)
        reporter = Reporter(self._executor.machine, clock.now())
        if request.do == "settings":
            return ControlReply(ok=True, settings=reporter.settings())
        if request.do == "status":
            return ControlReply(ok=True, status=reporter.snapshot(self._version, dict(self._network.opener.dropped)))
        if request.do == "plan":
            return ControlReply(ok=True, basis=plan_basis.basis(self._executor.machine))
        lines = {
            "host": reporter.explain_host,
            "vm": reporter.explain_vm,
            "datastore": reporter.explain_datastore,
        }[request.what](request.name)
        if lines is None:
            return ControlReply(ok=False, problem=f"there is no {request.what} {request.name}; see `outlast status`")
        return ControlReply(ok=True, lines=lines)

    def _goes_down(self, request: ControlRequest) -> ControlReply:
        how: Literal["reboot", "power-off"] = "reboot" if request.name == "reboot" else "power-off"
        self._happen(HostGoesDown(how, clock.wall_ms()))
        departure = self._executor.machine.departure
        return ControlReply(ok=True, pending=not departure.may_go, lines=[departure.why])

    def _retry(self, request: ControlRequest) -> ControlReply:
        self._happen(RetryAsked(request.token, request.name))
        outcome = self._executor.machine.retrying.outcome(request.token)
        if outcome is None:
            return ControlReply(ok=True, pending=True)
        return ControlReply(ok=outcome.done, problem=outcome.sentence)


def configure_log() -> None:
    """One line per event on standard error: with a level that journald understands, or readable on a terminal."""
    journald = "JOURNAL_STREAM" in os.environ
    stamps = [] if journald else [structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False)]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            *stamps,
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], drop_missing=True),
        ],
        # A full pipe or a reader that is gone must neither stop the agent nor lose what it was about to do.
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, Stderr())),
    )


def run_agent(config: Config) -> None:
    """Run the agent until it is told to end. Raises OutlastError."""
    import uvloop

    configure_log()

    async def main() -> None:
        await AgentProcess(config).run()

    uvloop.run(main())
