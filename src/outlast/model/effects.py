"""What an agent's machine can ask for. The paired vocabulary, what can happen, is `events`.

The executor (`runtime/executor.py`, or the simulated world) takes a batch in order: what is written to storage is issued
before what is sent to a peer. No effect waits for another; answers come back as events.
"""

import msgspec

from outlast.model.ids import DatastoreName, HostId, RequestId, VmId, VmName
from outlast.model.keeping import KeeperRequest
from outlast.model.messages import Message
from outlast.model.records import PowerOnList, ProtectedList, RegisterRecord


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
    """Keep a VM's definition on its home datastore, so that any host can start it; answered by `Stored`."""

    request: RequestId
    datastore: DatastoreName
    vm: VmId
    xml: str


class AskKeeper(msgspec.Struct, frozen=True):
    """Send a request to our keeper; answered by `KeeperAnswered`, or never when it is gone."""

    request: KeeperRequest


class StartVm(msgspec.Struct, frozen=True):
    """Define the VM from its definition on its home datastore, and start it; answered by `VmStartEnded`."""

    request: RequestId
    vm: VmId
    name: VmName
    home: DatastoreName


class ShutDownVm(msgspec.Struct, frozen=True):
    """Ask the guest to shut down."""

    vm: VmId


class ProbeGuest(msgspec.Struct, frozen=True):
    """Ask a VM's guest agent whether it is there; answered by `GuestProbed`."""

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
    | AskKeeper
    | StartVm
    | ShutDownVm
    | ProbeGuest
    | Note
)
