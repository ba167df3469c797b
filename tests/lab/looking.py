"""What several tests of the guarded lab look at."""

from __future__ import annotations

import time
from collections.abc import Callable

from outlast.lab import moving, outlast_view
from outlast.lab.lab import Lab
from outlast.runtime.event_log import LoggedEvent


def processes(lab: Lab) -> dict[str, tuple[str, int]]:
    """(host, process id) of each VM's only process."""
    found = {}
    for vm in lab.state().vms:
        where = lab.where(vm)
        assert len(where) == 1, f"{vm} has processes on {sorted(where)}"
        host, guest = where.popitem()
        found[vm] = (host, guest.pid)
    return found


def host_of(lab: Lab, vm: str) -> str:
    """Where it runs; a copy that waits is not there yet."""
    (host,) = [name for name, guest in lab.where(vm).items() if not guest.waits]
    return host


def alone_on(lab: Lab, vm: str, host: str) -> bool:
    """Whether it runs there, and has no other process."""
    return [(name, guest.waits) for name, guest in lab.where(vm).items()] == [(host, False)]


def boots(lab: Lab, vm: str) -> int:
    """How often its guest has booted, by its disk."""
    return len({record.boot_id for record in lab.disk_records(vm)})


def slow_migrations(lab: Lab, vm: str) -> None:
    """From where it is now, it migrates at a MiB a second: slower than any guest's memory takes to be sent."""
    limited = lab.run(host_of(lab, vm), ["virsh", "migrate-setspeed", vm, "1"])
    assert limited.returncode == 0, limited.stderr


def secondary_with_guests(lab: Lab) -> str:
    """A host that is not primary and runs a VM; one is moved there if there is none."""
    primary = outlast_view.primary(lab)
    secondaries = [name for name in lab.state().hosts if name != primary]
    for name in secondaries:
        if lab.guests(name):
            return name
    moving.move(lab, "vm1", secondaries[0])
    return secondaries[0]


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float = 30.0) -> float:
    """Seconds until it held; raises LabError if it does not in time."""
    return outlast_view.wait_until(what, condition, timeout_s, 0.05)


def holds_for(seconds: float, condition: Callable[[], bool], what: str) -> None:
    """The condition holds all the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition(), what
        time.sleep(0.1)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def events_of(lab: Lab, kind: str, since_ms: int, *, host: str = "", vm: str = "") -> list[LoggedEvent]:
    """What hosts reported of one kind since then."""
    return [
        event
        for event in outlast_view.events(lab, since_ms)
        if event.kind == kind and (not host or event.host == host) and (not vm or event.vm == vm)
    ]


def verdict(lab: Lab, seen_from: str, host: str) -> str:
    """A host's verdict in another's status."""
    view = outlast_view.status(lab, seen_from)
    return "" if view is None else next((h.verdict for h in view.hosts if h.name == host), "")
