"""What a step does, in words that an operator can follow, and whom it stops or cuts off. The same in both worlds."""

from collections.abc import Callable, Collection

from outlast.model.time import SECOND
from outlast.model.units import duration_text
from outlast.scenario.model import Scenario, Step
from outlast.scenario.words import VERBS, Kind

REBOOT_AFTER = 30 * SECOND
_STOPS_HOST = frozenset({"power-off", "reboot", "shut-down", "host-stall", "network-cut", "keeper-kill", "keeper-stop"})
_STOPS_STORAGE = frozenset({"storage-cut", "storage-lost", "storage-slow", "storage-outage", "record-clone"})
_STOPS_VM = frozenset({"vm-crash", "vm-hang", "vm-power-off"})
_DEFAULTS: dict[str, dict[str, str]] = {
    "reboot": {"for": duration_text(REBOOT_AFTER)},
    "start-fails": {"times": "1"},
    "fencing-break": {"how": "fails"},
}


def told(step: Step) -> str:
    """The step as a sentence."""
    verb = VERBS[step.do]
    kinds = {key.name: key.kind for key in verb.keys}
    words = dict(_DEFAULTS.get(step.do, {}))
    for name, value in step.keys.items():
        words[name] = duration_text(value) if kinds[name] in (Kind.DURATION, Kind.SPAN) else str(value)
    if words.get("times") == "-1":
        words["times"] = "all"
    words["where"] = _where(step)
    return verb.what.format_map(words)


def _where(step: Step) -> str:
    if step.do == "start-fails":
        return f"on {step.keys['host']}" if "host" in step.keys else "everywhere"
    one_way, groups = step.keys.get("one_way", False), step.keys.get("between")
    if groups is not None:
        parts = [", ".join(group) for group in groups]
        return f"from {' to '.join(parts)}" if one_way else f"between {' and '.join(parts)}"
    if "host" not in step.keys:
        return "everywhere"
    host = step.keys["host"]
    return f"from {host} to others" if one_way else f"to and from {host}"


def hosts_of(step: Step) -> tuple[str, ...]:
    """The hosts that a step is about."""
    groups = step.keys.get("between", ())
    named = (step.keys["host"],) if "host" in step.keys else ()
    return (*named, *(host for group in groups for host in group))


def sharing_device(scenario: Scenario, datastore: str) -> tuple[str, ...]:
    """The datastore, and every other one on the same device: they share their fate."""
    devices: dict[str, str] = {d.name: d.device or f"device of {d.name}" for d in scenario.datastores}
    return tuple(name for name, device in devices.items() if device == devices[datastore])


def datastores_of(scenario: Scenario, step: Step) -> tuple[str, ...]:
    """The datastores that a step is about: what befalls a device befalls all of them, what befalls a record does not."""
    name = step.keys["datastore"]
    return sharing_device(scenario, name) if step.do.startswith("storage-") else (name,)


def causes(scenario: Scenario, step: Step, processes_on: Callable[[str], Collection[str]]) -> tuple[str, ...]:
    """The VMs that a step stops or cuts off. `processes_on`: the hosts on which a VM has a process before the step."""
    if step.do in _STOPS_VM:
        return (step.keys["vm"],)
    if step.do not in _STOPS_HOST | _STOPS_STORAGE or step.keys.get("network") == "vm":
        return ()
    hosts = set(hosts_of(step)) or {host.name for host in scenario.hosts}
    stores = datastores_of(scenario, step) if step.do in _STOPS_STORAGE else None
    return tuple(
        vm.name
        for vm in scenario.vms
        if (stores is None or vm.datastore in stores) and not hosts.isdisjoint(processes_on(vm.name))
    )
