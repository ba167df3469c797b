"""Switching a silent host off, so that its end is proof (`power_fenced`): beside the lease, never in its way.

`recovery` says which host's power it would like to be off (`want`), for as long as a VM of it has no other proof; whichever
proof comes first is used, and a device that fails or hangs costs nothing but its own time. One effort a host:

    stage        waits for                                   then
    confirming   our own `primary` register, read afresh     switching; asking, if it was switched off in this silence
    switching    the device: "I have switched it off"        asking; the next level if it could not
    asking       the device: is it on or off?                off: proof.  On: asked again for a while, then the next level
    waiting      the back-off after the last level           confirming, at the first level again

A device's success is not proof. What is proof is that it was asked for the state, and said *off*, after the epoch had been
read that is to be taken: whichever boot made that epoch, it was over at some moment since, and a later boot needs a later
epoch (safety rule 3). So it does not matter whether the host was switched off by us or had lost its power before, nor
whether it boots again meanwhile; an answer about an earlier moment proves nothing about a later epoch.

Never fenced: this host itself; a host that lives by its record, on any datastore that it reaches; one whose records cannot
all be read from here; anybody while so many are silent at once that the fault may be ours, or who may be about to come back
after a cold start (`doubt`); anybody while recovery is paused. Only who is responsible for a VM's home fences for it.
When a host shows life, what was begun against it is called off, as far as it has not reached the device: what has will cost
that host its VMs, which come back, and never run twice.
"""

import enum

import msgspec

from outlast.model.effects import CancelFence, FenceHost, FenceStatus, ReadRegisters
from outlast.model.events import FenceEnded, FenceStatusEnded, FenceTested, PowerState, RegistersRead
from outlast.model.ids import PRIMARY_REGISTER, DatastoreName, HostId, RequestId
from outlast.model.inventory import FenceLevel
from outlast.model.records import ProofKind
from outlast.model.time import SECOND, Duration, Instant, after, backed_off
from outlast.protocol.datastore_watch import DatastoreWatch
from outlast.protocol.doubt import Doubt
from outlast.protocol.knowledge import SETTLES, Knowledge, Outbox, PoweredOff
from outlast.protocol.peers import Peers
from outlast.protocol.responsibility import Responsibility
from outlast.protocol.shared_settings import SharedSettings
from outlast.protocol.verdict import SUSPECT

READ_PATIENCE = Duration(3 * SECOND)
ASK_AGAIN = Duration(SECOND)
GRACE = Duration(SECOND)
"""How much longer than a level's timeout its answer is waited for: the driver ends the command itself."""
BACK_OFF_FIRST = Duration(5 * SECOND)
BACK_OFF_LAST = Duration(60 * SECOND)


class Stage(enum.StrEnum):
    """See the table at the top of this file."""

    CONFIRMING = "confirming"
    SWITCHING = "switching"
    ASKING = "asking"
    WAITING = "waiting"


class _Effort(msgspec.Struct):
    """Where the fencing of one host stands. `ask_at`: when its state is asked for again; `ask_until`: when no more."""

    home: DatastoreName
    stage: Stage
    deadline: Instant
    level: int = 0
    request: RequestId | None = None
    asked_at: Instant = Instant(0)
    ask_at: Instant | None = None
    ask_until: Instant | None = None
    attempts: int = 0


class Outcome(msgspec.Struct, frozen=True):
    """The last thing that a host's fence devices did or said, for people."""

    at: Instant
    ok: bool
    text: str


class Fencing:
    """See the top of this file."""

    def __init__(
        self,
        knowledge: Knowledge,
        outbox: Outbox,
        *,
        peers: Peers,
        responsibility: Responsibility,
        shared: SharedSettings,
        doubt: Doubt,
        watch: DatastoreWatch,
    ) -> None:
        self._known = knowledge
        self._doubt = doubt
        self._watch = watch
        self._out = outbox
        self._peers = peers
        self._responsible = responsibility
        self._shared = shared
        self._levels: dict[HostId, tuple[FenceLevel, ...]] = knowledge.config.fencing
        self._wanted: dict[HostId, DatastoreName] = {}
        self._efforts: dict[HostId, _Effort] = {}
        self._switched: dict[HostId, Instant | None] = {}
        """The first ping of the silence in which a host was switched off: then its state is asked first."""
        self.outcomes: dict[HostId, Outcome] = {}
        """For people: what devices last said to this agent, or to another one, which has told of it."""

    # -- what recovery asks ---------------------------------------------------------------------------------------

    def want(self, host: HostId, home: DatastoreName, epoch_read_at: Instant) -> None:
        """A VM homed there waits for proof about a host: fence it, if one may. Said anew in each turn."""
        off = self._known.powered_off.get(host)
        settling = off is not None and off.kind is ProofKind.POWER_FENCED and epoch_read_at <= off.asked_at
        if self._levels.get(host) and not settling:
            self._wanted.setdefault(host, home)

    def why(self, host: HostId) -> str:
        """What the fencing of a host waits for, in words; empty for a host without a device."""
        effort = self._efforts.get(host)
        if not self._levels.get(host):
            return ""
        if effort is None:
            return f"it is not fenced: {self._why_not(host) or 'nothing asks for it'}"
        agent = self._levels[host][effort.level].agent
        return f"its fencing is {effort.stage} ({agent}, level {effort.level + 1} of {len(self._levels[host])})"

    # -- turns ----------------------------------------------------------------------------------------------------

    @property
    def under_way(self) -> bool:
        """Whether a device is being asked, or is about to be."""
        return bool(self._efforts)

    def look(self) -> None:
        """Forget that a host was off as soon as it shows life: what was said of it is void."""
        for host, off in list(self._known.powered_off.items()):
            booted = any(self._has_booted(host, mark.datastore, mark.incarnation) for mark in off.marks)
            if booted or self._peers.seen_since(host, off.asked_at):
                del self._known.powered_off[host]
                self._out.note("fence-void", host=host, relay=True, proof=off.kind)

    def _has_booted(self, host: HostId, datastore: DatastoreName, incarnation: int) -> bool:
        seen = self._known.watches[host, datastore].incarnation
        return seen is not None and seen > incarnation

    def tick(self) -> None:
        """Begin what is wanted, move what is under way, end what is neither. After `recovery` has had its turn."""
        for host, effort in list(self._efforts.items()):
            self._move(host, effort)
        for host, home in self._wanted.items():
            if host in self._efforts:
                continue
            if self._why_not(host, home):
                self._have_it_looked_at(host)
            else:
                self._efforts[host] = effort = _Effort(home, Stage.CONFIRMING, self._known.now)
                self._confirm(host, effort)
        self._wanted.clear()

    def _move(self, host: HostId, effort: _Effort) -> None:
        now, wanted = self._known.now, host in self._wanted
        if self._known.verdict(host) not in SUSPECT:
            self._call_off(host, effort, f"it is {self._known.verdict(host)}")
        elif self._known.pause is not None and effort.stage is not Stage.ASKING:
            self._call_off(host, effort, self._known.pause.sentence)
        elif effort.stage in (Stage.CONFIRMING, Stage.WAITING) and not wanted:
            del self._efforts[host]  # Another proof came first.
        elif effort.stage is Stage.ASKING and effort.ask_at is not None and now >= effort.ask_at:
            self._ask(host, effort)
        elif now >= effort.deadline:
            if effort.stage is Stage.WAITING:
                self._confirm(host, effort)
            else:
                self._next_level(host, effort, "it gave no answer in time")

    def _call_off(self, host: HostId, effort: _Effort, why: str) -> None:
        del self._efforts[host]
        if effort.stage is Stage.SWITCHING and effort.request is not None:
            self._out.put(CancelFence(effort.request))
            self._out.note("fence-cancelled", host=host, relay=True, why=why)

    # -- whether one may ------------------------------------------------------------------------------------------

    def _why_not(self, host: HostId, home: DatastoreName | None = None) -> str:
        known = self._known
        if host == known.me:
            return "no host fences itself"
        if known.verdict(host) not in SUSPECT:
            return f"it is {known.verdict(host)}"
        if known.pause is not None:
            return known.pause.sentence
        if home is not None and (self._responsible.holds(home) is None or not known.holds_lease(home)):
            return f"this host is not responsible for {home}, or holds no lease there"
        return self._maybe_lives(host) or self._doubt.why_not_fenced(host)

    def _maybe_lives(self, host: HostId) -> str:
        """Why the host may live by a record, although the verdict does not say so; empty if it does not."""
        known, silence = self._known, self._peers.first_ping_at(host)
        if silence is None:
            return "it could not be pinged"
        elsewhere = sorted(self._reached(host) - known.datastores.keys())
        if elsewhere:
            return f"its record on {', '.join(elsewhere)} cannot be seen from here"
        for name, enough in self._quiet_from(host, silence).items():
            looked_at = known.watches[host, name].looked_at
            if looked_at is None or looked_at < enough:
                return f"its record on {name} has not been seen unchanged for long enough"
        return ""

    def _reached(self, host: HostId) -> set[DatastoreName]:
        seen = self._known.beats.get(host)
        return {reach.datastore for reach in seen.beat.reach if reach.reachable} if seen is not None else set()

    def _quiet_from(self, host: HostId, silence: Instant) -> dict[DatastoreName, Instant]:
        """From when on a look at each of its records, if it is as before, tells that the host does not rewrite it."""
        known, reached = self._known, self._reached(host)
        found: dict[DatastoreName, Instant] = {}
        for name in known.datastores:
            watch = known.watches[host, name]
            if name in reached or watch.incarnation is not None:  # Else it was never there.
                quiet_since = max(silence, watch.changed_at or silence)
                found[name] = after(quiet_since, Duration(2 * known.settings.datastore_heartbeat_interval))
        return found

    def _have_it_looked_at(self, host: HostId) -> None:
        """A look that may be all that is missing is not left to the next poll.

        What it has to find is as before. Feared is a host that is only late, and whose next write would have been seen by
        the next poll: two intervals without a write make it late enough, whenever somebody looks.
        """
        silence = self._peers.first_ping_at(host)
        for name, enough in self._quiet_from(host, silence).items() if silence is not None else ():
            self._watch.read_at(name, enough)

    # -- one effort -----------------------------------------------------------------------------------------------

    def _confirm(self, host: HostId, effort: _Effort) -> None:
        """`one-responsible-primary` and `pause-holds` count for fencing too: storage is asked before each act."""
        effort.stage, effort.deadline = Stage.CONFIRMING, after(self._known.now, READ_PATIENCE)
        self._shared.look_before_act(effort.home)
        effort.request, effort.ask_at, effort.ask_until = self._out.request(), None, None
        self._out.put(ReadRegisters(effort.request, effort.home, (PRIMARY_REGISTER,)))

    def registers_read(self, event: RegistersRead) -> bool:
        """Whether this answers one of our reads."""
        found = self._found(event.request, Stage.CONFIRMING)
        if found is not None:
            self._confirmed(*found, event)
        return found is not None

    def _confirmed(self, host: HostId, effort: _Effort, event: RegistersRead) -> None:
        last = event.last.get(PRIMARY_REGISTER)
        if self._known.now >= effort.deadline:
            return  # It tells how things were: this agent stood still meanwhile.
        if not event.ok or last is None:
            self._back_off(host, effort, f"the primary register of {event.datastore} cannot be read: {event.problem}")
        elif not self._responsible.rests_on(effort.home, last):
            self._responsible.read_soon()
            del self._efforts[host]
        elif self._why_not(host, effort.home):
            del self._efforts[host]
        elif self._switched.get(host) == self._peers.first_ping_at(host):
            self._ask(host, effort)
        else:
            self._switch_off(host, effort)

    def _found(self, request: RequestId, stage: Stage) -> tuple[HostId, _Effort] | None:
        for host, effort in self._efforts.items():
            if effort.request == request and effort.stage is stage:
                return host, effort
        return None

    def _level(self, host: HostId, effort: _Effort) -> FenceLevel:
        return self._levels[host][effort.level]

    def _switch_off(self, host: HostId, effort: _Effort) -> None:
        level = self._level(host, effort)
        effort.request = self._out.request()
        effort.stage = Stage.SWITCHING
        effort.deadline = after(self._known.now, Duration(level.timeout + GRACE))
        self._out.note("fence-asked", host=host, datastore=effort.home, relay=True, agent=level.agent)
        self._out.put(FenceHost(effort.request, host, effort.level))

    def ended(self, event: FenceEnded) -> None:
        """A device says that it has switched the host off, or that it could not."""
        found = self._found(event.request, Stage.SWITCHING)
        if found is None:
            return
        host, effort = found
        if not event.ok:
            self._next_level(host, effort, event.problem)
            return
        effort.ask_until = after(self._known.now, self._level(host, effort).timeout)
        self._ask(host, effort)

    def _ask(self, host: HostId, effort: _Effort) -> None:
        effort.request, effort.asked_at, effort.ask_at = self._out.request(), self._known.now, None
        effort.stage = Stage.ASKING
        effort.deadline = after(self._known.now, Duration(self._level(host, effort).timeout + GRACE))
        self._out.put(FenceStatus(effort.request, host, effort.level))

    def status_ended(self, event: FenceStatusEnded) -> None:
        """A device says whether the host is on or off."""
        found = self._found(event.request, Stage.ASKING)
        if found is None:
            return
        host, effort = found
        now = self._known.now
        if event.state is PowerState.OFF:
            self._is_off(host, effort)
        elif event.state is PowerState.UNKNOWN:
            self._next_level(host, effort, event.problem)
        elif effort.ask_until is None:
            self._switched.pop(host, None)
            self._back_off(host, effort, "it was switched on again since; it waits for its boot")
        elif now < effort.ask_until:
            # Many devices say that they have when they have only begun to.
            effort.request, effort.ask_at = None, after(now, ASK_AGAIN)
            effort.deadline = after(effort.ask_at, GRACE)
        else:
            self._next_level(host, effort, "it says that it switched it off, and that it is on")

    def _is_off(self, host: HostId, effort: _Effort) -> None:
        now, agent = self._known.now, self._level(host, effort).agent
        del self._efforts[host]
        self._switched[host] = self._peers.first_ping_at(host)
        self._known.powered_off[host] = PoweredOff(ProofKind.POWER_FENCED, effort.asked_at, after(now, SETTLES))
        self.outcomes[host] = Outcome(now, True, f"{agent} says that it is off")
        self._out.note("fence-confirmed", host=host, relay=True, agent=agent)

    def _next_level(self, host: HostId, effort: _Effort, problem: str) -> None:
        if effort.level + 1 >= len(self._levels[host]):
            self._back_off(host, effort, problem)
            return
        self._failed(host, effort, problem)
        effort.level += 1
        self._confirm(host, effort)

    def _back_off(self, host: HostId, effort: _Effort, problem: str) -> None:
        self._failed(host, effort, problem)
        length = backed_off(BACK_OFF_FIRST, BACK_OFF_LAST, effort.attempts)
        effort.attempts, effort.level, effort.request = effort.attempts + 1, 0, None
        effort.stage, effort.deadline = Stage.WAITING, after(self._known.now, length)

    def _failed(self, host: HostId, effort: _Effort, problem: str) -> None:
        agent = self._level(host, effort).agent
        self.outcomes[host] = Outcome(self._known.now, False, f"{agent}: {problem}")
        self._out.note("fence-failed", host=host, relay=True, agent=agent, problem=problem)

    def tested(self, event: FenceTested) -> None:
        """An operator had its devices asked for their state."""
        self.outcomes[event.host] = Outcome(self._known.now, event.ok, event.text)

    def told(self, host: HostId, ok: bool, text: str) -> None:
        """Another agent says what its devices said."""
        self.outcomes[host] = Outcome(self._known.now, ok, text)

    def next_deadline(self) -> Instant | None:
        """When an effort has to be moved, or a proof may be used, by time alone."""
        due = [effort.ask_at or effort.deadline for effort in self._efforts.values()]
        due += [off.usable_at for off in self._known.powered_off.values() if off.usable_at > self._known.now]
        return min(due, default=None)
