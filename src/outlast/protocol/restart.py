"""One VM's way back. Every wait is a state with a deadline; nothing here ever gives up on a wanted VM.

    state       waits for                                    then
    reading     its register                                 proving, confirming, settled, or waiting
    proving     proof about the owner (rule 5)               confirming; reading again if the owner shows life
    confirming  our own `primary` register, read afresh      placing and ordered; settled if it is not ours any more
    ordered     the target's word that it owns the VM        starting; reading again after ORDER_PATIENCE
    starting    the target's word that it runs               settled; reading again after start_timeout
    waiting     the back-off (1 s, doubling to 60 s), or     reading
                HELD_FOR while recovery is paused
    settled     nothing                                      forgotten by `recovery`

The order of the first three states is safety rule 5: the epoch is read first; only then the owner's record for the last
time; and the target compares-and-swaps from exactly that epoch. What the register says, not who asked for the restart,
decides whether the VM may be taken at all.
"""

import enum

from outlast.model.ids import DatastoreName, Epoch, HostId, Incarnation, RequestId, VmId, VmName
from outlast.model.records import Proof, ProofKind, ProtectedVm, RegisterRecord
from outlast.model.time import SECOND, Duration, Instant, after, backed_off
from outlast.protocol.domain_snapshot import needs_of

ORDER_PATIENCE = Duration(5 * SECOND)
READ_PATIENCE = Duration(3 * SECOND)
HELD_FOR = Duration(2 * SECOND)
"""How soon it is looked again whether recovery is still paused."""
BACK_OFF_FIRST = Duration(SECOND)
BACK_OFF_LAST = Duration(60 * SECOND)


class Stage(enum.StrEnum):
    """See the table at the top of this file."""

    READING = "reading"
    PROVING = "proving"
    CONFIRMING = "confirming"
    ORDERED = "ordered"
    STARTING = "starting"
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
        self.attempts = 0
        self.failed_on: set[HostId] = set()
        self.held = False
        self.asked = entry.asked
        self.by_wish = False
        """Whether an operator asked for this very start: no pause holds it."""
        self.owned_idle_since: Instant | None = None
        self.why = "its host is not running it"

    def enter(self, stage: Stage, now: Instant, patience: Duration) -> None:
        """Begin a stage that ends by itself after `patience`."""
        self.stage, self.since, self.deadline = stage, now, after(now, patience)

    def read(self, request: RequestId, now: Instant) -> None:
        """The register is being read."""
        self.request, self.held, self.by_wish = request, False, False
        self.enter(Stage.READING, now, READ_PATIENCE)

    def back_off(self, why: str, now: Instant) -> None:
        """It did not work; try again later, ever more slowly, for ever."""
        self.why = why
        length = backed_off(BACK_OFF_FIRST, BACK_OFF_LAST, self.attempts)
        self.attempts += 1
        self.request, self.target, self.proof = None, None, None
        self.enter(Stage.WAITING, now, length)

    def look_again(self, why: str, now: Instant) -> None:
        """Nothing failed, but the register does not tell enough yet; read it again in half a second."""
        self.why, self.request = why, None
        self.enter(Stage.WAITING, now, Duration(SECOND // 2))

    def hold(self, why: str, now: Instant) -> None:
        """Somebody has paused recovery: nothing failed, and nothing is done."""
        self.why, self.request, self.proof, self.held = why, None, None, True
        self.enter(Stage.WAITING, now, HELD_FOR)

    def settle(self, why: str, now: Instant) -> None:
        """Nothing more to do."""
        self.why = why
        self.enter(Stage.SETTLED, now, Duration(0))

    def window(self, ours: Duration) -> Duration:
        """How long its owner's record must have stood still: as long as the epoch says that was read, or we do."""
        return max(ours, self.last.window) if self.last is not None else ours

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
