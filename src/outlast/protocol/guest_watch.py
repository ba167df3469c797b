"""Guests that hang while their processes are well: seen by silence, and reset, a few times an hour.

Lease and register tell of processes; what goes on inside a guest only its own agent can tell. So the agent of the host on
which a VM runs asks its QEMU guest agent again and again, if `guest_monitoring` says so, and looks, while there is no
answer, whether its disks and interfaces do anything. A guest that neither answers nor does anything is reset: its machine
begins anew in the same process, on the same epoch, with the same disks, so nothing about its ownership changes, and
no other host has a say in it. What its screen and its console showed is kept before (`drivers/hypervisor/last_sight.py`).

what a look finds                      what it means
its agent answers                      it is well; its process is watched from the first such answer on
no answer, and the channel is open     silence, since the first question that it left unanswered
nobody has the channel open            its agent was ended in order, or it boots by itself: nothing, until it answers again;
                                       after a reset by us: silence, for it has to come back
it is paused, or libvirt cannot tell   nothing: a silence begins anew

It is reset once all of this is so, and the look that shows the last of it has just come back:

    it has answered since its process began, to this agent or to an earlier one of this boot
    silence for `guest_failure_after`
    the counters of its disks, and of what it sends, have stood still for `guest_io_quiet`
    `guest_min_uptime` has passed since its process was first seen, and since its last reset
    fewer than `guest_resets_per_hour` resets of it in the last hour: else it is left alone, which is told loudly

What is feared is to reset a guest that is well, and was only kept from answering. So none is judged, and every silence
begins anew, while it is frozen, its start or a migration is under way, this host holds no lease on a datastore of its
disks, libvirt is down, this host is isolated (what becomes of it then is its isolation response), an operator has paused
recovery or has set the VM aside, or it is not protected; and when this agent itself is called much later than it had
asked for, because the whole host stood still. Of a freeze that begins between the last look and the reset the guest was
silent before; libvirt resets it when it is thawed.

That a guest was heard, and when it was reset, stands on the power-on list, from which the agent after this one goes on.
"""

import msgspec

from outlast.model.effects import LookAtGuest, ResetGuest
from outlast.model.events import GuestLookedAt, GuestReset, GuestState
from outlast.model.ids import RequestId, VmId
from outlast.model.keeping import KeptVm
from outlast.model.records import GuestWord
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after, in_seconds
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.migration import Migrations
from outlast.protocol.orders import OrderDesk

LOOKS_AT_ONCE = 4
LOOK_PATIENCE = Duration(10 * SECOND)
RESET_PATIENCE = Duration(30 * SECOND)
LOOKS_PER_FAILURE = 6
STOOD_STILL = Duration(3 * SECOND)
"""Called so much later than asked for, this agent has not been there to hear anybody."""
HOUR = Duration(3600 * SECOND)


class _Guest(msgspec.Struct):
    """What is known of one guest. `pid` and `since`: of its process. `silent_since`, `quiet_since` None: it is not so."""

    pid: int | None
    since: Instant
    looked_back: bool = False
    heard: bool = False
    resets: tuple[int, ...] = ()
    awaited: bool = False
    silent_since: Instant | None = None
    quiet_since: Instant | None = None
    io: int = 0
    request: RequestId | None = None
    asked_at: Instant = LONG_AGO
    look_at: Instant = LONG_AGO
    resetting: bool = False
    why: str = ""

    def begin_anew(self) -> None:
        """Nothing that was seen counts any more; an answer that is still under way neither."""
        self.silent_since = self.quiet_since = None
        if not self.resetting:
            self.request = None


class GuestWatch:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox, desk: OrderDesk, migrations: Migrations) -> None:
        self._known = knowledge
        self._out = outbox
        self._desk = desk
        self._migrations = migrations
        self._guests: dict[VmId, _Guest] = {}
        self._due: Instant | None = None

    # -- who is watched -------------------------------------------------------------------------------------------

    def tick(self, isolated: bool) -> None:
        """Look at every guest that may be looked at and is due; forget those that are gone."""
        now, watched = self._known.now, self._watched()
        if self._due is not None and now - self._due >= STOOD_STILL:
            for guest in self._guests.values():
                guest.begin_anew()
        self._forget(watched)
        may_judge = {vm for vm, kept in watched.items() if self._may_judge(kept, isolated)}
        for vm, kept in watched.items():
            if vm not in self._guests or self._guests[vm].pid != kept.pid:
                self._guests[vm] = _Guest(kept.pid, now)
            self._look_back(kept, self._guests[vm])
        for vm, guest in self._guests.items():
            guest.resets = tuple(at for at in guest.resets if now - at < HOUR)
            if vm not in may_judge:
                guest.begin_anew()
        self._give_up_waiting()
        self._look(may_judge)
        self._tell_list()
        self._due = self._next()

    def _watched(self) -> dict[VmId, KeptVm]:
        """This host's protected VMs whose guests are to be watched, whether they may be judged now or not."""
        there = (kept for kept in self._known.kept if kept.phase in ("running", "frozen"))
        return {kept.vm: kept for kept in there if self._is_wanted(kept.vm)}

    def _is_wanted(self, vm: VmId) -> bool:
        known, definition = self._known, self._known.definitions.get(vm)
        if definition is None or vm in known.aside or not (definition.protected or vm in known.asked):
            return False
        return (definition.policy.guest_monitoring or known.settings.guest_monitoring) == "on"

    def _forget(self, watched: dict[VmId, KeptVm]) -> None:
        """Those that are gone; not those of which a keeper that has just been restarted does not tell yet."""
        for vm in [vm for vm in self._guests if vm not in watched]:
            if vm not in self._known.running or not self._is_wanted(vm):
                del self._guests[vm]

    def _look_back(self, kept: KeptVm, guest: _Guest) -> None:
        """What an earlier agent of this boot told of the same process: it was heard, and reset."""
        before = self._known.predecessors_list
        if guest.heard or guest.looked_back or before is None:
            return
        guest.looked_back = True
        line = next((line for line in before.vms if line.vm == kept.vm and line.epoch == kept.epoch), None)
        if before.boot_id == self._known.config.boot_id and line is not None and line.guest is not None:
            word = line.guest
            guest.heard, guest.since, guest.resets, guest.why = True, LONG_AGO, word.resets, word.why
            guest.awaited = word.state != "answers" and bool(word.resets)

    def _may_judge(self, kept: KeptVm, isolated: bool) -> bool:
        """Whether it is the guest's own doing if it does not answer."""
        known, vm = self._known, kept.vm
        if isolated or known.pause is not None or not known.hypervisor_up or kept.phase != "running":
            return False
        if vm not in known.running or vm in known.left_paused:
            return False
        if self._desk.is_starting(vm) or self._migrations.is_under_way(vm):
            return False
        return self._storage_is_held(vm)

    def _storage_is_held(self, vm: VmId) -> bool:
        """Whether this host's leases are good wherever the guest may wait for a disk."""
        return all(self._known.holds_lease(name) for name in self._known.definitions[vm].datastores)

    # -- looking --------------------------------------------------------------------------------------------------

    @property
    def _every(self) -> Duration:
        return Duration(max(SECOND, self._known.settings.guest_failure_after // LOOKS_PER_FAILURE))

    def _give_up_waiting(self) -> None:
        for guest in self._guests.values():
            patience = RESET_PATIENCE if guest.resetting else LOOK_PATIENCE
            if guest.request is not None and self._known.now - guest.asked_at >= patience:
                guest.request, guest.resetting = None, False
                guest.begin_anew()

    def _look(self, may_judge: set[VmId]) -> None:
        """The one that has waited longest first."""
        now = self._known.now
        asked = sum(guest.request is not None for guest in self._guests.values())
        for vm, guest in sorted(self._guests.items(), key=lambda item: (item[1].look_at, item[0])):
            if asked >= LOOKS_AT_ONCE or guest.look_at > now:
                return
            if guest.request is not None:
                continue
            guest.look_at = after(now, self._every)
            if vm in may_judge:
                guest.request, guest.asked_at = self._out.request(), now
                self._out.put(LookAtGuest(guest.request, vm))
                asked += 1

    def looked_at(self, event: GuestLookedAt) -> None:
        """A look came back: see the table at the top."""
        guest = self._guests.get(event.vm)
        if guest is None or guest.request != event.request:
            return
        guest.request = None
        if event.state is GuestState.ANSWERS:
            self._answers(event.vm, guest)
        elif event.state is GuestState.SILENT or (event.state is GuestState.CLOSED and guest.awaited):
            self._silent(event.vm, guest, event.io)
        else:
            guest.begin_anew()

    def _answers(self, vm: VmId, guest: _Guest) -> None:
        if guest.awaited or guest.why:
            self._out.note("guest-back", host=self._known.me, vm=vm, relay=True, name=self._known.vm_name(vm))
        guest.begin_anew()
        guest.heard, guest.awaited, guest.why = True, False, ""

    def _silent(self, vm: VmId, guest: _Guest, io: int) -> None:
        if guest.silent_since is None:
            guest.silent_since = guest.asked_at
        if guest.quiet_since is None or guest.io != io:
            guest.io, guest.quiet_since = io, self._known.now
        if self._hangs(guest):
            self._act(vm, guest)

    def _hangs(self, guest: _Guest) -> bool:
        """All that is asked for before a reset, but the budget."""
        now, settings = self._known.now, self._known.settings
        if not guest.heard or guest.silent_since is None or guest.quiet_since is None:
            return False
        begun = max(guest.since, *guest.resets) if guest.resets else guest.since
        long_enough = now - begun >= settings.guest_min_uptime and now - guest.silent_since >= settings.guest_failure_after
        return long_enough and self._stands_still(guest)

    def _stands_still(self, guest: _Guest) -> bool:
        """Whether neither its disks nor its interfaces have done anything for long enough."""
        return guest.quiet_since is not None and self._known.now - guest.quiet_since >= self._known.settings.guest_io_quiet

    # -- resetting ------------------------------------------------------------------------------------------------

    def _act(self, vm: VmId, guest: _Guest) -> None:
        now, known = self._known.now, self._known
        if len(guest.resets) >= known.settings.guest_resets_per_hour:
            if not guest.why:
                guest.why = f"it was reset {len(guest.resets)} times within an hour, and does not answer again"
                self._out.note("guest-failed", host=known.me, vm=vm, relay=True, name=known.vm_name(vm), why=guest.why)
            return
        silent_s = in_seconds(now - guest.silent_since) if guest.silent_since is not None else 0.0
        guest.request, guest.asked_at, guest.resetting = self._out.request(), now, True
        guest.resets, guest.awaited, guest.why = (*guest.resets, now), True, ""
        self._out.note("guest-hangs", host=known.me, vm=vm, relay=True, name=known.vm_name(vm), silent=f"{silent_s:.0f} s")
        self._out.put(ResetGuest(guest.request, vm))

    def reset(self, event: GuestReset) -> None:
        """Libvirt has reset it, or could not: that counts as well, for it is not tried in a loop."""
        guest = self._guests.get(event.vm)
        if guest is None or guest.request != event.request:
            return
        guest.request, guest.resetting = None, False
        guest.begin_anew()
        kind, known = ("guest-reset" if event.ok else "guest-not-reset"), self._known
        self._out.note(
            kind,
            host=known.me,
            vm=event.vm,
            relay=True,
            name=known.vm_name(event.vm),
            problem=event.problem,
            kept=event.kept or "nothing was kept",
            times=len(guest.resets),
        )

    # -- what is told ---------------------------------------------------------------------------------------------

    def _tell_list(self) -> None:
        """How the guests are, for the power-on list; the value is replaced only if it is another one."""
        words = {vm: word for vm, guest in self._guests.items() if (word := self._word(guest)) is not None}
        if words != self._known.guests:
            self._known.guests = words

    def _word(self, guest: _Guest) -> GuestWord | None:
        if not guest.heard:
            return None
        silence = self._known.now - guest.silent_since if guest.silent_since is not None else 0
        silent = guest.awaited or silence >= self._known.settings.guest_failure_after
        return GuestWord("failed" if guest.why else "silent" if silent else "answers", guest.resets, guest.why)

    def _next(self) -> Instant | None:
        due: list[Instant] = []
        free = sum(guest.request is not None for guest in self._guests.values()) < LOOKS_AT_ONCE
        for guest in self._guests.values():
            if guest.request is not None:
                due.append(after(guest.asked_at, RESET_PATIENCE if guest.resetting else LOOK_PATIENCE))
            elif free:
                due.append(guest.look_at)
        return min(due) if due else None

    def next_deadline(self) -> Instant | None:
        """The next look, or the end of waiting for one."""
        return self._due
