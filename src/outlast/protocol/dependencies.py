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
"""

from collections.abc import Iterable, Mapping

from outlast.model.ids import VmId, VmName
from outlast.model.records import ProtectedVm
from outlast.protocol.knowledge import Knowledge
from outlast.protocol.responsibility import Responsibility
from outlast.protocol.restart import Restart, Stage
from outlast.protocol.sequence import Dependency, Standing

_WORST = (Standing.QUEUED, Standing.COMING, Standing.READY, Standing.NEVER)
"""Of several VMs with one name, the one that is waited for longest counts."""


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
        return {name: _worst(found) if found else self._elsewhere(name) for name, found in named.items()}

    def _protected(self, entry: ProtectedVm, case: Restart | None) -> Dependency:
        ready = entry.policy.ready
        if case is not None:
            if case.held and self._known.pause is not None:
                return Dependency(Standing.NEVER, why=f"{entry.name} is off, and recovery is paused")
            started = case.stage is Stage.STARTED and ready.how == "powered-on"
            queued = Standing.QUEUED if case.in_doubt or case.stage is Stage.QUEUED else Standing.COMING
            return Dependency(Standing.READY if started else queued, ready.delay)
        if self._runs(entry.vm):
            return Dependency(Standing.READY if entry.attempts.ordered is None else Standing.COMING, ready.delay)
        if entry.attempts.failed:
            return Dependency(Standing.NEVER, why=f"{entry.name} has failed")
        if entry.policy.priority == "disabled" and not entry.attempts.asked:
            return Dependency(Standing.NEVER, why=f"{entry.name} is off, and its priority is disabled")
        return Dependency(Standing.COMING, ready.delay)

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
        return Dependency(Standing.NEVER, why=f"{name} is off, and nobody wants it to run")


def _worst(found: list[Dependency]) -> Dependency:
    return min(found, key=lambda dependency: _WORST.index(dependency.standing))
