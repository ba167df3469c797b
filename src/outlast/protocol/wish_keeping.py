"""What operators want of VMs, kept beside the protected list by whoever is responsible for their home datastore.

    an operator wants it   the protected list   set aside        and then
    running                on it, `asked`       no               recovery starts it where it may run, if it does not:
                                                                 what failed before counts no more (`attempts`)
    protected              on it once it runs   no               nothing: it is restarted from now on as any other
    stopped                no                   yes              its host shuts it down (`wish_following.py`), and
                                                                 nothing is tried any more
    unprotected            no                   yes              nothing: it is left alone, and may run or not

`asked` is the last epoch of the VM's register when it was asked for: whoever switched it off before that has been
overruled, whoever does so later overrules. A VM that is stopped stays set aside, so that no failover starts it and no
list on which it still stands protects it again. Once its register says that it is off, that epoch is kept with it; what
runs on a later one was started by hand, and whoever did that wants it running: then it is protected again.

Whoever asks for a VM to run a moment after it was switched off asks later, and counts later: so what is told of as running
is believed only SETTLES after it was asked for, when its host has had the time to tell of its end.

Every wish is on storage before it is answered. Nothing here lets a VM run or keeps it from running: its register, its lease
and the gate are what they are for every VM, protected or not (safety rule 7).
"""

import msgspec

from outlast.model.commands import Outcome, WantVm
from outlast.model.effects import ReadRegisters, Send
from outlast.model.events import RegistersRead
from outlast.model.ids import DatastoreName, Epoch, RequestId, VmId
from outlast.model.messages import ListChanged
from outlast.model.records import AsideVm, Attempts, PoweredVm, ProtectedVm, RegisterRecord, RegisterState
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after
from outlast.protocol import attempts as counting
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.protection import Protection
from outlast.protocol.responsibility import Responsibility

LOOK_EVERY = Duration(2 * SECOND)
PATIENCE = Duration(3 * SECOND)
SETTLES = Duration(3 * SECOND // 2)
"""How long it may take until all know that a VM has ended: libvirt says so, its host's list is written and announced."""
NEVER_RAN = Epoch(-1)


class Wish(msgspec.Struct):
    """One command on its way. `said`: what is answered once the list is on storage; `look_at`: it waits until then for
    word of its VM's end.
    """

    command: WantVm
    home: DatastoreName
    by: str
    at_ms: int
    request: RequestId | None = None
    deadline: Instant = LONG_AGO
    look_at: Instant = LONG_AGO
    said: str = ""
    outcome: Outcome | None = None
    dropped: bool = False


class WishKeeper:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox, responsibility: Responsibility) -> None:
        self._known = knowledge
        self._out = outbox
        self._responsible = responsibility
        self._wishes: list[Wish] = []
        self._told: dict[DatastoreName, int] = {}
        self._looks: dict[DatastoreName, tuple[RequestId | None, Instant]] = {}

    # -- wishes ---------------------------------------------------------------------------------------------------

    def holds(self, home: DatastoreName) -> bool:
        """Whether wishes for VMs that are homed there are ours to keep."""
        return home in self._known.datastores and self._responsible.holds(home) is not None

    def take(self, command: WantVm, home: DatastoreName, by: str, at_ms: int) -> Wish:
        """An operator wants something of a VM of ours. The wish has its outcome when it is on storage, or refused."""
        wish = Wish(command, home, by, at_ms, deadline=after(self._known.now, PATIENCE))
        vm, protection = VmId(command.vm), self._responsible.protection(home)
        for earlier in self._wishes:
            if earlier.command.vm == vm and earlier.outcome is None and not earlier.said:
                self._refuse(earlier, f"{by} wants it to be {command.wanted} since")
        self._wishes.append(wish)
        if command.wanted in ("stopped", "unprotected"):
            self._set_aside(wish, protection)
        elif command.wanted == "running" and self._runs_on(vm) and vm not in protection.aside:
            wish.look_at = wish.deadline = after(self._known.now, SETTLES)
        else:
            self._read(wish)
        return wish

    def _read(self, wish: Wish) -> None:
        """What it runs on, or ran on last, is what is asked for from now on."""
        wish.request, wish.deadline = self._out.request(), after(self._known.now, PATIENCE)
        self._out.put(ReadRegisters(wish.request, wish.home, (VmId(wish.command.vm),)))

    def _entry(self, wish: Wish, protection: Protection) -> ProtectedVm | None:
        vm = VmId(wish.command.vm)
        aside = protection.aside.get(vm)
        return protection.vms.get(vm) or (aside.entry if aside is not None else None) or wish.command.entry

    def _set_aside(self, wish: Wish, protection: Protection) -> None:
        vm, wanted = VmId(wish.command.vm), wish.command.wanted
        entry, before = self._entry(wish, protection), protection.aside.get(vm)
        if entry is None or wanted not in ("stopped", "unprotected"):
            self._refuse(wish, f"nobody knows {wish.command.name} on {wish.home} any more")
        elif before is not None and before.wanted == wanted:
            self._done(wish, f"nothing to change: {before.by} wanted that already")
        else:
            protection.set_aside(AsideVm(entry, wanted, wish.by, wish.at_ms))
            runs = self._runs_on(vm)
            if wanted == "unprotected":
                self._write(wish, "Outlast leaves it alone from now on; what keeps it from running twice goes on")
            else:
                self._write(wish, f"{runs} shuts it down" if runs else "it does not run, and is not started")

    def _runs_on(self, vm: VmId) -> str:
        host = self._known.lister(vm)
        return self._known.name(host) if host is not None and (host == self._known.me or self._known.lives(host)) else ""

    def _write(self, wish: Wish, said: str) -> None:
        wish.said, wish.request = said, None
        self._out.note(
            "vm-wanted",
            vm=VmId(wish.command.vm),
            relay=True,
            name=wish.command.name,
            by=wish.by,
            wanted=wish.command.wanted,
        )

    def _done(self, wish: Wish, sentence: str) -> None:
        wish.outcome = Outcome(ok=True, sentences=(sentence,))

    def _refuse(self, wish: Wish, sentence: str, *, try_again: bool = False) -> None:
        wish.outcome = Outcome(ok=False, sentences=(sentence,), try_again=try_again)

    # -- storage --------------------------------------------------------------------------------------------------

    def registers_read(self, event: RegistersRead) -> bool:
        """Whether this answers one of our reads: for a wish, or to see whether a VM is off."""
        wish = next((w for w in self._wishes if w.request is not None and w.request == event.request), None)
        if wish is not None:
            vm = VmId(wish.command.vm)
            if not event.ok or vm not in event.last:
                self._refuse(wish, f"its register on {wish.home} cannot be read: {event.problem}", try_again=True)
            elif self.holds(wish.home):
                self._ask_for(wish, self._responsible.protection(wish.home), event.last[vm])
            return True
        if self._looks.get(event.datastore, (None, 0))[0] == event.request:
            self._looks[event.datastore] = (None, after(self._known.now, LOOK_EVERY))
            if self.holds(event.datastore):
                self._see_who_is_off(event)
            return True
        return False

    def _ask_for(self, wish: Wish, protection: Protection, last: RegisterRecord | None) -> None:
        """It is to be on the list from now on, whatever its definition says; and to run, if that is what was wanted."""
        vm, runs = VmId(wish.command.vm), self._runs_on(VmId(wish.command.vm))
        entry, line = self._entry(wish, protection), self._known.listed(vm)
        unfit = _unfit(line) if runs and line is not None else ""
        if unfit or entry is None:
            self._refuse(wish, unfit or f"no definition of {wish.command.name} is known")
            return
        before, was_aside = protection.vms.get(vm), vm in protection.aside
        if wish.command.wanted == "protected" and not runs and before is None:
            protection.take_back(vm)
            self._write(wish, "it is off: it is protected as soon as it runs")
        elif runs and before is not None and not was_aside:
            self._done(wish, f"nothing to change: it runs on {runs}, and is protected")
        else:
            asked = last.epoch if last is not None else NEVER_RAN
            if last is not None and last.state is RegisterState.OWNED and not runs:
                # It is off already, and what was read may be older than its owner's word of that, which is the next epoch.
                asked = Epoch(asked + 1)
            if wish.command.wanted == "running" and not runs:
                entry = msgspec.structs.replace(entry, attempts=counting.asked_again(Attempts(counted=asked)))
            protection.take_back(vm)
            protection.ask_for(msgspec.structs.replace(entry, asked=asked))
            self._write(wish, f"it runs on {runs}, and is protected" if runs else "it is started where it may run")

    def _see_who_is_off(self, event: RegistersRead) -> None:
        protection = self._responsible.protection(event.datastore)
        for vm, aside in list(protection.aside.items()):
            if vm in event.last and aside.epoch is None and self._is_off(event.last[vm], event.datastore):
                last = event.last[vm]
                protection.set_aside(msgspec.structs.replace(aside, epoch=last.epoch if last is not None else NEVER_RAN))

    def _is_off(self, last: RegisterRecord | None, home: DatastoreName) -> bool:
        """Renounced, or owned by a boot that is over."""
        if last is None or last.state is RegisterState.RELEASED:
            return True
        watch = self._known.watches.get((last.owner, home))
        return watch is not None and watch.incarnation is not None and watch.incarnation > last.incarnation

    # -- turns ----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """See what is on storage by now, and look for VMs that are off by now."""
        for wish in [w for w in self._wishes if w.outcome is None]:
            if not self.holds(wish.home):
                self._refuse(wish, f"another host is responsible for {wish.home} now", try_again=True)
            elif self._known.now < wish.look_at:
                continue
            elif wish.look_at != LONG_AGO:
                wish.look_at = LONG_AGO
                self._read(wish)
            elif wish.request is None and self._responsible.is_written(wish.home):
                self._done(wish, wish.said)
            elif self._known.now >= wish.deadline:
                why = "cannot be read" if wish.request is not None else "could not be written yet, and is tried again"
                self._refuse(wish, f"what is kept of it on {wish.home} {why}", try_again=True)
        self._wishes = [w for w in self._wishes if w.outcome is None]
        for name in self._known.datastores:
            self._look_for_who_is_off(name)
            if self.holds(name) and self._responsible.is_written(name):
                self._tell_everybody(name)

    def _tell_everybody(self, home: DatastoreName) -> None:
        """Once what is wanted now is on storage."""
        wishes = self._responsible.protection(home).wishes
        if self._told.get(home, 0) == wishes:
            return
        self._told[home] = wishes
        for host in self._known.peers:
            self._out.put(Send(host, ListChanged(home)))
        self._known.lists_changed.add(home)

    def _look_for_who_is_off(self, name: DatastoreName) -> None:
        vms = self._stopping(name)
        request, due = self._looks.get(name, (None, LONG_AGO))
        if not vms or self._known.now < due:
            return
        request = self._out.request()
        self._looks[name] = (request, after(self._known.now, PATIENCE))
        self._out.put(ReadRegisters(request, name, vms))

    def _stopping(self, name: DatastoreName) -> tuple[VmId, ...]:
        """Who is to be stopped there, and is not known to be off, although nobody who lives lists it."""
        if not self.holds(name):
            return ()
        aside = self._responsible.protection(name).aside
        return tuple(vm for vm, a in sorted(aside.items()) if a.epoch is None and not self._runs_on(vm))

    def next_deadline(self) -> Instant | None:
        """The end of a wait, or the next look."""
        due = [wish.deadline for wish in self._wishes]
        due += [self._looks.get(name, (None, LONG_AGO))[1] for name in self._known.datastores if self._stopping(name)]
        return min(due) if due else None


def _unfit(line: PoweredVm) -> str:
    """Why a VM that runs cannot be protected, or an empty string."""
    return f"{line.name} cannot be protected: {line.note}" if line.home is None else ""
