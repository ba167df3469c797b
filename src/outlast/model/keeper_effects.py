"""What the keeper's machine can ask for. The executor does them in order; that order is part of safety.

`Freeze` and `Kill` come before anything that talks to storage or a client in the same batch, and `Thaw` only in a batch
that follows the confirmed link. The paired vocabulary is `keeper_events`.
"""

import msgspec

from outlast.model.claims import Claimant, Disk, DiskClaim
from outlast.model.ids import NO_HANDOVER, DatastoreName, Epoch, Handover, LeaseTerm, RequestId, VmId, VmName
from outlast.model.keeping import Happened, KeeperReply
from outlast.model.records import HeartbeatRecord, RegisterRecord
from outlast.model.time import Duration, Instant


class WriteHeartbeat(msgspec.Struct, frozen=True):
    """Write our record in place; answered by `HeartbeatWritten` with the same sequence. At most one is under way."""

    datastore: DatastoreName
    record: HeartbeatRecord


class ReadRegister(msgspec.Struct, frozen=True):
    """Read the last epoch of a register afresh; answered by `RegisterRead`."""

    request: RequestId
    datastore: DatastoreName
    subject: str


class LinkRegister(msgspec.Struct, frozen=True):
    """Create exactly `record.epoch`, exclusively, if its predecessor exists; answered by `Linked`."""

    request: RequestId
    datastore: DatastoreName
    record: RegisterRecord


class ReadClaims(msgspec.Struct, frozen=True):
    """Read the last claims of disks on one datastore afresh; answered by `ClaimsRead`."""

    request: RequestId
    datastore: DatastoreName
    disks: tuple[Disk, ...]


class LinkClaim(msgspec.Struct, frozen=True):
    """Create exactly the claim `claim.number` of its disk, exclusively, as epochs are; answered by `ClaimLinked`."""

    request: RequestId
    datastore: DatastoreName
    claim: DiskClaim


class ReadClaimant(msgspec.Struct, frozen=True):
    """Read the register of a VM afresh, on the datastore that is its home; answered by `ClaimantRead`."""

    request: RequestId
    claimant: Claimant


class BarClaimant(msgspec.Struct, frozen=True):
    """Create exactly `record.epoch` in that VM's register, so that it is certain that it was over.

    Answered by `ClaimantBarred`.
    """

    request: RequestId
    claimant: Claimant
    record: RegisterRecord


class Freeze(msgspec.Struct, frozen=True):
    """SIGSTOP the VM's process (and freeze its cgroup where there is one)."""

    vm: VmId


class Thaw(msgspec.Struct, frozen=True):
    """SIGCONT the VM's process."""

    vm: VmId


class Kill(msgspec.Struct, frozen=True):
    """SIGKILL the VM's process; its exit is reported by `ProcessExited`."""

    vm: VmId


class WatchForProcess(msgspec.Struct, frozen=True):
    """Look for the process of a start that passes the gate now, until told to stop; answered by `ProcessAppeared`."""

    vm: VmId
    name: VmName
    home: DatastoreName


class LookForProcess(msgspec.Struct, frozen=True):
    """Is there a process of this start, or one that may yet become it? Answered by `ProcessMissing` if there is none."""

    vm: VmId
    name: VmName
    epoch: Epoch | None
    handover: Handover = NO_HANDOVER


class StopWatching(msgspec.Struct, frozen=True):
    """The start is over; look no longer."""

    vm: VmId


class Reply(msgspec.Struct, frozen=True):
    """Answer a client's request."""

    client: int
    reply: KeeperReply


class Tell(msgspec.Struct, frozen=True):
    """Tell every subscriber, and the log."""

    happened: Happened


class PublishLease(msgspec.Struct, frozen=True):
    """Put a lease's deadline (0: lapsed) and term in shared memory, for the second freezer and for our successor.

    `length`: of the lease, so that the successor knows when the write began on which the deadline rests.
    """

    datastore: DatastoreName
    deadline: Instant
    term: LeaseTerm
    length: Duration


class Remember(msgspec.Struct, frozen=True):
    """Write down for our successor that this VM has its home there, and runs by right in this term of this session.

    Done before what follows in the batch: a start that passes, a thaw. `lease`: what its epoch allows its owner. NO_TERM:
    it has ended, or what comes is a copy, and whatever is found of it later has no right from before.
    """

    vm: VmId
    home: DatastoreName
    term: LeaseTerm
    lease: Duration


class Changed(msgspec.Struct, frozen=True):
    """`report()` has something new for the subscribers."""


class PetWatchdog(msgspec.Struct, frozen=True):
    """Everything that had to be frozen is; keep the hardware watchdog from firing."""


KeeperEffect = (
    WriteHeartbeat
    | ReadRegister
    | LinkRegister
    | ReadClaims
    | LinkClaim
    | ReadClaimant
    | BarClaimant
    | Freeze
    | Thaw
    | Kill
    | WatchForProcess
    | LookForProcess
    | StopWatching
    | Reply
    | Tell
    | PublishLease
    | Remember
    | Changed
    | PetWatchdog
)
