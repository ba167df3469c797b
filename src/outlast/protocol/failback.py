"""VMs that go back to a better host when that is there again: rules of the kind `run-on` with `failback`. The primary's.

A host counts as there again when it has been connected for BACK_FOR: who comes and goes gets nothing back, and who has
failed again and again is avoided for longer (`flapping`). Nothing goes back while recovery is paused, nor from or to a host
that is kept empty. Where to is planned by `planning/failback`; `moving` does it, and lets a VM rest whose move failed.
"""

from outlast.model.ids import HostId, VmId
from outlast.model.planning import Snapshot
from outlast.model.time import SECOND, Duration
from outlast.protocol.knowledge import Knowledge
from outlast.protocol.planning.emptying import Leaving
from outlast.protocol.planning.failback import plan_failback
from outlast.protocol.verdict import Verdict

BACK_FOR = Duration(30 * SECOND)


class Failback:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._known = knowledge
        self._began = knowledge.now

    @property
    def is_asked_for(self) -> bool:
        """Whether any rule wants it."""
        return any(rule.failback for rule in self._known.rulebook.rules)

    def look(self, snapshot: Snapshot, moving: frozenset[VmId]) -> tuple[Leaving, ...]:
        """Who is to go back now. `moving`: those that are on their way somewhere."""
        known = self._known
        if known.pause is not None or not self.is_asked_for:
            return ()
        settled = [
            vm
            for vm, (host, line) in known.whereabouts().items()
            if line.state == "running" and vm not in moving and (host == known.me or known.live(host))
        ]
        return plan_failback(snapshot, settled, [host for host in known.members if self.is_back(host)])

    def is_back(self, host: HostId) -> bool:
        """Whether a host has been there for long enough."""
        known = self._known
        if host == known.me:
            return known.now - self._began >= BACK_FOR
        judgement = known.judgements.get(host)
        connected = judgement is not None and judgement.verdict is Verdict.CONNECTED
        return connected and judgement is not None and known.now - judgement.since >= BACK_FOR
