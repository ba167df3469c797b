"""What an agent's machine can ask for. The paired vocabulary, what can happen, is `events`.

The executor (`runtime/executor.py`, or the simulated world) takes a batch in order: what is written to storage is issued
before what is sent to a peer. No effect waits for another; answers come back as events.
"""

import msgspec

from outlast.model.commands import Outcome
from outlast.model.health import Health
from outlast.model.ids import DatastoreName, HostId, RequestId, VmId, VmName
from outlast.model.keeping import KeeperRequest
from outlast.model.messages import Message
from outlast.model.records import PowerOnList, ProtectedList, RegisterRecord
from outlast.model.settings import SettingsRecord, StoredSettings
from outlast.model.time import Instant


class Send(msgspec.Struct, frozen=True):
    """Seal a message and send it to a host."""

    to: HostId
    message: Message


class Ping(msgspec.Struct, frozen=True):
    """One ICMP echo request; an answer comes as `PingAnswered`. `host` None: an isolation address."""

    host: HostId | None
    address: str


class ReadSightings(msgspec.Struct, frozen=True):
    """Read every host's heartbeat record on a datastore, past every cache."""

    request: RequestId
    datastore: DatastoreName


class ReadPowerOnLists(msgspec.Struct, frozen=True):
    """Read every host's power-on list on a datastore."""

    request: RequestId
    datastore: DatastoreName


class ReadRegisters(msgspec.Struct, frozen=True):
    """Read the last epoch of each of these registers afresh ('primary' is the datastore's own)."""

    request: RequestId
    datastore: DatastoreName
    subjects: tuple[str, ...]


class LinkPrimary(msgspec.Struct, frozen=True):
    """Create exactly `record.epoch` of the datastore's `primary` register, exclusively."""

    request: RequestId
    datastore: DatastoreName
    record: RegisterRecord


class ReadProtectedList(msgspec.Struct, frozen=True):
    """Read a datastore's protected list."""

    request: RequestId
    datastore: DatastoreName


class WriteProtectedList(msgspec.Struct, frozen=True):
    """Write a datastore's protected list; answered by `Stored`."""

    request: RequestId
    datastore: DatastoreName
    content: ProtectedList


class WritePowerOnList(msgspec.Struct, frozen=True):
    """Write our power-on list on a datastore; answered by `Stored`."""

    request: RequestId
    datastore: DatastoreName
    content: PowerOnList


class StoreDefinition(msgspec.Struct, frozen=True):
    """Keep a VM's definition on its home datastore, so that any host can start it; answered by `Stored`.

    `first`: only if there is none yet. What a VM ran with last is not replaced by what some host still has of it.
    """

    request: RequestId
    datastore: DatastoreName
    vm: VmId
    xml: str
    first: bool = False


class ReadSettings(msgspec.Struct, frozen=True):
    """Read the settings record on a datastore."""

    request: RequestId
    datastore: DatastoreName


class WriteSettings(msgspec.Struct, frozen=True):
    """Write the settings record on a datastore; answered by `Stored`."""

    request: RequestId
    datastore: DatastoreName
    content: StoredSettings


class KeepSettings(msgspec.Struct, frozen=True):
    """Keep the settings record on this host, so that its agent and its keeper have it when they start."""

    record: SettingsRecord


class RememberHealth(msgspec.Struct, frozen=True):
    """Keep on this host what was said of its hardware, so that its next agent knows it, also after a reboot."""

    health: Health


class AnswerOperator(msgspec.Struct, frozen=True):
    """Tell whoever gave a command on this host what came of it."""

    number: int
    outcome: Outcome


class AskKeeper(msgspec.Struct, frozen=True):
    """Send a request to our keeper; answered by `KeeperAnswered`, or never when it is gone."""

    request: KeeperRequest


class StartVm(msgspec.Struct, frozen=True):
    """Define the VM from its definition on its home datastore, and start it; answered by `VmStartEnded`."""

    request: RequestId
    vm: VmId
    name: VmName
    home: DatastoreName


class MigrateVm(msgspec.Struct, frozen=True):
    """Have libvirt migrate a VM that runs here to that host, where it stays paused; answered by `VmMigrationEnded`."""

    request: RequestId
    vm: VmId
    destination: HostId


class ResumeVm(msgspec.Struct, frozen=True):
    """Have libvirt let the guest go on that a migration has left paused; answered by `VmResumed`."""

    request: RequestId
    vm: VmId


class RememberTold(msgspec.Struct, frozen=True):
    """Write down, for every later agent of this boot, which VMs isolation has told to end, and until when each may take.

    Done before what follows in the batch; as long as it cannot be done, no guest is asked to shut down.
    """

    told: dict[VmId, Instant]


class ShutDownVm(msgspec.Struct, frozen=True):
    """Ask the guest to shut down."""

    vm: VmId


class StopVm(msgspec.Struct, frozen=True):
    """Ask the guest to shut down, because its operator wants it off."""

    vm: VmId


class ProbeGuest(msgspec.Struct, frozen=True):
    """Ask a VM's guest agent whether it is there; answered by `GuestProbed`."""

    request: RequestId
    vm: VmId


class LookAtGuest(msgspec.Struct, frozen=True):
    """Ask a VM's guest agent, and if it does not answer, what libvirt knows; answered by `GuestLookedAt`.

    Never answered while libvirt hangs.
    """

    request: RequestId
    vm: VmId


class ResetGuest(msgspec.Struct, frozen=True):
    """Keep what the guest's screen and console show, then reset its machine; answered by `GuestReset`.

    What cannot be kept within a few seconds is done without.
    """

    request: RequestId
    vm: VmId


class FenceHost(msgspec.Struct, frozen=True):
    """Have the fence device of that level switch the host off; answered by `FenceEnded`."""

    request: RequestId
    host: HostId
    level: int


class FenceStatus(msgspec.Struct, frozen=True):
    """Ask the fence device of that level whether the host is on or off; answered by `FenceStatusEnded`."""

    request: RequestId
    host: HostId
    level: int


class CancelFence(msgspec.Struct, frozen=True):
    """The host shows life: end what was begun with that request, if it has not reached the device yet."""

    request: RequestId


class LookAtVm(msgspec.Struct, frozen=True):
    """Ask libvirt whether the domain is off; answered by `VmLookedAt`, or never while libvirt gives no answer."""

    request: RequestId
    vm: VmId


class Note(msgspec.Struct, frozen=True):
    """One line for the event log: a reason code, what it is about, and the facts to fill its sentence."""

    kind: str
    host: HostId | None = None
    vm: VmId | None = None
    datastore: DatastoreName | None = None
    facts: dict[str, str] = {}
    relay: bool = False


Effect = (
    Send
    | Ping
    | ReadSightings
    | ReadPowerOnLists
    | ReadRegisters
    | LinkPrimary
    | ReadProtectedList
    | WriteProtectedList
    | WritePowerOnList
    | StoreDefinition
    | ReadSettings
    | WriteSettings
    | KeepSettings
    | RememberHealth
    | AnswerOperator
    | AskKeeper
    | StartVm
    | MigrateVm
    | ResumeVm
    | RememberTold
    | ShutDownVm
    | StopVm
    | ProbeGuest
    | LookAtGuest
    | ResetGuest
    | FenceHost
    | FenceStatus
    | CancelFence
    | LookAtVm
    | Note
)
