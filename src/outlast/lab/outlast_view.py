"""What Outlast itself says, asked from outside a lab host: its agent's status over its socket, its event log."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from outlast.interfaces import local_agent
from outlast.lab.errors import LabError
from outlast.lab.lab import Lab
from outlast.model.errors import OutlastError
from outlast.model.status import DomainStatus
from outlast.runtime.control import ControlRequest
from outlast.runtime.event_log import LoggedEvent, read


def status(lab: Lab, host: str) -> DomainStatus | None:
    """The view of a host's agent; None if it gives none now."""
    try:
        path = Path(f"/proc/{lab.init(host).pid}/root/run/outlast/agent.sock")
        return local_agent.ask(path, ControlRequest("status")).status
    except (OutlastError, LabError):
        return None


def primary(lab: Lab) -> str:
    """The host that the hosts which are on agree to be primary. Raises LabError if they do not."""
    views = [status(lab, name) for name in lab.state().hosts if lab.is_on(name)]
    named = {view.primary for view in views if view is not None}
    if len(named) != 1 or "" in named or None in views:
        raise LabError(f"the hosts do not agree on a primary: {', '.join(sorted(named)) or 'none'}")
    return named.pop()


def event_log(lab: Lab, host: str) -> Path:
    """Where a host's event log lies, seen from outside."""
    return lab.layout.host(host) / "lib" / "outlast" / "events.jsonl"


def events(lab: Lab, since_ms: int = 0) -> list[LoggedEvent]:
    """What every host's own agent reported since then, in order of its clock (all hosts of a lab share one)."""
    found: list[LoggedEvent] = []
    for host in lab.state().hosts:
        found += [e for e in read(event_log(lab, host)) if e.reporter == host and e.at_ms >= since_ms]
    return sorted(found, key=lambda event: event.at_ms)


def is_ready(lab: Lab) -> bool:
    """Whether every host that is on holds all its leases, one primary is responsible for every datastore, all connected."""
    names = [name for name in lab.state().hosts if lab.is_on(name)]
    for name in names:
        view = status(lab, name)
        if view is None or not view.primary:
            return False
        if not all(d.reachable and d.lease_held and d.responsible == view.primary for d in view.datastores):
            return False
        if not all(h.verdict == "connected" and h.hypervisor_up for h in view.hosts if h.name in names):
            return False
    return True


def wait_until(what: str, condition: Callable[[], bool], timeout_s: float, step_s: float = 0.1) -> float:
    """Wait for a condition; how long it took, in seconds. Raises LabError naming `what` when the time is over."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout_s:
            raise LabError(f"waited {timeout_s:g} s in vain: {what}")
        time.sleep(step_s)
    return time.monotonic() - began


def wait_ready(lab: Lab, timeout_s: float = 60.0) -> float:
    """Wait until Outlast guards the whole lab; how long it took, in seconds. Raises LabError."""
    return wait_until("Outlast to guard every host of the lab", lambda: is_ready(lab), timeout_s)


def primary_seen_without(lab: Lab, cut_off: str) -> str:
    """The primary as the hosts that are not cut off see it. Raises LabError if they see none."""
    for name in lab.state().hosts:
        view = status(lab, name) if name != cut_off and lab.is_on(name) else None
        if view is not None and view.primary and view.primary != cut_off:
            return view.primary
    raise LabError("the other hosts have no primary")
