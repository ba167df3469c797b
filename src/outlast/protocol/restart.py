"""One VM's way back. Every wait is a state with a deadline; nothing here ever gives up on a wanted VM.

    state       waits for                                    then
    reading     its register                                 proving, queued, settled, or waiting
    proving     proof about the owner (rule 5), and until    queued; reading again if the owner shows life
                `doubt` lets it go
    queued      its turn (`sequence`), and a host for it     confirming
    confirming  our own `primary` register, and the VM's,    ordered; reading again if the VM's has changed; settled if
                read afresh                                  we are not responsible any more
    ordered     the target's word that it owns the VM        starting; waiting after ORDER_PATIENCE
    starting    the target's word that it runs               started; waiting after start_timeout
    started     the target's list to say so                  settled; reading again after LIST_PATIENCE
    waiting     its pause (1 s, doubling to 60 s), or the    reading
                end of the one that an operator has made
    settled     nothing                                      forgotten by `recovery`

The order of the first states is safety rule 5: the epoch is read first; only then the owner's record for the last
time; and the target compares-and-swaps from exactly that epoch. What the register says, not who asked for the restart,
decides whether the VM may be taken at all.
"""

import enum

from outlast.model.ids import DatastoreName, Epoch, HostId, Incarnation, RequestId, VmId, VmName
from outlast.model.policy import VmPolicy, rank
from outlast.model.records import Proof, ProofKind, ProtectedVm, RegisterRecord
from outlast.model.time import SECOND, Duration, Instant, after
from outlast.protocol.domain_snapshot import needs_of
from outlast.protocol.sequence import Waiter

ORDER_PATIENCE = Duration(5 * SECOND)
READ_PATIENCE = Duration(3 * SECOND)
LIST_PATIENCE = Duration(5 * SECOND)
HOLD = Duration(SECOND)
HELD_FOR = Duration(2 * SECOND)
"""How soon it is looked again whether recovery is still paused, if nobody tells."""
LOOK_AGAIN = Duration(SECOND // 2)


class Stage(enum.StrEnum):
    """See the table at the top of this file."""

    READING = "reading"
    PROVING = "proving"
    QUEUED = "queued"
    CONFIRMING = "confirming"
    ORDERED = "ordered"
    STARTING = "starting"
    STARTED = "started"
    WAITING = "waiting"
    SETTLED = "settled"


class Restart:
    """Where one VM stands on its way back. `recovery.Recovery` moves it; the fields are its whole memory."""

    def __init__(self, entry: ProtectedVm, home: DatastoreName, now: Instant) -> None:
        self.entry = entry
        self.vm: VmId = entry.vm
        self.name: VmName = entry.name
        self.home = home
        self.needs = needs_of(entry, home)
        self.policy: VmPolicy = entry.policy
        self.opened = now
        self.stage = Stage.READING
        self.since = now
        self.deadline = now
        self.request: RequestId | None = None
        self.last: RegisterRecord | None = None
        self.epoch_read_at: Instant = now
        self.proof: Proof | None = None
        self.target: HostId | None = None
        self.order = 0
        self.order_sent: Instant | None = None
        self.failed_on: set[HostId] = set()
        self.held = False
        """Whether it waits because recovery is paused."""
        self.by_wish = False
        """Whether an operator asked for this very start: no pause holds it."""
        self.unheeded: set[VmName] = set()
        """Dependencies that are not waited for any more."""
        self.waited = Duration(0)
        """How long it has waited for its dependencies, as far as that counts."""
        self.looked_at = now
        self.tier = rank(entry.policy.priority)
        """The smaller, the more important: its own rank, or that of the most important VM that waits for it."""
        self.again: HostId | None = None
        """The host on which it failed and is to be tried once more."""
        self.back_on: HostId | None = None
        """The host on which it ran, if that has rebooted since: the best place for it, if it can take it already."""
        self.roomless = 0
        """How often no host could take it."""
        self.only: HostId | None = None
        """The one host that may start it: its owner, if that lives."""
        self.avoid: frozenset[HostId] = frozenset()
        """Hosts on which it failed by itself as often as its policy allows."""
        self.chosen: HostId | None = None
        """The host that it would go to, if that had a place for one more start."""
        self.owned_idle_since: Instant | None = None
        self.in_doubt = False
        """Whether there is proof, and its start is held back all the same (`doubt`)."""
        self.why = "its host is not running it"

    def enter(self, stage: Stage, now: Instant, patience: Duration) -> None:
        """Begin a stage that ends by itself after `patience`."""
        self.stage, self.since, self.deadline = stage, now, after(now, patience)
        self.in_doubt = False

    def read(self, request: RequestId, now: Instant) -> None:
        """The register is being read: whatever was ordered before, it begins anew from what it says."""
        self.request, self.target, self.only, self.held, self.by_wish = request, None, None, False, False
        self.enter(Stage.READING, now, READ_PATIENCE)

    def wait(self, why: str, now: Instant, length: Duration) -> None:
        """Read the register again after a while, and begin anew from what it says then."""
        self.why = why
        self.request, self.target, self.proof, self.chosen = None, None, None, None
        self.enter(Stage.WAITING, now, length)

    def queue(self, now: Instant) -> None:
        """Only its turn has to come."""
        self.looked_at = now
        self.enter(Stage.QUEUED, now, Duration(0))

    def doubt(self, why: str, now: Instant) -> None:
        """There is proof, but it is not acted upon yet: it is looked for again until it is."""
        if self.stage is not Stage.PROVING:
            self.enter(Stage.PROVING, now, READ_PATIENCE)
        self.in_doubt, self.why = True, why

    def wait_counts(self, counts: bool, now: Instant) -> None:
        """Since it was looked at last it has waited for its dependencies; that counts, or stands still."""
        if counts:
            self.waited = Duration(self.waited + now - self.looked_at)
        self.looked_at = now

    def hold(self, why: str, now: Instant) -> None:
        """Somebody has paused recovery: nothing failed, and nothing is done."""
        self.wait(why, now, HELD_FOR)
        self.held = True

    def waiter(self) -> Waiter:
        """As the order of starts sees it."""
        return Waiter(
            vm=self.vm,
            name=self.name,
            priority=self.policy.priority,
            after=tuple(name for name in self.policy.after if name not in self.unheeded),
            queued=self.stage is Stage.QUEUED,
            queued_since=self.since,
            waited=self.waited,
        )

    def settle(self, why: str, now: Instant) -> None:
        """Nothing more to do."""
        self.why = why
        self.enter(Stage.SETTLED, now, Duration(0))

    def proven(self, kind: ProofKind, observer: HostId, first_seen: int = 0, last_read: int = 0) -> None:
        """Proof is at hand that the owner will not run the epoch that was read."""
        last = self.last
        self.proof = Proof(
            kind=kind,
            owner=last.owner if last is not None else HostId(""),
            incarnation=last.incarnation if last is not None else Incarnation(0),
            epoch=last.epoch if last is not None else Epoch(-1),
            observer=observer,
            first_seen=first_seen,
            last_read=last_read,
        )
