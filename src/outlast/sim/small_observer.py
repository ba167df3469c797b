"""The observer of the small world: the real `RecordWatch` and the real proving half of `Recovery`, as a table.

One agent watches the other host, reads the register, and proves (safety rule 5). Verdicts, lists and elections may be
wrong without harm to safety, so here they are as wrong as they can be: everybody is always judged dead, every agent is
always responsible, always holds its lease, and every level of enforcement lets an expired lease prove. What is left is the
order of reads, the window, and the epoch; those are the real code's.

Of times, only comparisons are kept: whether the window has elapsed and, of a read, whether it began after that and after
the epoch was known. Within one tick the order of events counts as well, as it does on a clock of nanoseconds.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from outlast.model.events import RegistersRead
from outlast.model.ids import BootId, HostId, Incarnation, KeeperSession, LeaseTerm, RequestId
from outlast.model.records import Enforcement, HeartbeatRecord, Proof, ProofKind, ProtectedVm, RegisterRecord, Sighting
from outlast.model.settings import Settings
from outlast.model.time import Duration, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.observation import RecordWatch
from outlast.protocol.protection import Protection
from outlast.protocol.recovery import Recovery
from outlast.protocol.restart import READ_PATIENCE, Restart, Stage
from outlast.protocol.verdict import Verdict
from outlast.sim.small_parts import HOME, HOSTS, NAME, NEWEST, NOW, TICK, VM, Evidence, Rec, older, order_from, record_of

_FOR_EVER = Duration(1 << 62)


class Seen(NamedTuple):
    """What one read of the other host's record found. `same`: what was seen before, `current`: what stands there now."""

    same: bool
    current: bool
    incarnation: int
    ended: bool
    session: int
    highest: int


class ReadMark(NamedTuple):
    """When a read began: after the window had elapsed (`over`), and after the epoch was known (`after`)."""

    over: bool
    after: bool


class ObserverMemory(NamedTuple):
    """One agent. `first_seen`: ticks from now, the window's length once it has elapsed; None while nothing was read."""

    known: Seen | None
    first_seen: int | None
    last_read: ReadMark | None
    reading: ReadMark | None
    found: Seen | None
    register: Rec | None
    case: Rec | None
    order: Evidence | None


FRESH = ObserverMemory(None, None, None, None, None, None, None, None)


class _Facts:
    """Stands for `Knowledge`: the most dangerous answers that it could ever give."""

    def __init__(self, settings: Settings, watch: RecordWatch) -> None:
        self.me = HOSTS[0]
        self.now: Instant = NOW
        self.settings = settings
        self.config = self
        self.first_sequence = 0
        self.watches = {(HOSTS[1], HOME): watch}

    def verdict(self, _host: HostId) -> Verdict:
        return Verdict.DEAD

    def lives(self, _host: HostId) -> bool:
        return False

    def live(self, _host: HostId) -> bool:
        """So nobody waits for the heir of a release, who is then only quicker, or not."""
        return False

    def expiry_may_prove(self, *_: object) -> bool:
        return True

    def holds_lease(self, _home: object) -> bool:
        return True

    def has_given_up(self, *_: object) -> bool:
        return False

    def said_off(self, *_: object) -> None:
        """Nobody here can tell that a host is off: the small world is about leases."""

    def name(self, host: object) -> str:
        return str(host)


class _Peers:
    def answers(self, _host: HostId) -> bool:
        return False


class _NoFencing:
    def want(self, *_: object) -> None:
        """There is no device."""


class _Lists:
    def protection(self, _home: object) -> Protection:
        """No operator has asked for anything."""
        return Protection()


class _Prover(Recovery):
    """The real recovery up to the proof; what comes after (placing, ordering) decides nothing about safety."""

    def __init__(self, facts: _Facts) -> None:
        none: Any = None
        peers, fencing, lists = cast(Any, _Peers()), cast(Any, _NoFencing()), cast(Any, _Lists())
        super().__init__(
            cast(Knowledge, facts),
            Outbox(),
            peers=peers,
            responsibility=lists,
            shared=none,
            desk=none,
            fencing=fencing,
            doubt=none,
        )
        self.proof: Proof | None = None

    def _have_proof(self, case: Restart, kind: ProofKind, first_seen: int = 0, last_read: int = 0) -> None:
        case.proven(kind, HOSTS[0], first_seen, last_read)
        self.proof = case.proof

    def _may_go_on(self, _case: Restart, _last: RegisterRecord) -> bool:
        """How often it failed decides nothing about safety."""
        return True

    def _is_asked_for(self, _case: Restart) -> bool:
        """Nor does a pause."""
        return False

    def _owner_lives(self, case: Restart, owner: HostId) -> None:
        """This host's own VM: the order `own` is an event of its own in the small world."""


class Observers:
    """The table of all observers met so far."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.window = settings.window // TICK
        self._known: dict[tuple[ObserverMemory, tuple[Any, ...]], ObserverMemory] = {}

    def handle(self, memory: ObserverMemory, *event: Any) -> ObserverMemory:
        """What the real code makes of "sighted", "register" or "prove"."""
        key = (memory, event)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._handle(memory, event[0])
        return found

    def _handle(self, memory: ObserverMemory, event: str) -> ObserverMemory:
        watch = self._watch(memory)
        epoch_read_at = self._epoch_known(memory.reading if event == "sighted" else memory.last_read)
        known, case = memory.known, memory.case
        facts = _Facts(self._settings, watch)
        prover = _Prover(facts)
        if event == "sighted" and memory.found is not None and memory.reading is not None:
            seen = memory.found
            watch.observe(_sighting(seen, self._settings.window), self._began(memory.reading), NOW)
            known = seen._replace(same=True, highest=watch.incarnation or seen.highest)
        elif event == "register" and memory.register is not None:
            # Whatever read began before this moment began before the epoch was known.
            case, facts.now = memory.register, after(NOW, Duration(10))
        if case is not None:
            restart = _restart()
            if event == "register":
                prover.cases[VM] = restart
                restart.read(RequestId(1), NOW)
                prover.registers_read(RegistersRead(RequestId(1), HOME, True, {VM: record_of(case)}))
            else:
                restart.last, restart.epoch_read_at = record_of(case), epoch_read_at
                restart.enter(Stage.PROVING, NOW, READ_PATIENCE)
                prover._move(restart)
        if prover.proof is not None:
            case = None
        return self._take(memory._replace(known=known, case=case), event, watch, epoch_read_at, prover.proof)

    # -- the real watch from its memory, and back -----------------------------------------------------------------

    def _first_seen(self, memory: ObserverMemory) -> Instant | None:
        return Instant(NOW + memory.first_seen * TICK) if memory.first_seen is not None else None

    def _began(self, mark: ReadMark) -> Instant:
        """An instant that stands in the right order to the window's end (NOW or later) and to `_epoch_known`."""
        return Instant(NOW + (3 if mark.after else 1) if mark.over else NOW - (1 if mark.after else 3))

    def _epoch_known(self, mark: ReadMark | None) -> Instant:
        return Instant(NOW + 2 if mark is None or mark.over else NOW - 2)

    def _watch(self, memory: ObserverMemory) -> RecordWatch:
        watch = RecordWatch(_FOR_EVER)
        watch.first_seen = self._first_seen(memory)
        known, mark = memory.known, memory.last_read
        if known is not None:
            watch._raw, watch.record = b"seen before", _heartbeat(known, self._settings.window)
            watch.incarnation = Incarnation(known.highest)
            watch.last_read = NOW
        if mark is not None:
            watch.last_read_started = self._began(mark)
        return watch

    def _take(
        self, memory: ObserverMemory, event: str, watch: RecordWatch, epoch_read_at: Instant, proof: Proof | None
    ) -> ObserverMemory:
        first_seen = (watch.first_seen - NOW) // TICK if watch.first_seen is not None else None
        last_read, reading = memory.last_read, memory.reading
        if event == "sighted":
            reading = None
            ends, started = watch.window_ends(self._settings.window), watch.last_read_started
            if ends is not None and started is not None:
                last_read = _mark(started >= ends, started >= epoch_read_at)
        elif event == "register":
            # What began before the epoch was known does not come after it any more.
            last_read = _mark(last_read.over, False) if last_read is not None else None
            reading = _mark(reading.over, False) if reading is not None else None
        order = order_from(proof.epoch - NEWEST) if proof is not None else memory.order
        return _tidied(
            memory._replace(
                first_seen=first_seen,
                last_read=last_read,
                reading=reading,
                found=None if event == "sighted" else memory.found,
                register=None if event == "register" else memory.register,
                order=order,
            )
        )

    def order_own(self, memory: ObserverMemory, rec: Rec) -> ObserverMemory:
        """The agent believes that the owner lives and does not run it, and orders it to start the VM anew."""
        own = Evidence(ProofKind.OWN, rec.owner, rec.epoch)
        return _tidied(memory._replace(register=None, case=None, order=own))

    # -- what changes from outside --------------------------------------------------------------------------------

    def begin_reading(self, memory: ObserverMemory) -> ObserverMemory:
        """A read of the other host's record starts now."""
        over = memory.first_seen is not None and memory.first_seen + self.window <= 0
        return memory._replace(reading=_mark(over, True))

    def tick(self, memory: ObserverMemory) -> ObserverMemory:
        """The same observer, one tick later."""
        if memory.first_seen is None:
            return memory
        return memory._replace(first_seen=max(memory.first_seen - 1, -self.window))

    def overtaken(self, memory: ObserverMemory) -> ObserverMemory:
        """The same observer, when the register has a newer epoch."""
        register, case, order = memory.register, memory.case, memory.order
        return _tidied(
            memory._replace(
                register=register._replace(epoch=older(register.epoch)) if register is not None else None,
                case=case._replace(epoch=older(case.epoch)) if case is not None else None,
                order=order._replace(epoch=older(order.epoch)) if order is not None else None,
            )
        )

    def rewritten(self, memory: ObserverMemory) -> ObserverMemory:
        """The same observer, when the other host's record was written again: what it has read is not current any more."""
        known, found = memory.known, memory.found
        return memory._replace(
            known=known._replace(current=False) if known is not None else None,
            found=found._replace(current=False) if found is not None else None,
        )


def _mark(over: bool, began_after: bool) -> ReadMark:
    """A read that began too early for the window is no proof, whatever it came after."""
    return ReadMark(over, began_after) if over else ReadMark(False, True)


def _tidied(memory: ObserverMemory) -> ObserverMemory:
    """Without what cannot matter any more.

    A case from an epoch that is not the newest can only lead to an order that is lost, as one that became old on its way
    is. One about a VM of the agent's own host waits for nothing: that order is given at once. What a read came after
    matters while there is a case. An old order is lost, whatever its proof.
    """
    case, mark, order = memory.case, memory.last_read, memory.order
    if case is not None and (case.epoch < 0 or case.owner == 0):
        case = None
    if case is None and mark is not None:
        mark = _mark(mark.over, False)
    if order is not None and order.epoch < 0:
        order = order_from(order.epoch)
    return memory._replace(case=case, last_read=mark, order=order)


def _restart() -> Restart:
    return Restart(ProtectedVm(VM, NAME, 0, HOSTS[1]), HOME, NOW)


def _heartbeat(seen: Seen, window: Duration) -> HeartbeatRecord:
    return HeartbeatRecord(
        host=HOSTS[1],
        boot_id=BootId(""),
        incarnation=Incarnation(seen.incarnation),
        session=KeeperSession(str(seen.session)),
        sequence=1,
        term=LeaseTerm(1),
        enforcement=Enforcement.KEEPER,
        agent_progress=0,
        wall_clock_s=0,
        lease=window,
        window=window,
        ended=seen.ended,
    )


def _sighting(seen: Seen, window: Duration) -> Sighting:
    raw = b"seen before" if seen.same else b"something new"
    return Sighting(raw, _heartbeat(seen, window), "", Incarnation(seen.highest))
