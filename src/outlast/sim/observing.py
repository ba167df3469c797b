"""What is true in a simulated world, as answers to the judge's questions, and its story as it is told.

It listens to what hosts note and to every change of a process, so that times are exact. Beliefs are asked of the primary
in charge: of the agents that take themselves for primary, the one that is responsible for the most datastores.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from outlast.model.effects import Note
from outlast.model.event_texts import sentence
from outlast.model.ids import PRIMARY_REGISTER, DatastoreName, HostId, VmId
from outlast.model.keeping import Happened, Happening
from outlast.model.records import ProtectedVm, RegisterState
from outlast.model.time import in_seconds
from outlast.protocol.verdict import Verdict
from outlast.scenario.history import History
from outlast.scenario.model import Scenario, VmSpec
from outlast.scenario.result import End, HostEnd, Line, VmEnd
from outlast.sim.host import Host
from outlast.sim.hypervisor import Process
from outlast.sim.world import World

_H = TypeVar("_H")
_T = TypeVar("_T")
_KEEPERS = frozenset(map(str, Happening))
"""What agents tell of their keepers, which are listened to themselves."""
_TOLD_OTHERWISE = frozenset({"fault", "verdict", "guest-was-reset", *_KEEPERS})
"""Kinds of entries of the world's own timeline that are told from their sources."""


class Observer:
    """`judging.Observed` over a world. Nothing is counted or told before `begin`, which makes this moment time zero."""

    def __init__(self, world: World, scenario: Scenario) -> None:
        self._world = world
        self._specs: dict[str, VmSpec] = {vm.name: vm for vm in scenario.vms}
        self._histories: dict[str, History] = {vm.name: History() for vm in scenario.vms}
        self._seen: set[tuple[str, str, int, int]] = set()
        self._dead: dict[str, int] = {}
        self._resets: dict[str, int] = {}
        self._zero: int | None = None
        self.lines: list[Line] = []
        for host in world.hosts.values():
            host.on_note = _both(host.on_note, self._noted)
            host.on_reset = _both(host.on_reset, self._guest_reset)
            host.on_happened = _both(host.on_happened, self._happened)
            host.on_process = _both(host.on_process, self._process_changed)

    def begin(self) -> None:
        """Time zero is now."""
        self._zero = self._world.now
        for vm in self._specs:
            self._look_at(vm)

    # -- what the judge asks --------------------------------------------------------------------------------------

    def now(self) -> int:
        return self._world.now - (self._zero or 0)

    def live_hosts(self) -> Sequence[str]:
        return [name for name, host in self._world.hosts.items() if host.powered]

    def executing_on(self, vm: str) -> Sequence[str]:
        return self._world.where(vm)

    def state(self, vm: str) -> str:
        if self._is_unprotected(vm):
            return "unprotected"
        if self._world.where(vm):
            return "running"
        processes = self._processes(vm)
        if processes:
            return "frozen" if any(process.stopped for process in processes) else "starting"
        if any(VmId(vm) in host.hypervisor.starting for host in self._world.hosts.values() if host.powered):
            return "starting"
        entry = protected_on(self._world, DatastoreName(self._specs[vm].datastore)).get(VmId(vm))
        if entry is None or (entry.policy.priority == "disabled" and not entry.attempts.asked):
            return "stopped"
        return "failed" if entry.attempts.failed else "waiting"

    def _is_unprotected(self, vm: str) -> bool:
        """As an operator has said last, else as the file says."""
        content = self._world.domain.stores[DatastoreName(self._specs[vm].datastore)].newest_protected()
        if content is not None:
            if any(aside.entry.vm == vm and aside.wanted == "unprotected" for aside in content.aside):
                return True
            if any(entry.vm == vm and entry.asked is not None for entry in content.vms):
                return False
        return self._specs[vm].state == "unprotected"

    def verdict(self, host: str) -> str:
        primary = self.primary()
        machine = self._world.hosts[primary].agent.machine if primary else None
        return str(machine.known.verdict(HostId(host))) if machine is not None else str(Verdict.UNKNOWN)

    def dead_since(self) -> dict[str, int]:
        found = dict(self._dead)
        for host in self.fenced():
            at = self._world.fenced[HostId(host)] - (self._zero or 0)
            found[host] = min(found.get(host, at), at)
        return found

    def primary(self) -> str:
        owners: dict[str, int] = {}
        for store in self._world.domain.stores.values():
            last = store.last(PRIMARY_REGISTER)
            if last is not None and last.state is RegisterState.OWNED:
                owners[last.owner] = owners.get(last.owner, 0) + 1
        return max(sorted(self._world.primaries()), key=lambda name: owners.get(name, 0), default="")

    def fenced(self) -> Sequence[str]:
        return [host for host, at in self._world.fenced.items() if at >= (self._zero or 0)]

    def resets(self, vm: str) -> int:
        return self._resets.get(vm, 0)

    def guest(self, vm: str) -> str:
        """As the agent of the host tells on which it runs."""
        for host in self.processes_on(vm):
            machine = self._world.hosts[host].agent.machine
            word = machine.known.guests.get(VmId(vm)) if machine is not None else None
            if word is not None:
                return word.state
        return "unwatched"

    def history(self, vm: str) -> History:
        return self._histories[vm]

    # -- what is told of it ---------------------------------------------------------------------------------------

    def processes_on(self, vm: str) -> list[str]:
        """The hosts on which it has a process, executing or not."""
        return sorted(self._world.processes(vm))

    def _processes(self, vm: str) -> list[Process]:
        return [p for host in self._world.hosts.values() if (p := host.hypervisor.processes.get(VmId(vm))) is not None]

    def tell(self, kind: str, text: str, *, host: str = "", vm: str = "") -> None:
        """One line of the timeline, now."""
        self.lines.append(Line(round(in_seconds(self.now()), 3), kind, host, vm, text))

    def timeline(self) -> tuple[Line, ...]:
        """What was told here, and what the world alone knows: watchdogs that fired, what nothing guarded."""
        lines = list(self.lines)
        told = {line.kind for line in lines} | _TOLD_OTHERWISE
        for entry in self._world.timeline:
            if self._zero is not None and entry.at >= self._zero and entry.kind not in told:
                at = round(in_seconds(entry.at - self._zero), 3)
                about = entry.vm or entry.host
                lines.append(Line(at, entry.kind, entry.host, entry.vm, f"{about}: {entry.text}" if about else entry.text))
        return tuple(sorted(lines, key=lambda line: line.at))

    def end(self) -> End:
        """Everything as it is now."""
        vms: dict[str, VmEnd] = {}
        for name, spec in self._specs.items():
            where = self.executing_on(name) or self.processes_on(name)
            last = self._world.domain.stores[DatastoreName(spec.datastore)].last(name)
            restarts = len(self._histories[name].starts)
            vms[name] = VmEnd(self.state(name), " ".join(where), last.epoch if last is not None else None, restarts)
        hosts = {
            name: HostEnd(self.verdict(name), "on" if host.powered else "off") for name, host in self._world.hosts.items()
        }
        return End(vms, hosts, self.primary())

    # -- listening ------------------------------------------------------------------------------------------------

    def _noted(self, host: HostId, note: Note) -> None:
        if self._zero is None or note.kind in _KEEPERS:
            return
        names = {"reporter": host, "host": note.host or host, "vm": note.vm or "", "datastore": note.datastore or ""}
        in_charge = host == self.primary()
        if note.kind == "verdict":
            if not in_charge:
                return
            if note.facts["verdict"] == Verdict.DEAD and note.host is not None:
                self._dead.setdefault(note.host, self.now())
        self.tell(note.kind, sentence(note.kind, names | note.facts), host=note.host or host, vm=note.vm or "")

    def _guest_reset(self, _host: Host, process: Process) -> None:
        if self._zero is not None:
            self._resets[process.vm] = self._resets.get(process.vm, 0) + 1

    def _happened(self, host: HostId, happened: Happened) -> None:
        if self._zero is None:
            return
        vm, datastore = happened.vm or "", happened.datastore or ""
        names = {"reporter": host, "host": host, "vm": vm, "datastore": datastore, "detail": happened.detail}
        self.tell(happened.kind, sentence(happened.kind, names), host=host, vm=vm)

    def _process_changed(self, host: HostId, vm: VmId) -> None:
        machine = self._world.hosts[host]
        process = machine.hypervisor.processes.get(vm)
        if process is not None and (key := (vm, host, machine.boots, process.pid)) not in self._seen:
            self._seen.add(key)
            if self._zero is not None and not process.incoming:
                self._histories[vm].started(self.now())
        if self._zero is not None:
            self._look_at(vm)

    def _look_at(self, vm: str) -> None:
        found = self._processes(vm)
        frozen = any(process.stopped and process.ending is None for process in found)
        self._histories[vm].changed(self.now(), executes=bool(self._world.where(vm)), frozen=frozen)


def _both(first: Callable[[_H, _T], None], second: Callable[[_H, _T], None]) -> Callable[[_H, _T], None]:
    def call(host: _H, what: _T) -> None:
        first(host, what)
        second(host, what)

    return call


def protected_on(world: World, datastore: DatastoreName) -> dict[VmId, ProtectedVm]:
    """The VMs on a datastore's protected list, as whoever reads it now would find it."""
    content = world.domain.stores[datastore].newest_protected()
    return {entry.vm: entry for entry in content.vms} if content is not None else {}
