"""Emptying the hosts that are kept empty: which of their VMs are to go on where. The primary's part; `moving` does it.

It looks about once a second, for as long as such a host has VMs. What may be moved now is planned together
(`planning/emptying`), with the domain as it is: what waits for a restart has its place first.

    a VM there                                   then
    runs                                         planned, and moved if there is a place
    is frozen, being started or restarted        waits: it runs elsewhere soon, or here, and is moved then
    has a disk or what else on no datastore      stays, and people are told
    is ending, or stopped                        needs nothing

An operator who drains a host has asked for all of this himself, so a pause does not hold it; what a monitor says is no
operator's word, and there it does. When a host is used again nothing more is begun, and nobody is brought back unless the
operator says so (`returning`) or a rule does (`failback`), for which the same look serves.
"""

import msgspec

from outlast.model.ids import HostId, VmId
from outlast.model.messages import Emptying
from outlast.model.planning import Snapshot
from outlast.model.records import PoweredVm
from outlast.model.time import SECOND, Duration, Instant, after
from outlast.protocol.failback import Failback
from outlast.protocol.host_condition import MOST_NAMED, to_be_emptied
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.moving import Mover
from outlast.protocol.placement import Placement
from outlast.protocol.planning.emptying import NO_DATASTORE, Evacuation, Leaving, plan_emptying
from outlast.protocol.returning import Change, Returns

LOOK_EVERY = Duration(SECOND)
MOST_TOLD = 160
"""Characters of one such reason."""


class Maintenance:
    """See the top of this file. `emptying`: how far it is, for all screens; empty if this agent is not primary."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox, mover: Mover, placement: Placement, change: Change) -> None:
        self._known = knowledge
        self._out = outbox
        self._mover = mover
        self._placement = placement
        self._failback = Failback(knowledge)
        self.back = Returns(knowledge, outbox, change, self._failback)
        self._returns: tuple[Leaving, ...] = ()
        self._look_at = knowledge.now
        self._is_to_look = False
        self._plan = Evacuation((), {})
        self._there: dict[HostId, dict[VmId, PoweredVm]] = {}
        self._had_vms: set[HostId] = set()
        self.emptying: tuple[Emptying, ...] = ()

    def tick(self, am_primary: bool) -> None:
        """Look, if it is time, and go on with what was found."""
        if not am_primary:
            self._mover.stop()
            self.back.stop()
            self._plan, self._there, self._had_vms, self.emptying = Evacuation((), {}), {}, set(), ()
            self._is_to_look, self._returns = False, ()
        elif self._known.now < self._look_at:
            # Nothing is begun by a plan that is not of this turn: a restart may have been given the room since.
            self._is_to_look = True
            self._mover.tick((), self._about())
        else:
            self._look_at = after(self._known.now, LOOK_EVERY)
            self._look()
            self._is_to_look = bool(self._about()) or self._failback.is_asked_for or self.back.is_asked_for
            self._mover.tick((*self._plan.moves, *self._returns), self._about())
            self._note_what_is_empty()
            self.emptying = tuple(found for host in self._there if (found := self._told(host)) is not None)
            self._is_to_look = self._is_to_look or bool(self.emptying)
        self._placement.moving = self._mover.moving

    def _about(self) -> set[VmId]:
        return {vm for vms in self._there.values() for vm in vms} | {each.vm.vm for each in self._returns}

    def _look(self) -> None:
        known = self._known
        empty = to_be_emptied(known)
        self._there = {host: {} for host in empty}
        for vm, (host, line) in known.whereabouts().items() if empty else ():
            if host in self._there and line.state != "ending":
                self._there[host][vm] = line
        moving = self._mover.moving
        ready = [
            vm for vms in self._there.values() for vm, line in vms.items() if vm not in moving and not self._waits(vm, line)
        ]
        self._plan = plan_emptying(self._snapshot(), empty, ready) if ready else Evacuation((), {})
        self._returns = ()
        if self.back.is_asked_for and not ready:
            self._returns = self.back.look(self._snapshot(), frozenset(moving))
        if self._failback.is_asked_for and not ready and not self._returns:
            self._returns = self._failback.look(self._snapshot(), frozenset(moving))

    def _snapshot(self) -> Snapshot:
        snapshot = self._placement.snapshot()
        failed = {vm: rest.hosts for vm, rest in self._mover.rests.items()}
        vms = tuple(
            msgspec.structs.replace(vm, failed_on=vm.failed_on | failed[vm.vm]) if vm.vm in failed else vm
            for vm in snapshot.vms
        )
        return msgspec.structs.replace(snapshot, vms=vms)

    def _waits(self, vm: VmId, line: PoweredVm) -> str:
        """Why a VM is not moved now, whether or not there is a place for it; empty if it may be."""
        host = self._known.lister(vm)
        if host != self._known.me and (host is None or not self._known.live(host)):
            return "its host is not connected"
        if line.home is None:
            return line.note or NO_DATASTORE
        return "" if line.state == "running" else f"it is {line.state}"

    def _note_what_is_empty(self) -> None:
        for host, vms in self._there.items():
            if vms or self._mover.leaving(host):
                self._had_vms.add(host)
            elif host in self._had_vms:
                self._out.note("host-emptied", host=host, relay=True)
        self._had_vms = {host for host in self._had_vms if self._there.get(host) or self._mover.leaving(host)}

    # -- what people are told -------------------------------------------------------------------------------------

    def _told(self, host: HostId) -> Emptying | None:
        """None: it is empty. Who has no process there any more is the host's still until its copy has said that it runs."""
        vms = self._there[host]
        goes_over = [vm for vm in self._mover.leaving(host) if vm not in vms]
        if not vms and not goes_over:
            return None
        # Those first for whom somebody has to do something.
        order = sorted(vms, key=lambda vm: (vm in self._mover.moving, vm not in self._plan.stays, vms[vm].name))
        told = [f"{vms[vm].name} {self._becomes(vm, vms[vm])}" for vm in order]
        told += [f"{self._known.vm_name(vm)} is about to go on elsewhere" for vm in sorted(goes_over)]
        named = told[:MOST_NAMED]
        more = [f"and {len(told) - MOST_NAMED} more"] if len(told) > MOST_NAMED else []
        settled = not goes_over and all(vm in self._plan.stays or vms[vm].home is None for vm in vms)
        return Emptying(host, "; ".join(named + more), settled)

    def _becomes(self, vm: VmId, line: PoweredVm) -> str:
        known, moving, rest = self._known, self._mover.moving.get(vm), self._mover.rests.get(vm)
        planned = next((each for each in self._plan.moves if each.vm.vm == vm), None)
        stays = self._plan.stays.get(vm) or self._waits(vm, line)
        if moving is not None:
            return f"moves to {known.name(moving.host)}"
        if stays:
            return f"stays: {stays}"[:MOST_TOLD]
        if rest is not None and known.now < rest.until:
            return f"is tried again later: {rest.why}"[:MOST_TOLD]
        return f"is to move to {known.name(planned.vm.host)}" if planned is not None else "is to move"

    def next_deadline(self) -> Instant | None:
        """When to look again, or to go on with a move."""
        due = [t for t in (self._mover.next_deadline(),) if t is not None]
        return min([*due, self._look_at]) if self._is_to_look else min(due, default=None)
