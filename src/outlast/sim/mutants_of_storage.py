"""Mutants of what a host says that gives a VM up, because its storage is lost to it; see `mutants.py`."""

from __future__ import annotations

from typing import Any

from outlast.model.ids import VmId
from outlast.model.keeper_effects import KeeperEffect
from outlast.model.keeping import AskGivenUp
from outlast.model.records import RegisterRecord
from outlast.protocol import renouncing
from outlast.protocol.knowledge import Knowledge
from outlast.protocol.ownership import Ownership, Phase
from outlast.protocol.renouncing import Renouncing
from outlast.protocol.storage_loss import StorageLoss
from outlast.sim.mutation import also, mutant

_asked, _refusal, _not_yet = Renouncing.asked, Renouncing._refusal, Renouncing._not_yet


@mutant(5, "a VM is given up while its process only stands frozen", "a-host-gives-its-vm-up", (Renouncing, "asked"))
def _given_up_and_only_frozen(self: Renouncing, client: int, ask: AskGivenUp) -> list[KeeperEffect]:
    known = self._keeper.vms.get(ask.vm)
    if known is not None and known.phase is Phase.FROZEN and not self._refusal(known, ask):
        return [renouncing._answer(client, ask, "")]
    return _asked(self, client, ask)


@mutant(
    5,
    "a VM is given up as soon as its process was told to end",
    "a-process-that-cannot-exit",
    (Renouncing, "_not_yet"),
)
def _given_up_before_the_exit(self: Renouncing, known: Ownership) -> str:
    return "" if known.phase is Phase.KILLING else _not_yet(self, known)


@mutant(
    5,
    "a host's word that it gave a VM up counts for every epoch that it ever makes",
    "given-up-and-started-there-again",
    (Knowledge, "has_given_up"),
)
def _the_word_counts_for_any_epoch(self: Knowledge, last: RegisterRecord, home: Any) -> bool:
    word = self.renounced.get(VmId(last.subject))
    return word is not None and (word.owner, word.home) == (last.owner, home)


def _lists_nothing_any_more(self: Knowledge, host: Any, line: Any) -> bool:
    word = self.renounced.get(line.vm)
    return word is not None and word.owner == host


also("the-word-counts-for-any-epoch", Knowledge, "_is_given_up", _lists_nothing_any_more)


@mutant(
    4,
    "a keeper ends what it was to give up although it holds its lease again",
    "back-before-it-is-given-up",
    (Renouncing, "_refusal"),
)
def _given_up_with_the_lease_held(self: Renouncing, known: Ownership, ask: AskGivenUp) -> str:
    found = _refusal(self, known, ask)
    return "" if "holds its lease" in found else found


@mutant(
    4,
    "a keeper ends what it is asked for, however short a time it has been without its lease itself",
    "a-keeper-that-stood-still-is-asked",
    (Renouncing, "_refusal"),
)
def _given_up_by_others_clocks(self: Renouncing, known: Ownership, ask: AskGivenUp) -> str:
    found = _refusal(self, known, ask)
    return "" if "long enough" in found else found


@mutant(
    5,
    "a VM is given up although nobody accepted that the storage may hold writes for longer",
    "lost-where-writes-may-be-held",
    (StorageLoss, "_nothing_is_held"),
)
def _given_up_with_writes_held(self: StorageLoss, home: Any) -> bool:
    return True
