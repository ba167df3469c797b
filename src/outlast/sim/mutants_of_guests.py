"""Mutants of the watch over guests, whose rules are not of design.md section 2 but of what nobody may do to a guest."""

from __future__ import annotations

from typing import Any

from outlast.protocol.guest_watch import GuestWatch
from outlast.sim.mutation import mutant

_may_judge = GuestWatch._may_judge


@mutant(
    4,
    "a guest is judged while it is frozen, and its storage is gone",
    "a-watched-guest-is-frozen",
    (GuestWatch, "_may_judge"),
)
def _a_frozen_guest_is_judged(self: GuestWatch, kept: Any, isolated: bool) -> bool:
    return kept.vm in self._known.running


@mutant(
    4,
    "a guest that is silent is reset, whatever its disks do",
    "a-watched-guest-is-silent-and-works",
    (GuestWatch, "_stands_still"),
)
def _silence_is_enough(self: GuestWatch, guest: Any) -> bool:
    return True


@mutant(
    4,
    "a guest is reset although an operator holds all recovery",
    "a-watched-guest-hangs-in-a-pause",
    (GuestWatch, "_may_judge"),
)
def _a_pause_does_not_hold_resets(self: GuestWatch, kept: Any, isolated: bool) -> bool:
    known, record = self._known, self._known.record
    known.record = None
    try:
        return _may_judge(self, kept, isolated)
    finally:
        known.record = record
