"""Mutants of live migration: what makes a copy go on (decision 19)."""

from __future__ import annotations

from typing import Any

from outlast.model.keeper_effects import KeeperEffect
from outlast.model.records import RegisterState
from outlast.protocol import copies
from outlast.protocol.migration import Migrations
from outlast.protocol.ownership import Ownership, Phase
from outlast.sim.mutation import also, mutant


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


_heir = Migrations.heir


@mutant(
    5, "the end of a process while it is copied is taken for a migration", "crashes-while-it-migrates", (Migrations, "heir")
)
def _any_end_is_a_migration(self: Migrations, vm: Any) -> Any:
    migration = self._all.get(vm)
    if migration is not None and migration.stage == "copying":
        migration.stage = "ending"
    return _heir(self, vm)


def _keeps_no_end(self: Migrations, vm: Any) -> bool:
    migration = self._all.get(vm)
    return migration is not None and migration.stage == "handed"


also("any-end-is-a-migration", Migrations, "keeps_its_end", _keeps_no_end)
