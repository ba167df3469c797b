"""Which of this host's VMs that are off may not be newly started now: decided beforehand, and told to the keeper's gate.

On a host whose hardware fails, and that is kept empty for it, none may. Else, where `admission_mode` is `refuse`, every VM
that is defined here, and runs nowhere, is looked at in turn, in small steps between other events, against the domain as it
is. The keeper asks nobody: it knows what it was told last, and forgets
it after a while, so that an agent that is gone refuses nothing. What was not looked at yet may start; a VM that is to run
again is not refused by the keeper, whatever stands here (`gatekeeping`).
"""

from collections.abc import Iterator

from outlast.model.effects import AskKeeper
from outlast.model.ids import VmId
from outlast.model.keeping import Admission
from outlast.model.planning import PlanVm, Snapshot
from outlast.model.time import LONG_AGO, MILLISECOND, NEVER, SECOND, Duration, Instant, after
from outlast.protocol.host_condition import emptied_for_health
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.placement import Placement
from outlast.protocol.planning.admission import admit, policy_of

LOOK_EVERY = Duration(SECOND)
STEP = Duration(20 * MILLISECOND)
LOOKS_A_STEP = 4
TELL_EVERY = Duration(5 * SECOND)


class AdmissionDesk:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox, placement: Placement) -> None:
        self._known = knowledge
        self._out = outbox
        self._placement = placement
        self._from: tuple[Snapshot, tuple[PlanVm, ...]] | None = None
        self._work: Iterator[bool] | None = None
        self._hold = knowledge.now
        self._due: Instant | None = None
        self._refused: dict[VmId, str] = {}
        self._told: dict[VmId, str] = {}
        self._told_closed = ""
        self._told_at = LONG_AGO

    def tick(self) -> None:
        """Look whether anything has changed, or go a step on; and tell the keeper."""
        if self._known.settings.admission_mode != "refuse":
            self._from, self._work, self._due, self._refused = None, None, None, {}
            self._tell()
            return
        if self._known.now < self._hold:
            self._due = self._hold
        elif self._work is not None:
            self._go_on(self._work)
        else:
            self._see_what_changed()
        self._tell()

    @property
    def due(self) -> Instant:
        """When to go on, or to tell it again."""
        due = NEVER if self._due is None else self._due
        return min(due, after(self._told_at, TELL_EVERY)) if self._told or self._told_closed else due

    def _see_what_changed(self) -> None:
        known = self._known
        snapshot = self._placement.whole()
        there = {vm.vm for vm in snapshot.vms}
        off = tuple(
            PlanVm(vm=d.vm, name=d.name, needs=d.needs)
            for d in sorted(known.definitions.values(), key=lambda d: d.vm)
            if d.vm not in known.running and d.vm not in there and d.home is not None and not d.unprotectable
        )
        self._due = self._hold = after(known.now, LOOK_EVERY)
        found = (snapshot, off)
        if found == self._from:
            self._due = None
            return
        self._from, self._work = found, self._judge(*found)

    def _judge(self, snapshot: Snapshot, off: tuple[PlanVm, ...]) -> Iterator[bool]:
        """One step of the work at a time."""
        refused: dict[VmId, str] = {}
        policy, me = policy_of(self._known.settings), self._known.me
        for vm in off:
            why = ""
            for answer in admit(snapshot, vm, me, policy):
                why = answer
                yield False
            if why:
                refused[vm.vm] = f"{vm.name} may not be started on {self._known.name(me)} now: {why}"
        self._refused = refused
        yield True

    def _go_on(self, work: Iterator[bool]) -> None:
        self._due = self._hold = after(self._known.now, STEP)
        for _ in range(LOOKS_A_STEP):
            if next(work, True):
                self._work = None
                return

    def _tell(self) -> None:
        empty = emptied_for_health(self._known).get(self._known.me)
        closed = empty.sentence if empty is not None else ""
        repeat = bool(self._refused or closed) and self._known.now - self._told_at >= TELL_EVERY
        if (self._refused, closed) != (self._told, self._told_closed) or repeat:
            self._told, self._told_closed, self._told_at = self._refused, closed, self._known.now
            self._out.put(AskKeeper(Admission(refused=self._refused, closed=closed)))
