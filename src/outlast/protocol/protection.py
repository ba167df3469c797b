"""Which VMs are protected and wanted, of those homed on one datastore: the claim's list.

what happens                                         the VM is
it stands on a host's power-on list, protectable     protected and wanted, whoever started it
its register says released, switched off             no longer wanted: off the list until somebody starts it again
its register says released for any other reason      still wanted: restarted
it vanished from the list of a host                  still wanted, until the register says otherwise
it was redefined without our metadata                as before (its host keeps the last policy)
its metadata says protected="no"                     off the list

With each VM lies its policy, as its host last knew it, and what was tried to bring it back (`Attempts`): a list is read by
the next primary, which then goes on where this one was.
"""

from collections.abc import Iterable

import msgspec

from outlast.model.ids import DatastoreName, HostId, VmId
from outlast.model.policy import VmPolicy
from outlast.model.records import Attempts, PoweredVm, ProtectedList, ProtectedVm
from outlast.protocol.attempts import runs_again


class Protection:
    """The wanted VMs of one datastore. `changed`: the list on storage is older than this."""

    def __init__(self) -> None:
        self.vms: dict[VmId, ProtectedVm] = {}
        self.changed = False

    def load(self, content: ProtectedList | None) -> None:
        """Take over from the list on storage, keeping what was learnt since. What was tried is known to the list alone."""
        for entry in content.vms if content is not None else ():
            learnt = self.vms.get(entry.vm, entry)
            self.vms[entry.vm] = msgspec.structs.replace(learnt, attempts=entry.attempts)

    def learn(self, datastore: DatastoreName, host: HostId, lines: Iterable[PoweredVm]) -> list[ProtectedVm]:
        """The lines of a host's power-on list that count: returns the VMs that are protected from now on."""
        new: list[ProtectedVm] = []
        for line in lines:
            if line.home != datastore:
                continue
            if not line.protected:
                self.drop(line.vm)
                continue
            old = self.vms.get(line.vm)
            entry = _entry(line, host, old)
            if old is None:
                new.append(entry)
            if old != entry:
                self.vms[line.vm] = entry
                self.changed = True
        return new

    def tried(self, vm: VmId, attempts: Attempts) -> None:
        """What was tried for a VM is another thing now."""
        entry = self.vms.get(vm)
        if entry is not None and entry.attempts != attempts:
            self.vms[vm] = msgspec.structs.replace(entry, attempts=attempts)
            self.changed = True

    def drop(self, vm: VmId) -> bool:
        """Not wanted any more. True if it was."""
        if self.vms.pop(vm, None) is None:
            return False
        self.changed = True
        return True

    def take_changed(self) -> tuple[ProtectedVm, ...]:
        """The whole list, to be written; `changed` is False until something changes again."""
        self.changed = False
        return tuple(self.vms[vm] for vm in sorted(self.vms))


def _entry(line: PoweredVm, host: HostId, old: ProtectedVm | None) -> ProtectedVm:
    """A VM as its host's list has it. What its host does not know just now stays as it was."""
    if old is None:
        return ProtectedVm(line.vm, line.name, line.memory_mib, host, line.policy or VmPolicy(), line.needs)
    attempts = runs_again(old.attempts, line)
    if line.policy is None:
        return msgspec.structs.replace(old, name=line.name, last_host=host, attempts=attempts)
    return ProtectedVm(line.vm, line.name, line.memory_mib, host, line.policy, line.needs, attempts)
