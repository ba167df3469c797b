"""Words between the keeper and those who ask it: the agent and the libvirt hook, as JSON lines on a UNIX socket.

Requests carry a number that the reply repeats. The keeper also tells its subscribers what it did (`Happened`) and how
things stand (`KeeperReport`), whenever either changes.
"""

import enum

import msgspec

from outlast.model.ids import (
    NO_HANDOVER,
    BootId,
    DatastoreName,
    Epoch,
    Handover,
    HostId,
    Incarnation,
    KeeperSession,
    LeaseTerm,
    RequestId,
    VmId,
    VmName,
)
from outlast.model.latency import Latencies
from outlast.model.records import Enforcement, Proof, Reason
from outlast.model.settings import Settings, SettingsMark


class AskGate(msgspec.Struct, frozen=True, tag="gate"):
    """The hook: may this domain start here? `disks` are its file paths; the first one's datastore is its home.

    `writes`: those of them that it alone may write to: neither read-only, nor shared by its operator's wish.
    `unfreezable`: it has a device that works on while its process is stopped (vfio, vhost-user).
    """

    request: RequestId
    vm: VmId
    name: VmName
    disks: tuple[str, ...]
    protected: bool = True
    unfreezable: bool = False
    writes: tuple[str, ...] = ()


class AskClaim(msgspec.Struct, frozen=True, tag="claim"):
    """The agent: this VM runs here, and writes to these disks, which may not have been claimed for it yet.

    Refused with a sentence if another VM uses one of them as well; without one, if it is to be asked again later.
    """

    request: RequestId
    vm: VmId
    writes: tuple[str, ...]


class AskLaunch(msgspec.Struct, frozen=True, tag="launch"):
    """The hook: libvirt is about to make the process of a start that passed the gate; is that start good still?"""

    request: RequestId
    vm: VmId


class AskEnded(msgspec.Struct, frozen=True, tag="ended"):
    """The hook: libvirt has let go of this domain (its process ended, or never began)."""

    request: RequestId
    vm: VmId


class AskForgotten(msgspec.Struct, frozen=True, tag="forgotten"):
    """The agent: libvirt, asked after that start had passed the gate, calls the domain off: nobody carries it out.

    Which start it is, the epoch says, or for a copy, which has none, the migration's number.
    """

    request: RequestId
    vm: VmId
    epoch: Epoch | None
    handover: Handover = NO_HANDOVER


class AskTakeover(msgspec.Struct, frozen=True, tag="takeover"):
    """The agent: take this VM from exactly `proof.epoch`, so that it can be started here."""

    request: RequestId
    vm: VmId
    name: VmName
    home: DatastoreName
    proof: Proof


class AskRelease(msgspec.Struct, frozen=True, tag="release"):
    """The agent: this VM's process has ended for `reason`; write that we will not run its epoch any more.

    `given_up`: it is a start that nobody waits for any more, whether or not there was a process. `heir`: it ended because
    it has migrated, and its copy on that host may go on; `handover` is the migration's number, `pid` the process that has.
    """

    request: RequestId
    vm: VmId
    name: VmName
    home: DatastoreName
    reason: Reason
    given_up: bool = False
    heir: HostId | None = None
    handover: Handover = NO_HANDOVER
    pid: int | None = None


class AskKill(msgspec.Struct, frozen=True, tag="kill"):
    """The agent: end this VM's process now (isolation response, storage loss), and release it with `reason`."""

    request: RequestId
    vm: VmId
    reason: Reason


class AskExpect(msgspec.Struct, frozen=True, tag="expect"):
    """The agent: a copy of this VM is to arrive from `source`; let one incoming start of it pass, without an epoch."""

    request: RequestId
    vm: VmId
    name: VmName
    home: DatastoreName
    source: HostId
    handover: Handover


class AskInherit(msgspec.Struct, frozen=True, tag="inherit"):
    """The agent: the copy is whole. Freeze it, and own the VM from the release that names this very migration."""

    request: RequestId
    vm: VmId
    handover: Handover


class AskIncoming(msgspec.Struct, frozen=True, tag="incoming"):
    """The hook: may a migration of this domain come in here? If so, the gate is asked about its process next."""

    request: RequestId
    vm: VmId


class AskDropped(msgspec.Struct, frozen=True, tag="dropped"):
    """The agent: that migration comes to nothing. Expect no copy any more, and end what has arrived."""

    request: RequestId
    vm: VmId
    handover: Handover


class AskResumed(msgspec.Struct, frozen=True, tag="resumed"):
    """The agent: libvirt has let the guest of a VM go on that was inherited."""

    request: RequestId
    vm: VmId


class AskLost(msgspec.Struct, frozen=True, tag="lost"):
    """The agent: `owner` has said itself that it owns this epoch of the VM. Kills what is frozen on an earlier one."""

    request: RequestId
    vm: VmId
    home: DatastoreName
    owner: HostId
    epoch: Epoch


class AskGivenUp(msgspec.Struct, frozen=True, tag="given-up"):
    """The agent: the VM's home is lost to this host; is it certain that nothing runs here on this epoch, nor ever will?

    What stands frozen on it is killed for that. "Yes" is proof to others (`protocol/renouncing.py`). `session`: the keeper
    session that made the epoch, as its register says.
    """

    request: RequestId
    vm: VmId
    home: DatastoreName
    epoch: Epoch
    session: str


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """The agent works; the keeper publishes the counter in its heartbeats. `isolated`: it hears nobody on the network."""

    counter: int
    isolated: bool = False


class UseSettings(msgspec.Struct, frozen=True, tag="settings"):
    """The agent: the fault domain's settings are these from now on. `closed`: why this host is kept empty, if it is."""

    settings: Settings
    mark: SettingsMark
    closed: str = ""


class Admission(msgspec.Struct, frozen=True, tag="admission"):
    """The agent: these VMs are not to be newly started here for now, each with the sentence for whoever asks.

    `closed`: none is, for this reason. It takes the place of what was told before, and is forgotten when it is not told
    again for a while.
    """

    refused: dict[VmId, str]
    closed: str = ""


class Subscribe(msgspec.Struct, frozen=True, tag="subscribe"):
    """Send this connection every `Happened` and `KeeperReport` from now on."""


CopyRequest = AskExpect | AskInherit | AskDropped | AskIncoming | AskResumed
"""What is asked about a VM that migrates here."""

KeeperRequest = (
    AskGate
    | AskClaim
    | AskLaunch
    | AskEnded
    | AskForgotten
    | AskTakeover
    | AskRelease
    | AskKill
    | AskExpect
    | AskInherit
    | AskDropped
    | AskIncoming
    | AskResumed
    | AskLost
    | AskGivenUp
    | Progress
    | UseSettings
    | Admission
    | Subscribe
)


class KeeperReply(msgspec.Struct, frozen=True, tag="reply"):
    """The answer to a request: `allowed`, and if not, a sentence that names the owner or the remedy."""

    request: RequestId
    allowed: bool
    sentence: str = ""
    epoch: Epoch | None = None
    owner: HostId | None = None


class Happening(enum.StrEnum):
    """What the keeper did, for the event log."""

    LEASE_BEGAN = "lease-began"
    LEASE_LAPSED = "lease-lapsed"
    FROZEN = "frozen"
    THAWED = "thawed"
    KILLED = "killed"
    EXITED = "exited"
    CLAIMED = "claimed"
    RELEASED = "released"
    LOST = "lost"
    ADOPTED = "adopted"
    REFUSED = "refused"
    DEVICE_SEEN = "device-seen"
    CLONED_HOST = "cloned-host"
    START_VOIDED = "start-voided"


class Happened(msgspec.Struct, frozen=True, tag="happened"):
    """One thing that the keeper did, at `at` nanoseconds of this host's CLOCK_BOOTTIME."""

    kind: Happening
    at: int
    vm: VmId | None = None
    datastore: DatastoreName | None = None
    epoch: Epoch | None = None
    detail: str = ""


class LeaseReport(msgspec.Struct, frozen=True):
    """A host lease. `deadline` is on this host's CLOCK_BOOTTIME, 0 while lapsed.

    `failing`: it has lapsed, and the storage has answered with errors, again and again, in place of no answer. `write_ms`:
    how long a heartbeat write takes of late; `slow`: that is so long that the lease might not be held much longer;
    `writes`: how long all of them took since this keeper began.
    """

    datastore: DatastoreName
    held: bool
    term: LeaseTerm
    deadline: int
    incarnation: Incarnation | None
    problem: str = ""
    failing: bool = False
    write_ms: int = 0
    slow: bool = False
    writes: Latencies = Latencies()


class KeptVm(msgspec.Struct, frozen=True):
    """A virtual machine in the keeper's care. `phase` as in `protocol/ownership.py`.

    `handover`: the migration by which it comes here, or came. `inherited`: it is ours by that, and nobody has said yet that
    libvirt has let its guest go on. `ended`: the process of it that ended last, while no other epoch is wanted.
    """

    vm: VmId
    name: VmName
    home: DatastoreName
    epoch: Epoch | None
    phase: str
    pid: int | None
    inherited: bool = False
    handover: Handover = NO_HANDOVER
    ended: int | None = None


class KeeperReport(msgspec.Struct, frozen=True, tag="report", kw_only=True):
    """How things stand with the keeper. `settings`: which of the fault domain's settings it uses."""

    host: HostId
    boot_id: BootId
    session: KeeperSession
    enforcement: Enforcement
    settings: SettingsMark = SettingsMark()
    leases: tuple[LeaseReport, ...]
    vms: tuple[KeptVm, ...]


KeeperMessage = KeeperReply | Happened | KeeperReport
