"""What agents say to each other in datagrams. `codec/datagrams.py` seals and opens them.

Every agent sends a `Heartbeat` to every other one each `heartbeat_interval`: a secondary's reaches the primary, the
primary's reaches the secondaries, and an election needs no extra round. Orders are repeated until answered, and an order
that arrives twice is answered twice and done once (`order` is its number, unique within the primary's boot).
"""

import msgspec

from outlast.model.commands import Command, Outcome, WantVm
from outlast.model.health import Health
from outlast.model.ids import (
    BootId,
    DatastoreName,
    ElectionTerm,
    Epoch,
    Handover,
    HostId,
    VmId,
    VmName,
)
from outlast.model.inventory import Capacity, DatastoreReach
from outlast.model.planning import Outlook
from outlast.model.records import Proof, ProtectedVm, RecordMark
from outlast.model.settings import SettingsMark, SettingsRecord
from outlast.model.time import Duration


class Rank(msgspec.Struct, frozen=True, order=True):
    """How good a primary an agent would be; the greatest wins (design.md section 4, Election)."""

    not_isolated: bool
    datastores: int
    settings_version: int
    host: HostId


class VerdictNote(msgspec.Struct, frozen=True):
    """The primary's verdict about one host, for the other agents' screens. `age_ms`: since it was reached."""

    host: HostId
    verdict: str
    age_ms: int
    reason: str


class FrozenVm(msgspec.Struct, frozen=True):
    """A VM that stands frozen on the sender, which may be unable to read its register. `epoch`: the last that it owned."""

    vm: VmId
    home: DatastoreName
    epoch: Epoch


class Emptying(msgspec.Struct, frozen=True):
    """A host that is kept empty and is not empty yet, as the primary sees it: what becomes of the VMs that run there.

    `settled`: nothing moves, nor is to: all that is there stays, as things are.
    """

    host: HostId
    text: str
    settled: bool = False


class Copying(msgspec.Struct, frozen=True):
    """A VM that is being copied away from the sender, and how far libvirt is with that; for people."""

    vm: VmId
    to: HostId
    total_mib: int
    remaining_mib: int
    mib_s: int
    downtime_ms: int


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="hb"):
    """A network heartbeat. `lapsed` names the datastores on which the sender's lease has lapsed, `failing` those of them

    that answer it with errors in place of no answer: they will not come back by themselves.

    `settings`: which settings it uses; who has older ones asks for them. `least_margin`: what its watchdog needs.
    `avoided`: for how much longer (ms) hosts are to be avoided because the sender saw them fail again and again. `outlook`:
    what the domain can lose now, by the primary alone. `starting_ms`: for how much longer the site is starting, as
    far as the sender knows; None if it cannot tell. `health`: of its hardware. `emptying`: how far the hosts are that are
    kept empty, by the primary alone. `copying`: how far its migrations are, a few of them.
    """

    sender: HostId
    boot_id: BootId
    sequence: int
    rank: Rank
    term: ElectionTerm
    primary: HostId | None
    lapsed: tuple[DatastoreName, ...]
    reach: tuple[DatastoreReach, ...]
    capacity: Capacity
    hypervisor_up: bool
    power_on_sequence: int = 0
    verdicts: tuple[VerdictNote, ...] = ()
    leaving: bool = False
    settings: SettingsMark = SettingsMark()
    least_margin: Duration = Duration(0)
    avoided: dict[HostId, int] = {}
    outlook: Outlook | None = None
    frozen: tuple[FrozenVm, ...] = ()
    starting_ms: int | None = None
    health: Health = Health()
    emptying: tuple[Emptying, ...] = ()
    failing: tuple[DatastoreName, ...] = ()
    copying: tuple[Copying, ...] = ()


class RestartOrder(msgspec.Struct, frozen=True, kw_only=True, tag="restart"):
    """The primary to the chosen host: take this VM from exactly `proof.epoch`, define it, start it.

    `entry`: how the VM stands on the protected list, which holds until the chosen host's own libvirt tells of it; None from
    a primary of an older release.
    """

    order: int
    vm: VmId
    name: VmName
    home: DatastoreName
    proof: Proof
    entry: ProtectedVm | None = None


class OrderReport(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """The chosen host to the primary: how far it is. `stage`: accepted, owned, started, failed, lost.

    To a `MigrateOrder`: migrating, migrated, failed.
    """

    order: int
    vm: VmId
    stage: str
    epoch: Epoch | None = None
    detail: str = ""


class MigrateOrder(msgspec.Struct, frozen=True, kw_only=True, tag="migrate"):
    """To the host on which a VM runs: hand it over, running, to `destination`. Repeated until answered; done once.

    Answered by an `OrderReport`: migrating (under way), migrated, or failed.
    """

    order: int
    vm: VmId
    destination: HostId


class CopyWanted(msgspec.Struct, frozen=True, kw_only=True, tag="copy?"):
    """The host on which a VM runs to the one that it is to migrate to: keep a place for its copy."""

    handover: Handover
    vm: VmId
    name: VmName
    home: DatastoreName


class CopyWhole(msgspec.Struct, frozen=True, kw_only=True, tag="whole"):
    """The same: the copy has all memory, and its source has ended and says so in the register."""

    handover: Handover
    vm: VmId


class CopyDropped(msgspec.Struct, frozen=True, kw_only=True, tag="drop"):
    """The same: the migration has failed, and the VM goes on where it was."""

    handover: Handover
    vm: VmId


class CopyReport(msgspec.Struct, frozen=True, kw_only=True, tag="copy"):
    """The destination's answer. `stage`: expected, refused (`detail` says why), whole, running, lost."""

    handover: Handover
    vm: VmId
    stage: str
    detail: str = ""


class TakenOver(msgspec.Struct, frozen=True, kw_only=True, tag="taken"):
    """The owner of a later epoch to a host that named the VM as frozen: what you hold is lost for good."""

    vm: VmId
    home: DatastoreName
    epoch: Epoch


class GiveUp(msgspec.Struct, frozen=True, kw_only=True, tag="give-up"):
    """To the owner of this epoch, which has lost the VM's home: end what you hold of it, and say so.

    Repeated until it is answered. `session`: of the keeper that made the epoch.
    """

    vm: VmId
    home: DatastoreName
    epoch: Epoch
    session: str


class GivenUp(msgspec.Struct, frozen=True, kw_only=True, tag="given-up"):
    """The owner's word (proof `renounced`): nothing of this VM runs on the sender on that epoch, nor ever will.

    `done` False: not yet, or not at all, and why.
    """

    vm: VmId
    home: DatastoreName
    epoch: Epoch
    session: str
    done: bool
    sentence: str = ""


class EventNotice(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """Something that happened on the sender, for everybody's event log (best effort, never needed for a decision)."""

    sequence: int
    kind: str
    host: HostId | None
    vm: VmId | None
    datastore: DatastoreName | None
    text: str
    wall_clock_ms: int
    vm_name: str = ""


class ListChanged(msgspec.Struct, frozen=True, tag="list"):
    """A protected list says something new about what operators want: it is worth being read now."""

    datastore: DatastoreName


class SettingsWanted(msgspec.Struct, frozen=True, tag="settings?"):
    """The sender has older settings than we."""


class SettingsNotice(msgspec.Struct, frozen=True, tag="settings"):
    """The settings that the sender uses."""

    record: SettingsRecord


class CommandRequest(msgspec.Struct, frozen=True, kw_only=True, tag="command"):
    """An operator's command, to the primary: repeated until it is answered, carried out once.

    `number`: unique among those of the sender. `at_ms`: when it was given, by the sender's wall clock.
    """

    number: int
    by: str
    at_ms: int
    command: Command


class CommandAnswer(msgspec.Struct, frozen=True, tag="outcome"):
    """The primary to the host on which the command was given."""

    number: int
    outcome: Outcome


class WhichVm(msgspec.Struct, frozen=True, tag="which"):
    """To every host: which VM does this command mean? Nobody knows it where it was given. Repeated until answered."""

    number: int
    command: WantVm


class VmMeant(msgspec.Struct, frozen=True, kw_only=True, tag="meant"):
    """The answer of a host: the command with what it knows of the VM. None: it knows none, or `sentence` says why not."""

    number: int
    command: WantVm | None = None
    sentence: str = ""


class RetryRequest(msgspec.Struct, frozen=True, kw_only=True, tag="retry"):
    """To every host: an operator wants this VM (its name or id) to be tried once more. Repeated until answered."""

    token: str
    vm: str


class RetryAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="retried"):
    """The answer of a host: done, or why not. `known` False: it is not responsible for any VM of that name."""

    token: str
    known: bool
    done: bool
    sentence: str = ""


class OperatorWord(msgspec.Struct, frozen=True, kw_only=True, tag="word"):
    """An operator says that a host is off: to every other agent, repeated until it is answered. `word` is its number.

    It is about the boots that `marks` name, and void as soon as anything newer is seen of the host.
    """

    word: int
    host: HostId
    marks: tuple[RecordMark, ...]


class WordReport(msgspec.Struct, frozen=True, kw_only=True, tag="word-report"):
    """What an agent makes of an operator's word."""

    word: int
    accepted: bool
    detail: str


Message = (
    Heartbeat
    | RestartOrder
    | OrderReport
    | MigrateOrder
    | CopyWanted
    | CopyWhole
    | CopyDropped
    | CopyReport
    | TakenOver
    | GiveUp
    | GivenUp
    | EventNotice
    | OperatorWord
    | WordReport
    | ListChanged
    | SettingsWanted
    | SettingsNotice
    | CommandRequest
    | CommandAnswer
    | WhichVm
    | VmMeant
    | RetryRequest
    | RetryAnswer
)
