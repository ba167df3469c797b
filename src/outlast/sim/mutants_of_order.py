"""Mutants of the order of recovery: what may have changed while a VM waited for its turn."""

from __future__ import annotations

from typing import Any

from outlast.protocol.recovery import Recovery
from outlast.sim.mutation import also, mutant


@mutant(
    5,
    "a proof that has waited for its turn counts, whatever its host has shown since",
    "a-proof-waits-for-its-turn",
    (Recovery, "_is_proof_still"),
)
def _a_proof_that_waited_counts(self: Recovery, case: Any) -> bool:
    return True


def _lists_nothing(self: Recovery, _vm: Any) -> None:
    """The other guard of the same rule: a host that shows life has it on its list, if that can be read."""


also("a-proof-that-waited-counts", Recovery, "lists_it", _lists_nothing)
