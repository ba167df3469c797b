"""This host's own VMs: its power-on list, their definitions on storage, and why they ended.

what happens                                              what is written or asked
a VM's keeper phase, name or protection changed           the power-on list, on every datastore that is reached
libvirt says that a definition changed                    the definition, on its home datastore
a VM ended, and libvirt says why                          release: switched off, or crashed
a VM was shut down because its host is                    release: host shutdown, which nobody meant for the VM
a VM ended, and nobody says why for ENDED_PATIENCE        release: crashed
a VM ended because it has migrated                        release, naming the copy (`migration.py`)
a process was killed by the keeper itself                 release: host fault, which is not the VM's own
a start of ours failed                                    its order says why (`orders`)
this host became isolated                                 the list says so; then `isolation_response.py`

What is known of a VM's policy (isolation response, protected or not) and needs, the newest first:

libvirt says that it runs                                 its definition
it was ordered to be started here, and libvirt does not   what the order said, from the protected list: a definition that
  say yet that it runs                                    libvirt has of it is from its last time here, or there is none
libvirt knows it                                          its definition
libvirt is down, or has not said yet                      the line of before, also an earlier agent's of this host
nobody has told of it                                     protected, and nothing is done to it in an isolation: its lease
                                                          guards it, and its owner may want it left running
"""

import msgspec

from outlast.model.effects import AskKeeper, StoreDefinition, WritePowerOnList
from outlast.model.events import DatastoreSurveyed, HypervisorState, InventoryChanged, StopReason, Stored, VmStopped
from outlast.model.ids import NO_HANDOVER, DatastoreName, Epoch, Handover, HostId, RequestId, VmId, VmName
from outlast.model.inventory import VmDefinition
from outlast.model.keeping import AskRelease, Happened, KeptVm
from outlast.model.records import PoweredVm, PowerOnList, Reason
from outlast.model.time import LONG_AGO, NEVER, SECOND, Duration, Instant, after
from outlast.protocol.isolation_response import IsolationResponses
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.migration import Migrations
from outlast.protocol.news import in_reach
from outlast.protocol.orders import OrderDesk
from outlast.protocol.wish_following import WishFollower

ENDED_PATIENCE = Duration(3 * SECOND)
BLIND_PATIENCE = Duration(15 * SECOND)
"""How long libvirt is waited for to say why a VM ended, while it does not answer at all; it is restarted in seconds."""
LAST_WORDS = Duration(SECOND)
"""How long an agent that is told to end stays for a VM that has ended: libvirt says why after a while."""
WRITE_PATIENCE = Duration(3 * SECOND)
REWRITE = Duration(2 * SECOND)

_STATES = {
    "granted": "starting",
    "starting": "starting",
    "void": "ending",
    "running": "running",
    "frozen": "frozen",
    "killing": "ending",
}
"""How a keeper phase stands on the power-on list; what is not here is not on it."""

_TOLD = frozenset(StopReason) - {StopReason.UNKNOWN}


class _Copy(msgspec.Struct):
    """What one datastore has of our power-on list and definitions."""

    sequence: int = -1
    request: RequestId | None = None
    writing: int = -1
    asked_at: Instant = LONG_AGO
    retry_at: Instant = LONG_AGO


class _Memory(msgspec.Struct, frozen=True):
    """Why a domain is off, as libvirt said, and of which epoch it was then; of any, if no keeper had said yet."""

    reason: Reason
    epoch: Epoch | None
    any_epoch: bool


class OwnHost:
    """See the top of this file."""

    def __init__(
        self,
        knowledge: Knowledge,
        outbox: Outbox,
        *,
        desk: OrderDesk,
        wishes: WishFollower,
        migrations: Migrations,
    ) -> None:
        self._wishes = wishes
        self._migrations = migrations
        self._known = knowledge
        self._out = outbox
        self._desk = desk
        self._copies = {name: _Copy() for name in knowledge.datastores}
        self._first_sequence = knowledge.config.first_sequence
        self._list = self._make_list(self._first_sequence, False)
        self._seen: tuple[object, ...] = (None,) * 10
        """What the list was last made from: these values are replaced, never changed."""
        self._stored_xml: dict[VmId, tuple[DatastoreName, str]] = {}
        self._storing: dict[RequestId, tuple[VmId, tuple[DatastoreName, str]]] = {}
        self._definitions_due = NEVER
        self._kept: tuple[KeptVm, ...] = ()
        self._stopped: dict[VmId, Reason] = {}
        self._ran: dict[VmId, Epoch | None] = {}
        """On which epoch each VM ran here last."""
        self._off: dict[VmId, _Memory] = {}
        self._ended_since: dict[VmId, Instant] = {}
        self._asked: dict[VmId, Instant] = {}
        self._unprotectable: dict[VmId, str] = {}
        self._isolation = IsolationResponses(knowledge, outbox)

    @property
    def sequence(self) -> int:
        """The sequence number of our newest power-on list, announced in heartbeats."""
        return self._list.sequence

    @property
    def has_said_departs(self) -> bool:
        """Whether what this host has to say of its going down can be read on storage."""
        written = self._announced()
        return written is not None and written.departs == self._known.departs

    @property
    def owes_words(self) -> bool:
        """Whether a VM has ended that is not released yet: until it is, others wait for a proof."""
        return bool(self._ended_since)

    # -- the power-on list ----------------------------------------------------------------------------------------

    def tick(self, isolated: bool) -> None:
        """Write what changed, release what ended, respond to isolation."""
        self._refresh_list(isolated)
        self._store_definitions()
        for vm in self._isolation.over():
            remembered = self._off.get(vm)
            self._stopped.setdefault(vm, remembered.reason if remembered is not None else Reason.ISOLATED)
        self._release_ended()
        self._isolation.tick(isolated, self._announced())

    def _refresh_list(self, isolated: bool) -> None:
        known = self._known
        if not self._knows_what_runs():
            return
        seen = (
            known.keeper,
            known.definitions,
            known.running,
            known.ordered,
            known.predecessors_list,
            known.ready,
            known.guests,
            known.aside,
            known.asked,
            isolated,
            known.departs,
        )
        if any(now is not before for now, before in zip(seen, self._seen, strict=True)):
            self._seen = seen
            self._renew_list(isolated)
        now = known.now
        for name, copy in self._copies.items():
            if copy.request is not None and now - copy.asked_at >= WRITE_PATIENCE:
                copy.request, copy.retry_at = None, now
            if copy.request is None and copy.sequence < self._list.sequence and now >= copy.retry_at:
                copy.request, copy.asked_at, copy.writing = self._out.request(), now, self._list.sequence
                self._out.put(WritePowerOnList(copy.request, name, self._list))

    def _knows_what_runs(self) -> bool:
        """Whether a list can be written: until then, what is written stays.

        An agent that has just started, or whose keeper is away, does not know what runs. libvirt or an order has to tell of
        all of it; where both are silent, an earlier agent's list must have been looked for.
        """
        known = self._known
        if known.keeper is None:
            return False
        there = (kept.vm for kept in known.keeper.vms if kept.phase in _STATES)
        return known.looked_back or all(vm in known.definitions or vm in known.ordered for vm in there)

    def _renew_list(self, isolated: bool) -> None:
        content = self._make_list(self._list.sequence + 1, isolated)
        unwritten = self._list.sequence == self._first_sequence
        said = self._list.vms, self._list.isolated, self._list.departs
        if unwritten or (content.vms, content.isolated, content.departs) != said:
            self._list = content
            self._known.take_list(content)

    def _make_list(self, sequence: int, isolated: bool) -> PowerOnList:
        lines: dict[VmId, PoweredVm] = {}
        for kept in self._known.kept:
            if kept.phase in _STATES:
                lines[kept.vm] = self._line(kept)
        for vm in sorted(self._known.running):
            definition = self._known.definitions.get(vm)
            if vm not in lines and definition is not None and definition.unprotectable:
                lines[vm] = msgspec.structs.replace(_as_defined(definition), state="running")
        vms = tuple(lines[vm] for vm in sorted(lines))
        known = self._known
        return PowerOnList(
            host=known.me,
            boot_id=known.config.boot_id,
            sequence=sequence,
            isolated=isolated,
            vms=vms,
            departs=known.departs,
        )

    def _line(self, kept: KeptVm) -> PoweredVm:
        """How a VM stands on the list: what the keeper knows of it, and what is known of its policy and its needs."""
        known = self._policy_of(kept)
        protected, note = self._as_wanted(kept.vm, known.protected, known.note)
        return msgspec.structs.replace(
            known,
            name=kept.name,
            home=kept.home,
            epoch=kept.epoch,
            state=_STATES[kept.phase],
            ready=kept.vm in self._known.ready,
            protected=protected,
            note=note,
            guest=self._known.guests.get(kept.vm),
        )

    def _policy_of(self, kept: KeptVm) -> PoweredVm:
        """The newest of what is known: see the second table at the top."""
        vm, definition, ordered = kept.vm, self._known.definitions.get(kept.vm), self._known.ordered.get(kept.vm)
        if ordered is None and definition is not None:
            return _as_defined(definition)
        return ordered or self._old_line(vm) or PoweredVm(vm, kept.name, kept.home, None, "", 0, True)

    def _as_wanted(self, vm: VmId, protected: bool, note: str) -> tuple[bool, str]:
        """What an operator asked for counts more than what the definition says (`wish_following.py`)."""
        aside = self._known.aside.get(vm)
        if aside is not None and aside.wanted == "unprotected":
            return False, note or f"{aside.by} wants it left alone"
        return protected or (vm in self._known.asked and not note), note

    def _old_line(self, vm: VmId) -> PoweredVm | None:
        before = self._known.predecessors_list
        lines = (*self._list.vms, *(before.vms if before is not None else ()))
        return next((line for line in lines if line.vm == vm), None)

    # -- definitions ----------------------------------------------------------------------------------------------

    def inventory_changed(self, event: InventoryChanged) -> None:
        """Say which VMs cannot be protected; the definitions of the others are kept with the next turn."""
        self._definitions_due = LONG_AGO
        report = self._known.keeper
        epochs = {kept.vm: kept.epoch for kept in report.vms} if report is not None else {}
        self._off = {
            vm: _Memory(self._isolation.reason(vm, reason), epochs.get(vm), report is None)
            for vm, reason in event.off.items()
            if reason in _TOLD
        }
        for definition in event.definitions:
            if definition.unprotectable and self._unprotectable.get(definition.vm) != definition.unprotectable:
                self._out.note("vm-unprotectable", vm=definition.vm, name=definition.name, why=definition.unprotectable)
            self._unprotectable[definition.vm] = definition.unprotectable

    def _store_definitions(self) -> None:
        """Keep each protected VM's definition where its register is, whenever it changed.

        The register's place is the keeper's to know: disks in another order, or one more, do not move it.
        """
        report, now = self._known.keeper, self._known.now
        if report is None or (report.vms == self._kept and now < self._definitions_due):
            return
        self._kept, self._definitions_due = report.vms, NEVER
        homes = {kept.vm: kept.home for kept in report.vms if kept.phase in _STATES}
        for vm in sorted(self._known.running):
            definition = self._known.definitions.get(vm)
            if definition is None or definition.unprotectable or vm not in homes:
                continue
            kept = (homes[vm], definition.xml)
            if self._stored_xml.get(vm) != kept:
                request = self._out.request()
                self._storing[request] = (vm, kept)
                self._stored_xml[vm] = kept
                self._out.put(StoreDefinition(request, homes[vm], vm, definition.xml))

    def stored(self, event: Stored) -> bool:
        """A list or a definition was written, or has to be again. True if there is more to do, or others can read more."""
        storing = self._storing.pop(event.request, None)
        if storing is not None and not event.ok and self._stored_xml.get(storing[0]) == storing[1]:
            del self._stored_xml[storing[0]]
            self._definitions_due = after(self._known.now, REWRITE)
            return True
        copy = self._copies.get(event.datastore)
        if copy is None or copy.request != event.request:
            return False
        copy.request, before = None, self._announced()
        if event.ok:
            copy.sequence = copy.writing
        else:
            copy.retry_at = after(self._known.now, REWRITE)
        said = (self._list.isolated or self._list.departs) and self._announced() is not before
        return bool(said) or copy.sequence < self._list.sequence

    # -- what this host's daemons tell ------------------------------------------------------------------------------

    def keeper_did(self, happened: Happened) -> None:
        """The keeper has done something: everybody hears of it."""
        self._out.note(
            happened.kind,
            host=self._known.me,
            vm=happened.vm,
            datastore=happened.datastore,
            relay=True,
            detail=happened.detail,
            epoch="" if happened.epoch is None else happened.epoch,
        )

    def hypervisor_told(self, event: HypervisorState) -> None:
        """Libvirt answers, or does not."""
        known = self._known
        if event.up != known.hypervisor_up:
            kind = "hypervisor-up" if event.up else "hypervisor-down"
            self._out.note(kind, host=known.me, relay=True, problem=event.problem)
        known.hypervisor_up, known.hypervisor_problem = event.up, event.problem

    def surveyed(self, event: DatastoreSurveyed) -> bool:
        """How a datastore is reached from here. Returns whether it is news; one that came back gets what it missed."""
        reach, name = event.reach, event.reach.datastore
        before = self._known.reach.get(name)
        self._known.take_reach(reach)
        if before is None or before.reachable != reach.reachable:
            if reach.reachable:
                self._copies[name].retry_at = LONG_AGO
                self._out.note("datastore-back", datastore=name)
            else:
                self._out.note("datastore-lost", datastore=name, problem=reach.problem)
        return in_reach(reach, before)

    # -- ends -----------------------------------------------------------------------------------------------------

    def vm_stopped(self, event: VmStopped) -> None:
        """Libvirt says why a VM stopped. What a start of ours comes to, its answer says."""
        if self._desk.is_starting(event.vm):
            return
        reason = self._wishes.reason(event.vm, event.reason) or self._isolation.reason(event.vm, event.reason)
        if reason is Reason.CRASHED and event.vm in self._known.killed:
            reason = Reason.HOST_FAULT
        self._stopped[event.vm] = reason
        if reason is Reason.CRASHED:
            self._known.troubles[event.vm] = event.trace
            trace = f": {event.trace}" if event.trace else ""
            self._out.note("vm-crashed", vm=event.vm, relay=True, name=event.name, reason=event.reason, trace=trace)
        else:
            self._out.note("vm-stopped", vm=event.vm, name=event.name, reason=event.reason)

    def _release_ended(self) -> None:
        now, report = self._known.now, self._known.keeper
        kept = {v.vm: v for v in report.vms} if report is not None else {}
        ended = {vm: v for vm, v in kept.items() if v.phase == "ended"}
        self._ran |= {vm: v.epoch for vm, v in kept.items() if v.phase in ("running", "frozen")}
        killed = self._known.killed
        killed |= {vm for vm, v in kept.items() if v.phase in ("void", "killing")}
        killed -= {vm for vm in killed if vm not in kept or kept[vm].phase == "running"}
        for vm in [vm for vm in self._ended_since if vm not in ended]:
            del self._ended_since[vm]
            self._asked.pop(vm, None)
        for vm, each in ended.items():
            if self._migrations.keeps_its_end(vm):
                continue
            if (heir := self._migrations.heir(vm, each.ended)) is not None:
                self._stopped.pop(vm, None)
                self._ended_since[vm] = self._asked[vm] = now
                self._release(vm, each.name, each.home, Reason.MIGRATED, heir=heir)
                continue
            since = self._ended_since.setdefault(vm, now)
            patience = ENDED_PATIENCE if self._known.hypervisor_up else BLIND_PATIENCE
            reason = self._stopped.pop(vm, None)
            if reason is None and now - self._asked.get(vm, LONG_AGO) >= patience:
                # libvirt's memory lasts: what is not released yet, because its storage hangs, is not asked for in a loop.
                reason = self._remembered(each)
            if reason is None and now - since >= patience:
                reason = self._isolation.reason(vm, StopReason.UNKNOWN)
                if reason is Reason.CRASHED and self._ran.get(vm) != each.epoch:
                    reason = Reason.HOST_FAULT  # Taken, and never started: no fault of its own (random world 20281594).
            if reason is Reason.CRASHED and (vm in killed or self._desk.is_starting(vm)):
                reason = Reason.HOST_FAULT
            if reason is not None:
                self._ended_since[vm] = self._asked[vm] = now
                self._release(vm, each.name, each.home, reason)
        if report is not None:
            self._release_unkept(kept)

    def _remembered(self, kept: KeptVm) -> Reason | None:
        """Why it is off, unless what libvirt said was of an earlier epoch: the domain has been here before."""
        memory = self._off.get(kept.vm)
        return memory.reason if memory is not None and (memory.any_epoch or memory.epoch == kept.epoch) else None

    def _release_unkept(self, kept: dict[VmId, KeptVm]) -> None:
        """What ended while the keeper was away is unknown to it; its register may call this host its owner still."""
        for vm in [vm for vm in self._stopped if vm not in kept]:
            reason, definition = self._stopped.pop(vm), self._known.definitions.get(vm)
            if definition is not None and definition.home is not None and not definition.unprotectable:
                self._release(vm, definition.name, definition.home, reason)

    def _release(
        self,
        vm: VmId,
        name: VmName,
        home: DatastoreName,
        reason: Reason,
        *,
        heir: tuple[HostId, Handover, int] | None = None,
    ) -> None:
        to, handover, pid = heir if heir is not None else (None, NO_HANDOVER, None)
        ask = AskRelease(
            request=self._out.request(), vm=vm, name=name, home=home, reason=reason, heir=to, handover=handover, pid=pid
        )
        self._out.put(AskKeeper(ask))

    # -- isolation ------------------------------------------------------------------------------------------------

    def _announced(self) -> PowerOnList | None:
        """Our list, if any datastore has it."""
        return self._list if any(copy.sequence == self._list.sequence for copy in self._copies.values()) else None

    def next_deadline(self) -> Instant | None:
        """The end of the next wait."""
        due = [self._definitions_due] if self._known.keeper is not None else []
        for copy in self._copies.values() if self._knows_what_runs() else ():
            if copy.request is not None:
                due.append(after(copy.asked_at, WRITE_PATIENCE))
            elif copy.sequence < self._list.sequence:
                due.append(copy.retry_at)
        patience = ENDED_PATIENCE if self._known.hypervisor_up else BLIND_PATIENCE
        due += [after(since, patience) for since in self._ended_since.values()]
        due += [t for t in (self._isolation.next_deadline(),) if t is not None]
        return min(due) if due else None


def _as_defined(definition: VmDefinition) -> PoweredVm:
    """A VM as libvirt tells of it; what can't be protected has no home, and its line says why."""
    return PoweredVm(
        vm=definition.vm,
        name=definition.name,
        home=None,
        epoch=None,
        state="",
        memory_mib=definition.memory_mib,
        protected=definition.protected and not definition.unprotectable,
        policy=definition.policy,
        note=definition.unprotectable,
        needs=definition.needs,
    )
