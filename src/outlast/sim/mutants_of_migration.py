"""Mutants of live migration: what makes a copy go on (decision 19)."""

from __future__ import annotations

from typing import Any

import msgspec

from outlast.model.ids import Epoch
from outlast.model.keeper_effects import KeeperEffect, Remember
from outlast.model.keeping import KeptVm
from outlast.model.records import RegisterState
from outlast.protocol import copies
from outlast.protocol.copies import Copies
from outlast.protocol.keeping import KeeperMachine
from outlast.protocol.migration import Migrations
from outlast.protocol.migration_target import Arrivals
from outlast.protocol.ownership import Ownership, Phase
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
