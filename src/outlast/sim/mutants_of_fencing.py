"""Mutants of the rules about fence devices and an operator's word: safety rule 5, `power_fenced`, `operator_confirmed`."""

from __future__ import annotations

from typing import Any

from outlast.model.events import FenceEnded, FenceStatusEnded, PowerState, RegistersRead
from outlast.model.ids import HostId
from outlast.protocol.fencing import Fencing, Stage
from outlast.protocol.knowledge import Knowledge
from outlast.sim.mutation import also, mutant

_ended, _move = Fencing.ended, Fencing._move


@mutant(
    5, "a fence command's success is proof without the state asked afterwards", "fenced-while-it-runs", (Fencing, "ended")
)
def _success_is_proof(self: Fencing, event: FenceEnded) -> None:
    _ended(self, event)
    for host, effort in list(self._efforts.items()):
        if event.ok and host == event.host and effort.request is not None:
            self.status_ended(FenceStatusEnded(effort.request, host, PowerState.OFF))


def _any_epoch(self: Knowledge, last: Any, *_: Any) -> Any:
    off = self.powered_off.get(last.owner)
    return off.kind if off is not None and self.now >= off.usable_at else None


@mutant(
    5,
    "that a device said off counts also for a later boot, which lived meanwhile",
    "fenced-and-switched-on-again",
    (Knowledge, "said_off"),
)
def _off_for_ever(self: Knowledge, last: Any, *_: Any) -> Any:
    return _any_epoch(self, last)


@mutant(
    5,
    "an operator's word counts also for a later boot, which lived meanwhile",
    "confirmed-and-switched-on-again",
    (Knowledge, "said_off"),
)
def _word_for_ever(self: Knowledge, last: Any, *_: Any) -> Any:
    return _any_epoch(self, last)


def _sees_no_life(self: Fencing) -> None:
    """The other guard of the same rule."""


for _name in ("off-for-ever", "word-for-ever"):
    also(_name, Fencing, "look", _sees_no_life)


@mutant(
    5,
    "a primary fences although the register calls another one responsible",
    "a-primary-that-stood-still-before-it-fenced",
    (Fencing, "registers_read"),
)
def _fences_without_its_register(self: Fencing, event: RegistersRead) -> None:
    found = self._found(event.request, Stage.CONFIRMING)
    if found is not None:
        self._switch_off(*found)


def _an_answer_is_never_late(self: Fencing, host: HostId, effort: Any) -> None:
    """The other guard of the same rule: what is asked first on storage wakes it before the register's answer is there."""
    if effort.stage is not Stage.CONFIRMING:
        _move(self, host, effort)


also("fences-without-its-register", Fencing, "_move", _an_answer_is_never_late)
