"""What the small world remembers of its parts: keepers, hosts, the datastore; and what a world is bounded by.

A part is a small tuple of small values, with everything that cannot matter made the same: times count from now in ticks,
epochs from the register's newest, terms from the present one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from outlast.model.ids import (
    NO_HANDOVER,
    DatastoreName,
    Epoch,
    Handover,
    HostId,
    Incarnation,
    LeaseTerm,
    Nonce,
    RequestId,
    VmId,
    VmName,
)
from outlast.model.records import ProofKind, Reason, RegisterRecord, RegisterState
from outlast.model.settings import Settings
from outlast.model.time import SECOND, Duration, Instant
from outlast.protocol.ownership import Phase, Purpose

TICK = Duration(4 * SECOND)
"""The gate's patience: whoever asks waits for one tick."""
NOW = Instant(1000 * TICK)
"""Every machine is built and called at this instant; what it remembers lies as far before or after it as it should."""
NEWEST = 100
"""The epoch that stands for the register's newest one."""
OLD_EPOCH = -1
"""Every epoch before the newest is the same: whatever is linked from it is lost."""

HOSTS = (HostId("me"), HostId("peer"))
VM, NAME, HOME = VmId("vm"), VmName("vm"), DatastoreName("store")
AGENT, HOOK, PLACES, GIVES_UP = 1, 2, 3, 4
"""Who asks the keeper: `PLACES` is the agent that asks for a place for a copy, `GIVES_UP` for a word (`renouncing`)."""
HANDOVER = Handover("handover")
"""The one migration that there is."""
ONE = RequestId(1)
TERM = LeaseTerm(5)


class Rec(NamedTuple):
    """A register's record. `epoch`: from the newest (0); `owner`: 0 or 1; `session`: which keeper of that boot, from 0.

    Keepers only write their session, and ask for nobody's: what they read and link has session 0 here until it is stored.
    `handed`: it bears the number of the migration; a release names the other host's copy with that.
    """

    epoch: int
    owner: int
    incarnation: int
    released: bool
    session: int = 0
    handed: bool = False


class Evidence(NamedTuple):
    """A proof, as it travels in an order. `owner` matters to the proof `own` alone."""

    kind: ProofKind
    owner: int
    epoch: int


def order_from(epoch: int) -> Evidence:
    """An order to take the VM from that epoch. For which of the other proofs it is given is nothing a keeper asks."""
    return Evidence(ProofKind.LEASE_EXPIRED, 0, epoch)


class LinkMemory(NamedTuple):
    """A link under way, as the ownership machine remembers it. `term`: 0 the present one, -1 an earlier one."""

    epoch: int
    released: bool
    term: int


class VmMemory(NamedTuple):
    """An `Ownership`. `failed`: the epoch that it did not win; one that is not to be made any more cannot fail again.

    `pid`: what kind of process it is (`PLAIN` and so on), 0 if there is none. `ended`: the last that ended is the one that
    migrates. `heir`: the release is to name the copy. `handover`: it comes by the migration, or came; whether its guest has
    gone on since then decides nothing about safety.
    """

    phase: Phase
    epoch: int | None
    pid: int
    owned_elsewhere: bool
    releasing: bool
    granted: int | None
    linking: LinkMemory | None
    failed: int | None
    heir: bool = False
    handover: bool = False
    ended: bool = False


class Asker(NamedTuple):
    """Whoever waits at the gate; `evidence` None: a start."""

    client: int
    deadline: int
    evidence: Evidence | None
    begun: bool


class KeeperMemory(NamedTuple):
    """A `KeeperMachine` on one datastore. Times in ticks from now. A heartbeat may be written again at any time.

    How long a grant or a launch has been waiting is not remembered: patience may end at any time ("unused").
    """

    ready: bool
    closing: bool
    said: bool
    incarnation: int | None
    writing: int | None
    deadline: int | None
    task: Purpose | None
    retry_at: int | None
    vm: VmMemory | None
    asker: Asker | None


class Handled(NamedTuple):
    """What an event led to. `kept`: the read or link under way before is still waited for; `effects`: what matters here."""

    memory: KeeperMemory
    kept: bool
    effects: tuple[tuple[Any, ...], ...]


def small_settings(lease: int, margin: int) -> Settings:
    """Settings whose every time is a number of ticks."""
    window = Duration((lease + margin) * TICK)
    return Settings(
        datastore_heartbeat_interval=TICK,
        datastore_poll_interval=TICK,
        lease_duration=Duration(lease * TICK),
        lease_margin=Duration(margin * TICK),
        datastore_stale_after=window,
    )


def older(epoch: int) -> int:
    """The same epoch, seen from a register that has grown by one."""
    return max(epoch - 1, OLD_EPOCH)


def at(ticks: int) -> Instant:
    """An instant, from ticks from now."""
    return Instant(NOW + ticks * TICK)


def ticks(instant: Instant) -> int:
    """Ticks from now, rounded up: what is due in half a tick is due at the next one."""
    return -((NOW - instant) // TICK)


def record_of(rec: Rec) -> RegisterRecord:
    """The real record. Who it is from is in the nonce, so that no two records are ever equal by chance."""
    return RegisterRecord(
        subject=VM,
        epoch=Epoch(NEWEST + rec.epoch),
        owner=HOSTS[rec.owner],
        incarnation=Incarnation(rec.incarnation),
        session=str(rec.session),
        nonce=Nonce(f"{rec.owner}-{rec.incarnation}-{rec.session}-{rec.epoch}"),
        state=RegisterState.RELEASED if rec.released else RegisterState.OWNED,
        reason=Reason.CRASHED if rec.released else Reason.STARTED,
        heir=HOSTS[1 - rec.owner] if rec.handed and rec.released else None,
        handover=HANDOVER if rec.handed else NO_HANDOVER,
    )


FREE, LOSS, CRASH, POWER, GUEST, ASK, CLOSE = 0, 1, 1 << 4, 1 << 8, 1 << 12, 1 << 16, 1 << 20
"""What a step costs: one unit of a counter of four bits."""
UNUSED = (Phase.GRANTED, Phase.STARTING, Phase.VOID)
NONE, EXECUTES, STOPPED, PAUSED, BOTH = range(5)
"""A guest: its process is stopped by a signal, or the guest paused by QEMU itself, or both."""
AWAKE = (EXECUTES, PAUSED)
FROZEN = {EXECUTES: STOPPED, PAUSED: BOTH}
THAWED = {STOPPED: EXECUTES, BOTH: PAUSED}
PLAIN, LEAVES, ARRIVES = 1, 2, 3
"""A process, or the start of one: the one that migrates, or its copy while that has not gone on, or any other."""
ASKED, PASSED, LAUNCHED = 1, 2, 3
NEXT = {ASKED: PASSED, PASSED: LAUNCHED}


class Bounds(NamedTuple):
    """How much may happen. `observers`: the hosts whose agents look at the other one and may take its VM.

    `slow_reads`: an observer's reads begin, find and are answered at different times. Otherwise they do all at once, which
    leaves nothing out as long as only the order of its reads, and not the length of one, lets an observer prove more.
    `words`: who owns a later epoch may say so at any time to a keeper that holds the VM frozen.
    `gives_up`: the owner may be asked at any time to give up what its register says, by whoever has just read it; a loss of
    storage has always lasted for long enough, and keepers are counted.
    `migrates`: the VM may migrate from the first host to the second, once (`small_migration.py`).
    """

    lease: int = 2
    margin: int = 1
    losses: int = 0
    crashes: int = 0
    power_losses: int = 0
    guest_ends: int = 0
    asks: int = 1
    closes: int = 0
    observers: tuple[int, ...] = (1,)
    slow_reads: bool = False
    running: bool = True
    late_starts: bool = False
    late_launches: bool = False
    words: bool = False
    gives_up: bool = False
    migrates: bool = False

    @property
    def budget(self) -> int:
        """The counters, as one number."""
        faults = self.losses * LOSS + self.crashes * CRASH + self.power_losses * POWER
        return faults + self.guest_ends * GUEST + self.asks * ASK + self.closes * CLOSE


class HostMemory(NamedTuple):
    """One host. `keeper` None: no such process. `numbered`: this boot has its number on the datastore.

    `session`: the keepers of this boot, counted from 0 (where nobody says a last word, nobody asks: it stays 0 there).
    `published`: the lease's deadline in shared memory, None when lapsed. `asserted`: the keeper remembered the VM in the
    published term (before a new keeper has looked: its predecessor had).
    `kind`: of the process, or of the start that is under way.
    `beat` and `op`: what the keeper's helper has under way; `late_*`: what a dead or given-up helper still may land.
    """

    on: bool
    numbered: bool
    keeper: KeeperMemory | None
    session: int
    published: int | None
    asserted: bool
    guest: int
    start: int
    beat: tuple[Any, ...] | None
    op: tuple[Any, ...] | None
    late_beat: tuple[Any, ...] | None
    late_link: Rec | None
    kind: int = PLAIN


class StoreMemory(NamedTuple):
    """What is stored: the register's newest record (`owner`: the host's index), each host's heartbeat and boot number.

    `sound`: no epoch was ever written a second time.
    """

    owner: int
    incarnation: int
    released: bool
    beats: tuple[tuple[int, bool, int], tuple[int, bool, int]]
    numbers: tuple[int, int]
    session: int = 0
    sound: bool = True
    handed: bool = False


class HostStep(NamedTuple):
    """Something that happens on one host alone."""

    label: str
    host: HostMemory
    cost: int


class StoreStep(NamedTuple):
    """Something of one host that lands on the datastore, or is read there. What else it changes: see `SmallWorld`."""

    label: str
    host: HostMemory
    store: StoreMemory
    overtakes: bool = False
    rewrites: bool = False
