"""Whose a disk is: what a start does before it passes, and that of two VMs with one disk never both do."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import msgspec
import pytest
from test_keeping import CONFIG, DS, ME, OTHER, VM, Keeper, owned

from outlast.model.claims import Claimant, Disk, DiskClaim
from outlast.model.ids import Epoch, HostId, KeeperSession, Nonce, RequestId, VmId, VmName
from outlast.model.keeper_effects import (
    BarClaimant,
    KeeperEffect,
    LinkClaim,
    LinkRegister,
    ReadClaimant,
    ReadClaims,
    ReadRegister,
    Reply,
)
from outlast.model.keeper_events import (
    ClaimantBarred,
    ClaimantRead,
    ClaimLinked,
    ClaimsRead,
    KeeperEvent,
    Linked,
    LinkOutcome,
    RegisterRead,
    Woken,
)
from outlast.model.keeping import AskClaim, AskGate
from outlast.model.records import Reason, RegisterRecord, RegisterState
from outlast.protocol.ownership import Phase
from outlast.sim.mutants import broken

DISK = Disk(DS, "web.raw")
CLONE = VmId("u-2")
FILE = ("/srv/ds1/web.raw",)
GATE = AskGate(RequestId(1), VM, VmName("web"), FILE, writes=FILE)
THEIRS = Claimant(CLONE, VmName("clone"), DS)
OURS = Claimant(VM, VmName("web"), DS)


def claim(claimant: Claimant, number: int = 0) -> DiskClaim:
    return DiskClaim(
        disk=DISK.id, path=DISK.path, number=Epoch(number), claimant=claimant, host=OTHER, nonce=Nonce(f"c{number}")
    )


def at_its_claims() -> Keeper:
    """A start has won its epoch, and has asked for the claims of its disk."""
    keeper = Keeper().guarded()
    keeper.asks(GATE)
    keeper.reads(None)
    keeper.links()
    return keeper


def claims_are(keeper: Keeper, *found: DiskClaim | None) -> None:
    read = keeper.one(ReadClaims)
    assert isinstance(read, ReadClaims)
    assert read.disks == (DISK,)
    keeper.does(ClaimsRead(read.request, True, found))


def claimant_is(keeper: Keeper, last: RegisterRecord | None, *, gone: bool = False) -> None:
    read = keeper.one(ReadClaimant)
    assert isinstance(read, ReadClaimant)
    assert read.claimant == THEIRS
    keeper.does(ClaimantRead(read.request, True, last, gone))


@pytest.mark.parametrize("last", [None, claim(OURS, 3)])
def test_a_start_makes_the_next_claim_and_only_then_passes(last: DiskClaim | None) -> None:
    keeper = at_its_claims()
    assert not keeper.has(Reply)
    claims_are(keeper, last)
    link = keeper.one(LinkClaim)
    assert isinstance(link, LinkClaim)
    assert (link.claim.number, link.claim.claimant) == (4 if last else 0, OURS)
    assert not keeper.has(Reply)
    keeper.does(ClaimLinked(link.request, LinkOutcome.WON))
    assert keeper.reply() == (True, "")


def test_what_it_only_reads_is_not_claimed() -> None:
    keeper = Keeper().guarded()
    keeper.asks(AskGate(RequestId(1), VM, VmName("web"), FILE, writes=()))
    keeper.reads(None)
    keeper.links()
    assert keeper.reply() == (True, "")


def test_whose_owner_may_run_is_refused_with_his_name_and_its_epoch_is_given_back() -> None:
    keeper = at_its_claims()
    claims_are(keeper, claim(THEIRS))
    claimant_is(keeper, owned(OTHER, 7))
    allowed, sentence = keeper.reply()
    assert not allowed
    assert sentence == (
        "web may not start: its disk web.raw on ds1 is used by clone, which beta owns (epoch 7); "
        "it can start once clone has been stopped there"
    )
    release = keeper.one(LinkRegister)
    assert isinstance(release, LinkRegister)
    # It had never been wanted before: nobody else is to try.
    assert (release.record.state, release.record.reason) == (RegisterState.RELEASED, Reason.SWITCHED_OFF)


def test_one_that_is_released_to_its_copy_is_not_over() -> None:
    keeper = at_its_claims()
    claims_are(keeper, claim(THEIRS))
    claimant_is(keeper, msgspec.structs.replace(owned(OTHER, 7, state=RegisterState.RELEASED), heir=ME))
    assert not keeper.reply()[0]


@pytest.mark.parametrize(
    ("last", "gone"), [(owned(OTHER, 7, state=RegisterState.RELEASED), False), (owned(OTHER, 7), True), (None, False)]
)
def test_who_had_the_disk_is_barred_before_it_is_claimed(last: RegisterRecord | None, *, gone: bool) -> None:
    keeper = at_its_claims()
    claims_are(keeper, claim(THEIRS, 2))
    claimant_is(keeper, last, gone=gone)
    bar = keeper.one(BarClaimant)
    assert isinstance(bar, BarClaimant)
    assert (bar.record.state, bar.record.epoch) == (RegisterState.RELEASED, 8 if last else 0)
    assert not keeper.has(LinkClaim)
    keeper.does(ClaimantBarred(bar.request, LinkOutcome.WON))
    link = keeper.one(LinkClaim)
    assert isinstance(link, LinkClaim)
    assert link.claim.number == 3
    keeper.does(ClaimLinked(link.request, LinkOutcome.WON))
    assert keeper.reply()[0]


@pytest.mark.parametrize("outcome", [LinkOutcome.LOST, LinkOutcome.UNKNOWN])
def test_a_lost_claim_is_looked_at_anew_in_a_moment(outcome: LinkOutcome) -> None:
    keeper = at_its_claims()
    claims_are(keeper, None)
    link = keeper.one(LinkClaim)
    assert isinstance(link, LinkClaim)
    keeper.does(ClaimLinked(link.request, outcome))
    assert not keeper.has(Reply)
    keeper.now += 0.3
    keeper.does(Woken())
    claims_are(keeper, claim(OURS))
    assert keeper.has(LinkClaim)


def test_storage_that_does_not_say_refuses_in_the_end() -> None:
    keeper = at_its_claims()
    keeper.now += 4.1
    keeper.does(Woken())
    assert keeper.reply() == (False, "storage did not answer within 4 seconds; see 'outlast status'")
    read_late = ClaimsRead(RequestId(1), True, (None,))
    keeper.does(read_late)
    assert not keeper.has(LinkClaim)


def test_what_cannot_be_read_is_told() -> None:
    keeper = at_its_claims()
    read = keeper.one(ReadClaims)
    assert isinstance(read, ReadClaims)
    keeper.does(ClaimsRead(read.request, False, problem="it is torn"))
    assert keeper.reply() == (False, "web may not start: whose its disk web.raw on ds1 is cannot be read: it is torn")


def test_a_lapse_meanwhile_lets_nothing_pass() -> None:
    keeper = at_its_claims()
    claims_are(keeper, None)
    link = keeper.one(LinkClaim)
    assert isinstance(link, LinkClaim)
    keeper.lapses_and_renews()
    keeper.does(ClaimLinked(link.request, LinkOutcome.WON))
    assert not keeper.has(Reply) or not keeper.reply()[0]


# -- every order of two starts ----------------------------------------------------------------------------------------


class Site:
    """Two hosts that start a VM each, on one disk; what they ask of storage is done in any order, and may be old."""

    def __init__(self, *, last: Claimant | None) -> None:
        self.keepers: list[Keeper] = []
        self.asked: list[list[KeeperEffect]] = [[], []]
        self.passed = [False, False]
        self.looks_again = [1, 1]
        self.told: list[list[KeeperEvent]] = [[], []]
        released = [owned(OTHER, 0, state=RegisterState.RELEASED)] if last is not None else []
        self.registers: dict[str, list[RegisterRecord]] = {VM: list(released), CLONE: list(released)}
        self.claims = [claim(last)] if last is not None else []
        for who, (host, vm) in enumerate(((ME, VM), (OTHER, CLONE))):
            config = msgspec.structs.replace(CONFIG, host=HostId(host), session=KeeperSession(host))
            keeper = Keeper(config=config).guarded()
            self.keepers.append(keeper)
            keeper.asks(AskGate(RequestId(1), vm, VmName(vm), FILE, writes=FILE))
            self._note(who)

    def _note(self, who: int) -> None:
        storage = ReadRegister | LinkRegister | ReadClaims | LinkClaim | ReadClaimant | BarClaimant
        self.asked[who] += [effect for effect in self.keepers[who].effects if isinstance(effect, storage)]
        replies = [effect.reply for effect in self.keepers[who].effects if isinstance(effect, Reply)]
        self.passed[who] = self.passed[who] or any(reply.allowed for reply in replies)

    def choices(self) -> Iterator[tuple[int, int, bool]]:
        """(whose, which request; -1 for a look anew, whether a cache answers)."""
        for who in (0, 1):
            for which, effect in enumerate(self.asked[who]):
                yield who, which, False
                if isinstance(effect, ReadRegister | ReadClaims | ReadClaimant):
                    yield who, which, True
            if not self.asked[who] and self.looks_again[who] and not self.passed[who]:
                yield who, -1, False

    def take(self, who: int, which: int, *, cached: bool) -> None:
        keeper = self.keepers[who]
        if which < 0:
            self.looks_again[who] -= 1
            keeper.now += 0.3
            keeper.does(Woken())
        else:
            answer = self._answer(self.asked[who].pop(which), cached=cached)
            self.told[who].append(answer)
            keeper.does(answer)
        self._note(who)

    def mark(self) -> bytes:
        """The same for all orders that have come to the same: keepers do the same when they are told the same."""
        return msgspec.msgpack.encode([self.told, self.looks_again, self.registers, self.claims], enc_hook=repr)

    def _answer(self, effect: KeeperEffect, *, cached: bool) -> KeeperEvent:
        match effect:
            case ReadRegister(request, _, subject):
                return RegisterRead(request, True, self._last(subject, cached=cached))
            case LinkRegister(request, _, record):
                return Linked(request, self._link(record))
            case ReadClaims(request):
                seen = self.claims[:-1] if cached else self.claims
                return ClaimsRead(request, True, (seen[-1] if seen else None,))
            case LinkClaim(request, _, made):
                won = made.number == len(self.claims)
                if won:
                    self.claims.append(made)
                return ClaimLinked(request, LinkOutcome.WON if won else LinkOutcome.LOST)
            case ReadClaimant(request, claimant):
                return ClaimantRead(request, True, self._last(claimant.vm, cached=cached))
            case BarClaimant(request, _, record):
                return ClaimantBarred(request, self._link(record))
        raise TypeError(effect)

    def _last(self, vm: str, *, cached: bool) -> RegisterRecord | None:
        seen = self.registers[vm][:-1] if cached else self.registers[vm]
        return seen[-1] if seen else None

    def _link(self, record: RegisterRecord) -> LinkOutcome:
        register = self.registers[record.subject]
        if record.epoch != len(register):
            return LinkOutcome.LOST
        register.append(record)
        return LinkOutcome.WON


def explored(site: Site) -> tuple[int, bool]:
    """How many states there are, and whether both ever pass."""
    todo, seen = [site], {site.mark()}
    while todo:
        here = todo.pop()
        if all(here.passed):
            return len(seen), True
        for who, which, cached in here.choices():
            there = copy.deepcopy(here)
            there.take(who, which, cached=cached)
            if there.mark() not in seen:
                seen.add(there.mark())
                todo.append(there)
    return len(seen), False


@pytest.mark.parametrize("last", [None, OURS, THEIRS])
def test_in_no_order_do_both_pass(last: Claimant | None) -> None:
    states, both = explored(Site(last=last))
    assert states > 50
    assert not both


@pytest.mark.parametrize("mutant", ["bars-nobody", "a-lost-claim-counts", "an-old-claim-counts", "claims-nothing"])
def test_without_one_of_the_rules_some_order_lets_both_pass(mutant: str) -> None:
    with broken(mutant):
        assert any(explored(Site(last=last))[1] for last in (None, OURS, THEIRS))


# -- what runs already ------------------------------------------------------------------------------------------------


def running_and_asked() -> Keeper:
    keeper = Keeper().running()
    keeper.asks(AskClaim(RequestId(5), VM, FILE))
    return keeper


def test_what_runs_gets_its_claim() -> None:
    keeper = running_and_asked()
    claims_are(keeper, None)
    link = keeper.one(LinkClaim)
    assert isinstance(link, LinkClaim)
    keeper.does(ClaimLinked(link.request, LinkOutcome.WON))
    assert keeper.reply() == (True, "")


def test_what_runs_and_has_its_claim_makes_no_other() -> None:
    keeper = running_and_asked()
    claims_are(keeper, claim(OURS, 3))
    assert not keeper.has(LinkClaim)
    assert keeper.reply() == (True, "")


def test_what_runs_beside_another_on_its_disk_is_told_of_and_goes_on() -> None:
    keeper = running_and_asked()
    claims_are(keeper, claim(THEIRS))
    claimant_is(keeper, owned(OTHER, 7))
    assert keeper.reply() == (
        False,
        "its disk web.raw on ds1 is used by clone, which beta owns (epoch 7); stop one of the two",
    )
    assert keeper.machine.vms[VM].phase is Phase.RUNNING


def test_what_does_not_run_here_is_not_claimed() -> None:
    keeper = Keeper().guarded()
    keeper.asks(AskClaim(RequestId(5), VM, FILE))
    assert keeper.reply() == (False, "")
