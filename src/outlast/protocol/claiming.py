"""The disks of what runs here, claimed by asking the keeper: a start claims its own (`disk_claims.py`), and some had none.

A VM ran before Outlast came, or a release that knew claims; a disk was plugged into it since. Until such a disk is claimed,
a clone on it would pass the gate of another host. So whatever runs here by its keeper's word, with disks that have not
been claimed yet as far as this agent knows, is asked for, one VM after the other. A disk that another VM uses at the same
time is told of, again and again until it is over: nobody can say which of the two is to go.
"""

from outlast.model.effects import AskKeeper
from outlast.model.events import KeeperAnswered
from outlast.model.ids import RequestId, VmId
from outlast.model.keeping import AskClaim
from outlast.model.time import NEVER, SECOND, Duration, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox

ASK_AGAIN = Duration(30 * SECOND)
"""After a refusal; a disk that two VMs use is told of as often."""
ANSWERS_WITHIN = Duration(10 * SECOND)


class RunningDisks:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._claimed: dict[VmId, tuple[str, ...]] = {}
        self._asking: tuple[RequestId, VmId, tuple[str, ...]] | None = None
        self._not_before: dict[VmId, Instant] = {}
        self._due = knowledge.now

    def tick(self) -> None:
        """Ask for the next VM whose disks are not claimed."""
        now = self._known.now
        if now < self._due and self._asking is not None:
            return
        self._asking, self._due = None, NEVER
        runs = {kept.vm for kept in self._known.kept if kept.phase == "running"} & self._known.running
        self._claimed = {vm: writes for vm, writes in self._claimed.items() if vm in runs}
        for vm in sorted(runs):
            definition = self._known.definitions.get(vm)
            writes = definition.writes if definition is not None else ()
            if self._claimed.get(vm, ()) == writes:
                continue
            if now < self._not_before.get(vm, now):
                self._due = min(self._due, self._not_before[vm])
                continue
            self._asking, self._due = (self._out.request(), vm, writes), after(now, ANSWERS_WITHIN)
            self._not_before[vm] = after(now, ASK_AGAIN)
            self._out.put(AskKeeper(AskClaim(self._asking[0], vm, writes)))
            return

    def keeper_answered(self, event: KeeperAnswered) -> None:
        """They are claimed, or not yet, or another VM uses one of them."""
        if self._asking is None or event.reply.request != self._asking[0]:
            return
        _, vm, writes = self._asking
        self._asking, self._due = None, self._known.now
        if event.reply.allowed:
            self._claimed[vm] = writes
            self._not_before.pop(vm, None)
        elif event.reply.sentence:
            self._out.note("disk-shared", vm=vm, host=self._known.me, relay=True, why=event.reply.sentence)

    def next_deadline(self) -> Instant:
        """When to ask again."""
        return self._due
