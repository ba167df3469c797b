"""Which VMs are protected and wanted, of those homed on one datastore: the claim's list.

what happens                                         the VM is
it stands on a host's power-on list, protectable     protected and wanted, whoever started it
its register says released, switched off             no longer wanted: off the list until somebody starts it again
its register says released for any other reason      still wanted: restarted
it vanished from the list of a host                  still wanted, until the register says otherwise
it was redefined without our metadata                as before (its host keeps the last policy)
its metadata says protected="no"                     off the list, unless an operator has asked for it
an operator has set it aside                         off the list, on whatever list it stands (`wish_keeping.py`)
it was to be stopped, was off, and runs again        protected and wanted: somebody has started it by hand

With each VM lies its policy, as its host last knew it, and what was tried to bring it back (`Attempts`): a list is read by
the next primary, which then goes on where this one was. Whoever sets a VM aside ends what was tried for it.
"""

from collections.abc import Iterable

import msgspec

from outlast.model.ids import DatastoreName, Epoch, HostId, VmId
from outlast.model.policy import VmPolicy
from outlast.model.records import AsideVm, Attempts, PoweredVm, ProtectedList, ProtectedVm
from outlast.protocol.attempts import runs_again, stable


class Protection:
    """The wanted VMs of one datastore, and those set aside. `changed`: the list on storage is older than this.

    `wishes`: how often it has become another one in what operators want.
    """

    def __init__(self) -> None:
        self.vms: dict[VmId, ProtectedVm] = {}
        self.aside: dict[VmId, AsideVm] = {}
        self.changed = False
        self.wishes = 0

    def load(self, content: ProtectedList | None) -> None:
        """Take over from the list on storage, keeping what was learnt since.

        What was tried for a VM, and what operators want of it, is known to the list alone.
        """
        if content is None:
            return
        self.aside = {aside.entry.vm: aside for aside in content.aside}
        for entry in content.vms:
            learnt = self.vms.get(entry.vm, entry)
            self.vms[entry.vm] = msgspec.structs.replace(learnt, asked=entry.asked, attempts=entry.attempts)
        self.vms = {vm: entry for vm, entry in self.vms.items() if vm not in self.aside}

    def learn(self, datastore: DatastoreName, host: HostId, lines: Iterable[PoweredVm]) -> list[ProtectedVm]:
        """The lines of a host's power-on list that count: returns the VMs that are protected from now on."""
        new: list[ProtectedVm] = []
        for line in lines:
            if line.home != datastore or not self._is_wanted(line):
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

    def _is_wanted(self, line: PoweredVm) -> bool:
        aside, old = self.aside.get(line.vm), self.vms.get(line.vm)
        if aside is not None:
            if aside.wanted != "stopped" or aside.epoch is None or line.epoch is None or line.epoch <= aside.epoch:
                return False
            self.take_back(line.vm)
        if line.protected or (old is not None and old.asked is not None):
            return True
        self.drop(line.vm)
        return False

    def set_aside(self, aside: AsideVm) -> None:
        """An operator does not want it restarted: what was tried for it is over."""
        self.vms.pop(aside.entry.vm, None)
        entry = msgspec.structs.replace(aside.entry, asked=None, attempts=stable(aside.entry.attempts))
        self.aside[aside.entry.vm] = msgspec.structs.replace(aside, entry=entry)
        self._wished()

    def take_back(self, vm: VmId) -> None:
        """It is not set aside any more."""
        if self.aside.pop(vm, None) is not None:
            self._wished()

    def ask_for(self, entry: ProtectedVm) -> None:
        """An operator wants it to run and to be restarted, whatever its definition says."""
        self.vms[entry.vm] = entry
        self._wished()

    def asked(self, vm: VmId) -> Epoch | None:
        """When an operator last asked for it to run, by the epochs of its register: perhaps a moment ago."""
        entry = self.vms.get(vm)
        return entry.asked if entry is not None else None

    def _wished(self) -> None:
        self.changed, self.wishes = True, self.wishes + 1

    def drop(self, vm: VmId) -> bool:
        """Not wanted any more. True if it was."""
        if self.vms.pop(vm, None) is None:
            return False
        self.changed = True
        return True

    def take_changed(self) -> tuple[tuple[ProtectedVm, ...], tuple[AsideVm, ...]]:
        """The whole list, to be written; `changed` is False until something changes again."""
        self.changed = False
        wanted = tuple(self.vms[vm] for vm in sorted(self.vms))
        return wanted, tuple(self.aside[vm] for vm in sorted(self.aside))


def as_listed(line: PoweredVm, host: HostId) -> ProtectedVm:
    """A VM of which nothing is known but its line on its host's list."""
    return ProtectedVm(line.vm, line.name, line.memory_mib, host, line.policy or VmPolicy(), line.needs)


def _entry(line: PoweredVm, host: HostId, old: ProtectedVm | None) -> ProtectedVm:
    """A VM as its host's list has it. What its host does not know just now stays as it was."""
    if old is None:
        return as_listed(line, host)
    attempts = runs_again(old.attempts, line)
    if line.policy is None:
        return msgspec.structs.replace(old, name=line.name, last_host=host, attempts=attempts)
    return ProtectedVm(line.vm, line.name, line.memory_mib, host, line.policy, line.needs, old.asked, attempts)
