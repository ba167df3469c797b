"""What was tried for each VM, kept with it on its protected list (`records.Attempts`), for whoever is primary next.

`attempts` says how it is counted; this is where it lies, and when it is forgotten. A new primary goes on with the pace that
it finds, but looks at every VM at once: the pause that was under way when its predecessor died is not waited for again.
"""

import msgspec

from outlast.model.ids import DatastoreName, Epoch, VmId
from outlast.model.records import Attempts, ProtectedVm, Reason, RegisterRecord
from outlast.model.time import Instant, after
from outlast.protocol import attempts as counting
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.responsibility import Responsibility
from outlast.protocol.restart import HOLD, Restart


class Trials:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox, responsibility: Responsibility) -> None:
        self._known = knowledge
        self._out = outbox
        self._responsible = responsibility
        self._well_since: dict[VmId, Instant] = {}

    def of(self, case: Restart) -> Attempts:
        """What was tried for a VM."""
        entry = self._responsible.protection(case.home).vms.get(case.vm)
        return entry.attempts if entry is not None else Attempts()

    def _keep(self, case: Restart, attempts: Attempts) -> None:
        self._responsible.protection(case.home).tried(case.vm, attempts)

    def ordered(self, case: Restart, epoch: Epoch) -> None:
        """It is ordered to be started anew, from this epoch."""
        self._keep(case, msgspec.structs.replace(self.of(case), ordered=epoch))

    def started(self, case: Restart) -> None:
        """It was started; that is all that some VMs need to be ready. Of others their host says when."""
        if case.policy.ready.how == "powered-on":
            self._keep(case, counting.came_up(self.of(case)))

    def told(self, case: Restart, problem: str) -> None:
        """Why it did not start; whose fault that was its register will tell, and there it is counted."""
        self._keep(case, msgspec.structs.replace(self.of(case), problem=problem))

    def hold(self, case: Restart, why: str) -> None:
        """Nothing can be tried while storage is out: that is no attempt, and no pause grows."""
        case.wait(why, self._known.now, HOLD)

    def in_vain(self, case: Restart, why: str) -> None:
        """An attempt did not bring it up, and it was not the VM that failed: the next one, ever more slowly, for ever."""
        attempts = counting.in_vain(self.of(case), why)
        self._keep(case, attempts)
        case.wait(why, self._known.now, counting.pause(attempts.tries))

    def may_go_on(self, case: Restart, last: RegisterRecord) -> bool:
        """Count the failure that the register tells of, if it is a new one. False: not now, or not any more."""
        attempts, now = self.of(case), self._known.now
        if not counting.is_new_failure(attempts, last):
            return True
        attempts = counting.after_failure(attempts, case.policy, last)
        trouble = self._trouble(case, last, attempts)
        self._keep(case, msgspec.structs.replace(attempts, problem=trouble))
        if attempts.failed:
            self._out.note("vm-failed", vm=case.vm, host=last.owner, relay=True, problem=trouble)
            case.settle("it has failed", now)
            return False
        pause = counting.pause_after_failure(attempts)
        if pause:
            case.wait(trouble, now, pause)
        return not pause

    def _trouble(self, case: Restart, last: RegisterRecord, attempts: Attempts) -> str:
        """What is known of a VM's last failure, in words."""
        where = self._known.name(last.owner)
        if last.reason is Reason.CRASHED:
            words = self._known.troubles.get(case.vm, "")
            return f"it crashed on {where}" + (f" ({words})" if words else "")
        return f"it did not start on {where}" + (f" ({attempts.problem})" if attempts.problem else "")

    # -- forgetting -----------------------------------------------------------------------------------------------

    def forget_what_is_stable(self, at_rest: list[tuple[DatastoreName, ProtectedVm]]) -> None:
        """What was tried for VMs that have no case is forgotten once they have run well for long enough."""
        well_since: dict[VmId, Instant] = {}
        for datastore, entry in at_rest:
            if entry.attempts == counting.stable(entry.attempts) or not self._runs_well(entry.vm):
                continue
            since = well_since[entry.vm] = self._well_since.get(entry.vm, self._known.now)
            if self._known.now - since >= self._known.settings.stable_after:
                self._responsible.protection(datastore).tried(entry.vm, counting.stable(entry.attempts))
                del well_since[entry.vm]
        self._well_since = well_since

    def _runs_well(self, vm: VmId) -> bool:
        line = self._known.listed(vm)
        return line is not None and line.state == "running"

    def next_deadline(self) -> Instant | None:
        """When the next VM is stable."""
        patience = self._known.settings.stable_after
        return min((after(since, patience) for since in self._well_since.values()), default=None)
