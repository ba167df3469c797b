"""Nobody else writes to these disks: what a start makes sure of after it has its VM's epoch, and before its process.

A register speaks for one VM. It says nothing about another domain, with a uuid of its own, on the same disks: a clone
whose definition still names the original's file, libguestfs on an image that is in use, a definition whose uuid was
changed. So each disk that a VM writes to has claims beside the registers: numbered records, each made once, exclusively,
as epochs are. The last one names the VM whose disk it is now.

Each start makes the next claim of each of its disks, *after* its own epoch was won. Before it makes one over another VM's,
it bars that one: it looks whether its register is over, and makes the next epoch there, which changes nothing but the
number.

    the last claim of a disk        what the start does
    none, or ours                   makes the next one
    another VM's                    its register is over: bars it, and makes the next one. Otherwise refuses, and names it
    unreadable                      refuses, and says so

A register is *over* when it has no epoch, or its last one is released and names no heir (a copy of such a VM is about to
go on), or its owner has booted again since. Any other owner, dead or alive, may run it still; it is not for us to judge.

The interleaving that was feared: two VMs, A and B, on one disk, each of which looks before the other has written, perhaps
at what a cache remembers. So nothing rests on a read. B bars A, then claims. If A's epoch came first, B's bar is lost, and
B sees an owner and refuses. If the bar came first, A, whose epoch is higher, has yet to claim: whoever of the two makes
that claim second loses it, sees the other's claim, and that the other one is an owner; so it refuses, or both do. A link
that lands late, after its start was refused, takes a number: a claim's keeps nobody out but for a moment, since its VM is
over; a bar's is the copy of a release. Neither lets anybody run.

A VM that runs without claims (it ran before Outlast did, or a disk was plugged in) gets them by `claiming.py`; if another
one uses the disk by then, that can only be told.

What this does not see: another name of the same file (a link inside the datastore), an image that is another image's
backing file, and whoever does not come through the gate.
"""

import msgspec

from outlast.model.claims import Claimant, Disk, DiskClaim
from outlast.model.ids import Epoch, Incarnation, RequestId, VmId
from outlast.model.keeper_effects import BarClaimant, KeeperEffect, LinkClaim, ReadClaimant, ReadClaims
from outlast.model.keeper_events import ClaimAnswer, ClaimantBarred, ClaimantRead, ClaimLinked, ClaimsRead, LinkOutcome
from outlast.model.keeping import AskClaim
from outlast.model.records import ProofKind, Reason, RegisterRecord, RegisterState
from outlast.model.time import MILLISECOND, Duration, Instant, after
from outlast.protocol.keeper_books import KeeperBooks
from outlast.protocol.keeper_replies import no, yes
from outlast.protocol.ownership import SOON, Ownership

LOOK_AGAIN = Duration(250 * MILLISECOND)
"""How soon everything is read anew: a link was lost, or a VM of this host has ended and is about to be released."""


class Check(msgspec.Struct):
    """One VM's way to its claims. `left`: the disks that are not claimed yet; `last`: of these, the claims as read.

    `asker`: who asked for them although it runs already (`claiming.py`); None for a start, which the gate is told about.
    """

    ownership: Ownership
    left: list[Disk]
    asker: tuple[int, RequestId] | None = None
    last: dict[Disk, DiskClaim | None] = {}
    request: RequestId | None = None
    again: Instant | None = None


class DiskClaims:
    """See the top of this file. Works on the keeper machine that it belongs to, for its gate."""

    def __init__(self, keeper: KeeperBooks) -> None:
        self._keeper = keeper
        self._checks: dict[VmId, Check] = {}
        self._requests = 0

    def begin(self, ownership: Ownership, disks: tuple[Disk, ...]) -> list[KeeperEffect]:
        """The epoch of a start is won. The gate is told the end of it: at once, if it writes to no disk of ours."""
        check = Check(ownership, sorted(set(disks)))
        self._checks[ownership.vm] = check
        return self._next(check)

    def asked(self, client: int, ask: AskClaim) -> list[KeeperEffect]:
        """What runs is to have its claims, if it has not got them. Nothing is barred by a claim that comes so late."""
        ownership = self._keeper.vms.get(ask.vm)
        if ownership is None or not ownership.runs_by_right(self._keeper.term(ownership.home)):
            return [no(client, ask.request, "")]
        check = Check(ownership, sorted(set(self._keeper.config.disks_at(ask.writes))), (client, ask.request))
        self._checks[ask.vm] = check
        return self._next(check)

    def drop(self, vm: VmId) -> None:
        """Nobody waits for that any more."""
        self._checks.pop(vm, None)

    def expire(self) -> list[KeeperEffect]:
        """Look again where it is time."""
        due = [check for check in self._checks.values() if check.again is not None and check.again <= self._keeper.now]
        effects: list[KeeperEffect] = []
        for check in due:
            check.again = None
            effects += self._next(check)
        return effects

    def deadlines(self) -> list[Instant]:
        """When to look again."""
        return [check.again for check in self._checks.values() if check.again is not None]

    def answered(self, event: ClaimAnswer) -> list[KeeperEffect]:
        """Storage has answered what a check had asked."""
        check = next((each for each in self._checks.values() if each.request == event.request), None)
        if check is None:
            return []
        check.request = None
        match event:
            case ClaimsRead():
                return self._claims_read(check, event)
            case ClaimantRead():
                return self._claimant_read(check, event)
            case ClaimantBarred():
                return self._claim(check) if event.outcome is LinkOutcome.WON else self._anew(check)
            case ClaimLinked():
                return self._claim_linked(check, event)

    # -- the steps ------------------------------------------------------------------------------------------------

    def _next(self, check: Check) -> list[KeeperEffect]:
        if not check.left:
            return self._end(check, "")
        disk = check.left[0]
        if disk not in check.last:
            return [ReadClaims(self._ask(check), disk.datastore, self._together(check))]
        last = check.last[disk]
        if last is not None and last.claimant.vm == check.ownership.vm and check.asker is not None:
            # Whoever came after it would have found its owner, and would not have passed.
            del check.left[0]
            return self._next(check)
        if last is None or last.claimant.vm == check.ownership.vm:
            return self._claim(check)
        if last.claimant.home not in self._keeper.places:
            why = f"whether that is over cannot be told, as this host has no datastore {last.claimant.home}"
            return self._end(check, f"{_used_by(disk, last.claimant)}, and {why}")
        return [ReadClaimant(self._ask(check), last.claimant)]

    def _together(self, check: Check) -> tuple[Disk, ...]:
        """Those on the first one's datastore: they are read at once."""
        return tuple(disk for disk in check.left if disk.datastore == check.left[0].datastore)

    def _claims_read(self, check: Check, event: ClaimsRead) -> list[KeeperEffect]:
        disk = check.left[0]
        if not event.ok:
            return self._end(check, f"whose its disk {disk.path} on {disk.datastore} is cannot be read: {event.problem}")
        check.last |= dict(zip(self._together(check), event.found, strict=True))
        return self._next(check)

    def _claimant_read(self, check: Check, event: ClaimantRead) -> list[KeeperEffect]:
        disk = check.left[0]
        before = check.last[disk]
        if before is None:
            return self._anew(check)
        holder = before.claimant
        if not event.ok:
            why = f"whether that is over cannot be read: {event.problem}"
            return self._end(check, f"{_used_by(disk, holder)}, and {why}")
        if not is_over(event.last, gone=event.gone):
            if event.last is not None and self._ends_here(holder, event.last):
                return self._anew(check)
            remedy = "stop one of the two" if check.asker is not None else ""
            return self._end(check, self._in_use(disk, holder, event.last, remedy))
        return [BarClaimant(self._ask(check), holder, self._bar(holder, event.last))]

    def _bar(self, holder: Claimant, last: RegisterRecord | None) -> RegisterRecord:
        """The next epoch of a VM that is over, which says what the last one says, or what had to be said of its owner."""
        identity = self._keeper.identity
        if last is None:
            return RegisterRecord(
                subject=holder.vm,
                epoch=Epoch(0),
                owner=identity.host,
                incarnation=self._keeper.places[holder.home].incarnation or Incarnation(0),
                session=identity.session,
                nonce=identity.next_nonce(),
                state=RegisterState.RELEASED,
                reason=Reason.SWITCHED_OFF,
            )
        bar = msgspec.structs.replace(last, epoch=Epoch(last.epoch + 1), nonce=identity.next_nonce())
        if last.state is RegisterState.RELEASED:
            return bar
        return msgspec.structs.replace(
            bar, state=RegisterState.RELEASED, reason=Reason.HOST_FAULT, proof=ProofKind.REBOOTED
        )

    def _claim(self, check: Check) -> list[KeeperEffect]:
        identity, disk = self._keeper.identity, check.left[0]
        last = check.last[disk]
        claim = DiskClaim(
            disk=disk.id,
            path=disk.shown,
            number=Epoch(0) if last is None else Epoch(last.number + 1),
            claimant=self._us(check),
            host=identity.host,
            nonce=identity.next_nonce(),
        )
        return [LinkClaim(self._ask(check), disk.datastore, claim)]

    def _claim_linked(self, check: Check, event: ClaimLinked) -> list[KeeperEffect]:
        if event.outcome is not LinkOutcome.WON:
            return self._anew(check)
        del check.left[0]
        return self._next(check)

    def _anew(self, check: Check) -> list[KeeperEffect]:
        """Lost, or unknown: see who is there, in a moment. For how long that is tried is the gate's business."""
        if check.asker is not None:
            return self._end(check, "")
        check.last.clear()
        check.again = after(self._keeper.now, LOOK_AGAIN)
        return []

    def _end(self, check: Check, problem: str) -> list[KeeperEffect]:
        del self._checks[check.ownership.vm]
        if check.asker is not None:
            client, request = check.asker
            return [no(client, request, problem) if problem or check.left else yes(client, request)]
        if problem:
            return self._keeper.gate.not_claimed(check.ownership, f"{check.ownership.name} may not start: {problem}")
        return self._keeper.gate.claimed(check.ownership)

    # -- who, and in what words -----------------------------------------------------------------------------------

    def _ends_here(self, holder: Claimant, last: RegisterRecord) -> bool:
        """Whether it is a VM of this very host whose process has ended, and that has only to be released."""
        if last.owner != self._keeper.config.host:
            return False
        known = self._keeper.vms.get(holder.vm)
        return known is None or (known.pid is None and known.phase not in SOON)

    def _in_use(self, disk: Disk, holder: Claimant, last: RegisterRecord | None, remedy: str) -> str:
        used = _used_by(disk, holder)
        if last is None:
            return used
        owner = self._keeper.config.host_name(last.owner)
        remedy = remedy or f"it can start once {holder.name} has been stopped there"
        return f"{used}, which {owner} owns (epoch {last.epoch}); {remedy}"

    def _us(self, check: Check) -> Claimant:
        ownership = check.ownership
        return Claimant(ownership.vm, ownership.name, ownership.home)

    def _ask(self, check: Check) -> RequestId:
        self._requests += 1
        check.request = RequestId(self._requests)
        return check.request


def is_over(last: RegisterRecord | None, *, gone: bool) -> bool:
    """Whether nobody runs on a register's last epoch, nor may do so before the next one exists."""
    return last is None or gone or (last.state is RegisterState.RELEASED and last.heir is None)


def _used_by(disk: Disk, holder: Claimant) -> str:
    return f"its disk {disk.path} on {disk.datastore} is used by {holder.name}"
