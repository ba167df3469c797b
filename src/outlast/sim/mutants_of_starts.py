"""Mutants of the rules about a VM's start, from the gate to the process: safety rules 3 and 7."""

from __future__ import annotations

from typing import Any

from outlast.model.keeper_effects import KeeperEffect, Kill, Reply, StopWatching
from outlast.model.keeping import AskLaunch, AskRelease, KeeperReply
from outlast.model.records import RegisterRecord
from outlast.protocol.gatekeeping import Gatekeeper
from outlast.protocol.ownership import Ownership, Phase
from outlast.sim.mutation import also, mutant

_lapse_ownership = Ownership.lapse


@mutant(3, "a start that is pending survives a lapse", "a-start-meets-a-lapse", (Ownership, "lapse"))
def _pending_start_survives_a_lapse(self: Ownership) -> list[KeeperEffect]:
    return [] if self.phase in (Phase.STARTING, Phase.GRANTED) else _lapse_ownership(self)


_start_after_read = Gatekeeper.start_after_read


@mutant(
    3, "a VM starts on an epoch that its host won before", "started-again-after-its-end", (Gatekeeper, "start_after_read")
)
def _start_on_the_old_epoch(self: Gatekeeper, ownership: Ownership, last: RegisterRecord | None) -> list[KeeperEffect]:
    waiting = self._waiting.get(ownership.vm)
    if waiting is None or last is None or last.owner != self._keeper.config.host:
        return _start_after_read(self, ownership, last)
    del self._waiting[ownership.vm]
    ownership.epoch, ownership.phase = last.epoch, Phase.STARTING
    return self._pass(ownership, waiting.client, waiting.request)


@mutant(7, "the gate lets every start pass", "started-elsewhere", (Gatekeeper, "start_after_read"))
def _gate_fails_open(self: Gatekeeper, ownership: Ownership, last: RegisterRecord | None) -> list[KeeperEffect]:
    waiting = self._waiting.pop(ownership.vm, None)
    if waiting is None:
        return _start_after_read(self, ownership, last)
    ownership.phase = Phase.STARTING
    return self._pass(ownership, waiting.client, waiting.request)


_process_appeared = Ownership.process_appeared


@mutant(
    7, "a process that appears after its start was void goes on", "a-start-meets-a-lapse", (Ownership, "process_appeared")
)
def _void_start_runs(self: Ownership, pid: int, *, incoming: bool) -> list[KeeperEffect]:
    effects = _process_appeared(self, pid, incoming=incoming)
    if any(isinstance(effect, Kill) for effect in effects):
        self.phase = Phase.RUNNING
        return [StopWatching(self.vm)]
    return effects


def _launches_anyway(self: Ownership, term: Any) -> bool:
    """The gate's second question is another guard of the same rule: without it too, the first one alone is looked at."""
    return True


for _name in ("gate-fails-open", "start-on-the-old-epoch", "pending-start-survives-a-lapse", "void-start-runs"):
    also(_name, Ownership, "may_launch", _launches_anyway)


@mutant(7, "a start that was given back is launched all the same", "libvirt-hangs-in-a-start", (Gatekeeper, "_launch"))
def _given_back_and_launched(self: Gatekeeper, client: int, ask: AskLaunch) -> KeeperEffect:
    self._pending.pop(ask.vm, None)
    return Reply(client, KeeperReply(ask.request, True))


_ask_release = Gatekeeper._ask_release


@mutant(
    7, "a start is given back after the gate's last word for it", "libvirt-hangs-in-a-start", (Gatekeeper, "_ask_release")
)
def _launched_and_given_back(self: Gatekeeper, client: int, ask: AskRelease) -> list[KeeperEffect]:
    known = self._keeper.vms.get(ask.vm)
    if ask.given_up and known is not None and known.pid is None:
        return [*self._unused(ask.vm), Reply(client, KeeperReply(ask.request, True))]
    return _ask_release(self, client, ask)
