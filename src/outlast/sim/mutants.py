"""Safety rules switched off, one at a time: what the simulated world must notice.

A rule that no test can break is not tested. Each mutant replaces the one method that enforces a rule of design.md section 2
by one that does not; the names say which rule. It is registered (`mutation.py`) with the small scenario (`ordeals.py`) that
leads to where the rule matters; `tests/unit/test_mutants.py` plays that until the rule is seen broken. Those about fence
devices and operators are in `mutants_of_fencing.py`, about starts in `mutants_of_starts.py`, about waiting for a turn in
`mutants_of_order.py`, about migrations in `mutants_of_migration.py`, about VMs whose host has lost their storage in
`mutants_of_storage.py`, about two VMs with one disk in `mutants_of_claims.py`, and about guests that hang in
`mutants_of_guests.py`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from outlast.model.effects import Send
from outlast.model.ids import Epoch
from outlast.model.keeper_effects import KeeperEffect, Thaw
from outlast.model.keeper_events import FoundProcess, HeartbeatWritten, Linked, LinkOutcome
from outlast.model.messages import FrozenVm, TakenOver
from outlast.model.records import HeartbeatRecord, ProofKind, Reason, RegisterRecord, RegisterState, Sighting
from outlast.model.time import Duration, Instant, after
from outlast.protocol import peers, verdict
from outlast.protocol.gatekeeping import Gatekeeper
from outlast.protocol.keeping import KeeperMachine
from outlast.protocol.knowledge import Knowledge
from outlast.protocol.lease import Adopted, Lease, Renewal
from outlast.protocol.lost_copies import LostCopies
from outlast.protocol.observation import RecordWatch
from outlast.protocol.ownership import Ownership, Phase, Purpose
from outlast.protocol.reassertion import Reassertion
from outlast.protocol.recovery import Recovery
from outlast.sim import (
    mutants_of_claims,
    mutants_of_fencing,
    mutants_of_guests,
    mutants_of_migration,
    mutants_of_order,
    mutants_of_starts,
    mutants_of_storage,
)
from outlast.sim.datastore import Datastore
from outlast.sim.host import Host
from outlast.sim.mutation import MUTANTS, broken
from outlast.sim.mutation import also as _also
from outlast.sim.mutation import mutant as _mutant
from outlast.sim.watchdog import WatchdogDevice

__all__ = [
    "MUTANTS",
    "broken",
    "mutants_of_claims",
    "mutants_of_fencing",
    "mutants_of_guests",
    "mutants_of_migration",
    "mutants_of_order",
    "mutants_of_starts",
    "mutants_of_storage",
]

# -- rule 1: the register ---------------------------------------------------------------------------------------------


@_mutant(
    1, "an epoch can be created twice, the second writer takes it", "a-late-link-meets-a-pruned-name", (Datastore, "link")
)
def _epoch_is_not_exclusive(self: Datastore, record: RegisterRecord) -> LinkOutcome:
    self.registers.setdefault(record.subject, {})[record.epoch] = record
    self.on_link(self, record)
    return LinkOutcome.WON


@_mutant(
    1,
    "a pruned name can be used again: neither the predecessor nor a higher epoch is looked for",
    "a-late-link-meets-a-pruned-name",
    (Datastore, "link"),
)
def _pruned_names_are_reusable(self: Datastore, record: RegisterRecord) -> LinkOutcome:
    register = self.registers.setdefault(record.subject, {})
    if record.epoch in register:
        return LinkOutcome.WON if register[record.epoch] == record else LinkOutcome.LOST
    register[record.epoch] = record
    for epoch in sorted(register)[:-2]:
        del register[epoch]
    self.on_link(self, record)
    return LinkOutcome.WON


_linked = KeeperMachine._linked


@_mutant(1, "a link whose outcome is unknown counts as won", "a-link-that-ends-in-an-error", (KeeperMachine, "_linked"))
def _unknown_is_won(self: KeeperMachine, event: Linked) -> list[KeeperEffect]:
    won = msgspec.structs.replace(event, outcome=LinkOutcome.WON)
    return _linked(self, won if event.outcome is LinkOutcome.UNKNOWN else event)


# -- rule 2: the lease ------------------------------------------------------------------------------------------------


_end_write, _lapse = Lease.end_write, Lease.lapse


@_mutant(2, "the lease counts from the completion of the heartbeat write", "slow-renewals-end", (Lease, "end_write"))
def _lease_from_completion(self: Lease, sequence: int, ok: bool, now: Instant) -> Renewal:
    renewal = _end_write(self, sequence, ok, now)
    if ok and renewal is Renewal.NOTHING and self._writing is None:
        self.term, renewal = self.term + 1, Renewal.NEW_TERM  # type: ignore[assignment]
    if renewal is not Renewal.NOTHING:
        self.deadline = after(now, self.length)
    return renewal


@_mutant(
    2,
    "a renewal that is under way keeps the lease from lapsing, however late it is",
    "a-renewal-is-too-late",
    (Lease, "lapse"),
)
def _late_renewal_extends(self: Lease, now: Instant) -> bool:
    return False if self._writing is not None else _lapse(self, now)


# -- rule 3: one term, one epoch --------------------------------------------------------------------------------------


@_mutant(
    3,
    "an epoch that was linked in an earlier term gives the right to run",
    "a-link-in-flight-at-the-next-cut",
    (Ownership, "linked"),
)
def _epoch_of_an_earlier_term(self: Ownership, outcome: LinkOutcome, term: Any) -> bool:
    if self._linking is None:
        return False
    record, _, self.span = self._linking
    self._linking = None
    if outcome is not LinkOutcome.WON:
        return False
    self.epoch = record.epoch
    self._granted_in = term
    return True


# -- rule 4: freeze first ---------------------------------------------------------------------------------------------


_lapse_ownership = Ownership.lapse


@_mutant(4, "nothing is frozen when the lease lapses", "slow-renewals-end", (Ownership, "lapse"))
def _no_freeze(self: Ownership) -> list[KeeperEffect]:
    if self.phase is Phase.RUNNING:
        return []
    return _lapse_ownership(self)


_heartbeat_written = KeeperMachine._heartbeat_written


@_mutant(
    4, "a new term thaws without a re-assertion", "a-link-in-flight-at-the-next-cut", (KeeperMachine, "_heartbeat_written")
)
def _thaw_without_reassertion(self: KeeperMachine, event: HeartbeatWritten) -> list[KeeperEffect]:
    effects = _heartbeat_written(self, event)
    place = self.places[event.datastore]
    if place.lease.held:
        for ownership in self._homed(event.datastore):
            if ownership.phase is Phase.FROZEN:
                ownership.phase, ownership._granted_in = Phase.RUNNING, place.lease.term
                effects.append(Thaw(ownership.vm))
    return effects


_asserted_after_read = Reassertion.after_read


@_mutant(
    4,
    "a VM that was lost is taken back in place of being killed",
    "taken-over-and-healed",
    (Reassertion, "after_read"),
)
def _lost_is_not_killed(self: Reassertion, ownership: Ownership, last: RegisterRecord | None) -> list[KeeperEffect]:
    if last is None or last.owner == self._keeper.config.host:
        return _asserted_after_read(self, ownership, last)
    ownership.epoch = last.epoch
    return self._keeper.link(ownership, Purpose.ASSERT, RegisterState.OWNED, Reason.REASSERTED)


@_mutant(4, "whoever hears of a frozen VM claims a later epoch of it", "slow-renewals-end", (LostCopies, "heard"))
def _lost_on_anybodys_word(self: LostCopies, sender: Any, named: tuple[FrozenVm, ...]) -> None:
    for frozen in named:
        self._out.put(Send(sender, TakenOver(vm=frozen.vm, home=frozen.home, epoch=Epoch(frozen.epoch + 1))))


# -- rule 5: takeover -------------------------------------------------------------------------------------------------


@_mutant(5, "the window is not waited for", "slow-observer", (RecordWatch, "lease_is_over"))
def _no_window(self: RecordWatch, epoch_read_at: Instant, window: Duration) -> bool:
    return self.last_read_started is not None


@_mutant(5, "the window is taken for elapsed without a last read", "slow-observer", (RecordWatch, "lease_is_over"))
def _no_last_read(self: RecordWatch, epoch_read_at: Instant, window: Duration) -> bool:
    # As if nobody looked again: the last read that counts is the first.
    ends = self.window_ends(window)
    return ends is not None and self.last_read is not None and self.last_read >= ends - window // 2


@_mutant(
    5,
    "the epoch may be read after the last read of the owner's record",
    "answers-ping-until-late",
    (RecordWatch, "lease_is_over"),
)
def _epoch_read_last(self: RecordWatch, epoch_read_at: Instant, window: Duration) -> bool:
    ends = self.window_ends(window)
    return ends is not None and self.last_read_started is not None and self.last_read_started >= ends


@_mutant(5, "the window is kept across gaps and a lapse of the observer", "observer-that-lapses", (RecordWatch, "void"))
def _window_kept_across_a_lapse(self: RecordWatch) -> None:
    self.max_gap = Duration(1 << 62)


_observe = RecordWatch.observe


@_mutant(
    5,
    "a record that changes but cannot be decoded counts as silence",
    "it-writes-a-newer-format",
    (RecordWatch, "observe"),
)
def _undecodable_is_silence(self: RecordWatch, sighting: Sighting, started: Instant, now: Instant) -> bool:
    if sighting.raw is not None and sighting.record is None and self._raw is not None:
        sighting = msgspec.structs.replace(sighting, raw=self._raw, record=self.record)
    return _observe(self, sighting, started, now)


@_mutant(
    5,
    "the window counts from the start of the read that first showed the record",
    "slow-observer",
    (RecordWatch, "observe"),
)
def _window_from_the_start_of_the_read(self: RecordWatch, sighting: Sighting, started: Instant, now: Instant) -> bool:
    changed = _observe(self, sighting, started, now)
    if self.first_seen == now:
        self.first_seen = started
    return changed


@_mutant(5, "the last read may have begun before the window elapsed", "slow-observer", (RecordWatch, "lease_is_over"))
def _last_read_begun_too_early(self: RecordWatch, epoch_read_at: Instant, window: Duration) -> bool:
    ends = self.window_ends(window)
    return ends is not None and self.last_read is not None and self.last_read >= ends


@_mutant(
    5,
    "the compare-and-swap is done from whatever epoch is the newest",
    "cut-off-and-healed-among-the-steps-of-a-takeover",
    (Gatekeeper, "begin"),
)
def _any_epoch_is_taken_from(self: Gatekeeper, ownership: Ownership) -> list[KeeperEffect]:
    waiting = self._waiting.get(ownership.vm)
    if waiting is None or waiting.begun or not self._keeper.may_begin(ownership):
        return []
    waiting.begun = True
    ownership.phase = Phase.CLAIMING
    return self._keeper.read(ownership, Purpose.TAKE_OVER if waiting.proof is not None else Purpose.START)


def _take_from_newest(self: KeeperMachine, event: Any) -> list[KeeperEffect]:
    task = self._tasks.get(event.request)
    if task is None or task.purpose is not Purpose.TAKE_OVER or event.last is None:
        return _register_read(self, event)
    del self._tasks[event.request]
    ownership = self.vms[task.vm]
    ownership.epoch = event.last.epoch
    return self.link(ownership, Purpose.TAKE_OVER, RegisterState.OWNED, Reason.TAKEN_OVER, ProofKind.LEASE_EXPIRED)


_register_read = KeeperMachine._register_read
_also("any-epoch-is-taken-from", KeeperMachine, "_register_read", _take_from_newest)


@_mutant(
    5,
    "an epoch is renounced while its process still runs",
    "a-link-that-ends-in-an-error",
    (Gatekeeper, "release_if_asked"),
)
def _renounced_while_running(self: Gatekeeper, ownership: Ownership) -> list[KeeperEffect]:
    if ownership.phase is Phase.RELEASING or ownership.epoch is None or ownership.phase is not Phase.FROZEN:
        return _release_if_asked(self, ownership)
    ownership.release_reason = Reason.CRASHED
    return self._keeper.link(ownership, Purpose.RELEASE, RegisterState.RELEASED, Reason.CRASHED)


_release_if_asked = Gatekeeper.release_if_asked


# -- rule 6: enforcement ----------------------------------------------------------------------------------------------


@_mutant(
    6,
    "lease expiry proves also for level `none`, and for `keeper` while the host answers ping",
    "nothing-freezes-there",
    (Knowledge, "expiry_may_prove"),
)
def _any_level_proves(self: Knowledge, *_: Any) -> bool:
    return True


@_mutant(
    6,
    "lease expiry proves for level `keeper` although the host answers ping",
    "it-answers-ping",
    (peers, "answers_ping"),
    (verdict, "answers_ping"),
)
def _keeper_level_in_spite_of_ping(*_: Any) -> bool:
    return False


_expiry_may_prove = Knowledge.expiry_may_prove


@_mutant(
    5,
    "lease expiry proves although nobody accepted that the storage may hold writes for longer",
    "writes-held-without-end",
    (Knowledge, "expiry_may_prove"),
)
def _unaccepted_risk_is_taken(self: Knowledge, host: Any, datastore: Any, answers: bool) -> bool:
    member = self.datastores[datastore]
    self.datastores[datastore] = msgspec.structs.replace(member, accept_in_flight_risk=True)
    return _expiry_may_prove(self, host, datastore, answers)


@_mutant(4, "the agent does not freeze what its keeper should have frozen", "a-keeper-stops", (Host, "freeze_overdue"))
def _no_second_freezer(self: Host, grace: int) -> None:
    return None


@_mutant(6, "the watchdog never fires", "keeper-and-agent-stop-on-a-host-with-a-watchdog", (Host, "_watchdog_fires"))
def _watchdog_never_fires(self: Host) -> None:
    return None


_pet = WatchdogDevice.pet


@_mutant(
    6,
    "the watchdog's timeout does not fit in lease_margin",
    "keeper-and-agent-stop-on-a-host-with-a-watchdog",
    (WatchdogDevice, "pet"),
)
def _watchdog_is_too_slow(self: WatchdogDevice) -> None:
    _pet(self)
    self._deadline = self._scheduler.now + 3 * self._timeout


# -- rule 8: the keeper's restart -------------------------------------------------------------------------------------


_init = KeeperMachine.__init__


@_mutant(
    8,
    "a keeper renews before it knows what runs, and never looks",
    "a-keeper-dies-and-later-storage-hangs",
    (KeeperMachine, "_adopt"),
)
def _renews_before_it_knows(self: KeeperMachine, found: tuple[Any, ...]) -> list[KeeperEffect]:
    self._ready = True
    return []


@_mutant(
    8, "a keeper that starts takes the lease for held", "a-keeper-dies-while-storage-hangs", (KeeperMachine, "__init__")
)
def _starts_as_held(self: KeeperMachine, config: Any, now: Instant, adopted: Any) -> None:
    length = config.settings.lease_duration
    _init(self, config, now, {name: Adopted(after(now, length), length) for name in adopted})


def _knows_none_but_its_own(self: KeeperMachine, process: FoundProcess) -> list[KeeperEffect]:
    return _appeared(self, process) if process.vm in self.vms else []


_appeared = KeeperMachine._appeared
_also("renews-before-it-knows", KeeperMachine, "_appeared", _knows_none_but_its_own)


# -- rule 9 and last words --------------------------------------------------------------------------------------------


@_mutant(9, "a foreign record in its own place is no lapse", "a-clone-writes-into-its-place", (KeeperMachine, "_foreign"))
def _foreign_record_is_ignored(self: KeeperMachine, name: Any, problem: str) -> list[KeeperEffect]:
    return []


_record = KeeperMachine._record


@_mutant(
    5,
    "a keeper says its last word while a VM is left",
    "shut-down-with-a-guest-that-hangs",
    (KeeperMachine, "_record"),
)
def _last_word_with_a_vm_left(self: KeeperMachine, name: Any, sequence: int) -> HeartbeatRecord:
    return msgspec.structs.replace(_record(self, name, sequence), ended=self.closing)


# -- responsibility ---------------------------------------------------------------------------------------------------


_confirmed = Recovery._confirmed


@_mutant(
    5,
    "a primary acts although the register calls another one responsible",
    "a-primary-that-was-deposed",
    (Recovery, "_confirmed"),
)
def _primary_without_its_register(self: Recovery, case: Any, event: Any) -> None:
    self._order(case)


from outlast.sim import settings_mutants as _settings_mutants  # noqa: E402, F401 - it registers its own in MUTANTS
