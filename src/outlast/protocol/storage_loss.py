"""VMs of a host that lives and has lost their home are given up by it, so that they run where the storage is.

A host that loses a datastore freezes what is homed there, at once and by itself. That is all, as long as the storage may
come back soon, or nobody else has it. Who is responsible for the datastore sees the lapse in the host's heartbeats, and
for each protected VM that it lists there:

    for how long the lapse has lasted, as heard here,      then
      while this host held its own lease on it
    shorter than `storage_loss_after`                       nothing: storage that comes back costs a pause
    as long; or a window, where it answers with errors      planned: is there a host that reaches it and has room?
    no host could take the VM                               nothing: frozen is better than ended
    one could                                               its register is read; its owner is asked to give up exactly that
                                                            epoch (`GiveUp`), again and again, until it says that it has
    it says so (`GivenUp`)                                  proof `renounced`: `recovery` goes on as from a release
    it says why not, or nothing                             the register is read anew, and it is asked anew

The host's keeper decides (`renouncing`), and answers through its agent (`giving_up`): it kills what stands frozen, and
gives its word only when the exit was reported. The word says what a release on storage would say, which cannot be written
there; and it ends the same way: in a compare-and-swap from exactly the epoch that it names.

What was feared, and what becomes of it:

- *The word comes before the exit.* Then the guest may wake up beside its successor, or its writes may. The keeper waits for
  the pidfd. A process that cannot exit (its kernel waits for the storage) gets no word: it is asked again until it can, and
  people are told. The host is not fenced for it: it lives, and other VMs may run there.
- *The process is gone, and its kernel holds a write of it still*, which lands when the storage is back. As for the end of a
  lease: where writes may be held for longer than the margin, nothing is given up unless the operator accepted that risk.
- *The word comes late, or twice, or is about an earlier epoch than the one that was read.* It is true for ever, about its
  own epoch. It counts only for the very record (owner, epoch, keeper session) that was read.
- *A re-assertion was under way when the storage went.* Its outcome is unknown, and it may land after the word. It makes the
  next epoch: who takes the VM from the earlier one loses that link, reads again, and asks about the next.
- *The storage comes back between the kill and the word.* The keeper holds its lease again and gives no word, but its
  release is written now. Should both happen, one link wins.
- *It comes back between the question and the kill.* The keeper that holds its lease kills nothing.
- *The keeper stood still, and has its storage all the same.* What lapsed meanwhile lapsed a moment ago, as far as it knows:
  by its own clock too the loss must have lasted for `storage_loss_after`, or be one by errors.
- *A late question about an epoch that was re-asserted since.* The keeper owns a later one, and kills nothing.
- *The keeper is new.* It tells its predecessor's epochs by the session that was written down in /run when the process was
  let run last; what it cannot tell is not renounced, and waits for the storage.
- *A clone of the host.* Its epochs carry sessions that this host's keepers never had.
- *The storage fails for all, and for one host a moment sooner, or comes back for one first.* The time counts only while
  this host holds its own lease, and has renewed it since: the others thaw long before.
- *An operator wanted it off, and nobody could write that.* The keeper knows, and gives no word.
"""

from collections.abc import Mapping

import msgspec

from outlast.model.effects import ReadRegisters, Send
from outlast.model.events import RegistersRead
from outlast.model.ids import PRIMARY_REGISTER, DatastoreName, HostId, LeaseTerm, RequestId, VmId
from outlast.model.messages import GivenUp, GiveUp
from outlast.model.records import ProtectedVm, RegisterRecord, Renounced
from outlast.model.time import NEVER, SECOND, Duration, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.placement import Placement
from outlast.protocol.responsibility import Responsibility
from outlast.protocol.restart import Restart
from outlast.protocol.shared_settings import SharedSettings

RESEND = Duration(SECOND // 2)
ASK_PATIENCE = Duration(3 * SECOND)
"""How long one reading of the registers is good for: then they are read again, before anybody is asked on."""
LOOK_FOR_ROOM = Duration(2 * SECOND)
STUCK_AFTER = Duration(30 * SECOND)
"""A process that does not exit for so long is held by its kernel: a person has to hear of it."""


class _Ask(msgspec.Struct):
    """One VM that its owner is asked to give up. `confirmed`: we are responsible, and its register is as it was read."""

    home: DatastoreName
    last: RegisterRecord
    deadline: Instant
    request: RequestId | None
    confirmed: bool = False
    changed: bool = False
    wanted: bool = True
    told: bool = False
    next_send: Instant = Instant(0)
    stuck_at: Instant = NEVER
    answer: str = ""


class StorageLoss:
    """See the top of this file. `cases`: every restart that is under way, by VM."""

    def __init__(
        self,
        knowledge: Knowledge,
        outbox: Outbox,
        *,
        responsibility: Responsibility,
        shared: SharedSettings,
        placement: Placement,
        cases: Mapping[VmId, Restart],
    ) -> None:
        self._known = knowledge
        self._out = outbox
        self._responsible = responsibility
        self._shared = shared
        self._placement = placement
        self._cases = cases
        self._held_since: dict[DatastoreName, tuple[LeaseTerm, Instant]] = {}
        self._lapsed_since: dict[tuple[HostId, DatastoreName], Instant] = {}
        self._leaving: dict[VmId, tuple[HostId, DatastoreName]] = {}
        """The VMs for which there is room elsewhere, and whose owner has lost their home for long enough."""
        self._look_at = knowledge.now
        self._asks: dict[VmId, _Ask] = {}

    # -- what is lost ---------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Take notice of who has lost what, and since when; now and then of what could run elsewhere."""
        known = self._known
        held: dict[DatastoreName, tuple[LeaseTerm, Instant]] = {}
        for name in known.datastores:
            lease = known.lease(name)
            if lease is not None and known.holds_lease(name):
                before = self._held_since.get(name)
                held[name] = before if before is not None and before[0] == lease.term else (lease.term, known.now)
        self._held_since = held
        lapsed = [(host, name) for host in known.peers if known.live(host) for name in known.beats[host].beat.lapsed]
        # Of who is not heard nothing is known to the contrary.
        lapsed += [each for each in self._lapsed_since if not known.live(each[0])]
        self._lapsed_since = {each: self._lapsed_since.get(each, known.now) for each in lapsed}
        if not any(self._is_due(host, name) for host, name in lapsed):
            self._leaving, self._look_at = {}, known.now
        elif known.now >= self._look_at:
            self._look_at = after(known.now, LOOK_FOR_ROOM)
            self._leaving = self._find_leaving()

    def _due_at(self, host: HostId, home: DatastoreName) -> Instant | None:
        """From when on VMs of that home are to leave that host; None: as things are, never."""
        lapsed, held = self._lapsed_since.get((host, home)), self._held_since.get(home)
        if lapsed is None or held is None or not self._known.live(host) or self._responsible.holds(home) is None:
            return None
        settings = self._known.settings
        if not self._nothing_is_held(home):
            return None
        if home in self._known.beats[host].beat.failing:
            return max(lapsed, after(held[1], min(settings.window, settings.storage_loss_after)))
        return after(max(lapsed, held[1]), settings.storage_loss_after)

    def _nothing_is_held(self, home: DatastoreName) -> bool:
        """Whether no kernel holds writes for longer than until a VM is given up, or that risk was accepted."""
        member, settings = self._known.datastores[home], self._known.settings
        least = min(settings.lease_margin, settings.storage_loss_after)
        return member.accept_in_flight_risk or (member.in_flight_bound is not None and member.in_flight_bound <= least)

    def _is_due(self, host: HostId, home: DatastoreName) -> bool:
        due, lease = self._due_at(host, home), self._known.lease(home)
        if due is None or lease is None or self._known.now < due:
            return False
        # One that fails for all does so for some a moment sooner: ours works still, for we have written since.
        return lease.deadline - self._known.settings.lease_duration >= self._lapsed_since[host, home]

    def _find_leaving(self) -> dict[VmId, tuple[HostId, DatastoreName]]:
        if self._known.pause is not None:
            return {}
        found: dict[VmId, tuple[HostId, ProtectedVm, DatastoreName]] = {}
        for home in self._responsible.held_datastores():
            for entry in self._responsible.protection(home).vms.values():
                owner = self._owner(entry.vm)
                if owner is not None and self._is_due(owner, home) and _is_wanted(entry):
                    found[entry.vm] = owner, entry, home
        room = self._placement.could_take({vm: (entry, home) for vm, (_, entry, home) in found.items()}) if found else ()
        return {vm: (found[vm][0], found[vm][2]) for vm in room}

    def _owner(self, vm: VmId) -> HostId | None:
        """Who owns it, as far as is known: its register, if it was read, or its lists."""
        case = self._cases.get(vm)
        if case is not None and case.target is not None:
            return None  # It is on its way already.
        return case.last.owner if case is not None and case.last is not None else self._known.lister(vm)

    # -- what recovery asks ---------------------------------------------------------------------------------------

    def calls_for(self, vm: VmId, owner: HostId) -> bool:
        """Whether a VM is to leave its owner, which lives."""
        found = self._leaving.get(vm)
        return found is not None and found[0] == owner and self._is_due(*found)

    def ask(self, case: Restart) -> str | None:
        """Ask its owner to give up what the case has read; said anew in each turn. What is waited for, in words.

        None: its register says something else by now.
        """
        last = case.last
        if last is None:
            return None
        ask = self._asks.get(case.vm)
        if ask is None or ask.last != last:
            ask = self._asks[case.vm] = _Ask(case.home, last, self._known.now, None)
            self._confirm(case.vm, ask)
        if ask.changed:
            del self._asks[case.vm]
            return None
        ask.wanted = True
        so = f" ({ask.answer})" if ask.answer else ""
        return f"its owner {self._known.name(last.owner)} has lost {case.home} and is asked to give it up{so}"

    def tick(self) -> None:
        """After `recovery` has had its turn: forget what is not wanted any more, repeat what is not answered."""
        now = self._known.now
        self._asks = {vm: ask for vm, ask in self._asks.items() if ask.wanted}
        for vm, ask in self._asks.items():
            ask.wanted = False
            if now >= ask.stuck_at:
                ask.stuck_at = NEVER
                self._out.note("give-up-waits", host=ask.last.owner, vm=vm, relay=True, why=ask.answer or "no answer comes")
            if now >= ask.deadline:
                self._confirm(vm, ask)
            elif ask.confirmed and now >= ask.next_send:
                self._send(vm, ask)

    def _confirm(self, vm: VmId, ask: _Ask) -> None:
        """`one-responsible-primary` and `pause-holds` count for this too: storage is asked before each act."""
        ask.request, ask.confirmed, ask.deadline = self._out.request(), False, after(self._known.now, ASK_PATIENCE)
        self._shared.look_before_act(ask.home)
        self._out.put(ReadRegisters(ask.request, ask.home, (PRIMARY_REGISTER, vm)))

    def registers_read(self, event: RegistersRead) -> bool:
        """Whether this answers one of our reads."""
        vm, ask = next(((v, a) for v, a in self._asks.items() if a.request == event.request), (None, None))
        if vm is None or ask is None:
            return False
        ask.request, primary = None, event.last.get(PRIMARY_REGISTER)
        if self._known.now >= ask.deadline or not event.ok or primary is None or vm not in event.last:
            return True  # It tells how things were, or nothing: it is asked again when its time is over.
        if not self._responsible.rests_on(ask.home, primary):
            self._responsible.read_soon()
        elif event.last[vm] != ask.last:
            ask.changed = True
        elif self._known.pause is None:
            ask.confirmed = True
            self._send(vm, ask)
        return True

    def _send(self, vm: VmId, ask: _Ask) -> None:
        last, ask.next_send = ask.last, after(self._known.now, RESEND)
        if not ask.told:
            ask.told, ask.stuck_at = True, after(self._known.now, STUCK_AFTER)
            self._out.note("give-up-asked", host=last.owner, vm=vm, datastore=ask.home, relay=True, epoch=last.epoch)
        self._out.put(Send(last.owner, GiveUp(vm=vm, home=ask.home, epoch=last.epoch, session=last.session)))

    def answered(self, sender: HostId, message: GivenUp) -> None:
        """Its owner says that it has, or why not."""
        ask, known = self._asks.get(message.vm), self._known
        if message.done and self._responsible.protected_vm(message.vm) is not None:
            before = known.renounced.get(message.vm)
            word = Renounced(sender, message.home, message.epoch, message.session)
            if before is None or (before.epoch < word.epoch or before.home != word.home):
                known.renounced[message.vm] = word
                known.who_runs_what += 1
                self._out.note("given-up", host=sender, vm=message.vm, datastore=message.home, relay=True, epoch=word.epoch)
        elif ask is not None and (ask.last.owner, ask.last.epoch) == (sender, message.epoch):
            ask.answer = message.sentence

    def problems(self) -> list[str]:
        """What everybody who looks at the status is to know at once."""
        return [
            f"{known.name(ask.last.owner)} has lost {ask.home} and has not given {known.vm_name(vm)} up "
            f"({ask.answer or 'no answer comes'}): it waits for the storage, or until the host is off"
            for known in (self._known,)
            for vm, ask in self._asks.items()
            if ask.told and ask.stuck_at == NEVER
        ]

    def next_deadline(self) -> Instant | None:
        """When somebody is asked again, or a loss has lasted for long enough."""
        due = [ask.next_send if ask.confirmed else ask.deadline for ask in self._asks.values()]
        again = max(self._look_at, after(self._known.now, RESEND))
        lost = [t for each in self._lapsed_since if (t := self._due_at(*each)) is not None]
        return min([*due, *(t if t > self._known.now else again for t in lost)], default=None)


def _is_wanted(entry: ProtectedVm) -> bool:
    """Whether it would be started again once it has ended."""
    return not entry.attempts.failed and (entry.policy.priority != "disabled" or entry.attempts.asked)
