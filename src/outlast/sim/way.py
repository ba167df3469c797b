"""One I/O helper's way from a host to a datastore: one request after the other, as a real helper does them.

A request goes out, lands and is answered at three different times. What a cut, an error, a power loss or the helper's
death does to it depends on where it is then:

    not sent yet     it is held by the host's kernel and sent when the path is whole again, or dies with the host; where
                     there are errors, it is one and never lands
    on its way       it is lost, or held and sent again, or lands after a while, though nobody hears of it, or is told of
                     an error
    landed           it stays; the answer comes when the path is whole again, or never

A write of several sectors may be met half done by a reader (`torn`), and stays so if the rest is lost.
"""

import functools
import random
from collections.abc import Callable
from typing import Any

import msgspec

from outlast.sim.datastore import Datastore
from outlast.sim.physics import FABRIC, HELD_FOREVER, TORN_FOR, Physics
from outlast.sim.scheduler import Action, Scheduler

MICROSECOND = 1_000
Work = Callable[[Datastore], Any]


class _Request(msgspec.Struct):
    work: Work
    done: Callable[[Any], None]
    failed: Callable[[str], None]
    torn: Callable[[Datastore], None] | None
    landed: bool = False
    half: bool = False
    dead: bool = False
    overdue: bool = False


class Way:
    """See the top of this file. `deliver` hands an answer to the host, which may stand still or have lost its power."""

    def __init__(
        self,
        scheduler: Scheduler,
        rng: random.Random,
        datastore: Datastore,
        physics: Physics,
        deliver: Callable[[Action], None],
    ) -> None:
        self._scheduler = scheduler
        self._rng = rng
        self._physics = physics
        self._deliver = deliver
        self.datastore = datastore
        self.mode = "ok"
        self.slow = 0
        self._queue: list[_Request] = []
        self._busy = False
        self._ended = False
        self._held_answer: Action | None = None
        self._orphans: list[tuple[int, Work]] = []

    def ask(
        self,
        work: Work,
        done: Callable[[Any], None],
        failed: Callable[[str], None],
        torn: Callable[[Datastore], None] | None = None,
    ) -> None:
        """Do `work` when it lands; then `done` with its result, or `failed` with a problem. `torn`: half of it."""
        self._queue.append(_Request(work, done, failed, torn))
        self._next()

    @property
    def over(self) -> bool:
        """Whether nothing will ever happen on this way any more."""
        return self._ended and not self._orphans

    def _latency(self) -> int:
        # One draw serves both questions: a second one would cost more than all the rest of this.
        rare, usual = divmod(self._rng.getrandbits(32), 600)
        usual += 200
        if rare % 100 == 0:
            usual += self._rng.randrange(20_000)
        if self._physics.slow and self._rng.randrange(1000) < self._physics.slow:
            usual += self._rng.randrange(1_000_000)
        return usual * MICROSECOND // 2 + self.slow // 2

    def _chance(self, permille: int) -> bool:
        return permille > 0 and self._rng.randrange(1000) < permille

    def _bound(self) -> int:
        bound = self.datastore.in_flight_bound
        return HELD_FOREVER if bound is None else bound

    # -- one request ----------------------------------------------------------------------------------------------

    def _next(self) -> None:
        if self._busy or not self._queue or self.mode == "hang":
            return
        self._busy = True
        request = self._queue[0]
        self._scheduler.after(self._latency(), lambda: self._land(request))

    def _land(self, request: _Request) -> None:
        if request.dead or request.landed:
            return
        if self.mode == "hang":
            self._cut_under_way(request)
        elif self.mode == "fail":
            self._answer(request, lambda: request.failed("the storage is lost"))
        elif request.torn is not None and not request.half and self._chance(self._physics.torn):
            request.half = True
            request.torn(self.datastore)
            self._scheduler.after(1 + self._rng.randrange(TORN_FOR), lambda: self._land(request))
        else:
            self._do(request)

    def _do(self, request: _Request) -> None:
        if request.dead or request.landed:
            return
        request.landed = True
        result = request.work(self.datastore)
        self._answer(request, lambda: request.done(result))

    def _cut_under_way(self, request: _Request) -> None:
        """It was on its way when the storage began to hang: past the cut already, or sent again after the heal."""
        if not request.overdue and self._chance(self._physics.late):
            request.overdue = True
            bound = min(self._bound(), 10 * FABRIC)
            self._scheduler.after(self._rng.randrange(bound), lambda: self._do(request))
        else:
            self._busy = False

    def _answer(self, request: _Request, tell: Action) -> None:
        arrive = functools.partial(self._arrive, request, tell)
        self._scheduler.after(self._latency(), lambda: self._deliver(arrive))

    def _arrive(self, request: _Request, tell: Action) -> None:
        if request.dead:
            return
        if self.mode == "hang":
            self._held_answer = functools.partial(self._arrive, request, tell)
            return
        self._queue.pop(0)
        self._busy = False
        tell()
        self._next()

    def _lands_late(self, work: Work, bound: int) -> None:
        delay = self._rng.randrange(max(1, min(bound, 10 * FABRIC)))
        self._scheduler.after(delay, lambda: work(self.datastore))

    # -- what happens to the way ----------------------------------------------------------------------------------

    def set_mode(self, mode: str) -> None:
        """ok, hang or fail. What hung goes on, or fails."""
        before, self.mode = self.mode, mode
        if mode in ("hang", before):
            return
        orphans, self._orphans = self._orphans, []
        if mode == "fail":
            queue, self._queue = self._queue, []
            if self._busy and not queue[0].landed and self._chance(self._physics.late // 2):
                self._lands_late(queue[0].work, self._bound())
            self._busy, self._held_answer = False, None
            for request in queue:
                request.dead = True
                self._scheduler.after(
                    MICROSECOND, functools.partial(self._deliver, functools.partial(request.failed, "the storage is lost"))
                )
            return
        for until, work in orphans:
            if self._scheduler.now <= until:
                self._lands_late(work, 20 * self._latency())
        held, self._held_answer = self._held_answer, None
        if held is not None:
            self._scheduler.after(self._latency(), functools.partial(self._deliver, held))
        else:
            self._next()

    def end(self, *, power_lost: bool = False) -> None:
        """Its master is gone: nobody hears an answer. What is under way is lost, or lands late all the same.

        A kernel goes on with a dead process's write when the path is whole again, unless it gave up before; a host
        without power holds nothing, but what it sent last may still be on its way.
        """
        queue, self._queue = self._queue, []
        self._busy, self._held_answer, self._ended = False, None, True
        for request in queue:
            request.dead = True
        if power_lost:
            self._orphans.clear()
        if not queue or queue[0].landed or not self._chance(self._physics.late):
            return
        work = queue[0].work
        if power_lost:
            if self.mode == "ok":
                self._lands_late(work, min(self._bound(), FABRIC))
        elif self.mode == "hang":
            self._orphans.append((self._scheduler.now + self._bound(), work))
        elif self.mode == "ok":
            self._lands_late(work, min(self._bound(), FABRIC))
