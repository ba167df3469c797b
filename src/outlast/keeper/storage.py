"""The keeper's storage: one I/O helper per datastore, spoken to without ever waiting.

No request has a deadline here: an answer comes when the helper gives it, or when the helper ended. The machine has the
deadlines that matter (a lease lapses, an asker is refused). This boot's incarnation is won here too (safety rule 9):

    read the newest incarnation  ->  it is this boot's: found again
                                 ->  there is none, or it is an earlier boot's of this very machine: create the next one,
                                     exclusively
                                 ->  it is a boot of another machine with our id: look at our heartbeat record; if nobody
                                     rewrites it for a whole window, create the next one

A higher incarnation proves to everybody that the earlier boots are gone. A cloned host would tell that lie about the host
that it is a copy of; so nobody wins an incarnation while another machine renews with the same id.
"""

import contextlib
import selectors
from collections.abc import Callable

import msgspec

from outlast.codec import records
from outlast.codec.frames import FrameError
from outlast.drivers import clock, machine
from outlast.drivers.datastore import places
from outlast.drivers.datastore.helper_process import HelperProcess
from outlast.drivers.datastore.opening import open_claim, open_newest
from outlast.drivers.datastore.wire import (
    Answer,
    Blocks,
    Done,
    Failed,
    Inbox,
    Lasts,
    LinkEnded,
    LinkNext,
    Newest,
    Op,
    Raw,
    ReadBlocks,
    ReadLast,
    Renew,
    Request,
    Result,
    pack,
)
from outlast.model.ids import Incarnation
from outlast.model.inventory import DatastoreMember
from outlast.model.keeper_config import KeeperConfig
from outlast.model.keeper_effects import (
    BarClaimant,
    LinkClaim,
    LinkRegister,
    ReadClaimant,
    ReadClaims,
    ReadRegister,
    WriteHeartbeat,
)
from outlast.model.keeper_events import (
    ClaimantBarred,
    ClaimantRead,
    ClaimLinked,
    ClaimsRead,
    HeartbeatWritten,
    IncarnationWon,
    KeeperEvent,
    Linked,
    LinkOutcome,
    RegisterRead,
)
from outlast.model.records import RegisterRecord
from outlast.model.time import SECOND, Duration, Instant, after

RESPAWN = SECOND
Then = Callable[[Result], None]


class KeeperStorage:
    """One datastore. `happen` receives the events; `selector` calls `ready` when the helper has something to say."""

    def __init__(
        self,
        config: KeeperConfig,
        member: DatastoreMember,
        selector: selectors.BaseSelector,
        happen: Callable[[KeeperEvent], None],
    ) -> None:
        self._config = config
        self._member = member
        self._key = bytes.fromhex(config.datastore_key)
        self._selector = selector
        self._happen = happen
        self._helper: HelperProcess | None = None
        self._no_helper = f"the I/O helper of {member.name} does not run yet"
        self._inbox = Inbox(Answer)
        self._out = bytearray()
        self._number = 0
        self._waiting: dict[int, Then] = {}
        self._has_incarnation = False
        self._machine = machine.fingerprint()
        self._twin: tuple[bytes, Instant] | None = None
        self.retry_at: Instant | None = clock.now()

    # -- the helper -----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Start the helper if it is due, and ask for this boot's incarnation."""
        if self.retry_at is None or clock.now() < self.retry_at:
            return
        self.retry_at = None
        if self._helper is None and not self._start():
            return
        if not self._has_incarnation:
            self._ask(ReadLast((places.incarnations(self._config.host),)), self._incarnations_read)

    def _start(self) -> bool:
        """False: the host has no room for another process now. The keeper goes on, and so do its other datastores."""
        member, config = self._member, self._config
        try:
            helper = HelperProcess(member.path, member.name, config.domain, config.host, "keeper")
        except OSError as error:
            self._no_helper = f"the I/O helper of {member.name} cannot be started: {error.strerror}"
            self.retry_at = after(clock.now(), RESPAWN)
            # No write was under way, so this only tells the problem.
            self._happen(HeartbeatWritten(member.name, -1, False, problem=self._no_helper))
            return False
        self._helper = helper
        self._inbox = Inbox(Answer)
        self._out.clear()
        self._selector.register(helper.connection, selectors.EVENT_READ, self.ready)
        return True

    def ready(self, mask: int) -> None:
        """The helper's connection can be read or written."""
        if self._helper is None:
            return
        if mask & selectors.EVENT_WRITE:
            self._flush()
        if not mask & selectors.EVENT_READ:
            return
        try:
            data = self._helper.connection.recv(1 << 18)
            answers = self._inbox.feed(data) if data else None
        except BlockingIOError:
            return
        except (OSError, ValueError, msgspec.DecodeError):
            answers = None
        if answers is None:
            self._ended()
            return
        for answer in answers:
            then = self._waiting.pop(answer.number, None)
            if then is not None:
                then(answer.result)

    def _ended(self) -> None:
        """The helper is gone, and with it what it was asked; a link's outcome is unknown, and may yet land."""
        helper, self._helper = self._helper, None
        if helper is not None:
            self._selector.unregister(helper.connection)
            helper.end()
        self._no_helper = f"the I/O helper of {self._member.name} ended"
        self.retry_at = after(clock.now(), RESPAWN)
        waiting, self._waiting = self._waiting, {}
        for then in waiting.values():
            then(Failed(self._no_helper))

    def _ask(self, op: Op, then: Then) -> None:
        if self._helper is None:
            then(Failed(self._no_helper))
            return
        self._number += 1
        self._waiting[self._number] = then
        self._out += pack(Request(self._number, op))
        self._flush()

    def _flush(self) -> None:
        if self._helper is None:
            return
        with contextlib.suppress(BlockingIOError):
            while self._out:
                try:
                    sent = self._helper.connection.send(self._out)
                except BlockingIOError:
                    raise
                except OSError:
                    self._out.clear()  # Its end is noticed when it is read from.
                    break
                del self._out[:sent]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        self._selector.modify(self._helper.connection, wanted, self.ready)

    def close(self) -> None:
        """End the helper, without waiting for it."""
        if self._helper is not None:
            self._selector.unregister(self._helper.connection)
            self._helper.end()
            self._helper = None

    # -- this boot's incarnation ----------------------------------------------------------------------------------

    def _incarnations_read(self, result: Result) -> None:
        if not isinstance(result, Lasts):
            self._no_incarnation(result)
            return
        newest = result.found[0]
        if newest.problem:
            self._no_incarnation(Failed(newest.problem))
            return
        if newest.epoch is not None:
            try:
                record = records.open_incarnation(newest.data, self._key)
            except FrameError as error:
                self._no_incarnation(Failed(f"this host's incarnation {newest.epoch} is not believed: {error}"))
                return
            if record.boot_id == self._config.boot_id:
                self._won(record.incarnation)
                return
            if record.machine and record.machine == self._machine:
                self._link_incarnation(newest.epoch + 1)
            else:
                self._look_for_twin(newest.epoch + 1)
            return
        self._link_incarnation(0)

    def _look_for_twin(self, number: int) -> None:
        def found(result: Result) -> None:
            raw = result.found[0] if isinstance(result, Blocks) else Raw(None, _problem(result))
            if raw.problem:
                self._no_incarnation(Failed(raw.problem))
            elif raw.data is None or self._nobody_renews(raw.data):
                self._link_incarnation(number)

        self._ask(ReadBlocks((places.heartbeat(self._config.host),)), found)

    def _nobody_renews(self, data: bytes) -> bool:
        """Whether our record has not changed for a window: then no other boot with our id may run anything any more."""
        now, patience = clock.now(), self._config.settings.window
        with contextlib.suppress(FrameError):
            patience = max(patience, records.open_heartbeat(data, self._key).window)
        before = self._twin
        if before is not None and before[0] == data and now - before[1] >= patience:
            return True
        if before is None or before[0] != data:
            self._twin = (data, now)
        if before is not None and before[0] != data:
            sentence = f"another machine renews as {self._config.name}: two hosts have its id, or it was cloned; stop one"
            self._happen(HeartbeatWritten(self._member.name, -1, False, foreign=True, problem=sentence))
        self.retry_at = after(now, Duration(patience // 5))
        return False

    def _link_incarnation(self, number: int) -> None:
        mine = records.BootRecord(self._config.boot_id, Incarnation(number + 1), self._machine)
        data = records.seal_incarnation(mine, self._key)
        link = LinkNext(places.incarnations(self._config.host), number, data)
        self._ask(link, lambda ended: self._incarnation_linked(mine.incarnation, ended))

    def _incarnation_linked(self, incarnation: Incarnation, result: Result) -> None:
        if isinstance(result, LinkEnded) and result.outcome == "won":
            self._won(incarnation)
        else:
            self._no_incarnation(result)

    def _won(self, incarnation: Incarnation) -> None:
        self._has_incarnation = True
        self._happen(IncarnationWon(self._member.name, incarnation))

    def _no_incarnation(self, result: Result) -> None:
        self.retry_at = self.retry_at or after(clock.now(), RESPAWN)
        # No write was under way, so this only tells the problem.
        self._happen(HeartbeatWritten(self._member.name, -1, False, problem=_problem(result)))

    # -- what the machine asks for --------------------------------------------------------------------------------

    def write_heartbeat(self, effect: WriteHeartbeat) -> None:
        """Answered by `HeartbeatWritten`."""

        def written(result: Result) -> None:
            ok = isinstance(result, Done) and result.ok
            foreign = isinstance(result, Done) and result.foreign
            if foreign:
                # Which boot of this host counts is found out anew, before anything is written again.
                self._has_incarnation, self._twin, self.retry_at = False, None, clock.now()
            # Without a helper it was its end that answered, and not the storage.
            refused = not ok and not foreign and self._helper is not None
            problem = "" if ok else _problem(result)
            self._happen(HeartbeatWritten(effect.datastore, effect.record.sequence, ok, foreign, problem, refused))

        data = records.seal_heartbeat(effect.record, self._key)
        self._ask(Renew(places.heartbeat(self._config.host), data), written)

    def read_register(self, effect: ReadRegister) -> None:
        """Answered by `RegisterRead`."""

        def found(result: Result) -> None:
            record, problem = open_newest(_newest(result), effect.subject, self._key)
            self._happen(RegisterRead(effect.request, not problem, record, problem))

        self._ask(ReadLast((places.register(effect.subject),)), found)

    def read_claims(self, effect: ReadClaims) -> None:
        """Answered by `ClaimsRead`."""
        key = self._key

        def found(result: Result) -> None:
            if not isinstance(result, Lasts):
                self._happen(ClaimsRead(effect.request, False, problem=_problem(result)))
                return
            try:
                claims = tuple(
                    open_claim(newest, disk, key) for newest, disk in zip(result.found, effect.disks, strict=True)
                )
            except FrameError as error:
                self._happen(ClaimsRead(effect.request, False, problem=str(error)))
                return
            self._happen(ClaimsRead(effect.request, True, claims))

        self._ask(ReadLast(tuple(places.claims(disk.id) for disk in effect.disks)), found)

    def link_claim(self, effect: LinkClaim) -> None:
        """Answered by `ClaimLinked`."""
        claim = effect.claim
        link = LinkNext(places.claims(claim.disk), claim.number, records.seal_claim(claim, self._key))
        self._ask(link, lambda ended: self._happen(ClaimLinked(effect.request, *_link_ended(ended))))

    def bar_claimant(self, effect: BarClaimant) -> None:
        """Answered by `ClaimantBarred`."""
        link = self._next_epoch(effect.record)
        self._ask(link, lambda ended: self._happen(ClaimantBarred(effect.request, *_link_ended(ended))))

    def read_claimant(self, effect: ReadClaimant) -> None:
        """Answered by `ClaimantRead`: its register, and if that has an owner, whether a later boot of that one exists."""
        vm = effect.claimant.vm

        def register_found(result: Result) -> None:
            last, problem = open_newest(_newest(result), vm, self._key)
            if problem or last is None:
                self._happen(ClaimantRead(effect.request, not problem, problem=problem))
                return

            def boots_found(result: Result) -> None:
                newest = _newest(result)
                # Incarnations count from 1, and the register's numbers from 0 (`_link_incarnation`).
                gone = newest.epoch is not None and newest.epoch + 1 > last.incarnation
                self._happen(ClaimantRead(effect.request, not newest.problem, last, gone, newest.problem))

            self._ask(ReadLast((places.incarnations(last.owner),)), boots_found)

        self._ask(ReadLast((places.register(vm),)), register_found)

    def link_register(self, effect: LinkRegister) -> None:
        """Answered by `Linked`."""
        link = self._next_epoch(effect.record)
        self._ask(link, lambda ended: self._happen(Linked(effect.request, *_link_ended(ended))))

    def _next_epoch(self, record: RegisterRecord) -> LinkNext:
        return LinkNext(places.register(record.subject), record.epoch, records.seal_register(record, self._key))


def _newest(result: Result) -> Newest:
    """Of the one register that was asked for; why it is not known, if it could not be read."""
    return result.found[0] if isinstance(result, Lasts) else Newest(None, b"", _problem(result))


def _link_ended(result: Result) -> tuple[LinkOutcome, str]:
    """How a link ended, and what the storage said; without its answer nobody knows."""
    if isinstance(result, LinkEnded):
        return LinkOutcome(result.outcome), result.problem
    return LinkOutcome.UNKNOWN, _problem(result)


def _problem(result: Result) -> str:
    if isinstance(result, Failed | Done | LinkEnded):
        return result.problem
    return "the I/O helper gave an answer of another kind"
