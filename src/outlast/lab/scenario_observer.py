"""What is true in a lab, as answers to the judge's questions: processes from the kernel, beliefs from the agents.

Where VMs execute is looked at often (`look`), asking no service of any host, so that nothing that hangs can hide it. What
the agents believe is asked when it is to be judged, of agents that are not stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from outlast.lab import outlast_view
from outlast.lab.guarding import Guarding
from outlast.lab.host import Guest
from outlast.lab.lab import Lab
from outlast.model.status import DomainStatus, VmStatus
from outlast.runtime.event_log import LoggedEvent
from outlast.scenario.history import History
from outlast.scenario.model import Scenario
from outlast.scenario.result import End, Hazard, HostEnd, Line, Violation, VmEnd

_WAITING = frozenset({"waiting", "restarting", "lost", "unknown"})
View = Callable[[str], DomainStatus | None]
Events = Callable[[int], list[LoggedEvent]]


class LabObserver:
    """`judging.Observed` over a lab. `begin` makes this moment time zero. `clock`: nanoseconds of any monotonic clock."""

    def __init__(
        self,
        lab: Lab,
        scenario: Scenario,
        *,
        view: View | None = None,
        events: Events | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._lab = lab
        self._ask = view if view is not None else self._ask_agent
        self._read_events = events if events is not None else lambda since_ms: outlast_view.events(lab, since_ms)
        self._clock, self._wall_ms = clock, wall_ms
        self._specs = {str(vm.name): vm for vm in scenario.vms}
        self._hosts = [str(host.name) for host in scenario.hosts]
        self._histories = {name: History() for name in self._specs}
        self._guests: dict[str, list[tuple[str, Guest]]] = {name: [] for name in self._specs}
        self._seen: set[tuple[str, str, int]] = set()
        self._views: dict[str, DomainStatus] | None = None
        self._guarding = Guarding(lab)
        self._doubles: set[str] = set()
        self._unguarded_since: dict[str, float] = {}
        self._hazardous: set[str] = set()
        self._zero = 0
        self._zero_ms = 0
        self.violations: list[Violation] = []
        self.hazards: list[Hazard] = []
        self.lines: list[Line] = []

    def begin(self) -> None:
        """Time zero is now; the processes that exist are none that were started anew."""
        self._zero, self._zero_ms = self._clock(), self._wall_ms()
        self._find_guests()
        self._seen = {(vm, host, guest.pid) for vm, found in self._guests.items() for host, guest in found}
        self.look()

    def look(self) -> None:
        """Note what executes now, and what changed since the last look."""
        self._views = None
        self._find_guests()
        now = self.now()
        for host in self._hosts:
            self._guarding.look(host, now)
        for vm, found in self._guests.items():
            for host, guest in found:
                if (key := (vm, host, guest.pid)) not in self._seen:
                    self._seen.add(key)
                    if not guest.incoming:
                        self._histories[vm].started(now)
            where = self.executing_on(vm)
            frozen = any(guest.stopped for _, guest in found)
            self._histories[vm].changed(now, executes=bool(where), frozen=frozen)
            self._judge_double(vm, where)

    def _judge_double(self, vm: str, where: Sequence[str]) -> None:
        """A VM that executes twice: told once, as a hazard for as long as nothing guards one of its hosts."""
        if len(where) >= 2 and any(self._guarding.lacks(host, self.now()) for host in where):
            if vm not in self._unguarded_since:
                self._unguarded_since[vm] = self.seconds()
                self.tell("hazard", f"{vm} executes on {' and '.join(where)}: one of them is unguarded", vm=vm)
            return
        self._end_hazard(vm)
        if len(where) < 2:
            self._doubles.discard(vm)
        elif vm not in self._doubles:
            self._doubles.add(vm)
            self.violated("single-instance", f"{vm} executes on {' and '.join(where)}")

    def _end_hazard(self, vm: str) -> None:
        if (since := self._unguarded_since.pop(vm, None)) is not None:
            length = round(self.seconds() - since, 3)
            self._hazardous.add(vm)
            self.hazards.append(Hazard(since, "double-run", length, f"{vm} executed twice while nothing guarded a host"))

    def finish(self) -> None:
        """The scenario is over: ask the guests' disks too, whether two instances ever wrote."""
        for vm in self._specs:
            self._end_hazard(vm)
            for problem in self._lab.disk_problems(vm):
                detail = f"the disk of {vm} says: {problem}"
                if vm in self._hazardous:
                    self.hazards.append(Hazard(self.seconds(), "stale-write", 0.0, detail))
                else:
                    self.violated("single-instance", detail)

    def _find_guests(self) -> None:
        for vm in self._guests:
            self._guests[vm] = []
        for host in self._hosts:
            for guest in self._lab.guests(host):
                # A copy that waits is no guest yet; if it went on beside its source, the disk would tell (`disklog`).
                if guest.name in self._guests and not guest.waits:
                    self._guests[guest.name].append((host, guest))

    def violated(self, invariant: str, detail: str) -> None:
        """Something that must never be is."""
        self.violations.append(Violation(self.seconds(), invariant, detail))

    # -- what the judge asks --------------------------------------------------------------------------------------

    def now(self) -> int:
        return self._clock() - self._zero

    def live_hosts(self) -> Sequence[str]:
        return [host for host in self._hosts if self._lab.is_on(host)]

    def executing_on(self, vm: str) -> Sequence[str]:
        return sorted(host for host, guest in self._guests[vm] if not guest.stopped)

    def state(self, vm: str) -> str:
        if self._specs[vm].state == "unprotected":
            return "unprotected"
        if self.executing_on(vm):
            return "running"
        if self._guests[vm]:
            return "frozen"
        status = self._vm_status(vm)
        if status is None:
            return "stopped"
        if status.state in ("starting", "failed"):
            return status.state
        return "waiting" if status.state in _WAITING else "stopped"

    def verdict(self, host: str) -> str:
        view = self._all_views().get(self.primary())
        found = next((each for each in view.hosts if each.name == host), None) if view is not None else None
        return found.verdict if found is not None else "unknown"

    def dead_since(self) -> dict[str, int]:
        dead: dict[str, int] = {}
        for event in self._told_by_primaries():
            if event.kind == "verdict" and event.facts.get("verdict") == "dead":
                dead.setdefault(event.host, (event.at_ms - self._zero_ms) * 1_000_000)
        return dead

    def primary(self) -> str:
        views = self._all_views()
        claiming = sorted(name for name, view in views.items() if view.primary == name)
        return max(claiming, key=lambda name: _responsibilities(views[name]), default="")

    def fenced(self) -> Sequence[str]:
        return self._lab.state().fenced

    def resets(self, vm: str) -> int:
        return sum(event.kind == "guest-reset" and event.vm == vm for event in self._told_by_primaries())

    def guest(self, vm: str) -> str:
        status = self._vm_status(vm)
        return (status.guest if status is not None else "") or "unwatched"

    def history(self, vm: str) -> History:
        return self._histories[vm]

    # -- what is told of it ---------------------------------------------------------------------------------------

    def seconds(self) -> float:
        """The time in seconds, to the millisecond."""
        return round(self.now() / 1_000_000_000, 3)

    def processes_on(self, vm: str) -> list[str]:
        """The hosts on which it has a process, executing or not."""
        return sorted(host for host, _ in self._guests[vm])

    def tell(self, kind: str, text: str, *, host: str = "", vm: str = "") -> None:
        """One line of the timeline, now."""
        self.lines.append(Line(self.seconds(), kind, host, vm, text))

    def timeline(self) -> tuple[Line, ...]:
        """What was told here, and what the hosts wrote into their event logs."""
        lines = list(self.lines)
        for event in self._told_by_primaries():
            at = round((event.at_ms - self._zero_ms) / 1000, 3)
            lines.append(Line(at, event.kind, event.host or event.reporter, event.vm, event.text))
        return tuple(sorted(lines, key=lambda line: line.at))

    def end(self) -> End:
        """Everything as it is now."""
        vms: dict[str, VmEnd] = {}
        for name in self._specs:
            status = self._vm_status(name)
            where = self.executing_on(name) or self.processes_on(name)
            restarts = len(self._histories[name].starts)
            vms[name] = VmEnd(self.state(name), " ".join(where), status.epoch if status is not None else None, restarts)
        live = self.live_hosts()
        hosts = {name: HostEnd(self.verdict(name), "on" if name in live else "off") for name in self._hosts}
        return End(vms, hosts, self.primary())

    # -- beliefs --------------------------------------------------------------------------------------------------

    def _ask_agent(self, host: str) -> DomainStatus | None:
        if not self._lab.is_on(host) or self._lab.service_state(host, "agent") != "running":
            return None
        return outlast_view.status(self._lab, host)

    def _all_views(self) -> dict[str, DomainStatus]:
        """What each agent says, asked once between two looks."""
        if self._views is None:
            asked = {host: self._ask(host) for host in self._hosts}
            self._views = {host: view for host, view in asked.items() if view is not None}
        return self._views

    def _vm_status(self, vm: str) -> VmStatus | None:
        view = self._all_views().get(self.primary())
        return next((each for each in view.vms if each.name == vm), None) if view is not None else None

    def _told_by_primaries(self) -> list[LoggedEvent]:
        """Every event since time zero; of verdicts only those of agents that took themselves for primary then."""
        believes: dict[str, str] = {}
        told = []
        for event in self._read_events(0):
            if event.kind == "primary-elected":
                believes[event.reporter] = event.host
            elif event.kind == "primary-lost":
                believes.pop(event.reporter, None)
            opinion = event.kind == "verdict" and believes.get(event.reporter) != event.reporter
            if event.at_ms >= self._zero_ms and not opinion:
                told.append(event)
        return told


def _responsibilities(view: DomainStatus) -> int:
    return sum(datastore.responsible == view.seen_from for datastore in view.datastores)
