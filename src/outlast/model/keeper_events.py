"""What can happen to the keeper. The paired vocabulary, what it can ask for, is `keeper_effects`."""

import enum

import msgspec

from outlast.model.claims import DiskClaim
from outlast.model.ids import NO_HANDOVER, DatastoreName, Epoch, Handover, Incarnation, RequestId, VmId, VmName
from outlast.model.keeping import KeeperRequest
from outlast.model.records import RegisterRecord
from outlast.model.time import Duration


class LinkOutcome(enum.StrEnum):
    """How an exclusive create ended. UNKNOWN: it may or may not have happened, and may yet."""

    WON = "won"
    LOST = "lost"
    UNKNOWN = "unknown"


class Asked(msgspec.Struct, frozen=True):
    """A request came in over the socket. `client` says where the reply goes."""

    client: int
    request: KeeperRequest


class IncarnationWon(msgspec.Struct, frozen=True):
    """This boot has its number on a datastore (found again after a keeper restart, or freshly won)."""

    datastore: DatastoreName
    incarnation: Incarnation


class HeartbeatWritten(msgspec.Struct, frozen=True):
    """A heartbeat write ended. `ok` only if the storage confirmed it; `foreign`: our place held another's record.

    `refused`: the storage itself answered, with an error.
    """

    datastore: DatastoreName
    sequence: int
    ok: bool
    foreign: bool = False
    problem: str = ""
    refused: bool = False


class RegisterRead(msgspec.Struct, frozen=True):
    """A register was read afresh. `ok` False: it could not be (`problem`); `last` None with `ok`: it has no epoch yet."""

    request: RequestId
    ok: bool
    last: RegisterRecord | None
    problem: str = ""


class Linked(msgspec.Struct, frozen=True):
    """An exclusive create of the next epoch ended."""

    request: RequestId
    outcome: LinkOutcome
    problem: str = ""


class ClaimsRead(msgspec.Struct, frozen=True):
    """The last claims of the disks that were asked for, in that order, None where there is none yet."""

    request: RequestId
    ok: bool
    found: tuple[DiskClaim | None, ...] = ()
    problem: str = ""


class ClaimLinked(msgspec.Struct, frozen=True):
    """An exclusive create of a disk's next claim ended."""

    request: RequestId
    outcome: LinkOutcome
    problem: str = ""


class ClaimantBarred(msgspec.Struct, frozen=True):
    """An exclusive create of the next epoch of a VM that had claimed a disk ended."""

    request: RequestId
    outcome: LinkOutcome
    problem: str = ""


class ClaimantRead(msgspec.Struct, frozen=True):
    """The register of a VM that has claimed a disk was read. `ok` False: it could not be; `last` None: it has no epoch.

    `gone`: a later boot of the host that owns it exists, so that nothing runs on that epoch.
    """

    request: RequestId
    ok: bool
    last: RegisterRecord | None = None
    gone: bool = False
    problem: str = ""


class FoundProcess(msgspec.Struct, frozen=True):
    """One QEMU process on this host whose disks are on our datastores, found at keeper start or by its pid file.

    `unfreezable`: it has a device that works on while the process is stopped (safety rule 6). `by_right`: the keeper
    session before us had asserted it in the term whose unexpired lease we may adopt (rule 8), for a lease of that length.
    `session`: the keeper session of this boot that let it run last, empty if none wrote that down.
    `incoming`: it was begun to receive the memory of a VM that runs elsewhere.
    """

    vm: VmId
    name: VmName
    home: DatastoreName
    pid: int
    stopped: bool
    unfreezable: bool = False
    by_right: Duration | None = None
    session: str = ""
    incoming: bool = False


class ProcessesFound(msgspec.Struct, frozen=True):
    """The complete list of this host's QEMU processes at keeper start. Nothing is renewed before it (safety rule 8)."""

    found: tuple[FoundProcess, ...]


class ProcessAppeared(msgspec.Struct, frozen=True):
    """The process of a start that the gate let pass has been found, checked by its uuid, and is watched by a pidfd."""

    process: FoundProcess


class DeviceSeen(msgspec.Struct, frozen=True):
    """A running VM has a device, plugged in since it began, that works on while its process is stopped (safety rule 6)."""

    vm: VmId
    device: str


class ProcessMissing(msgspec.Struct, frozen=True):
    """No process of that start exists (`LookForProcess`), nor one that may yet become it; nobody is left to make one."""

    vm: VmId
    epoch: Epoch | None
    handover: Handover = NO_HANDOVER


class ProcessExited(msgspec.Struct, frozen=True):
    """A watched process's pidfd reported its exit."""

    vm: VmId


class ClientGone(msgspec.Struct, frozen=True):
    """A connection ended; nothing more can be said to it."""

    client: int


class CloseAsked(msgspec.Struct, frozen=True):
    """The keeper is told to end this incarnation (host shutdown): gate closed, last word when no QEMU is left."""


class Woken(msgspec.Struct, frozen=True):
    """The deadline that the machine asked for has come."""


ClaimAnswer = ClaimsRead | ClaimLinked | ClaimantRead | ClaimantBarred
"""What storage answers about whose a disk is."""

KeeperEvent = (
    Asked
    | IncarnationWon
    | HeartbeatWritten
    | RegisterRead
    | Linked
    | ClaimAnswer
    | ProcessesFound
    | ProcessAppeared
    | DeviceSeen
    | ProcessMissing
    | ProcessExited
    | ClientGone
    | CloseAsked
    | Woken
)
