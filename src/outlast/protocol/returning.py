"""VMs that go back to a host that was emptied. The primary's part; `moving` does it.

An operator wants it (`outlast host undrain HOST --return`), or the host has booted again after a shutdown under the policy
`migrate`. Who goes back to which host stands in the settings record, so every primary goes on with it. Each VM is brought
back once:

    it                                              then
    runs elsewhere, and the host can take it        moved
    runs elsewhere, and the host cannot             waits, RETURN_PATIENCE at most, and people see why
    runs on that host, or an operator wants it off  named in the record no more
    does not run                                    waits likewise

A host is gone back to when it has been there for a while (`failback.is_back`) and is not kept empty. What is named no more
is written down when none of that host's VMs is on its way: a change of the record goes to everybody.

A host that shuts down under `migrate` is in maintenance until a later boot of it is heard; then it is undrained here, as an
operator would do it.
"""

from collections.abc import Callable

from outlast.model.commands import EndReturn, UndrainHost
from outlast.model.ids import HostId, VmId
from outlast.model.messages import CommandRequest
from outlast.model.planning import Snapshot
from outlast.model.settings import Returning
from outlast.model.time import SECOND, Duration, Instant
from outlast.protocol.failback import Failback
from outlast.protocol.host_condition import in_maintenance, kept_empty
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.planning.emptying import Leaving
from outlast.protocol.planning.returning import plan_returns
from outlast.protocol.settings_changing import SettingsWork

Change = Callable[[CommandRequest], SettingsWork]
RETURN_PATIENCE = Duration(3600 * SECOND)
"""How long a primary tries to bring a VM back."""


class Returns:
    """See the top of this file. `change`: has the settings record changed, as an operator's command would."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox, change: Change, failback: Failback) -> None:
        self._known = knowledge
        self._out = outbox
        self._change = change
        self._failback = failback
        self._since: dict[HostId, Instant] = {}
        self._work: SettingsWork | None = None
        self.stays: dict[VmId, str] = {}
        """Why those that are named and are not on their way cannot go back now."""

    def _named(self) -> dict[HostId, Returning]:
        return self._known.record.returning if self._known.record is not None else {}

    @property
    def is_asked_for(self) -> bool:
        """Whether anything is to be looked at."""
        return bool(self._named()) or any(entry.boot for entry in in_maintenance(self._known).values())

    def stop(self) -> None:
        """This agent is not primary (any more)."""
        self._since.clear()
        self.stays.clear()
        self._work = None

    def look(self, snapshot: Snapshot, moving: frozenset[VmId]) -> tuple[Leaving, ...]:
        """Who goes back now. `moving`: those that are on their way somewhere."""
        known, named = self._known, self._named()
        self._since = {host: self._since.get(host, known.now) for host in named}
        if self._work is not None and (self._work.outcome is not None or self._work.dropped):
            self._work = None
        if self._work is None:
            self._write(moving)
        ready = [host for host in named if host not in kept_empty(known) and self._failback.is_back(host)]
        back = {vm: host for host in ready for vm in named[host].vms}
        settled = [vm for vm in back if vm not in moving and self._may_move(vm)]
        moves, self.stays = plan_returns(snapshot, back, settled) if back else ((), {})
        return moves

    def _may_move(self, vm: VmId) -> bool:
        host, line = self._known.lister(vm), self._known.listed(vm)
        lives = host is not None and (host == self._known.me or self._known.live(host))
        return lives and line is not None and line.state == "running"

    def _write(self, moving: frozenset[VmId]) -> None:
        """What is over, or has booted again, goes out of the record: one change at a time."""
        known = self._known
        for host, entry in in_maintenance(known).items():
            heard = known.beats.get(host)
            later = heard.beat.boot_id if heard is not None and known.live(host) else None
            if entry.boot and later not in (None, entry.boot):
                self._take(UndrainHost(host, back=True), entry.by, entry.at_ms)
                return
        for host, named in self._named().items():
            over = tuple(vm for vm in named.vms if self._is_over(vm, host))
            if over and moving.isdisjoint(named.vms):
                self._take(EndReturn(host, over), named.by, named.at_ms)
                return

    def _take(self, command: UndrainHost | EndReturn, by: str, at_ms: int) -> None:
        self._work = self._change(CommandRequest(number=0, by=by, at_ms=at_ms, command=command))

    def _is_over(self, vm: VmId, host: HostId) -> bool:
        known = self._known
        if (known.lister(vm) == host and self._may_move(vm)) or vm in known.aside:
            return True
        if known.now - self._since[host] < RETURN_PATIENCE:
            return False
        self._out.note("return-given-up", vm=vm, host=host, relay=True, why=self.stays.get(vm, "it does not run"))
        return True
