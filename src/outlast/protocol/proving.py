"""What is proof that a VM's owner will not run it any more (safety rule 5), and why there is none yet.

    the register says                           proof
    released                                    `renounced`
    owned, and its owner has given its word     `renounced`
      about this very epoch (`storage_loss`)
    owned by a host with a higher incarnation   `rebooted`
    owned, its keeper session's last word       `clean_shutdown`
      was the end
    owned by a host that is presumed dead,      `lease_expired`, once `observation.lease_is_over`; or
      dead or unresponsive                      `power_fenced`, `operator_confirmed`, if that comes first (`fencing`)
    owned by a host that lives                  none: it is the owner's own

It reads what is known, and changes nothing. The window of a lease is the longest of ours, of what the owner's record says
(`observation`) and of what the epoch says that the VM is taken from (`lease_length`).
"""

import msgspec

from outlast.model.ids import DatastoreName, HostId
from outlast.model.records import Enforcement, HeartbeatRecord, ProofKind, RegisterRecord, RegisterState
from outlast.model.time import SECOND, Duration, Instant
from outlast.protocol.knowledge import Knowledge
from outlast.protocol.observation import RecordWatch
from outlast.protocol.peers import Peers
from outlast.protocol.verdict import SUSPECT

HEIR_GRACE = Duration(10 * SECOND)
"""How long a copy that a release names may take to go on, before the VM is started afresh."""


class Proven(msgspec.Struct, frozen=True):
    """Proof is at hand; the times are those of a `Proof`."""

    kind: ProofKind
    first_seen: int = 0
    last_read: int = 0


class OwnerLives(msgspec.Struct, frozen=True):
    """The owner lives, and can be asked."""

    owner: HostId


class NotYet(msgspec.Struct, frozen=True):
    """There is none, and why. `silent`: the owner, if it might be made sure of its end (`fencing`)."""

    why: str
    silent: HostId | None = None


class Prover:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, peers: Peers) -> None:
        self._known = knowledge
        self._peers = peers

    def look(self, last: RegisterRecord, home: DatastoreName, epoch_read_at: Instant) -> Proven | OwnerLives | NotYet:
        """What is known of the owner of this last record of a register."""
        known = self._known
        if last.state is RegisterState.RELEASED:
            return Proven(ProofKind.RENOUNCED)
        if known.has_given_up(last, home):
            return Proven(ProofKind.RENOUNCED)
        watch = known.watches.get((last.owner, home))
        if self.has_rebooted(last, home):
            return Proven(ProofKind.REBOOTED)
        if watch is not None and watch.record is not None and _ended(watch.record, last):
            return Proven(ProofKind.CLEAN_SHUTDOWN)
        if last.owner == known.me or (known.lives(last.owner) and known.verdict(last.owner) not in SUSPECT):
            return OwnerLives(last.owner)
        if known.verdict(last.owner) in SUSPECT and watch is not None:
            said_off = known.said_off(last, home, epoch_read_at)
            if said_off is not None:
                return Proven(said_off)
            found = self._expiry(last, home, watch, epoch_read_at)
            return found if isinstance(found, Proven) else NotYet(found, last.owner)
        return NotYet(f"it waits for a verdict about {known.name(last.owner)}")

    def heir(self, last: RegisterRecord, since: Instant) -> HostId | None:
        """The host whose copy of it is to go on, by its last release, while that can be talked to, and not for ever."""
        if last.heir is None or not self._known.live(last.heir) or self._known.now - since >= HEIR_GRACE:
            return None
        return last.heir

    def has_rebooted(self, last: RegisterRecord, home: DatastoreName) -> bool:
        """Whether the owner has booted since it made this epoch."""
        watch = self._known.watches.get((last.owner, home))
        return watch is not None and watch.incarnation is not None and watch.incarnation > last.incarnation

    def window(self, last: RegisterRecord) -> Duration:
        """How long its owner's record must have stood still: as long as the epoch says, or we do."""
        return max(self._known.settings.window, last.window)

    def _expiry(
        self, last: RegisterRecord, home: DatastoreName, watch: RecordWatch, epoch_read_at: Instant
    ) -> Proven | str:
        known, owner = self._known, last.owner
        name = known.name(owner)
        over = watch.lease_is_over(epoch_read_at, self.window(last))
        if not known.expiry_may_prove(owner, home, self._peers.answers(owner)):
            return f"the end of {name}'s lease on {home} is no proof: {self._why_no_proof(owner, home)}"
        if not known.holds_lease(home):
            return f"this host holds no lease on {home} itself"
        if over:
            return Proven(ProofKind.LEASE_EXPIRED, watch.first_seen or 0, watch.last_read_started or 0)
        if watch.problem:
            return f"the record of {name} on {home} is not believed ({watch.problem}); it waits for its next boot"
        return f"it waits for the end of {name}'s lease on {home}"

    def _why_no_proof(self, owner: HostId, home: DatastoreName) -> str:
        record = self._known.watches[owner, home].record
        if record is None:
            return "it never had a record there"
        if record.enforcement is Enforcement.NONE:
            return "a freeze does not stop its guests (vfio or vhost-user)"
        if record.enforcement is Enforcement.KEEPER and self._peers.answers(owner):
            unsent = self._peers.problem(owner)
            return f"it cannot be pinged ({unsent})" if unsent else "it answers ping"
        return "writes may be in flight, and accept_in_flight_risk is false"


def _ended(record: HeartbeatRecord, last: RegisterRecord) -> bool:
    """Whether the keeper session that won this epoch has said its last word: it runs nothing and never will again.

    Another session of the same boot proves nothing: a last word of a keeper that ended may land late, when its successor
    has long begun anew (a shutdown that was called off).
    """
    return record.ended and (record.incarnation, record.session) == (last.incarnation, last.session)
