"""How the VMs that others wait for are doing, as far as this agent can tell: what `sequence` needs to know of them.

    the VM that is waited for                                       it is
    has a case of its own that waits for its turn, or is in doubt   queued
    has a case of its own that a pause holds                        never: only what an operator asks for is started then
    has a case of its own, anything else                            coming; ready once it is started, if that is enough
    runs on a host that lives, and was not ordered anew             ready: it was never down
    runs on a host that lives, and was ordered anew                 coming, until its host calls it ready
    is off: given up, of priority `disabled`, or not protected      never
    is off or frozen, and protected                                 coming

A name that nobody here knows may belong to a datastore that this agent is not responsible for (yet): then it is waited
for as well, and the time-out bounds it. Ordering is all that `after` asks for: a VM that was switched off on purpose holds
nobody up, as `After=` of systemd does not start anything.

`standing_of` is the table, for whoever asks: recovery of what it knows, and `planning/starting.py` of what would be.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from outlast.model.dependency import Dependency, Standing
from outlast.model.ids import VmId, VmName
from outlast.model.policy import Ready
from outlast.model.records import ProtectedVm
from outlast.protocol.knowledge import Knowledge
from outlast.protocol.responsibility import Responsibility
from outlast.protocol.restart import Restart, Stage

_WORST = (Standing.QUEUED, Standing.COMING, Standing.READY, Standing.NEVER)
"""The one that is waited for longest first."""


class AwaitedVm(msgspec.Struct, frozen=True, kw_only=True):
    """What the table above asks of a protected VM.

    `case`: how far its restart is, empty if there is none; `in_doubt` counts as `queued`. `held`: a pause holds that.
    `ordered`: it was ordered anew, and its host has not called it ready since. `disabled`: it is, and nobody asked for it.
    """

    name: VmName
    ready: Ready
    case: Literal["", "queued", "coming", "started"] = ""
    held: bool = False
    runs: bool = False
    ordered: bool = False
    failed: bool = False
    disabled: bool = False


def standing_of(vm: AwaitedVm) -> Dependency:
    """How a protected VM that others wait for is doing."""
    delay = vm.ready.delay
    if vm.case:
        if vm.held:
            return Dependency(Standing.NEVER, why=f"{vm.name} is off, and recovery is paused")
        if vm.case == "started" and vm.ready.how == "powered-on":
            return Dependency(Standing.READY, delay)
        return Dependency(Standing.QUEUED if vm.case == "queued" else Standing.COMING, delay)
    if vm.runs:
        return Dependency(Standing.COMING if vm.ordered else Standing.READY, delay)
    if vm.failed:
        return Dependency(Standing.NEVER, why=f"{vm.name} has failed")
    if vm.disabled:
        return Dependency(Standing.NEVER, why=f"{vm.name} is off, and its priority is disabled")
    return Dependency(Standing.COMING, delay)


def unwanted(name: VmName) -> Dependency:
    """The standing of a VM that is off and that nobody protects."""
    return Dependency(Standing.NEVER, why=f"{name} is off, and nobody wants it to run")


def worst(found: list[Dependency]) -> Dependency:
    """Of several VMs with one name, the one that is waited for longest counts."""
    return min(found, key=lambda dependency: _WORST.index(dependency.standing))


class Dependencies:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, responsibility: Responsibility) -> None:
        self._known = knowledge
        self._responsible = responsibility

    def look(self, names: Iterable[VmName], cases: Mapping[VmId, Restart]) -> dict[VmName, Dependency]:
        """Each of the names, and how the VM of that name is doing."""
        wanted = dict.fromkeys(names)
        if not wanted:
            return {}
        named: dict[VmName, list[Dependency]] = {name: [] for name in wanted}
        for datastore in self._responsible.held_datastores():
            for entry in self._responsible.protection(datastore).vms.values():
                if entry.name in named:
                    named[entry.name].append(self._protected(entry, cases.get(entry.vm)))
        return {name: worst(found) if found else self._elsewhere(name) for name, found in named.items()}

    def _protected(self, entry: ProtectedVm, case: Restart | None) -> Dependency:
        return standing_of(
            AwaitedVm(
                name=entry.name,
                ready=entry.policy.ready,
                case=_stage_of(case) if case is not None else "",
                held=case is not None and case.held and self._known.pause is not None,
                runs=self._runs(entry.vm),
                ordered=entry.attempts.ordered is not None,
                failed=entry.attempts.failed,
                disabled=entry.policy.priority == "disabled" and not entry.attempts.asked,
            )
        )

    def _runs(self, vm: VmId) -> bool:
        host, line = self._known.lister(vm), self._known.listed(vm)
        if host is None or line is None or line.state != "running":
            return False
        return host == self._known.me or self._known.lives(host)

    def _elsewhere(self, name: VmName) -> Dependency:
        """No VM of that name is protected on a datastore of ours."""
        for host, content in self._known.power_on.items():
            if host != self._known.me and not self._known.lives(host):
                continue
            line = next((line for line in content.vms if line.name == name), None)
            if line is not None:
                up = line.state == "running" and line.ready
                return Dependency(Standing.READY if up else Standing.COMING)
        if len(self._responsible.held_datastores()) < len(self._known.datastores):
            return Dependency(Standing.COMING)
        return unwanted(name)


def _stage_of(case: Restart) -> Literal["queued", "coming", "started"]:
    if case.in_doubt or case.stage is Stage.QUEUED:
        return "queued"
    return "started" if case.stage is Stage.STARTED else "coming"
