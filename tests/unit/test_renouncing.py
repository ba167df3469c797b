"""A keeper's word that it gave a VM up: when it ends what stands frozen, and about which epochs it says anything."""

from __future__ import annotations

import msgspec
import pytest
from test_keeping import CONFIG, DS, OTHER, VM, Keeper, launched, process

from outlast.model.ids import DatastoreName, Epoch, Handover, KeeperSession, RequestId
from outlast.model.keeper_effects import Kill, LinkRegister
from outlast.model.keeper_events import HeartbeatWritten, Linked, LinkOutcome, ProcessExited, Woken
from outlast.model.keeping import AskGivenUp, AskRelease
from outlast.model.records import Reason

MINE = "session"


def word(epoch: int = 0, session: str = MINE, home: DatastoreName = DS) -> AskGivenUp:
    return AskGivenUp(request=RequestId(9), vm=VM, home=home, epoch=Epoch(epoch), session=session)


def lost(keeper: Keeper | None = None, *, for_s: float = 31) -> Keeper:
    """Its storage hangs, for that long since the lapse; the VM stands frozen on epoch 0."""
    keeper = keeper or Keeper().running()
    keeper.now += 6.1
    keeper.does(Woken())
    keeper.now += for_s
    keeper.does(Woken())  # Something happens all the time: its agent tells of its progress.
    return keeper


def given(keeper: Keeper, ask: AskGivenUp) -> bool:
    keeper.asks(ask)
    return keeper.reply()[0]


def test_it_ends_what_stands_frozen_and_says_so_when_it_has_ended() -> None:
    keeper = lost()
    assert not given(keeper, word())
    keeper.one(Kill)
    assert not given(keeper, word())
    assert not keeper.has(Kill), "told once"
    keeper.does(ProcessExited(VM))
    assert given(keeper, word())
    assert given(keeper, word()), "as often as it is asked"


def test_what_it_releases_then_names_no_heir() -> None:
    """A migration that was on its way ends with the process: its copy is not the guest that was killed."""
    keeper = lost()
    keeper.machine.vms[VM].release_to = (OTHER, Handover("h"))
    given(keeper, word())
    keeper.does(ProcessExited(VM))
    link = keeper.one(LinkRegister)
    assert isinstance(link, LinkRegister)
    assert (link.record.reason, link.record.heir) == (Reason.HOST_FAULT, None)


@pytest.mark.parametrize(
    "ask", [word(session="another's"), word(session=""), word(home=DatastoreName("ds2"))], ids=["session", "none", "home"]
)
def test_it_knows_nothing_of_what_others_made(ask: AskGivenUp) -> None:
    keeper = lost()
    assert not given(keeper, ask)
    assert not keeper.has(Kill)
    keeper.does(ProcessExited(VM))
    assert not given(keeper, ask)


def test_a_keeper_that_holds_its_lease_ends_nothing() -> None:
    keeper = Keeper().running()
    assert not given(keeper, word())
    assert not keeper.has(Kill)


def test_nor_does_one_that_lost_it_a_moment_ago() -> None:
    """It may have stood still itself: what it finds lapsed when it goes on has lapsed just now, as far as it knows."""
    keeper = lost(for_s=29)
    assert not given(keeper, word())
    assert not keeper.has(Kill)
    keeper.now += 1.1
    given(keeper, word())
    keeper.one(Kill)


def test_nor_does_one_that_has_stood_still_itself() -> None:
    """Its storage may be back; it has not looked since (random world 202611253230)."""
    keeper = lost()
    keeper.now += 7
    assert not given(keeper, word())
    assert not keeper.has(Kill)
    given(keeper, word())
    keeper.one(Kill)


def test_nor_does_one_whose_storage_has_just_confirmed_a_write_however_late() -> None:
    keeper = lost()
    keeper.renews()
    assert keeper.machine.term(DS) is None
    assert not given(keeper, word())
    assert not keeper.has(Kill)


def refuse(keeper: Keeper, *, took_s: float = 0.01, refused: bool = True) -> None:
    """The write that is under way, or due, is answered with an error."""
    keeper.does(Woken())
    sequence = keeper.machine.places[DS].lease.sequence
    keeper.now += took_s
    keeper.does(HeartbeatWritten(DS, sequence, False, problem="no such device", refused=refused))


def failing(*, took_s: float = 0.01, refused: bool = True) -> Keeper:
    keeper = Keeper().running()
    while keeper.machine.term(DS) is not None:
        keeper.now += 1
        refuse(keeper, took_s=took_s, refused=refused)
    return keeper


def test_a_device_that_answers_with_errors_is_not_waited_for() -> None:
    keeper = failing()
    (lease,) = keeper.machine.report().leases
    assert lease.failing
    given(keeper, word())
    keeper.one(Kill)


@pytest.mark.parametrize(
    "keeper", [failing(took_s=1.5), failing(refused=False), lost(for_s=1)], ids=["late", "no storage answered", "hangs"]
)
def test_anything_else_may_come_back(keeper: Keeper) -> None:
    (lease,) = keeper.machine.report().leases
    assert not lease.failing
    given(keeper, word())
    assert not keeper.has(Kill)


def test_a_write_that_succeeds_ends_it() -> None:
    keeper = failing()
    keeper.now += 1
    keeper.does(Woken())
    keeper.renews()
    (lease,) = keeper.machine.report().leases
    assert lease.held
    assert not lease.failing


def test_an_old_question_ends_nothing_that_was_won_back() -> None:
    keeper = Keeper().running()
    keeper.lapses_and_renews()
    keeper.links()
    keeper = lost(keeper)
    assert not given(keeper, word(0))
    assert not keeper.has(Kill)
    given(keeper, word(1))
    keeper.one(Kill)


def test_a_link_that_lands_after_the_word_is_given_up_as_well() -> None:
    """The re-assertion was under way when the storage went again: whoever reads its epoch asks about that one."""
    keeper = Keeper().running()
    keeper.lapses_and_renews()
    link = keeper.one(LinkRegister)
    assert isinstance(link, LinkRegister)
    keeper = lost(keeper)
    assert not given(keeper, word(0))
    keeper.does(ProcessExited(VM))
    assert given(keeper, word(0))
    assert given(keeper, word(1)), "it may have landed, though nobody here knows"
    keeper.does(Linked(link.request, LinkOutcome.WON))
    assert given(keeper, word(1))
    assert not given(keeper, word(0)), "an old question"
    assert keeper.machine.vms[VM].pid is None


def test_what_a_predecessor_let_run_is_given_up_by_its_successor() -> None:
    config = msgspec.structs.replace(CONFIG, session=KeeperSession("new"))
    found = msgspec.structs.replace(process(), session=MINE)
    keeper = lost(Keeper(found, config=config))
    given(keeper, word())
    keeper.one(Kill)
    keeper.does(ProcessExited(VM))
    assert given(keeper, word())


def test_a_successor_that_found_nothing_cannot_tell() -> None:
    config = msgspec.structs.replace(CONFIG, session=KeeperSession("new"))
    assert not given(lost(Keeper(config=config)), word())
    stranger = lost(Keeper(process(), config=config))
    assert not given(stranger, word())
    assert not stranger.has(Kill)


@pytest.mark.parametrize(("reason", "is_given"), [(Reason.CRASHED, True), (Reason.SWITCHED_OFF, False), (None, False)])
def test_what_ended_by_itself_is_given_up_unless_it_was_meant(reason: Reason | None, is_given: bool) -> None:
    keeper = Keeper().running()
    keeper.does(ProcessExited(VM))
    if reason is not None:
        name = keeper.machine.vms[VM].name
        keeper.asks(AskRelease(request=RequestId(3), vm=VM, name=name, home=DS, reason=reason))
    assert given(lost(keeper), word()) is is_given


def test_a_start_that_may_still_come_is_not_given_up() -> None:
    keeper = lost(launched())
    assert keeper.machine.vms[VM].phase == "void"
    assert not given(keeper, word())
