"""What the language can say and Outlast cannot do yet: the one list of it, and it is to become empty.

A scenario that asks for any of this is refused by name, with exit code 2. Taking part of a scenario and leaving out the
rest would make its expectations mean something else than they say.
"""

from collections.abc import Iterator
from typing import Any

from outlast.scenario.model import HostSpec, Scenario, Step, VmSpec

Path = tuple[str | int, ...]

VERBS = frozenset(
    {
        "migrate",
        "maintenance-on",
        "maintenance-off",
        "set-state",
        "pause",
        "resume",
        "set",
        "fencing-break",
        "fencing-mend",
        "health",
    }
)
SETTINGS = frozenset({"storage_loss_after"})
_HOST_KEYS: dict[str, Any] = {"fencing": False}
_VM_KEYS: dict[str, Any] = {
    "cpu_usage": None,
    "memory_usage_mib": None,
}
"""Keys that do nothing yet, with the one value that asks for nothing."""


def not_built(scenario: Scenario) -> Iterator[tuple[Path, str]]:
    """Everything in a scenario that is not built yet: where it stands, and what it is."""
    for name in sorted(SETTINGS & scenario.settings.keys()):
        yield ("settings", name), f"the setting {name}"
    for i, host in enumerate(scenario.hosts):
        yield from (((("hosts", i, key)), what) for key, what in _host(host))
    for i, vm in enumerate(scenario.vms):
        yield from (((("vms", i, key)), what) for key, what in _vm(vm))
    if _cpus_could_run_short(scenario):
        yield ("vms",), "placement by cpus (these VMs want more of them than the smallest host has)"
    for i, rule in enumerate(scenario.rules):
        yield ("rules", i, "kind"), f"the placement rule {rule.kind}"
    for i, step in enumerate(scenario.steps):
        yield from (((("steps", i, key)), what) for key, what in _step(step))


def _host(host: HostSpec) -> Iterator[tuple[str, str]]:
    for key, nothing in _HOST_KEYS.items():
        if getattr(host, key) != nothing:
            yield key, f"{key} of a host"


def _vm(vm: VmSpec) -> Iterator[tuple[str, str]]:
    for key, nothing in _VM_KEYS.items():
        if getattr(vm, key) != nothing:
            word = key.removesuffix("_mib")
            yield word, f"{word} of a VM, other than {_shown(nothing)}"
    if vm.state == "stopped" and vm.host:
        yield "state", 'state = "stopped" of a VM that runs at the start'


def _step(step: Step) -> Iterator[tuple[str, str]]:
    if step.do in VERBS:
        yield "do", f"the verb {step.do}"


def _cpus_could_run_short(scenario: Scenario) -> bool:
    """Placement looks at memory alone: as long as all VMs fit on any one host's cpus, nobody can tell."""
    return sum(vm.cpus for vm in scenario.vms) > min((host.cpus for host in scenario.hosts), default=0)


def _shown(nothing: Any) -> str:
    return "none" if nothing in (None, ()) else str(nothing)
