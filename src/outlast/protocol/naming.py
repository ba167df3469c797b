"""Which VM or host an operator means: by its name or id, among all that this host has ever heard of."""

from outlast.model.commands import MoveVm, WantVm
from outlast.model.ids import DatastoreName, HostId, VmId
from outlast.model.inventory import VmDefinition
from outlast.model.policy import VmPolicy
from outlast.model.records import ProtectedVm
from outlast.protocol.knowledge import Knowledge
from outlast.protocol.protection import as_listed
from outlast.protocol.responsibility import Responsibility


class UnknownNameError(Exception):
    """No VM or host is meant, or more than one; the text is a sentence."""


class NeverHeardOfError(UnknownNameError):
    """Nothing of that name is known on this host; it may be on another one."""


def meant(known: Knowledge, responsible: Responsibility, command: WantVm) -> WantVm:
    """The command with the VM's uuid, home and what is known of it. Raises UnknownNameError, NeverHeardOfError."""
    vm, home, entry = _find(known, responsible, command.vm)
    return WantVm(vm=vm, wanted=command.wanted, name=entry.name, home=home, entry=entry)


def move_meant(known: Knowledge, responsible: Responsibility, command: MoveVm) -> MoveVm:
    """The command with the ids of its VM, which runs, and of its host. Raises UnknownNameError."""
    host = host_meant(known, command.host)
    vm, _, entry = _find(known, responsible, command.vm)
    if known.lister(vm) is None:
        raise UnknownNameError(f"{entry.name} runs nowhere, as far as this host knows: there is nothing to migrate")
    return MoveVm(vm=vm, host=host, force=command.force)


def host_meant(known: Knowledge, word: str) -> HostId:
    """The host of that name or id. Raises UnknownNameError."""
    hosts = [member.id for member in known.members.values() if word in (member.id, member.name)]
    if len(hosts) != 1:
        names = ", ".join(sorted(member.name for member in known.members.values()))
        raise UnknownNameError(f"there is no host {word}; there are {names}")
    return hosts[0]


def _find(known: Knowledge, responsible: Responsibility, word: str) -> tuple[VmId, DatastoreName, ProtectedVm]:
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
        if why:
            raise UnknownNameError(f"no VM {word} is known here: it cannot be protected: {why}")
        raise NeverHeardOfError(f"no VM {word} is known here: give the command on a host that has it defined")
    if len(found) > 1:
        raise UnknownNameError(f"{len(found)} VMs are called {word}: name one by its uuid ({', '.join(sorted(found))})")
    ((vm, (home, entry)),) = found.items()
    return vm, home, entry


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
