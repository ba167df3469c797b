"""Owners look at their own registers now and then: storage may lose what it has confirmed.

An asynchronous export whose server crashed, or a datastore restored from a snapshot under running hosts, shows an older
register than the one on which a VM runs; somebody else could win the epochs that are missing. What runs on an epoch that
its register does not show is frozen at once and has to be re-asserted, like after a lapse (design.md section 2, (e)).
One VM at a time, in turn, so that a host with hundreds of them costs its storage no more than one read in two seconds.
"""

from collections.abc import Mapping

from outlast.model.ids import Incarnation, VmId
from outlast.model.records import RegisterRecord
from outlast.model.time import SECOND, Duration, Instant, after
from outlast.protocol.ownership import Ownership, Phase

AUDIT_EVERY = Duration(2 * SECOND)


class Audit:
    """Whose turn it is. `due` is when the next register is to be read."""

    def __init__(self, now: Instant) -> None:
        self.due = after(now, AUDIT_EVERY)
        self._last: VmId | None = None

    def next(self, vms: Mapping[VmId, Ownership], now: Instant) -> Ownership | None:
        """The VM whose register is to be read now, None if it is too early or none runs."""
        if now < self.due:
            return None
        self.due = after(now, AUDIT_EVERY)
        running = sorted(vm for vm, ownership in vms.items() if ownership.phase is Phase.RUNNING)
        if not running:
            return None
        self._last = next((vm for vm in running if self._last is None or vm > self._last), running[0])
        return vms[self._last]


def mismatch(ownership: Ownership, last: RegisterRecord | None, incarnation: Incarnation | None) -> str:
    """What is wrong with the register that a running VM's owner has read, or an empty string."""
    if ownership.phase is not Phase.RUNNING or ownership.epoch is None or incarnation is None:
        return ""
    if last is None:
        return f"its register is gone, and it runs on epoch {ownership.epoch}"
    if not ownership.is_ours(last, incarnation) or last.epoch < ownership.epoch:
        return f"its register ends with epoch {last.epoch} of {last.owner}, and it runs on epoch {ownership.epoch}"
    return ""
