"""The keeper's reads and links for VMs that are under way: one a VM at most, and few on each datastore.

Heartbeats queue behind them in the same I/O helper, and must never wait for long.
"""

import msgspec

from outlast.model.ids import DatastoreName, RequestId, VmId
from outlast.protocol.ownership import Ownership, Purpose

MOST_UNDER_WAY = 2
"""Reads and links at one time on one datastore."""


class Task(msgspec.Struct):
    """One read or link under way for one VM. A read goes on to the datastores in `left` while it finds no register."""

    vm: VmId
    purpose: Purpose
    place: DatastoreName
    left: tuple[DatastoreName, ...] = ()


class UnderWay(dict[RequestId, Task]):
    """Every task, by the number of its request."""

    def busy(self, vm: VmId) -> bool:
        """Whether a read or link for this VM is under way."""
        return any(task.vm == vm for task in self.values())

    def may_begin(self, ownership: Ownership) -> bool:
        """Whether something may be read or linked for this VM now."""
        there = sum(task.place == ownership.home for task in self.values())
        return there < MOST_UNDER_WAY and not self.busy(ownership.vm)

    def forget(self, vm: VmId) -> None:
        """Whatever is answered about this VM is nobody's business any more."""
        for request in [request for request, task in self.items() if task.vm == vm]:
            del self[request]
