"""The chosen host's side of a restart: take the VM's register, define it, start it, and say how far it is.

    stage      waits for                          then
    taking     the keeper's compare-and-swap      starting, or lost
    starting   libvirt                            started, or failed
    done       nothing; kept to answer repeats

An order may arrive many times; it is done once. A start that failed leaves an epoch that is ours and not running: it is
released, so that the primary can try it again at once, here or on another host. The release says whether the VM itself
failed, which counts against what its policy allows, or this host. What an order says of the VM's own policy and needs is
known from then on: libvirt may tell of them late, and this host be isolated before that.
"""

import msgspec

from outlast.model.effects import AskKeeper, Send, StartVm
from outlast.model.events import KeeperAnswered, VmStartEnded
from outlast.model.ids import DatastoreName, Epoch, HostId, RequestId, VmId
from outlast.model.keeping import AskRelease, AskTakeover
from outlast.model.messages import OrderReport, RestartOrder
from outlast.model.records import PoweredVm, ProofKind, ProtectedVm, Reason
from outlast.model.time import SECOND, Duration, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox

TAKE_PATIENCE = Duration(8 * SECOND)
KEPT = 64


class _Job(msgspec.Struct):
    sender: HostId
    order: RestartOrder
    stage: str
    request: RequestId
    deadline: Instant
    report: OrderReport


class OrderDesk:
    """See the top of this file. `to_self` is called with reports on orders that this host gave itself."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._jobs: dict[VmId, _Job] = {}
        self.own_reports: list[OrderReport] = []

    def ordered(self, sender: HostId, order: RestartOrder) -> None:
        """An order came; a repeated one is answered with what is known."""
        self._known.learn_vm_name(order.vm, order.name)
        job = self._jobs.get(order.vm)
        if job is not None and (job.sender, job.order.order) == (sender, order.order):
            self._send(job)
            return
        if job is not None and job.stage in ("taking", "starting"):
            report = OrderReport(order=order.order, vm=order.vm, stage="failed", detail="an earlier order is under way")
            self._send_report(sender, report)
            return
        while len(self._jobs) >= KEPT and (old := self._oldest_done()) is not None:
            del self._jobs[old]
        request = self._out.request()
        report = OrderReport(order=order.order, vm=order.vm, stage="accepted")
        deadline = after(self._known.now, TAKE_PATIENCE)
        self._jobs[order.vm] = job = _Job(sender, order, "taking", request, deadline, report)
        if order.entry is not None:
            self._known.take_order(order.vm, _line_of(order.entry, order.home))
        if order.proof.kind is ProofKind.FIRST:
            # There is nothing to take: the gate makes its first epoch, as for anybody who starts a VM.
            self._start(job, None)
            return
        self._out.put(
            AskKeeper(AskTakeover(request=request, vm=order.vm, name=order.name, home=order.home, proof=order.proof))
        )
        self._send(job)

    def _oldest_done(self) -> VmId | None:
        return next((vm for vm, job in self._jobs.items() if job.stage == "done"), None)

    def is_starting(self, vm: VmId) -> bool:
        """Whether an order to start it is being carried out."""
        job = self._jobs.get(vm)
        return job is not None and job.stage != "done"

    def keeper_answered(self, event: KeeperAnswered) -> None:
        """The keeper took the register, or could not."""
        job = next((j for j in self._jobs.values() if j.request == event.reply.request and j.stage == "taking"), None)
        if job is None:
            return
        if not event.reply.allowed:
            self._end(job, "lost", event.reply.sentence)
            return
        self._out.note("restart-owned", vm=job.order.vm, datastore=job.order.home, relay=True, epoch=event.reply.epoch)
        self._start(job, event.reply.epoch)

    def _start(self, job: _Job, epoch: Epoch | None) -> None:
        job.stage, job.request = "starting", self._out.request()
        job.deadline = after(self._known.now, self._known.settings.start_timeout)
        order = job.order
        job.report = OrderReport(order=order.order, vm=order.vm, stage="owned", epoch=epoch)
        self._out.put(StartVm(job.request, order.vm, order.name, order.home))
        self._send(job)

    def start_ended(self, event: VmStartEnded) -> None:
        """Libvirt started it, or could not."""
        job = self._jobs.get(event.vm)
        if job is None or job.request != event.request or job.stage != "starting":
            return
        if event.ok:
            self._out.note("restart-started", vm=event.vm, relay=True)
            self._end(job, "started", "")
        else:
            fault = event.host_fault or event.vm in self._known.killed
            self._give_back(job, event.problem, Reason.HOST_FAULT if fault else Reason.START_FAILED)

    def _give_back(self, job: _Job, problem: str, reason: Reason) -> None:
        order = job.order
        self._out.put(
            AskKeeper(
                AskRelease(
                    request=self._out.request(),
                    vm=order.vm,
                    name=order.name,
                    home=order.home,
                    reason=reason,
                    given_up=True,
                )
            )
        )
        self._end(job, "failed", problem)

    def tick(self) -> None:
        """What took too long has failed."""
        for job in self._jobs.values():
            if job.stage == "taking" and self._known.now >= job.deadline:
                self._end(job, "failed", "the keeper gave no answer")
            elif job.stage == "starting" and self._known.now >= job.deadline:
                self._give_back(job, "libvirt gave no answer in time", Reason.HOST_FAULT)

    def _end(self, job: _Job, stage: str, detail: str) -> None:
        job.stage = "done"
        if stage != "started":
            self._known.forget_orders((job.order.vm,))
        job.report = msgspec.structs.replace(job.report, stage=stage, detail=detail)
        self._send(job)

    def _send(self, job: _Job) -> None:
        self._send_report(job.sender, job.report)

    def _send_report(self, sender: HostId, report: OrderReport) -> None:
        if sender == self._known.me:
            self.own_reports.append(report)
        else:
            self._out.put(Send(sender, report))

    def next_deadline(self) -> Instant | None:
        """The end of the next wait."""
        due = [job.deadline for job in self._jobs.values() if job.stage != "done"]
        return min(due) if due else None


def _line_of(entry: ProtectedVm, home: DatastoreName) -> PoweredVm:
    """How a VM that is started here stands on this host's list, as far as the protected list tells."""
    return PoweredVm(
        vm=entry.vm,
        name=entry.name,
        home=home,
        epoch=None,
        state="starting",
        memory_mib=entry.memory_mib,
        protected=True,
        policy=entry.policy,
        needs=entry.needs,
    )
