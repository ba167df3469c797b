"""Which VM an operator means: by its name or uuid, among all that this host has ever heard of."""

from outlast.model.commands import WantVm
from outlast.model.ids import DatastoreName, HostId, VmId
from outlast.model.inventory import VmDefinition
from outlast.model.policy import VmPolicy
from outlast.model.records import ProtectedVm
from outlast.protocol.knowledge import Knowledge
from outlast.protocol.protection import as_listed
from outlast.protocol.responsibility import Responsibility


class UnknownVmError(Exception):
    """No VM is meant, or more than one; the text is a sentence."""


def meant(known: Knowledge, responsible: Responsibility, command: WantVm) -> WantVm:
    """The command with the VM's uuid, home and what is known of it. Raises UnknownVmError."""
    word = command.vm
    found: dict[VmId, tuple[DatastoreName, ProtectedVm]] = {}
    why = ""
    for host, content in known.power_on.items():
        for line in content.vms:
            if word in (line.vm, line.name) and line.home is not None:
                found[line.vm] = (line.home, as_listed(line, host))
            elif word in (line.vm, line.name):
                why = line.note
    for vm, (home, entry) in (known.protected | _ours(responsible)).items():
        if word in (vm, entry.name):
            found.setdefault(vm, (home, entry))
    for vm, definition in known.definitions.items():
        if word in (vm, definition.name):
            why = definition.unprotectable
            if definition.home is not None and not why:
                found.setdefault(vm, (definition.home, _defined(definition, known.me)))
    if not found:
        remedy = f"it cannot be protected: {why}" if why else "give the command on a host that has it defined"
        raise UnknownVmError(f"no VM {word} is known here: {remedy}")
    if len(found) > 1:
        raise UnknownVmError(f"{len(found)} VMs are called {word}: name one by its uuid ({', '.join(sorted(found))})")
    ((vm, (home, entry)),) = found.items()
    return WantVm(vm=vm, wanted=command.wanted, name=entry.name, home=home, entry=entry)


def _ours(responsible: Responsibility) -> dict[VmId, tuple[DatastoreName, ProtectedVm]]:
    """Who is responsible for a datastore has no need to read its list: a VM that is off may stand on no other."""
    found: dict[VmId, tuple[DatastoreName, ProtectedVm]] = {}
    for home in responsible.held_datastores():
        protection = responsible.protection(home)
        found |= {vm: (home, aside.entry) for vm, aside in protection.aside.items()}
        found |= {vm: (home, entry) for vm, entry in protection.vms.items()}
    return found


def _defined(definition: VmDefinition, host: HostId) -> ProtectedVm:
    d = definition
    return ProtectedVm(d.vm, d.name, d.memory_mib, host, d.policy or VmPolicy(), d.needs)
