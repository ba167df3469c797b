"""Which datastores this agent is responsible for: their `primary` registers, and their protected lists.

Being elected is an opinion; being responsible is a fact: the last epoch of the datastore's `primary` register. For each
datastore one agent is *called* to hold its register, as each agent judges for itself from the heartbeats that it hears:

    the elected primary holds a lease there    it is
    else, the register's holder does           the holder: whoever answers for a datastore goes on as long as it can
    else                                       the best rank that does, among those who follow the same primary
    no primary is known                        nobody; who holds a register keeps it until somebody else is called

Whoever is called takes the register. Whoever holds one and is isolated, or on the smaller side of a partition, yields it at
once; while another is called, after `election_timeout`. Two who are called at once meet in the register, which one of them
wins. VM safety does not hang on it, so a holder whose *agent* made no progress for a lease and its margin loses it too,
however well its keeper is.

    the register's last record       who is called
    none, released, our own          links the next epoch
    another host's                   waits for proof that it is over (as in rule 5, or its agent stands still), then links
"""

from collections.abc import Iterator

import msgspec

from outlast.model.effects import LinkPrimary, ReadProtectedList, ReadRegisters, WriteProtectedList
from outlast.model.events import PrimaryLinked, ProtectedListRead, RegistersRead, Stored
from outlast.model.ids import PRIMARY_REGISTER, DatastoreName, ElectionTerm, Epoch, HostId, Nonce, RequestId, VmId
from outlast.model.keeper_events import LinkOutcome
from outlast.model.messages import Rank
from outlast.model.records import (
    ProofKind,
    ProtectedList,
    ProtectedVm,
    Reason,
    RegisterRecord,
    RegisterState,
)
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.protection import Protection

PATIENCE = Duration(3 * SECOND)
LOOK_AS_HOLDER = Duration(300 * SECOND)
LOOK_WHEN_TOLD = Duration(20 * SECOND)
LOOK_WHEN_CUT_OFF = Duration(5 * SECOND)
"""How often others' wishes and settings are looked for. Who is responsible has written them, and proves ends meanwhile."""
REREAD = Duration(SECOND)
FAST_REREAD = Duration(REREAD // 2)
"""While the register is to be taken."""
RETRY_LIST = Duration(SECOND)
"""How long after a refusal a protected list is read or written again: lost storage refuses at once, and for hours."""


class Standing(msgspec.Struct, frozen=True):
    """Our own place in the domain. `may_hold`: this agent is neither isolated nor about to leave."""

    may_hold: bool
    primary: HostId | None
    rank: Rank
    term: ElectionTerm


class _Seat(msgspec.Struct):
    """Our standing at one datastore's `primary` register."""

    protection: Protection
    last: RegisterRecord | None = None
    read_at: Instant | None = None
    read_started: Instant = LONG_AGO
    held: Epoch | None = None
    request: RequestId | None = None
    request_at: Instant = LONG_AGO
    linking: RegisterRecord | None = None
    next_read: Instant = LONG_AGO
    list_request: RequestId | None = None
    list_request_at: Instant = LONG_AGO
    list_retry_at: Instant = LONG_AGO
    list_sequence: int = 0
    loaded: bool = False
    takes: bool = False
    keeps: bool = False
    another_since: Instant | None = None


class Responsibility:
    """See the top of this file. `held` epochs are re-read before each act by `recovery`."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._seats = {name: _Seat(Protection()) for name in knowledge.datastores}
        self._links = 0

    # -- questions ------------------------------------------------------------------------------------------------

    def holds(self, datastore: DatastoreName) -> Epoch | None:
        """The epoch by which this agent is responsible for a datastore, its protected list loaded; else None."""
        seat = self._seats[datastore]
        return seat.held if seat.loaded else None

    def rests_on(self, datastore: DatastoreName, last: RegisterRecord) -> bool:
        """Whether what was just read is the epoch by which this agent is responsible: asked before each act."""
        return last.owner == self._known.me and last.epoch == self.holds(datastore)

    def held_datastores(self) -> tuple[DatastoreName, ...]:
        """The datastores this agent is responsible for."""
        return tuple(name for name in self._seats if self.holds(name) is not None)

    def has_what_it_takes(self) -> bool:
        """Whether there is no datastore whose register this agent is still to take."""
        return not any(seat.takes and not (seat.held is not None and seat.loaded) for seat in self._seats.values())

    def is_written(self, datastore: DatastoreName) -> bool:
        """Whether the protected list on storage is as we have it."""
        seat = self._seats[datastore]
        return not seat.protection.changed and seat.list_request is None

    def protection(self, datastore: DatastoreName) -> Protection:
        """What is protected there."""
        return self._seats[datastore].protection

    def holder(self, datastore: DatastoreName) -> RegisterRecord | None:
        """The register's last record as last read, for people."""
        return self._seats[datastore].last

    def responsible_host(self, datastore: DatastoreName) -> HostId | None:
        """Who is responsible for a datastore, as far as is known here."""
        if self.holds(datastore) is not None:
            return self._known.me
        last = self._seats[datastore].last
        return last.owner if last is not None and last.state is RegisterState.OWNED else None

    def look_every(self, datastore: DatastoreName) -> Duration:
        """How often what others may have written there is worth a look."""
        holder = self.responsible_host(datastore)
        if holder == self._known.me:
            return LOOK_AS_HOLDER
        return LOOK_WHEN_TOLD if holder is not None and self._known.live(holder) else LOOK_WHEN_CUT_OFF

    # -- turns ----------------------------------------------------------------------------------------------------

    def tick(self, standing: Standing) -> None:
        """Take, keep or yield each datastore's register, and write what changed."""
        may_hold = standing.may_hold and not self._outnumbered()
        for name, seat in self._seats.items():
            called = self._called(name, seat, standing)
            takes = seat.takes = may_hold and called == self._known.me
            self._give_up_waiting(seat)
            if takes and seat.held is None:
                seat.next_read = min(seat.next_read, after(seat.read_started, FAST_REREAD))
            if seat.request is None and self._known.now >= seat.next_read:
                self._read(name, seat, fast=takes and seat.held is None)
            seat.keeps = may_hold and not self._another_is_called_for_long(seat, called)
            if seat.request is None and seat.read_at is not None:
                self._take_or_yield(name, seat)
            if seat.held is not None and seat.loaded and self._list_is_free(seat) and seat.protection.changed:
                self._write_list(name, seat, standing.term)

    def _another_is_called_for_long(self, seat: _Seat, called: HostId | None) -> bool:
        """A lease that lapses for a moment, ours or the primary's, is no reason to hand everything over and back."""
        if called in (None, self._known.me):
            seat.another_since = None
            return False
        if seat.another_since is None:
            seat.another_since = self._known.now
        return self._known.now - seat.another_since >= self._known.settings.election_timeout

    def _called(self, name: DatastoreName, seat: _Seat, standing: Standing) -> HostId | None:
        """Who is to hold a datastore's register: see the table at the top."""
        known, primary = self._known, standing.primary
        if primary is None or known.has_lease(primary, name):
            return primary
        able = {known.me: standing.rank} if known.holds_lease(name) else {}
        for host in known.peers:
            beat = known.beats[host].beat if host in known.beats else None
            if beat is None or beat.primary != primary or not beat.rank.not_isolated or beat.leaving:
                continue
            if known.live(host) and known.has_lease(host, name):
                able[host] = beat.rank
        holder = seat.last.owner if seat.last is not None and seat.last.state is RegisterState.OWNED else None
        return holder if holder in able else max(able, key=lambda host: able[host], default=None)

    def _list_is_free(self, seat: _Seat) -> bool:
        return seat.list_request is None and self._known.now >= seat.list_retry_at

    def _outnumbered(self) -> bool:
        """The smaller side of a partition yields: more hosts live that we do not hear than hosts that we hear."""
        silent = self._known.silent
        heard = 1 + len(self._known.peers) - len(silent)
        return sum(self._known.is_fresh(host) for host in silent) > heard

    def _give_up_waiting(self, seat: _Seat) -> None:
        if seat.request is not None and self._known.now - seat.request_at >= PATIENCE:
            seat.request, seat.linking = None, None
            seat.read_at = None
        if seat.list_request is not None and self._known.now - seat.list_request_at >= PATIENCE:
            # A write whose end is not known is written again; the list's sequence tells the newer.
            seat.list_request, seat.protection.changed = None, True

    def _read(self, name: DatastoreName, seat: _Seat, fast: bool) -> None:
        seat.request, seat.request_at = self._out.request(), self._known.now
        seat.next_read = after(self._known.now, FAST_REREAD if fast else Duration(5 * REREAD))
        seat.read_started = self._known.now
        self._out.put(ReadRegisters(seat.request, name, (PRIMARY_REGISTER,)))

    def read_soon(self) -> None:
        """Something about the primary changed: look at the registers now."""
        for seat in self._seats.values():
            seat.next_read = min(seat.next_read, self._known.now)

    def registers_read(self, event: RegistersRead) -> bool:
        """A `primary` register was read. True unless it is what it was, and we hold it or have no wish to."""
        seat = self._seats[event.datastore]
        if seat.request != event.request:
            return False
        seat.request = None
        if not event.ok or PRIMARY_REGISTER not in event.last:
            seat.read_at = None
            return True
        last = event.last[PRIMARY_REGISTER]
        as_before = seat.last == last and seat.read_at is not None
        if not as_before:
            # Kept from the read that first showed this epoch: rule 5 wants the last read of the record after it.
            seat.read_at = self._known.now
        seat.last = last
        if seat.held is not None and not self._is_ours(last):
            self._lost(event.datastore, seat)
        rests = seat.keeps and seat.loaded if seat.held is not None else not seat.takes and not self._is_owned_here(last)
        return not (as_before and rests)

    def _is_owned_here(self, last: RegisterRecord | None) -> bool:
        return last is not None and last.owner == self._known.me and last.state is RegisterState.OWNED

    def _is_ours(self, last: RegisterRecord | None) -> bool:
        """Of this very agent: another one of this host has another session."""
        return self._is_owned_here(last) and last is not None and last.session == self._known.config.session

    def _lost(self, name: DatastoreName, seat: _Seat) -> None:
        seat.held, seat.loaded = None, False
        self._out.note("register-lost", datastore=name, relay=True)

    def _take_or_yield(self, name: DatastoreName, seat: _Seat) -> None:
        if seat.held is not None:
            if not seat.keeps:
                self._link(name, seat, RegisterState.RELEASED, Reason.YIELDED, None)
            elif not seat.loaded and self._list_is_free(seat):
                seat.list_request, seat.list_request_at = self._out.request(), self._known.now
                self._out.put(ReadProtectedList(seat.list_request, name))
            return
        last = seat.last
        if not seat.takes:
            if self._is_owned_here(last):
                # A yield whose outcome was never known, or an earlier agent of this host: nobody else could take it.
                self._link(name, seat, RegisterState.RELEASED, Reason.YIELDED, None)
            return
        if not self._known.holds_lease(name):
            return
        if last is None or last.state is RegisterState.RELEASED or last.owner == self._known.me:
            self._link(name, seat, RegisterState.OWNED, Reason.ELECTED, None)
            return
        proof = self._proof_against(name, seat, last)
        if proof is not None:
            self._link(name, seat, RegisterState.OWNED, Reason.ELECTED, proof)

    def _proof_against(self, name: DatastoreName, seat: _Seat, last: RegisterRecord) -> ProofKind | None:
        watch = self._known.watches.get((last.owner, name))
        if watch is None or seat.read_at is None:
            return None
        if watch.incarnation is not None and watch.incarnation > last.incarnation:
            return ProofKind.REBOOTED
        said_off = self._known.said_off(last, name, seat.read_at)
        if said_off is not None:
            return said_off
        if watch.lease_is_over(seat.read_at, self._known.settings.window):
            return ProofKind.LEASE_EXPIRED
        stands_still = watch.progress_at is not None and not watch.agent_works(self._known.now, self._known.settings.window)
        return ProofKind.LEASE_EXPIRED if stands_still else None

    def _link(
        self, name: DatastoreName, seat: _Seat, state: RegisterState, reason: Reason, proof: ProofKind | None
    ) -> None:
        lease = self._known.lease(name)
        if lease is None or lease.incarnation is None:
            return
        self._links += 1
        record = RegisterRecord(
            subject=PRIMARY_REGISTER,
            epoch=Epoch(seat.last.epoch + 1) if seat.last is not None else Epoch(0),
            owner=self._known.me,
            incarnation=lease.incarnation,
            session=self._known.config.session,
            nonce=Nonce(f"{self._known.config.session}-p{self._links}"),
            state=state,
            reason=reason,
            proof=proof,
        )
        if state is RegisterState.RELEASED:
            seat.held, seat.loaded = None, False
        seat.request, seat.request_at, seat.linking = self._out.request(), self._known.now, record
        self._out.put(LinkPrimary(seat.request, name, record))

    def linked(self, event: PrimaryLinked) -> None:
        """The link that takes or yields a register ended. Lost or unknown: read again, and decide anew."""
        seat = self._seats[event.datastore]
        if seat.request != event.request or seat.linking is None:
            return
        record, seat.linking, seat.request = seat.linking, None, None
        seat.next_read = self._known.now
        seat.read_at = None
        if event.outcome is not LinkOutcome.WON:
            return
        seat.last = record
        if record.state is RegisterState.OWNED:
            seat.held, seat.loaded = record.epoch, False
            seat.read_at = self._known.now
            seat.next_read = after(self._known.now, REREAD)
            self._out.note("register-taken", datastore=event.datastore, relay=True, epoch=record.epoch)

    # -- the protected list ---------------------------------------------------------------------------------------

    def list_read(self, event: ProtectedListRead) -> bool:
        """The protected list that our predecessor left. Returns whether we had asked for it."""
        seat = self._seats[event.datastore]
        if seat.list_request != event.request:
            return False
        seat.list_request = None
        if not event.ok:
            seat.list_retry_at = after(self._known.now, RETRY_LIST)
        elif seat.held is not None:
            seat.protection.load(event.content)
            for entry in event.content.vms if event.content is not None else ():
                self._known.learn_vm_name(entry.vm, entry.name)
            seat.list_sequence = event.content.sequence if event.content is not None else 0
            seat.loaded = True
        return True

    def _write_list(self, name: DatastoreName, seat: _Seat, term: ElectionTerm) -> None:
        seat.list_request, seat.list_request_at = self._out.request(), self._known.now
        seat.list_sequence += 1
        vms, aside = seat.protection.take_changed()
        content = ProtectedList(
            datastore=name,
            sequence=seat.list_sequence,
            writer=self._known.me,
            primary_epoch=seat.held or Epoch(0),
            term=term,
            vms=vms,
            aside=aside,
        )
        self._out.put(WriteProtectedList(seat.list_request, name, content))

    def stored(self, event: Stored) -> bool:
        """The protected list was written, or has to be again. True if it is about that."""
        seat = self._seats.get(event.datastore)
        if seat is None or seat.list_request != event.request:
            return False
        seat.list_request = None
        if not event.ok:
            seat.protection.changed = True
            seat.list_retry_at = after(self._known.now, RETRY_LIST)
            self._out.note("list-unwritten", datastore=event.datastore, problem=event.problem)
        return True

    def protected_vm(self, vm: VmId) -> tuple[DatastoreName, ProtectedVm] | None:
        """Where a VM is protected, of the datastores this agent is responsible for."""
        for name in self.held_datastores():
            entry = self._seats[name].protection.vms.get(vm)
            if entry is not None:
                return name, entry
        return None

    def next_deadline(self) -> Instant:
        """The next read, or the end of a wait."""
        return min(min(self._waits(name, seat)) for name, seat in self._seats.items())

    def _waits(self, name: DatastoreName, seat: _Seat) -> Iterator[Instant]:
        yield after(seat.request_at, PATIENCE) if seat.request is not None else seat.next_read
        yield from (when for when in self._turns(name, seat) if when > self._known.now)
        if seat.list_request is not None:
            yield after(seat.list_request_at, PATIENCE)
        elif seat.held is not None and (seat.protection.changed or not seat.loaded):
            yield seat.list_retry_at

    def _turns(self, name: DatastoreName, seat: _Seat) -> Iterator[Instant]:
        """When time alone makes a holder yield, or proves that another one's agent stands still."""
        settings = self._known.settings
        if seat.held is not None and seat.another_since is not None:
            yield after(seat.another_since, settings.election_timeout)
        watch = self._known.watches.get((seat.last.owner, name)) if seat.last is not None else None
        if seat.takes and watch is not None and watch.progress_at is not None:
            yield after(watch.progress_at, settings.window)
