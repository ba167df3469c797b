"""What an operator asks of the whole fault domain, and what comes of it.

A command goes from the host on which it was given to the primary, which carries it out and answers. `by` is who gave it, as
the host that took it knows him ("root@host1").
"""

from typing import Literal

import msgspec

from outlast.model.health import HealthLevel
from outlast.model.ids import BootId, DatastoreName, VmId
from outlast.model.records import ProtectedVm

Wanted = Literal["running", "stopped", "unprotected", "protected"]
"""What an operator can want of a VM. `protected`: as it is, and restarted when its host dies."""


class ChangeSettings(msgspec.Struct, frozen=True, tag="set"):
    """Give these settings these values (durations in nanoseconds), all of them or none."""

    changes: dict[str, int | str]


class PauseRecovery(msgspec.Struct, frozen=True, tag="pause"):
    """Hold all automatic recovery."""

    reason: str = ""


class ResumeRecovery(msgspec.Struct, frozen=True, tag="resume"):
    """Go on with it."""


class WantVm(msgspec.Struct, frozen=True, kw_only=True, tag="want"):
    """A VM is to be so from now on. `vm`: its name or uuid as the operator wrote it.

    The host on which the command is given replaces it by the uuid, and adds what it knows of the VM: its name, its home,
    and `entry`, how it would stand on the protected list.
    """

    vm: str
    wanted: Wanted
    name: str = ""
    home: DatastoreName | None = None
    entry: ProtectedVm | None = None


class DrainHost(msgspec.Struct, frozen=True, tag="drain"):
    """Keep a host empty (its name or id; on its way, its id): its VMs are moved away, and it gets no others.

    `boot`: it shuts down, and is to be used again, with its VMs, when it has booted anew since that boot.
    """

    host: str
    reason: str = ""
    boot: BootId = BootId("")


class UndrainHost(msgspec.Struct, frozen=True, tag="undrain"):
    """Use a host again. `back`: with the VMs that ran there when it was drained."""

    host: str
    back: bool = False


class EndReturn(msgspec.Struct, frozen=True, tag="end-return"):
    """These VMs are not to be brought back to that host any more: by the primary alone, who has seen to it."""

    host: str
    vms: tuple[VmId, ...]


class ReportHealth(msgspec.Struct, frozen=True, tag="health"):
    """A host's hardware is so from now on (its name or id; on its way, its id; empty: the one where it was said)."""

    host: str
    level: HealthLevel
    reason: str = ""


class MoveVm(msgspec.Struct, frozen=True, kw_only=True, tag="move"):
    """A running VM (its name or uuid as the operator wrote it) is to go on, running, on that host (its name or id).

    `force`: also if it has no room there, or a required rule forbids it.
    """

    vm: str
    host: str
    force: bool = False


Command = (
    ChangeSettings | PauseRecovery | ResumeRecovery | WantVm | MoveVm | DrainHost | UndrainHost | EndReturn | ReportHealth
)


class SettingChange(msgspec.Struct, frozen=True):
    """One setting that has another value now; both as people write them."""

    name: str
    old: str
    new: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a command. `ok` False: `sentences` say why; `try_again`: because nobody could carry it out just now.

    `version`: of the settings record, where the command was about it.
    """

    ok: bool
    sentences: tuple[str, ...]
    try_again: bool = False
    version: int | None = None
    changes: tuple[SettingChange, ...] = ()
