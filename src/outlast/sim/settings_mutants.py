"""Rules switched off that matter while an operator changes something for the whole domain; see `mutants.py`."""

from typing import Any

from outlast.model.keeper_effects import Freeze, KeeperEffect
from outlast.model.time import Duration
from outlast.protocol import lease_length
from outlast.protocol.lease import Lease
from outlast.protocol.ownership import Ownership, Phase
from outlast.protocol.protection import Protection
from outlast.protocol.proving import Prover
from outlast.protocol.recovery import Recovery
from outlast.protocol.restart import Restart
from outlast.sim.mutation import mutant


@mutant(
    2,
    "a shorter lease is named at once, and kept from the next renewal on",
    "the-lease-becomes-shorter-when-storage-hangs",
    (Lease, "take_length"),
)
def _a_shorter_lease_is_named_but_not_kept(self: Lease, length: Duration) -> bool:
    self.length = length
    return False


@mutant(
    5,
    "a lease may be longer than what the epochs of its VMs name",
    "the-lease-becomes-longer-and-an-older-record-lands",
    (lease_length, "longest_lease"),
)
def _a_longer_lease_needs_no_epoch(wanted: Duration, _homed: Any) -> Duration:
    return wanted


@mutant(
    8,
    "a keeper that starts takes what it finds running for bound to no shorter lease",
    "the-lease-becomes-longer-and-an-older-record-lands",
    (Ownership, "adopt"),
)
def _what_is_adopted_has_any_lease(
    self: Ownership, pid: int, stopped: bool, by_right: Duration | None, session: str = ""
) -> list[KeeperEffect]:
    self.pid, self.phase = pid, Phase.FROZEN
    if by_right is None or stopped:
        return [Freeze(self.vm)]
    self.phase = Phase.RUNNING
    return []


@mutant(
    5,
    "an observer does not look for the window in the epoch that it takes a VM from",
    "a-longer-lease-is-in-use-when-an-older-record-lands",
    (Prover, "window"),
)
def _the_epoch_names_no_window(self: Prover, _last: Any) -> Duration:
    return self._known.settings.window


@mutant(
    5,
    "a primary restarts what it should hold, because somebody has paused recovery",
    "a-host-is-lost-while-recovery-is-paused",
    (Recovery, "_is_held"),
)
def _a_pause_holds_nothing(_self: Recovery, _case: Restart) -> bool:
    return False


@mutant(
    5,
    "a VM that an operator has set aside is protected again by the list on which it still stands",
    "a-vm-is-stopped-and-its-host-is-lost",
    (Protection, "_is_wanted"),
)
def _whatever_is_listed_is_wanted(self: Protection, line: Any) -> bool:
    return bool(line.protected)
