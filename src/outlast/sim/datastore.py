"""A simulated datastore: what is stored, and each host's way to it.

What is stored changes at one instant, when a request lands. A request goes out, lands and is answered at three different
times; a way that hangs keeps requests from landing, one that fails ends them with an error, and a host that lost its power
never hears an answer, though what landed stays. `links` follow the rules of `drivers/datastore/registers.py`: exclusive,
from an existing predecessor, with nothing higher.
"""

import functools
import random
from collections.abc import Callable
from typing import Any

import msgspec

from outlast.model.ids import BootId, DatastoreName, HostId, VmId
from outlast.model.keeper_events import LinkOutcome
from outlast.model.records import HeartbeatRecord, PowerOnList, ProtectedList, RegisterRecord
from outlast.sim.scheduler import Scheduler

KEEP = 16
MICROSECOND = 1_000


class StorageError(Exception):
    """A request ended with an error, in words."""


class Datastore:
    """What is stored. `on_link` is told of every new epoch, for the invariants."""

    def __init__(self, name: DatastoreName, filesystem: str, device: str) -> None:
        self.name = name
        self.filesystem = filesystem
        self.device = device
        self.heartbeats: dict[HostId, HeartbeatRecord] = {}
        self.incarnations: dict[HostId, list[BootId]] = {}
        self.registers: dict[str, dict[int, RegisterRecord]] = {}
        self.power_on: dict[HostId, PowerOnList] = {}
        self.protected: ProtectedList | None = None
        self.definitions: dict[VmId, str] = {}
        self.on_link: Callable[[Datastore, RegisterRecord], None] = lambda _store, _record: None

    def last(self, subject: str) -> RegisterRecord | None:
        """The newest epoch of a register."""
        register = self.registers.get(subject)
        return register[max(register)] if register else None

    def link(self, record: RegisterRecord) -> LinkOutcome:
        """Create an epoch, exclusively."""
        register = self.registers.setdefault(record.subject, {})
        if record.epoch in register:
            return LinkOutcome.WON if register[record.epoch] == record else LinkOutcome.LOST
        if record.epoch > 0 and record.epoch - 1 not in register:
            return LinkOutcome.LOST
        if register and max(register) > record.epoch:
            return LinkOutcome.LOST
        register[record.epoch] = record
        for epoch in sorted(register)[:-KEEP]:
            if epoch > 0:
                del register[epoch]
        self.on_link(self, record)
        return LinkOutcome.WON

    def boot(self, host: HostId, boot_id: BootId) -> int:
        """The incarnation of this boot, made if it is new; the first is 1."""
        boots = self.incarnations.setdefault(host, [])
        if boot_id not in boots:
            boots.append(boot_id)
        return boots.index(boot_id) + 1


class _Request(msgspec.Struct):
    work: Callable[[Datastore], Any]
    done: Callable[[Any], None]
    failed: Callable[[str], None]
    landed: bool = False
    dead: bool = False


class Way:
    """One helper's way from a host to a datastore: one request after the other, as a real I/O helper does them."""

    def __init__(self, scheduler: Scheduler, rng: random.Random, datastore: Datastore) -> None:
        self._scheduler = scheduler
        self._rng = rng
        self.datastore = datastore
        self.mode = "ok"
        self.slow = 0
        self._queue: list[_Request] = []
        self._busy = False

    def ask(self, work: Callable[[Datastore], Any], done: Callable[[Any], None], failed: Callable[[str], None]) -> None:
        """Do `work` when it lands; then `done` with its result, or `failed` with a problem."""
        self._queue.append(_Request(work, done, failed))
        self._next()

    @property
    def waiting(self) -> bool:
        """Whether anything is under way."""
        return bool(self._queue)

    def _latency(self) -> int:
        usual = 200 + self._rng.randrange(600)
        if self._rng.randrange(100) == 0:
            usual += self._rng.randrange(20_000)
        return usual * MICROSECOND // 2 + self.slow // 2

    def _next(self) -> None:
        if self._busy or not self._queue or self.mode == "hang":
            return
        self._busy = True
        request = self._queue[0]
        self._scheduler.after(self._latency(), lambda: self._land(request))

    def _land(self, request: _Request) -> None:
        if request.dead:
            return
        if self.mode == "hang":
            # It was on its way when the storage began to hang: it lands after the heal, or never.
            self._busy = False
            return
        if self.mode == "fail":
            self._answer(request, lambda: request.failed("the storage is lost"))
            return
        request.landed = True
        try:
            result = request.work(self.datastore)
        except StorageError as error:
            text = str(error)
            self._answer(request, lambda: request.failed(text))
            return
        self._answer(request, lambda: request.done(result))

    def _answer(self, request: _Request, tell: Callable[[], None]) -> None:
        def arrive() -> None:
            if request.dead:
                return
            if self.mode == "hang":
                # The answer is lost on its way; it comes when the storage is back.
                self._held = arrive
                return
            self._queue.pop(0)
            self._busy = False
            tell()
            self._next()

        self._scheduler.after(self._latency(), arrive)

    _held: Callable[[], None] | None = None

    def set_mode(self, mode: str) -> None:
        """ok, hang or fail. What hung goes on, or fails."""
        self.mode = mode
        if mode == "hang":
            return
        if mode == "fail":
            queue, self._queue = self._queue, []
            self._busy, self._held = False, None
            for request in queue:
                request.dead = True
                self._scheduler.after(MICROSECOND, functools.partial(request.failed, "the storage is lost"))
            return
        held, self._held = self._held, None
        if held is not None:
            self._scheduler.after(self._latency(), held)
        else:
            self._next()

    def end(self, *, lands_late: bool) -> None:
        """Its master is gone: nobody hears an answer. What is under way is lost, or lands late all the same."""
        queue, self._queue = self._queue, []
        self._busy, self._held = False, None
        for request in queue:
            request.dead = True
        if lands_late and queue and not queue[0].landed:
            work = queue[0].work
            self._scheduler.after(self._latency(), lambda: self._late(work))

    def _late(self, work: Callable[[Datastore], Any]) -> None:
        if self.mode == "ok":
            work(self.datastore)
