"""What is kept on a datastore, as values. Bytes are the business of `codec`.

Every record names its writer; who may write which is in design.md section 3. An observer never believes a record that it
cannot decode, but any change of a host's raw heartbeat bytes is life (`Sighting.raw`).
"""

import enum
from typing import Literal

import msgspec

from outlast.model.ids import (
    NO_HANDOVER,
    BootId,
    DatastoreName,
    ElectionTerm,
    Epoch,
    Handover,
    HostId,
    Incarnation,
    KeeperSession,
    LeaseTerm,
    Nonce,
    VmId,
    VmName,
)
from outlast.model.inventory import Needs
from outlast.model.policy import VmPolicy
from outlast.model.time import Duration


class Enforcement(enum.StrEnum):
    """What stops this host's VMs when its lease ends (safety rule 6)."""

    WATCHDOG = "watchdog"
    KEEPER = "keeper"
    NONE = "none"


class HeartbeatRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A host's datastore heartbeat: one fixed-size record, rewritten in place by its keeper alone.

    `sequence` rises with each write of one session; `agent_progress` rises while the agent works; `ended` is the
    keeper's last word in this incarnation: gate closed, no QEMU left (proof `clean_shutdown`). `wall_clock_s` is for
    people and for spotting clocks that are far off; no decision rests on it. `lease` is what this write grants from its
    start; `window` is that and the writer's margin: nobody may call its lease over sooner, whatever his settings say.
    """

    host: HostId
    boot_id: BootId
    incarnation: Incarnation
    session: KeeperSession
    sequence: int
    term: LeaseTerm
    enforcement: Enforcement
    agent_progress: int
    wall_clock_s: int
    lease: Duration
    window: Duration
    ended: bool = False


class Sighting(msgspec.Struct, frozen=True):
    """One host's record as one read found it: the raw bytes' digest, and the record if it could be decoded.

    `raw` None: it could not be read at all (`problem` says why); then nothing is known, which is not the same as stale.
    `incarnation` is the highest that exists on this datastore for the host, None when unknown.
    """

    raw: bytes | None
    record: HeartbeatRecord | None
    problem: str = ""
    incarnation: Incarnation | None = None


class RecordMark(msgspec.Struct, frozen=True):
    """Which record of a host on one datastore was the last: what an operator's word is bound to.

    `incarnation` is the highest that is known there, also where no record can be decoded (then `session` is empty).
    """

    datastore: DatastoreName
    incarnation: Incarnation
    session: str = ""
    sequence: int = 0


class Renounced(msgspec.Struct, frozen=True):
    """A host's word that it runs nothing of a VM on this epoch, made by that keeper session of it, and never will."""

    owner: HostId
    home: DatastoreName
    epoch: Epoch
    session: str


class RegisterState(enum.StrEnum):
    """What the owner of the last epoch says about it."""

    OWNED = "owned"
    RELEASED = "released"


class Reason(enum.StrEnum):
    """Why a register record was written."""

    STARTED = "started"
    TAKEN_OVER = "taken-over"
    REASSERTED = "reasserted"
    SWITCHED_OFF = "switched-off"
    MIGRATED = "migrated"
    """Its process ended because a copy of it has all its memory; the release that says so may name the copy's host."""
    AS_WISHED = "as-wished"
    """Its guest did as it was told, as an operator wanted it stopped; whether he still does, the protected list says."""
    CRASHED = "crashed"
    ISOLATED = "isolated"
    HOST_SHUTDOWN = "host-shutdown"
    START_FAILED = "start-failed"
    HOST_FAULT = "host-fault"
    """A start that the host could not carry out, or a process that its keeper had to end: no fault of the VM."""
    LOST = "lost"
    ELECTED = "elected"
    YIELDED = "yielded"


class ProofKind(enum.StrEnum):
    """Why a register may be taken from its owner (safety rule 5)."""

    LEASE_EXPIRED = "lease_expired"
    REBOOTED = "rebooted"
    RENOUNCED = "renounced"
    CLEAN_SHUTDOWN = "clean_shutdown"
    FIRST = "first"
    """It never ran: whoever starts it makes its first epoch, as anybody who starts a VM does (rule 1)."""
    POWER_FENCED = "power_fenced"
    OPERATOR_CONFIRMED = "operator_confirmed"
    OWN = "own"
    """The owner itself starts it anew: its keeper knows that no process of that VM is left on its host."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence that `owner` does not and will not run what it owned at `epoch`. It stays true for ever once it is true:

    whoever uses it must compare-and-swap from exactly `epoch`. Times are nanoseconds on `observer`'s clock:
    `first_seen` completed the read that first showed the record, `last_read` started the read that showed it unchanged.
    """

    kind: ProofKind
    owner: HostId
    incarnation: Incarnation
    epoch: Epoch
    observer: HostId
    first_seen: int = 0
    last_read: int = 0


class RegisterRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One epoch of an ownership register (subject: a VM's uuid) or of a datastore's `primary` register.

    `window`: nobody may take the VM from this epoch on `lease_expired` sooner (`protocol/lease_length.py` says why).
    `heir`: in a release, the host whose copy of the VM, of the migration `handover`, may go on; what the heir makes of
    it bears `handover` alone.
    """

    subject: str
    epoch: Epoch
    owner: HostId
    incarnation: Incarnation
    session: str
    nonce: Nonce
    state: RegisterState
    reason: Reason
    proof: ProofKind | None = None
    window: Duration = Duration(0)
    heir: HostId | None = None
    handover: Handover = NO_HANDOVER


class GuestWord(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the guest of a VM is that is watched (`protocol/guest_watch.py`).

    `silent`: its agent has not answered for `guest_failure_after`. `failed`: so, and no more is done about it, for the
    reason `why`. `resets`: when its host has reset it of late, nanoseconds of that boot's CLOCK_BOOTTIME.
    """

    state: Literal["answers", "silent", "failed"]
    resets: tuple[int, ...] = ()
    why: str = ""


class PoweredVm(msgspec.Struct, frozen=True):
    """One virtual machine on a power-on list. `state` as the keeper knows it: running, frozen, starting, ending.

    `policy` None: its host does not know it now, and whoever knew it keeps it. `ready`: as its policy has it. `guest`
    None: it is not watched, or has not answered yet.
    """

    vm: VmId
    name: VmName
    home: DatastoreName | None
    epoch: Epoch | None
    state: str
    memory_mib: int
    protected: bool
    policy: VmPolicy | None = None
    ready: bool = True
    note: str = ""
    needs: Needs = Needs()
    guest: GuestWord | None = None


Departs = Literal["", "failover", "freeze"]
"""Whether a host goes down in good order, and what becomes of its VMs meanwhile: restarted elsewhere, or kept by it."""


class PowerOnList(msgspec.Struct, frozen=True, kw_only=True):
    """The virtual machines that a host runs now, whether it is isolated, and whether it goes down; written by its agent."""

    host: HostId
    boot_id: BootId
    sequence: int
    isolated: bool
    vms: tuple[PoweredVm, ...]
    departs: Departs = ""


class Attempts(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What was tried for one VM since it last ran well. It lies with the VM, so that the next primary goes on from there.

    tries        attempts in a row that did not bring it up, whoever's fault: how slowly it is tried again
    restarts     failures of the VM itself on the host where it was last, as its policy counts them
    relocations  hosts that it was moved away from since, as its policy counts them
    hosts        those hosts
    counted      the newest epoch whose end was counted here, so that each counts once
    ordered      the epoch from which it was last ordered to be started anew; None once it is ready
    failed       it is given up: `problem` says why
    asked        an operator asked for it to be tried once more, whatever its policy says
    """

    tries: int = 0
    restarts: int = 0
    relocations: int = 0
    hosts: tuple[HostId, ...] = ()
    counted: Epoch | None = None
    ordered: Epoch | None = None
    failed: bool = False
    asked: bool = False
    problem: str = ""


class ProtectedVm(msgspec.Struct, frozen=True):
    """One virtual machine that is to be kept in an operating state.

    `asked`: an operator asked for it when its register ended with that epoch (-1: when it had none yet).
    """

    vm: VmId
    name: VmName
    memory_mib: int
    last_host: HostId
    policy: VmPolicy = VmPolicy()
    needs: Needs = Needs()
    asked: Epoch | None = None
    attempts: Attempts = Attempts()


class AsideVm(msgspec.Struct, frozen=True):
    """One virtual machine that an operator has set aside: it is not restarted, whatever lists it stands on.

    `at_ms`: when, by his host's wall clock. `epoch`: the last epoch of its register when it was first seen off.
    """

    entry: ProtectedVm
    wanted: Literal["stopped", "unprotected"]
    by: str
    at_ms: int
    epoch: Epoch | None = None


class ProtectedList(msgspec.Struct, frozen=True, kw_only=True):
    """The claim's list: what must run, of the VMs homed on one datastore, and what an operator has set aside.

    Written by its responsible primary alone.
    """

    datastore: DatastoreName
    sequence: int
    writer: HostId
    primary_epoch: Epoch
    term: ElectionTerm
    vms: tuple[ProtectedVm, ...]
    aside: tuple[AsideVm, ...] = ()


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """The file that makes a directory a datastore. An operator has it made; it is never created implicitly."""

    format: int
    datastore: DatastoreName
    domain: str
    uuid: str
