"""What must be true at every moment, judged by what is true in the world and not by what anybody believes.

    single-instance   no VM executes on two hosts at once (a stopped process does not execute)
    owner-runs        whatever executes is executed by the owner in its register, unless its owner has just lost the lease
    epochs-rise       a register never goes back, and no two records ever hold one epoch

Each is looked at when something changes that it is about: a process begins, goes on or ends; a link lands.
"""

import msgspec

from outlast.model.ids import PRIMARY_REGISTER, HostId, VmId
from outlast.model.records import RegisterRecord, RegisterState
from outlast.sim.datastore import Datastore


class Violation(msgspec.Struct, frozen=True):
    """Something that must never be was. `at`: true time, nanoseconds."""

    at: int
    invariant: str
    detail: str


class Invariants:
    """Collects violations; `now` is set by the world before each look."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.now = 0
        self._executing: dict[VmId, set[HostId]] = {}
        self._highest: dict[tuple[str, str], RegisterRecord] = {}

    def executing(self, vm: VmId) -> frozenset[HostId]:
        """The hosts on which a VM executes now."""
        return frozenset(self._executing.get(vm, ()))

    def process_changed(self, host: HostId, vm: VmId, executes: bool, register: RegisterRecord | None) -> None:
        """A process of `vm` on `host` began, stopped, went on or ended."""
        hosts = self._executing.setdefault(vm, set())
        if not executes:
            hosts.discard(host)
            return
        if host in hosts:
            return
        hosts.add(host)
        if len(hosts) > 1:
            self._violated("single-instance", f"{vm} executes on {' and '.join(sorted(hosts))}")
        owned = register is not None and register.owner == host and register.state is RegisterState.OWNED
        if not owned:
            owner = "nobody" if register is None else f"{register.owner} ({register.state}, epoch {register.epoch})"
            self._violated("owner-runs", f"{vm} begins to execute on {host}, and its register says {owner}")

    def linked(self, store: Datastore, record: RegisterRecord) -> None:
        """A new epoch exists."""
        key = (store.name, record.subject)
        before = self._highest.get(key)
        if before is not None and record.epoch != before.epoch + 1:
            self._violated("epochs-rise", f"{record.subject}: epoch {record.epoch} came after epoch {before.epoch}")
        self._highest[key] = record
        if record.subject == PRIMARY_REGISTER:
            return
        others = self._executing.get(VmId(record.subject), set()) - {record.owner}
        if record.state is RegisterState.RELEASED:
            others = self._executing.get(VmId(record.subject), set())
        if others:
            where, what = ", ".join(sorted(others)), f"{record.state}, {record.reason}"
            made = f"{record.owner} creates epoch {record.epoch} ({what})"
            self._violated("owner-runs", f"{record.subject} executes on {where} while {made}")

    def _violated(self, invariant: str, detail: str) -> None:
        self.violations.append(Violation(self.now, invariant, detail))
