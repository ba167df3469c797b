"""What operators want of VMs, read by every host from the protected lists, and followed by the host on which one runs.

Every agent reads every protected list now and then (`Responsibility.look_every`), and at once when whoever is responsible
for it says that it has changed. So it reaches a host that nobody can talk to, and a host that knows of a wish follows it
when it is cut off. A VM that began to run here later than the last look is looked up first: whoever had it started may know
of a list that we do not.

what is wanted of a VM that runs here     what is done
stopped                                   its guest is told to shut down; when `shutdown_timeout` is over, it is killed
stopped, and then not any more            its guest may follow what it was told all the same: that is nobody's wish
stopped, and it runs on a later epoch     nothing: somebody has started it by hand since
unprotected                               it stands on our power-on list as such; no isolation response ends it
running, protected                        it stands there as protected, whatever its definition says
"""

import msgspec

from outlast.model.effects import AskKeeper, ReadProtectedList, StopVm
from outlast.model.events import ProtectedListRead, StopReason
from outlast.model.ids import DatastoreName, RequestId, VmId
from outlast.model.keeping import AskKill, KeptVm
from outlast.model.records import AsideVm, ProtectedList, ProtectedVm, Reason
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.responsibility import Responsibility

PATIENCE = Duration(3 * SECOND)
KILL_AGAIN = Duration(2 * SECOND)


class _List(msgspec.Struct):
    """One datastore's protected list, as we read it last: in a read that began at `read`."""

    due: Instant
    request: RequestId | None = None
    started: Instant = LONG_AGO
    read: Instant = LONG_AGO
    order: tuple[int, int] = (-1, -1)
    asked: dict[VmId, ProtectedVm] = {}
    aside: dict[VmId, AsideVm] = {}


class WishFollower:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox, responsibility: Responsibility) -> None:
        self._known = knowledge
        self._out = outbox
        self._responsible = responsibility
        self._lists = {name: _List(knowledge.now) for name in knowledge.datastores}
        self._kill_at: dict[VmId, Instant] = {}
        self._runs_since: dict[VmId, Instant] = {}
        self._looks_up = False
        self._taken_back: dict[VmId, Instant] = {}
        """Who was told to shut down and is not to any more, or has ended; until when libvirt may say that it did."""
        self._due = knowledge.now

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def due(self) -> Instant:
        """When the next list is to be read, or is waited for no longer: at once, if one has changed since the last turn."""
        return self._known.now if self._known.lists_changed else self._due

    def changed(self, name: DatastoreName) -> None:
        """Somebody says that a list is another one now."""
        if name in self._lists:
            self._lists[name].due = self._due = self._known.now

    def read(self) -> None:
        """Read the lists that are due."""
        now = self._known.now
        for name in self._known.lists_changed:
            self.changed(name)
        self._known.lists_changed.clear()
        for name, each in self._lists.items():
            if each.request is not None and now - each.started >= PATIENCE:
                each.request = None
            every = self._responsible.look_every(name)
            each.due = min(each.due, after(each.started, every))
            if each.request is None and now >= each.due:
                each.request, each.started, each.due = self._out.request(), now, after(now, every)
                self._out.put(ReadProtectedList(each.request, name))
        lists = self._lists.values()
        self._due = min(after(each.started, PATIENCE) if each.request is not None else each.due for each in lists)

    def list_read(self, event: ProtectedListRead) -> bool:
        """A list was read. Returns whether anything is wanted otherwise than before, or somebody waits for it."""
        each = self._lists[event.datastore]
        if each.request != event.request:
            return False
        each.request = None
        if not event.ok or event.content is None:
            return False
        each.read = each.started
        return self._take(each, event.content) or self._looks_up

    def _take(self, each: _List, content: ProtectedList) -> bool:
        order = (content.primary_epoch, content.sequence)
        if order <= each.order:
            return False
        each.order = order
        asked = {entry.vm: entry for entry in content.vms if entry.asked is not None}
        aside = {a.entry.vm: a for a in content.aside}
        for entry in (*content.vms, *(a.entry for a in content.aside)):
            self._known.learn_vm_name(entry.vm, entry.name)
            self._known.protected[entry.vm] = (content.datastore, entry)
        if (asked, aside) == (each.asked, each.aside):
            return False
        each.asked, each.aside = asked, aside
        self._known.asked = {vm: entry for each in self._lists.values() for vm, entry in each.asked.items()}
        self._known.aside = {vm: a for each in self._lists.values() for vm, a in each.aside.items()}
        return True

    # -- following ------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Stop what is to be stopped, of what runs here."""
        self.read()
        report = self._known.keeper
        if report is None:
            return
        now = self._known.now
        here = {kept.vm: kept for kept in report.vms if kept.phase in ("running", "frozen")}
        self._runs_since = {vm: self._runs_since.get(vm, now) for vm in here}
        self._looks_up = False
        self._taken_back = {vm: until for vm, until in self._taken_back.items() if now < until}
        for vm in [vm for vm in self._kill_at if vm not in here or not self._is_to_stop(here[vm])]:
            # Also of a process that has ended: libvirt may be about to say so.
            del self._kill_at[vm]
            self._taken_back[vm] = after(now, self._known.settings.shutdown_timeout)
        for vm, kept in here.items():
            if self._is_to_stop(kept) and (vm in self._kill_at or self._is_looked_up(vm)):
                self._stop(vm)

    def _is_to_stop(self, kept: KeptVm) -> bool:
        aside = self._known.aside.get(kept.vm)
        if aside is None or aside.wanted != "stopped":
            return False
        return aside.epoch is None or (kept.epoch is not None and kept.epoch <= aside.epoch)

    def _is_looked_up(self, vm: VmId) -> bool:
        """Whether the list that sets it aside was read since it began to run; it is read now if not."""
        old = [name for name, each in self._lists.items() if vm in each.aside and each.read < self._runs_since[vm]]
        for name in old:
            self._looks_up = True
            if self._lists[name].started < self._runs_since[vm]:
                self.changed(name)
        return not old

    def _stop(self, vm: VmId) -> None:
        now = self._known.now
        if vm not in self._kill_at:
            self._kill_at[vm] = after(now, self._known.settings.shutdown_timeout)
            self._out.note("vm-stopping", vm=vm, host=self._known.me, relay=True, by=self._known.aside[vm].by)
            self._out.put(StopVm(vm))
        elif now >= self._kill_at[vm]:
            self._kill_at[vm] = after(now, KILL_AGAIN)
            self._out.put(AskKeeper(AskKill(request=self._out.request(), vm=vm, reason=Reason.SWITCHED_OFF)))

    def reason(self, vm: VmId, stop: StopReason) -> Reason | None:
        """What the end of a VM means, if an operator's wish has anything to do with it.

        A guest that did what it was told says nothing of what is wanted now: the operator may have changed his mind since,
        and we may not have read it yet (random world 20261263).
        """
        to_be_stopped = self._kill_at.pop(vm, None) is not None
        told = self._taken_back.pop(vm, None) is not None or to_be_stopped
        if told and stop is StopReason.SHUTDOWN:
            return Reason.AS_WISHED
        return Reason.SWITCHED_OFF if to_be_stopped else None

    def next_deadline(self) -> Instant | None:
        """When somebody's time to shut down is over."""
        return min(self._kill_at.values(), default=None)
