"""Mutants of live migration: what makes a copy go on (decision 19)."""

from __future__ import annotations

from typing import Any

import msgspec

from outlast.model.ids import Epoch
from outlast.model.keeper_effects import Freeze, KeeperEffect, Remember
from outlast.model.keeping import KeptVm
from outlast.model.records import Reason, RegisterState
from outlast.protocol import copies
from outlast.protocol.copies import Copies
from outlast.protocol.gatekeeping import Gatekeeper
from outlast.protocol.keeping import KeeperMachine
from outlast.protocol.migration import Migrations
from outlast.protocol.migration_target import Arrivals
from outlast.protocol.ownership import Ownership, Phase, Purpose
from outlast.sim.mutation import also, mutant

_may_go_on = Arrivals._may_go_on


def _goes_on_without_an_epoch(self: Arrivals, kept: KeptVm) -> bool:
    """The agent's own guard of two of these rules: who has no epoch has nothing to go on with."""
    return _may_go_on(self, msgspec.structs.replace(kept, epoch=Epoch(0)))


@mutant(1, "a copy goes on as soon as it is whole, without an epoch", "migrates", (Ownership, "is_whole"))
def _copy_without_an_epoch(self: Ownership) -> list[KeeperEffect]:
    self.phase, self.inherited = Phase.RUNNING, True
    return []


@mutant(
    5,
    "a copy goes on by any release, also by one that does not name it",
    "migrated-and-never-released-to-its-copy",
    (copies, "names"),
)
def _any_release_names_the_copy(last: Any, *_: Any) -> bool:
    return bool(last.state is RegisterState.RELEASED)


@mutant(
    8,
    "what a keeper remembers of a VM outlives its process",
    "migrates-back-to-where-a-keeper-dies",
    (KeeperMachine, "_without_right"),
)
def _a_right_outlives_its_process(_self: KeeperMachine, _ownership: Ownership) -> list[KeeperEffect]:
    return []


@mutant(
    5,
    "a proof about its source makes a copy go on, as if a release had named it",
    "its-source-dies-while-it-migrates",
    (Gatekeeper, "takeover_after_read"),
)
def _a_copy_is_taken_over_as_it_is(self: Gatekeeper, ownership: Ownership, _last: Any) -> list[KeeperEffect]:
    waiting = self._waiting.pop(ownership.vm, None)
    if waiting is None or waiting.proof is None or ownership.pid is None:
        return []
    ownership.epoch = waiting.proof.epoch
    ownership.inherit()
    return [Freeze(ownership.vm)]


@mutant(
    8,
    "a takeover makes its epoch while the copy is still there, and a new keeper takes that for what runs on it",
    "its-source-dies-and-the-keeper-of-its-copy",
    (Gatekeeper, "_wait_for_its_end"),
)
def _taken_over_beside_its_copy(self: Gatekeeper, ownership: Ownership) -> list[KeeperEffect]:
    waiting = self._waiting[ownership.vm]
    if waiting.proof is None:
        return []
    waiting.begun, ownership.owned_elsewhere = True, False
    ownership.phase, ownership.epoch = Phase.CLAIMING, waiting.proof.epoch
    return self._keeper.link(ownership, Purpose.TAKE_OVER, RegisterState.OWNED, Reason.TAKEN_OVER, waiting.proof.kind)


def _whatever_came_goes_on(self: Arrivals, kept: KeptVm) -> bool:
    """The agent's own guard: it knows which copies are whole."""
    return _may_go_on(self, kept) or (kept.phase == "running" and bool(kept.handover))


also("taken-over-beside-its-copy", Arrivals, "_may_go_on", _whatever_came_goes_on)

_heir = Migrations.heir


@mutant(
    5, "the end of a process while it is copied is taken for a migration", "crashes-while-it-migrates", (Migrations, "heir")
)
def _any_end_is_a_migration(self: Migrations, vm: Any, ended: int | None) -> Any:
    migration = self._all.get(vm)
    if migration is not None and migration.stage == "copying":
        migration.stage = "ending"
    return _heir(self, vm, ended)


def _keeps_no_end(self: Migrations, vm: Any) -> bool:
    migration = self._all.get(vm)
    return migration is not None and migration.stage == "handed"


also("any-end-is-a-migration", Migrations, "keeps_its_end", _keeps_no_end)


def _lets_a_copy_pass_unnoted(self: Copies, *arguments: Any) -> list[KeeperEffect]:
    return [effect for effect in _let_pass(self, *arguments) if not isinstance(effect, Remember)]


_let_pass = Copies.let_pass
also("a-right-outlives-its-process", Copies, "let_pass", _lets_a_copy_pass_unnoted)
for _name in ("copy-without-an-epoch", "a-right-outlives-its-process"):
    also(_name, Arrivals, "_may_go_on", _goes_on_without_an_epoch)
