"""Starts that libvirt has forgotten: the keeper holds a VM for a process that nobody makes any more.

Once the gate has given its last word, the keeper gives a start up on libvirt's word alone (`gatekeeping`), for the process
may come however late. But a libvirtd that dies in between says nothing, and its successor knows nothing of the start. So
the agent asks libvirt about every start that takes long:

    libvirt says                    what follows
    it is off                       the keeper is told, looks for a process itself, and gives the start up if there is none
    it is on, or being started      it is asked again later
    nothing                         the same

While libvirt carries a start out, it calls the domain on, or answers only when that start is over (libvirt 9.0 does, in
either hook). So whoever is off, when asked after the gate let it pass, is not being started any more; the epoch says of
which start that was asked, and of a copy, which passes without one, the migration's number. A process that a dead libvirtd
left behind half-made ends by itself, and until then its pid file names it.
"""

import msgspec

from outlast.model.effects import AskKeeper, LookAtVm
from outlast.model.events import VmLookedAt
from outlast.model.ids import Epoch, Handover, RequestId, VmId
from outlast.model.keeping import AskForgotten
from outlast.model.time import SECOND, Duration, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox

ASK_EVERY = Duration(5 * SECOND)
_SOON = frozenset({"starting", "void", "arriving"})
"""Keeper phases in which a process is looked for."""


class _Start(msgspec.Struct):
    """A start that the keeper waits for: on an epoch, or of a copy. `ask_at`: when libvirt is asked about it next."""

    which: tuple[Epoch | None, Handover]
    ask_at: Instant
    request: RequestId | None = None


class ForgottenStarts:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._starts: dict[VmId, _Start] = {}

    def tick(self) -> None:
        """Ask about those that take long."""
        now, report = self._known.now, self._known.keeper
        if report is None:
            return
        pending = {kept.vm: (kept.epoch, kept.handover) for kept in report.vms if kept.phase in _SOON}
        self._starts = {vm: start for vm, start in self._starts.items() if pending.get(vm) == start.which}
        for vm, which in pending.items():
            start = self._starts.setdefault(vm, _Start(which, after(now, ASK_EVERY)))
            if now >= start.ask_at:
                start.ask_at, start.request = after(now, ASK_EVERY), self._out.request()
                self._out.put(LookAtVm(start.request, vm))

    def looked_at(self, event: VmLookedAt) -> None:
        """What libvirt says."""
        start = self._starts.get(event.vm)
        if start is None or start.request != event.request:
            return
        start.request = None
        if event.off:
            epoch, handover = start.which
            self._out.put(AskKeeper(AskForgotten(self._out.request(), event.vm, epoch, handover)))

    def next_deadline(self) -> Instant | None:
        """When somebody is asked about next."""
        return min((start.ask_at for start in self._starts.values()), default=None)
