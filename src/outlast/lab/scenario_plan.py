"""What a lab can do of the scenario language, and the lab that a scenario asks for.

What real hosts in namespaces cannot be (without power at the start, larger than this machine) or do (have a wall clock of
their own) is refused by name before anything starts: a scenario that is played in part proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import quoteattr

from outlast.lab import guest
from outlast.lab.building import new_hosts
from outlast.lab.layout import BRIDGE
from outlast.lab.scenario_steps import VERBS
from outlast.lab.state import LabState, VmState
from outlast.model.errors import UsageError
from outlast.model.ids import HostName
from outlast.model.settings import is_length
from outlast.model.units import duration_text
from outlast.scenario.model import DatastoreSpec, HostSpec, Scenario, VmSpec

_LONGEST_HOST_NAME = 15
_USUAL = HostSpec(name=HostName("usual"))


def check(scenario: Scenario) -> None:
    """Raises UsageError that names everything that a lab cannot do."""
    found = list(_refusals(scenario))
    if found:
        name = scenario.path or scenario.title
        listed = "\n".join(f"  {name}{f':{line}' if line else ''}: {sentence}" for line, sentence in found)
        raise UsageError(
            f"{name} cannot be played in the lab:\n{listed}", "play it with `outlast simulate`; nothing was started"
        )


def _refusals(scenario: Scenario) -> Iterator[tuple[int, str]]:
    for host in scenario.hosts:
        for what in _host(host):
            yield 0, f"the lab cannot do {what} ({host.name})"
    for vm in scenario.vms:
        for what in _vm(vm):
            yield 0, f"the lab cannot do {what} ({vm.name})"
    if sum(vm.cpus for vm in scenario.vms) > _USUAL.cpus:
        yield 0, f"the lab cannot do placement by cpus: its VMs may reserve {_USUAL.cpus} together"
    for rule in scenario.rules:
        yield 0, f"the lab cannot do the rule {rule.kind}"
    for store in scenario.datastores:
        if store.filesystem != DatastoreSpec(name=store.name).filesystem:
            yield 0, f"the lab cannot do another filesystem than its own ({store.name})"
    for step in scenario.steps:
        if step.do not in VERBS:
            yield step.line, f"the lab cannot do {step.do}"
        if step.keys.get("lasting"):
            yield step.line, "the lab cannot do a guest that hangs again after each reset: lasting"
        if step.keys.get("network") == "vm":
            yield step.line, 'the lab cannot do a fault of network = "vm": it has one network'


def _host(host: HostSpec) -> Iterator[str]:
    if host.power == "off":
        yield "a host that is off at the start"
    if (host.cpus, host.memory_mib) != (_USUAL.cpus, _USUAL.memory_mib):
        yield "hosts of another size than this machine: cpus and memory"
    if host.datastores is not None:
        yield "hosts that do not reach every datastore: datastores"
    if host.watchdog:
        yield "a watchdog"
    if host.enforcement not in ("", "keeper"):
        yield f"enforcement {host.enforcement}"
    if host.labels or host.networks is not None or host.cpu_models or host.spare:
        yield "labels, networks or CPU models of a host, or a spare one"
    if len(host.name) > _LONGEST_HOST_NAME or host.name in (BRIDGE, "lo"):
        yield f"a host of that name: at most {_LONGEST_HOST_NAME} letters, and not {BRIDGE} or lo"


def _vm(vm: VmSpec) -> Iterator[str]:
    if vm.cpu_usage is not None or vm.memory_usage_mib is not None:
        yield "VMs that use a given amount of cpu or memory"
    if vm.disks_on or vm.networks or vm.cpu_model:
        yield "disks elsewhere, networks or a CPU model of a VM"


def plan(scenario: Scenario) -> LabState:
    """The lab, with the names of the file. A VM that does not run at the start is defined on the first host."""
    state = LabState(datastores=[store.name for store in scenario.datastores])
    for name, value in scenario.settings.items():
        state.settings[name] = duration_text(value) if is_length(name) else value
    for store in scenario.datastores:
        state.datastore_options[store.name] = {"accept_in_flight_risk": store.accept_in_flight_risk}
        if store.in_flight_bound is not None:
            state.datastore_options[store.name]["in_flight_bound"] = duration_text(store.in_flight_bound)
    state.hosts = new_hosts([host.name for host in scenario.hosts])
    state.outlets = {host.name: "works" for host in scenario.hosts if host.fencing}
    for vm in scenario.vms:
        where = vm.host or scenario.hosts[0].name
        state.vms[vm.name] = VmState(guest.vm_uuid(vm.name), vm.datastore, where, _policy(vm), vm.same_disk_as)
    return state


def _policy(vm: VmSpec) -> str:
    """What stands in the definition of a VM that has a policy of its own."""
    usual = VmSpec(name=vm.name, datastore=vm.datastore)
    said = {
        "protected": "no" if vm.state == "unprotected" else "",
        "isolation-response": vm.isolation_response or "",
        "guest-monitoring": vm.guest_monitoring or "",
        "priority": vm.priority if vm.priority != usual.priority else "",
        "after": ", ".join(vm.after),
        "ready": vm.ready if vm.ready != usual.ready else "",
        "max-restarts": str(vm.max_restarts) if vm.max_restarts != usual.max_restarts else "",
        "max-relocations": str(vm.max_relocations) if vm.max_relocations != usual.max_relocations else "",
    }
    text = " ".join(f"{name}={quoteattr(value)}" for name, value in said.items() if value)
    return f'<outlast:vm xmlns:outlast="https://outlast.dev/ns/vm/1" {text}/>' if text else ""
