"""A live migration, at the host that the VM goes to: a place for the copy, its epoch, and the end of its pause.

what the source says            what is done here                                    what it is told
keep a place for a copy         the keeper is asked to expect it                     expected, or refused and why
the copy is whole               the keeper freezes it, and makes its epoch of the    whole, while the keeper is at it; lost,
                                release that names it                                if it knows of no such copy any more
the migration has failed        what has arrived is killed                           nothing
nothing, for SILENCE            the same                                             nothing

what the keeper says            what is done
a VM is ours by a migration,    libvirt is told to let its guest go on, again and again until it has; then the source is
and its guest stands still      told that it runs here, and the keeper, that nobody waits any more

Keeper and agent both remember the last line, so that either may be started anew: the other one goes on there.
And on the source: a guest that libvirt has left paused after a migration that failed goes on, as it runs here by right.
"""

import msgspec

from outlast.model.effects import AskKeeper, ResumeVm, Send
from outlast.model.events import KeeperAnswered, VmResumed
from outlast.model.ids import Handover, HostId, RequestId, VmId
from outlast.model.keeping import AskDropped, AskExpect, AskInherit, AskResumed, KeptVm
from outlast.model.messages import CopyDropped, CopyReport, CopyWanted, CopyWhole
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after
from outlast.protocol.host_condition import kept_empty
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.migration import Migrations

AGAIN = Duration(SECOND)
SILENCE = Duration(15 * SECOND)
"""How long a source may say nothing of a copy; it repeats itself every few seconds."""
KEPT = 64


class _Arrival(msgspec.Struct):
    """One copy. `stage` as it was told to the source; `request`: a question to the keeper that is open."""

    handover: Handover
    source: HostId
    stage: str
    heard: Instant
    detail: str = ""
    request: RequestId | None = None


class Arrivals:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox, migrations: Migrations) -> None:
        self._known = knowledge
        self._out = outbox
        self._migrations = migrations
        self._all: dict[VmId, _Arrival] = {}
        self._resuming: dict[VmId, Instant] = {}
        self._copies: dict[VmId, Instant] = {}
        """Since when each copy is here, as far as this agent knows, or was last told to end."""

    # -- what the source says ---------------------------------------------------------------------------------------

    def wanted(self, sender: HostId, message: CopyWanted) -> None:
        """Keep a place for a copy; a question that was answered is answered again."""
        arrival = self._all.get(message.vm)
        if arrival is not None and arrival.handover == message.handover:
            arrival.heard = self._known.now
            if arrival.request is None:
                self._report(message.vm, arrival)
            return
        while len(self._all) >= KEPT:
            del self._all[next(iter(self._all))]
        self._known.learn_vm_name(message.vm, message.name)
        arrival = self._all[message.vm] = _Arrival(message.handover, sender, "asked", self._known.now)
        closed = kept_empty(self._known).get(self._known.me, "")
        if closed or not self._known.hypervisor_up:
            why = (
                f"{self._known.name(self._known.me)} is kept empty: {closed}" if closed else "libvirt does not answer there"
            )
            arrival.stage, arrival.detail = "refused", why
            self._report(message.vm, arrival)
            return
        arrival.request = self._out.request()
        ask = AskExpect(
            request=arrival.request,
            vm=message.vm,
            name=message.name,
            home=message.home,
            source=sender,
            handover=message.handover,
        )
        self._out.put(AskKeeper(ask))

    def whole(self, sender: HostId, message: CopyWhole) -> None:
        """The copy has everything, and its source is gone. Said again and again, also to an agent that is new here."""
        arrival = self._all.get(message.vm)
        if arrival is None or arrival.handover != message.handover:
            arrival = self._all[message.vm] = _Arrival(message.handover, sender, "whole", self._known.now)
        if arrival.stage in ("running", "lost"):
            self._report(message.vm, arrival)
            return
        arrival.stage, arrival.request = "whole", self._out.request()
        self._out.put(AskKeeper(AskInherit(request=arrival.request, vm=message.vm, handover=message.handover)))

    def dropped(self, sender: HostId, message: CopyDropped) -> None:
        """The VM goes on where it was: what has arrived here is of no use."""
        arrival = self._all.get(message.vm)
        if arrival is None or (arrival.handover, arrival.source) != (message.handover, sender):
            return
        arrival.stage, arrival.request = "lost", None
        self._drop(message.vm, message.handover)

    def _drop(self, vm: VmId, handover: Handover) -> None:
        self._out.put(AskKeeper(AskDropped(self._out.request(), vm, handover)))

    def keeper_answered(self, event: KeeperAnswered) -> None:
        """The keeper expects it, or has it, or neither."""
        reply = event.reply
        found = next(((vm, each) for vm, each in self._all.items() if each.request == reply.request), None)
        if found is None:
            return
        vm, arrival = found
        arrival.request = None
        if arrival.stage == "asked":
            arrival.stage, arrival.detail = ("expected", "") if reply.allowed else ("refused", reply.sentence)
            self._report(vm, arrival)
        elif arrival.stage == "whole" and not reply.allowed and self._known.kept_vm(vm) is None:
            arrival.stage, arrival.detail = "lost", reply.sentence
            self._report(vm, arrival)

    # -- what the keeper says ---------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Have every guest go on that runs here by right and that a migration has left paused."""
        known, now = self._known, self._known.now
        self._end_what_nobody_sends()
        waiting = {kept.vm for kept in self._known.kept if self._may_go_on(kept)}
        for vm in [vm for vm in self._resuming if vm not in waiting]:
            del self._resuming[vm]
        for vm in sorted(waiting) if known.hypervisor_up else ():
            if now - self._resuming.get(vm, LONG_AGO) >= AGAIN:
                self._resuming[vm] = now
                self._out.put(ResumeVm(self._out.request(), vm))

    def _end_what_nobody_sends(self) -> None:
        """A copy whose source says nothing of it any more is waited for no longer."""
        now = self._known.now
        copies = {kept.vm: kept.handover for kept in self._known.kept if kept.phase == "copy"}
        self._copies = {vm: self._copies.get(vm, now) for vm in copies}
        for vm in sorted(copies):
            if now >= self._silent_from(vm):
                self._copies[vm] = now
                self._drop(vm, copies[vm])

    def _silent_from(self, vm: VmId) -> Instant:
        arrival = self._all.get(vm)
        heard = arrival.heard if arrival is not None else LONG_AGO
        return after(max(heard, self._copies[vm]), SILENCE)

    def _may_go_on(self, kept: KeptVm) -> bool:
        arrival, left_paused = self._all.get(kept.vm), kept.vm in self._known.left_paused
        arrived = kept.inherited or (arrival is not None and arrival.stage == "whole")
        left = arrived or (left_paused and not self._migrations.keeps_its_end(kept.vm))
        return left and kept.phase == "running" and kept.epoch is not None

    def resumed(self, event: VmResumed) -> None:
        """Libvirt has let it go on."""
        kept = self._known.kept_vm(event.vm)
        if not event.ok or kept is None:
            return
        if kept.inherited:
            self._out.put(AskKeeper(AskResumed(self._out.request(), event.vm)))
        arrival = self._all.get(event.vm)
        if arrival is not None and arrival.stage == "whole":
            arrival.stage, arrival.request = "running", None
            self._report(event.vm, arrival)

    def _report(self, vm: VmId, arrival: _Arrival) -> None:
        report = CopyReport(handover=arrival.handover, vm=vm, stage=arrival.stage, detail=arrival.detail)
        self._out.put(Send(arrival.source, report))

    def next_deadline(self) -> Instant | None:
        """When libvirt is asked again, or a copy waited for no longer."""
        due = [self._silent_from(vm) for vm in self._copies]
        if self._known.hypervisor_up:
            due += [after(asked, AGAIN) for asked in self._resuming.values()]
        return min(due, default=None)
