"""Mutants of what makes sure that no two VMs write to one disk; see `mutants.py` and `protocol/disk_claims.py`."""

from __future__ import annotations

from outlast.model.claims import Disk
from outlast.model.keeper_effects import KeeperEffect
from outlast.model.keeper_events import ClaimantRead, ClaimLinked
from outlast.model.records import RegisterRecord, RegisterState
from outlast.protocol import disk_claims
from outlast.protocol.disk_claims import Check, DiskClaims, is_over
from outlast.protocol.ownership import Ownership
from outlast.sim.mutation import mutant

_begin, _next, _claimant_read = DiskClaims.begin, DiskClaims._next, DiskClaims._claimant_read


@mutant(7, "a VM starts on whatever disks it names", "a-clone-starts-while-its-original-runs", (DiskClaims, "begin"))
def _claims_nothing(self: DiskClaims, ownership: Ownership, disks: tuple[Disk, ...]) -> list[KeeperEffect]:
    return _begin(self, ownership, ())


@mutant(
    7,
    "who had a disk before is looked at, perhaps in a cache, and not barred",
    "a-clone-starts-again-beside-its-original",
    (DiskClaims, "_claimant_read"),
)
def _bars_nobody(self: DiskClaims, check: Check, event: ClaimantRead) -> list[KeeperEffect]:
    if event.ok and is_over(event.last, gone=event.gone):
        return self._claim(check)
    return _claimant_read(self, check, event)


@mutant(
    7,
    "a claim that another VM has made is taken for one's own",
    "a-clone-starts-beside-its-original",
    (DiskClaims, "_claim_linked"),
)
def _a_lost_claim_counts(self: DiskClaims, check: Check, event: ClaimLinked) -> list[KeeperEffect]:
    del check.left[0]
    return self._next(check)


@mutant(
    7,
    "the claim that a VM made before is not made anew",
    "a-clone-starts-again-beside-its-original",
    (DiskClaims, "_next"),
)
def _an_old_claim_counts(self: DiskClaims, check: Check) -> list[KeeperEffect]:
    last = check.last.get(check.left[0]) if check.left else None
    if last is not None and last.claimant.vm == check.ownership.vm:
        del check.left[0]
        return self._next(check)
    return _next(self, check)


@mutant(
    7,
    "a VM that is handed over to its copy is taken for one that is over",
    "a-clone-starts-as-its-original-migrates",
    (disk_claims, "is_over"),
)
def _an_heir_is_overlooked(last: RegisterRecord | None, *, gone: bool) -> bool:
    return last is None or gone or last.state is RegisterState.RELEASED
