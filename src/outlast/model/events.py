"""What can happen to an agent. The paired vocabulary, what it can ask for, is `effects`.

Answers carry the number of the request that they answer. An answer may never come; every wait has its own deadline.
"""

import enum
from typing import Literal

import msgspec

from outlast.model.commands import Command
from outlast.model.ids import DatastoreName, HostId, RequestId, VmId, VmName
from outlast.model.inventory import Capacity, DatastoreReach, VmDefinition
from outlast.model.keeper_events import LinkOutcome
from outlast.model.keeping import Happened, KeeperReply, KeeperReport
from outlast.model.messages import Message
from outlast.model.records import PowerOnList, ProtectedList, RegisterRecord, Sighting
from outlast.model.settings import StoredSettings


class Woken(msgspec.Struct, frozen=True):
    """The deadline that the machine asked for has come."""


class Received(msgspec.Struct, frozen=True):
    """An authentic datagram from another host of the domain."""

    sender: HostId
    message: Message


class PingAnswered(msgspec.Struct, frozen=True):
    """A host (or an isolation address, then `host` is None) answered a ping."""

    host: HostId | None
    address: str


class PingNotSent(msgspec.Struct, frozen=True):
    """A ping could not even be sent: its silence says nothing about the host (None: an isolation address)."""

    host: HostId | None
    address: str
    problem: str


class SightingsRead(msgspec.Struct, frozen=True):
    """Every host's heartbeat record on one datastore, read in one go. `ok` False: the datastore gave no answer in time."""

    request: RequestId
    datastore: DatastoreName
    ok: bool
    sightings: dict[HostId, Sighting]
    problem: str = ""


class PowerOnListsRead(msgspec.Struct, frozen=True):
    """The hosts' power-on lists on one datastore; a host whose list is missing or torn is absent."""

    request: RequestId
    datastore: DatastoreName
    ok: bool
    lists: dict[HostId, PowerOnList]
    problem: str = ""


class RegistersRead(msgspec.Struct, frozen=True):
    """The last record of each register asked for, by subject; None: no epoch yet. An unreadable one is absent."""

    request: RequestId
    datastore: DatastoreName
    ok: bool
    last: dict[str, RegisterRecord | None]
    problem: str = ""


class PrimaryLinked(msgspec.Struct, frozen=True):
    """An exclusive create of the next epoch of a datastore's `primary` register ended."""

    request: RequestId
    datastore: DatastoreName
    outcome: LinkOutcome
    problem: str = ""


class ProtectedListRead(msgspec.Struct, frozen=True):
    """The protected list of one datastore; `content` None with `ok`: there is none yet."""

    request: RequestId
    datastore: DatastoreName
    ok: bool
    content: ProtectedList | None
    problem: str = ""


class SettingsRead(msgspec.Struct, frozen=True):
    """The settings record on one datastore; `stored` None with `ok`: there is none, or none that can be read."""

    request: RequestId
    datastore: DatastoreName
    ok: bool
    stored: StoredSettings | None
    problem: str = ""


class CommandGiven(msgspec.Struct, frozen=True):
    """An operator gave a command on this host, at `at_ms` of its wall clock; answered by `AnswerOperator`."""

    number: int
    by: str
    at_ms: int
    command: Command


class Stored(msgspec.Struct, frozen=True):
    """A list, a definition or the settings were written, or could not be."""

    request: RequestId
    datastore: DatastoreName
    ok: bool
    problem: str = ""


class DatastoreSurveyed(msgspec.Struct, frozen=True):
    """What this host found out about one of its datastores just now."""

    reach: DatastoreReach


class KeeperAnswered(msgspec.Struct, frozen=True):
    """The keeper's reply to a request of ours."""

    reply: KeeperReply


class KeeperReported(msgspec.Struct, frozen=True):
    """How things stand with our keeper."""

    report: KeeperReport


class KeeperDid(msgspec.Struct, frozen=True):
    """Our keeper froze, thawed, killed, claimed, lost...: for the log, and to hurry up."""

    happened: Happened


class KeeperGone(msgspec.Struct, frozen=True):
    """The connection to our keeper is down."""


class StopReason(enum.StrEnum):
    """Why libvirt says that a domain stopped; HOST_SHUTDOWN: in an orderly way, while its host itself was going down."""

    SHUTDOWN = "shutdown"
    DESTROYED = "destroyed"
    CRASHED = "crashed"
    FAILED = "failed"
    MIGRATED = "migrated"
    SAVED = "saved"
    HOST_SHUTDOWN = "host-shutdown"
    UNKNOWN = "unknown"


class InventoryChanged(msgspec.Struct, frozen=True):
    """This host's virtual machines as libvirt knows them, whole; sent whenever anything about them changed.

    `off`: why those that do not run ended, as far as libvirt remembers. `left_paused`: those whose guest stands still
    because a migration from here has ended without success, and libvirt has not let it go on.
    """

    definitions: tuple[VmDefinition, ...]
    running: frozenset[VmId]
    capacity: Capacity
    off: dict[VmId, StopReason] = {}
    left_paused: frozenset[VmId] = frozenset()


class VmStopped(msgspec.Struct, frozen=True):
    """libvirt says that a domain stopped, or, after a blind time, that it is off and why. `trace`: QEMU's last words."""

    vm: VmId
    name: VmName
    reason: StopReason
    trace: str = ""


class HypervisorState(msgspec.Struct, frozen=True):
    """Whether libvirt answers; `problem` says what it did last if not."""

    up: bool
    problem: str = ""


class VmStartEnded(msgspec.Struct, frozen=True):
    """A define-and-start of ours ended. `host_fault`: it failed, and the VM itself had no part in it."""

    request: RequestId
    vm: VmId
    ok: bool
    problem: str = ""
    host_fault: bool = False


class VmMigrationEnded(msgspec.Struct, frozen=True):
    """A migration of ours ended. `ok`: the copy is whole, and the process here has ended or is about to."""

    request: RequestId
    vm: VmId
    ok: bool
    problem: str = ""


class VmMigrationProgress(msgspec.Struct, frozen=True):
    """How far a migration of ours is, as libvirt says, about once a second. `downtime_ms`: the pause that it expects."""

    request: RequestId
    vm: VmId
    total_mib: int
    remaining_mib: int
    mib_s: int
    downtime_ms: int


class VmResumed(msgspec.Struct, frozen=True):
    """Libvirt has let a guest go on that a migration had left paused, or could not."""

    request: RequestId
    vm: VmId
    ok: bool
    problem: str = ""


class GuestProbed(msgspec.Struct, frozen=True):
    """A VM's guest agent was asked whether it is there."""

    request: RequestId
    vm: VmId
    answered: bool


class GuestState(enum.StrEnum):
    """What one look at a guest finds."""

    ANSWERS = "answers"
    SILENT = "silent"
    """Its agent has its channel open, and does not answer."""
    CLOSED = "closed"
    """Nobody in the guest has the agent's channel open: the agent was ended, the guest boots, or it never had one."""
    UNKNOWN = "unknown"
    """It is paused, or libvirt cannot tell."""


class GuestLookedAt(msgspec.Struct, frozen=True):
    """A guest was looked at. `io`: what its disks and interfaces had done since its process began; of one that answers 0.

    Disks: requests; interfaces: what it has sent. What others send to it says nothing of it.
    """

    request: RequestId
    vm: VmId
    state: GuestState
    io: int = 0


class GuestReset(msgspec.Struct, frozen=True):
    """A guest was reset, or could not be. `kept`: the files that show what it was doing, or why there are none."""

    request: RequestId
    vm: VmId
    ok: bool
    problem: str = ""
    kept: str = ""


class RetryAsked(msgspec.Struct, frozen=True):
    """An operator on this host wants a VM (its name or id) to be tried once more. `token`: a name for the question."""

    token: str
    vm: str


class FenceEnded(msgspec.Struct, frozen=True):
    """A fence device says that it has switched the host off, or why not. Success is no proof: it is asked afterwards."""

    request: RequestId
    host: HostId
    ok: bool
    problem: str = ""


class PowerState(enum.StrEnum):
    """What a fence device says of a host's power."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


class FenceStatusEnded(msgspec.Struct, frozen=True):
    """What a fence device says of the host's power; UNKNOWN: nothing that is understood, and `problem` says why."""

    request: RequestId
    host: HostId
    state: PowerState
    problem: str = ""


class FenceTested(msgspec.Struct, frozen=True):
    """An operator had a host's fence devices tested: the outcome in a sentence, for the screens."""

    host: HostId
    ok: bool
    text: str


class HostGoesDown(msgspec.Struct, frozen=True):
    """This host is about to go down in good order; nothing has been stopped yet. `at_ms`: by its wall clock."""

    how: Literal["reboot", "power-off"]
    at_ms: int


class VmLookedAt(msgspec.Struct, frozen=True):
    """libvirt says whether a domain is off: it has no process, and none is being made."""

    request: RequestId
    vm: VmId
    off: bool


Event = (
    Woken
    | Received
    | PingAnswered
    | PingNotSent
    | SightingsRead
    | PowerOnListsRead
    | RegistersRead
    | PrimaryLinked
    | ProtectedListRead
    | SettingsRead
    | CommandGiven
    | Stored
    | DatastoreSurveyed
    | KeeperAnswered
    | KeeperReported
    | KeeperDid
    | KeeperGone
    | InventoryChanged
    | VmStopped
    | HypervisorState
    | VmStartEnded
    | VmMigrationEnded
    | VmMigrationProgress
    | VmResumed
    | GuestProbed
    | GuestLookedAt
    | GuestReset
    | RetryAsked
    | FenceEnded
    | FenceStatusEnded
    | FenceTested
    | VmLookedAt
    | HostGoesDown
)
