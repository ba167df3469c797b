"""Which VMs are protected and wanted, of those homed on one datastore: the claim's list.

what happens                                         the VM is
it stands on a host's power-on list, protectable     protected and wanted, whoever started it
its register says released, switched off             no longer wanted: off the list until somebody starts it again
its register says released for any other reason      still wanted: restarted
it vanished from the list of a host                  still wanted, until the register says otherwise
it was redefined without our metadata                as before (its host keeps the last policy)
its metadata says protected="no"                     off the list
"""

from collections.abc import Iterable

from outlast.model.ids import DatastoreName, HostId, VmId
from outlast.model.records import PoweredVm, ProtectedList, ProtectedVm


class Protection:
    """The wanted VMs of one datastore. `changed`: the list on storage is older than this."""

    def __init__(self) -> None:
        self.vms: dict[VmId, ProtectedVm] = {}
        self.changed = False

    def load(self, content: ProtectedList | None) -> None:
        """Take over from the list on storage, keeping what was learnt since."""
        for entry in content.vms if content is not None else ():
            self.vms.setdefault(entry.vm, entry)

    def learn(self, datastore: DatastoreName, host: HostId, lines: Iterable[PoweredVm]) -> list[ProtectedVm]:
        """The lines of a host's power-on list that count: returns the VMs that are protected from now on."""
        new: list[ProtectedVm] = []
        for line in lines:
            if line.home != datastore:
                continue
            if not line.protected:
                self.drop(line.vm)
                continue
            entry = ProtectedVm(line.vm, line.name, line.memory_mib, host, line.isolation_response, line.needs)
            old = self.vms.get(line.vm)
            if old is None:
                new.append(entry)
            if old != entry:
                self.vms[line.vm] = entry
                self.changed = True
        return new

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
