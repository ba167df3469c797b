"""Which of this host's VMs are ready for those that wait for them, each as its own policy has it.

    ready = "powered-on"        once its process runs
    ready = "delay:30s"         that long after it was started, or after its agent was, which goes on from the list of its
                                predecessor
    ready = "guest-heartbeat"   once its QEMU guest agent has answered; it is asked every `PROBE_EVERY` until then

A VM that was ready stays so until its process ends. The power-on list says it to everybody, so that it outlives a primary.
"""

from outlast.model.effects import ProbeGuest
from outlast.model.events import GuestProbed
from outlast.model.ids import RequestId, VmId
from outlast.model.keeping import KeeperReport
from outlast.model.policy import Ready
from outlast.model.time import SECOND, Duration, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.orders import OrderDesk

PROBE_EVERY = Duration(2 * SECOND)
PROBE_PATIENCE = Duration(10 * SECOND)
PROBES_AT_ONCE = 4
"""A guest agent that does not answer holds up a call for seconds: few are asked at one time."""


class Readiness:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox, desk: OrderDesk) -> None:
        self._known = knowledge
        self._out = outbox
        self._desk = desk
        self._started: dict[VmId, Instant] = {}
        self._answered: set[VmId] = set()
        self._probes: dict[VmId, tuple[RequestId, Instant]] = {}
        self._probe_at: dict[VmId, Instant] = {}

    def tick(self) -> None:
        """Judge every VM that runs here, and ask the guests of those that are to tell it themselves."""
        report = self._known.keeper
        if report is None:
            return
        there = {kept.vm for kept in report.vms if kept.phase in ("running", "frozen")}
        for vm in [vm for vm in self._started if vm not in there]:
            self._forget(vm)
        for kept in report.vms:
            if kept.phase == "running" and kept.vm not in self._started and not self._desk.is_starting(kept.vm):
                self._started[kept.vm] = self._known.now
        ready = frozenset(vm for vm in there if vm in self._known.ready or self._is_ready(vm)) | self._were_ready(report)
        if ready != self._known.ready:
            self._known.ready = ready
        self._probe()

    def _were_ready(self, report: KeeperReport) -> set[VmId]:
        """What the list of the agent before this one calls ready, as far as it is the same instance."""
        before = self._known.predecessors_list
        lines = {line.vm: line.epoch for line in before.vms if line.ready} if before is not None else {}
        running = (kept for kept in report.vms if kept.phase in ("running", "frozen") and kept.epoch is not None)
        return {kept.vm for kept in running if lines.get(kept.vm) == kept.epoch}

    def _forget(self, vm: VmId) -> None:
        del self._started[vm]
        self._answered.discard(vm)
        self._probes.pop(vm, None)
        self._probe_at.pop(vm, None)

    def _wanted(self, vm: VmId) -> Ready | None:
        """What makes it ready; None while nobody has said what its policy is. An order is newer than what libvirt knew."""
        told = self._known.ordered.get(vm) or self._known.definitions.get(vm)
        return told.policy.ready if told is not None and told.policy is not None else None

    def _is_ready(self, vm: VmId) -> bool:
        wanted, since = self._wanted(vm), self._started.get(vm)
        match wanted.how if wanted is not None else None:
            case "powered-on":
                return True
            case "delay":
                return wanted is not None and since is not None and self._known.now - since >= wanted.delay
            case "guest-heartbeat":
                return vm in self._answered
            case _:
                return False

    # -- asking guests --------------------------------------------------------------------------------------------

    def _asked(self) -> list[VmId]:
        """The VMs whose guests are asked, the one that has waited longest first."""
        pending = self._started.keys() - self._known.ready - self._answered
        asked = [vm for vm in pending if (wanted := self._wanted(vm)) is not None and wanted.how == "guest-heartbeat"]
        return sorted(asked, key=lambda vm: (self._probe_at.get(vm, self._known.now), vm))

    def _probe(self) -> None:
        now = self._known.now
        for vm in [vm for vm, (_, began) in self._probes.items() if now - began >= PROBE_PATIENCE]:
            del self._probes[vm]
        for vm in self._asked():
            due = vm not in self._probes and now >= self._probe_at.get(vm, now)
            if due and len(self._probes) < PROBES_AT_ONCE and self._known.hypervisor_up:
                request = self._out.request()
                self._probes[vm] = (request, now)
                self._probe_at[vm] = after(now, PROBE_EVERY)
                self._out.put(ProbeGuest(request, vm))

    def probed(self, event: GuestProbed) -> None:
        """A guest was asked, and answered or did not."""
        waiting = self._probes.get(event.vm)
        if waiting is None or waiting[0] != event.request:
            return
        del self._probes[event.vm]
        if event.answered and event.vm in self._started:
            self._answered.add(event.vm)

    def next_deadline(self) -> Instant | None:
        """The end of a delay, or the next question."""
        due: list[Instant] = []
        for vm in self._started.keys() - self._known.ready:
            wanted = self._wanted(vm)
            if wanted is not None and wanted.how == "delay":
                due.append(after(self._started[vm], wanted.delay))
        due += [after(began, PROBE_PATIENCE) for _, began in self._probes.values()]
        if len(self._probes) < PROBES_AT_ONCE and self._known.hypervisor_up:
            due += [self._probe_at.get(vm, self._known.now) for vm in self._asked() if vm not in self._probes]
        return min(due) if due else None
