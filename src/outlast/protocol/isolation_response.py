"""What isolation does to this host's VMs, and what must be remembered of it.

what happens                                              what is done
this host is isolated, and its list on storage says so    each protected VM is told to shut down, killed, or left running
the same, while recovery is paused                        nothing, until it is resumed
a guest's time to shut down is over, still isolated       it is killed
its time is over, isolation too, and it still runs        it did not follow: what ends it later is somebody else
the same, but its storage hung, so that it was frozen     it may still follow: it gets its time anew
it ends, and nobody destroyed it with his own hands       released as isolated: nobody meant that for the VM
it ended while neither keeper nor agent was there         the same, as soon as both are

A guest takes its time, and libvirt calls its end a shutdown like any other. So whom isolation has told to end is written
down first, in a file that lives as long as the boot does. An agent that takes over meanwhile must not take that end for an
operator's wish: the VM would never run again. Nor may the host, when the guest is late because its storage hung. That shows
when the lease lapses; so who runs on after its time is believed to have not followed only a window later.
"""

from outlast.model.effects import AskKeeper, RememberTold, ShutDownVm
from outlast.model.events import StopReason
from outlast.model.ids import VmId
from outlast.model.keeping import AskKill
from outlast.model.policy import VmPolicy
from outlast.model.records import PoweredVm, PowerOnList, Reason
from outlast.model.settings import Pause
from outlast.model.time import SECOND, Duration, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox

KILL_AGAIN = Duration(2 * SECOND)

_MEANT = {
    StopReason.SHUTDOWN: Reason.SWITCHED_OFF,
    StopReason.DESTROYED: Reason.SWITCHED_OFF,
    StopReason.SAVED: Reason.SWITCHED_OFF,
    StopReason.MIGRATED: Reason.MIGRATED,
    StopReason.HOST_SHUTDOWN: Reason.HOST_SHUTDOWN,
}
"""What an end means while isolation has nothing to do with it; any other is a crash."""
_BY_HAND = frozenset({StopReason.DESTROYED, StopReason.SAVED, StopReason.MIGRATED, StopReason.HOST_SHUTDOWN})
"""What neither a guest that was told to shut down does, nor a keeper that kills it."""


class IsolationResponses:
    """See the top of this file. `told`: who was told to end, and until when each may take."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._told: dict[VmId, Instant] = dict(knowledge.config.told)
        self._kill_at: dict[VmId, Instant] = {}
        self._held_up: set[VmId] = set()
        self._isolated = False
        self._responded = self._held = False

    def reason(self, vm: VmId, stop: StopReason) -> Reason:
        """What the end of a VM means."""
        if vm in self._told and stop not in _BY_HAND:
            return Reason.ISOLATED
        return _MEANT.get(stop, Reason.CRASHED)

    def tick(self, isolated: bool, announced: PowerOnList | None) -> None:
        """Tell and kill whom it is time for. `announced`: our list, once others can read it and see why."""
        self._isolated = isolated
        self._forget_who_did_not_follow()
        if not isolated:
            self._responded = self._held = False
            self._kill_at.clear()
        elif self._known.pause is not None and not self._responded:
            self._hold(self._known.pause)
        elif announced is not None and announced.isolated and not self._responded:
            self._responded = True
            self._respond([line for line in announced.vms if line.protected and line.state in ("running", "frozen")])
        for vm, due in list(self._kill_at.items()):
            if self._known.now >= due:
                self._kill_at[vm] = after(self._known.now, KILL_AGAIN)
                self._out.put(AskKeeper(AskKill(request=self._out.request(), vm=vm, reason=Reason.ISOLATED)))

    def _hold(self, pause: Pause) -> None:
        """Recovery is paused: nobody would start elsewhere what ended here. What had begun before is finished."""
        if not self._held:
            self._held = True
            self._out.note("response-held", host=self._known.me, why=pause.sentence)

    def _respond(self, lines: list[PoweredVm]) -> None:
        now, settings = self._known.now, self._known.settings
        asked: list[VmId] = []
        before = dict(self._told)
        for line in lines:
            # Whose policy nobody has told may be wanted running: nothing is done to it.
            policy = line.policy or VmPolicy(isolation_response="leave-running")
            response = policy.isolation_response or settings.isolation_response
            if response == "leave-running":
                continue
            self._out.note("isolation-response", vm=line.vm, response=response)
            gently = response == "shut-down" and line.state == "running"
            self._told[line.vm] = self._kill_at[line.vm] = after(now, settings.shutdown_timeout) if gently else now
            if gently:
                asked.append(line.vm)
        if self._told != before:
            self._write_down()
        for vm in asked:
            self._out.put(ShutDownVm(vm))

    def _forget_who_did_not_follow(self) -> None:
        report = self._known.keeper
        if self._isolated or report is None:
            return
        phases = {kept.vm: kept.phase for kept in report.vms}
        self._held_up |= {vm for vm in self._told if phases.get(vm) == "frozen"}
        over = [vm for vm, until in self._told.items() if self._known.now >= self._shows_by(until)]
        if again := [vm for vm in over if vm in self._held_up and phases.get(vm) == "running"]:
            self._held_up -= set(again)
            self._told |= dict.fromkeys(again, after(self._known.now, self._known.settings.shutdown_timeout))
            self._write_down()
        self._forget([vm for vm in over if vm not in again and phases.get(vm) == "running"])

    def _shows_by(self, until: Instant) -> Instant:
        """When it would have shown that its storage hung before its time was over."""
        return after(until, self._known.settings.window)

    def over(self) -> list[VmId]:
        """Who was told, and is gone, as keeper and libvirt both say. They are told of no more after this."""
        report = self._known.keeper
        if report is None or not self._known.hypervisor_up:
            return []
        there = {kept.vm for kept in report.vms} | self._known.running
        gone = [vm for vm in self._told if vm in self._known.definitions and vm not in there]
        self._forget(gone)
        return gone

    def _forget(self, vms: list[VmId]) -> None:
        for vm in vms:
            del self._told[vm]
            self._kill_at.pop(vm, None)
            self._held_up.discard(vm)
        if vms:
            self._write_down()

    def _write_down(self) -> None:
        self._out.put(RememberTold(dict(self._told)))

    def next_deadline(self) -> Instant | None:
        """When somebody's time is over."""
        due = [*self._kill_at.values()]
        if not self._isolated:
            due += [at for until in self._told.values() if (at := self._shows_by(until)) > self._known.now]
        return min(due) if due else None
