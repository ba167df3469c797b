"""What a keeper takes for a copy that migrates to it, and for what has migrated away (decision 19)."""

import msgspec
from test_keeping import DS, GATE, ME, OTHER, VM, Keeper, owned, process

from outlast.model.ids import NO_TERM, Handover, RequestId, VmName
from outlast.model.keeper_effects import Freeze, Kill, LinkRegister, Remember, Thaw
from outlast.model.keeper_events import FoundProcess, ProcessAppeared, ProcessExited, Woken
from outlast.model.keeping import AskDropped, AskExpect, AskIncoming, AskInherit, AskLaunch, AskRelease
from outlast.model.records import Reason, RegisterRecord, RegisterState

HANDOVER = Handover("b-1-1")
EXPECT = AskExpect(RequestId(1), VM, VmName("web"), DS, OTHER, HANDOVER)
INCOMING = AskIncoming(RequestId(1), VM)
RELEASED = msgspec.structs.replace(owned(OTHER, 5, state=RegisterState.RELEASED), heir=ME, handover=HANDOVER)
HAND_OVER = AskRelease(
    RequestId(1), VM, VmName("web"), DS, Reason.MIGRATED, heir=OTHER, handover=Handover("a-1-1"), pid=process().pid
)


def copy(*, stopped: bool = False) -> FoundProcess:
    return msgspec.structs.replace(process(stopped=stopped), incoming=True)


def expecting() -> Keeper:
    keeper = Keeper().guarded()
    keeper.asks(EXPECT)
    assert keeper.reply() == (True, "")
    return keeper


def with_heir() -> Keeper:
    """Its copy is whole, and its register is being read."""
    keeper = expecting()
    keeper.asks(INCOMING)
    keeper.asks(GATE)
    keeper.does(ProcessAppeared(copy()))
    keeper.asks(AskInherit(RequestId(1), VM, HANDOVER))
    assert keeper.has(Freeze)
    return keeper


def linked(keeper: Keeper) -> RegisterRecord:
    link = keeper.one(LinkRegister)
    assert isinstance(link, LinkRegister)
    return link.record


def test_a_copy_goes_on_when_the_release_that_names_it_has_become_its_epoch() -> None:
    keeper = with_heir()
    keeper.reads(RELEASED)
    assert (linked(keeper).epoch, linked(keeper).handover) == (6, HANDOVER)
    keeper.links()
    assert keeper.has(Thaw)


def test_while_a_copy_is_expected_nothing_else_starts() -> None:
    """Only what libvirt has just told of as a migration passes, once, and not long after that."""
    keeper = expecting()
    keeper.asks(GATE)
    assert keeper.reply() == (False, "web may not start: it is about to migrate here")
    keeper.asks(INCOMING)
    for _ in range(5):
        keeper.now += 1
        keeper.does(Woken())
        keeper.renews()
    keeper.asks(GATE)
    assert keeper.reply() == (False, "web may not start: it is about to migrate here")
    keeper.asks(INCOMING)
    keeper.asks(GATE)
    assert keeper.reply() == (True, "")


def test_what_passed_here_before_gives_a_copy_no_right() -> None:
    keeper = expecting()
    keeper.asks(INCOMING)
    keeper.asks(GATE)
    remembered = keeper.one(Remember)
    assert isinstance(remembered, Remember)
    assert remembered.term == NO_TERM


def test_a_new_keeper_kills_a_copy_that_our_own_epoch_does_not_name() -> None:
    """It took the VM itself once, and let go of it again: that epoch was for another process."""
    for last in (owned(ME, 4), owned(ME, 4, state=RegisterState.RELEASED), owned(OTHER, 4), RELEASED):
        keeper = Keeper(copy()).guarded()
        keeper.reads(last)
        assert keeper.has(Kill), last


def test_a_new_keeper_goes_on_with_what_had_migrated_here() -> None:
    keeper = Keeper(copy(stopped=True)).guarded()
    keeper.reads(msgspec.structs.replace(owned(ME, 6), handover=HANDOVER))
    assert linked(keeper).handover == HANDOVER
    keeper.links()
    assert keeper.has(Thaw)
    keeper.lapses_and_renews()
    assert (linked(keeper).epoch, linked(keeper).handover) == (8, HANDOVER), "and so does the next one"


def test_a_copy_that_is_dropped_before_its_process_is_seen_is_killed_then() -> None:
    keeper = expecting()
    keeper.asks(INCOMING)
    keeper.asks(GATE)
    keeper.asks(AskLaunch(RequestId(2), VM))
    keeper.asks(AskDropped(RequestId(3), VM, HANDOVER))
    keeper.does(ProcessAppeared(copy()))
    assert keeper.has(Freeze)
    keeper.reads(owned(ME, 4, state=RegisterState.RELEASED))
    assert keeper.has(Kill)


def test_what_has_migrated_is_handed_over_after_its_end() -> None:
    keeper = Keeper().running()
    keeper.asks(HAND_OVER)
    assert not keeper.reply()[0], "it is still there"
    keeper.does(ProcessExited(VM))
    keeper.asks(HAND_OVER)
    assert (linked(keeper).state, linked(keeper).heir) == (RegisterState.RELEASED, OTHER)


def test_what_was_started_once_more_since_it_migrated_is_not_handed_over() -> None:
    """Its copy is the memory of a moment that is over."""
    keeper = Keeper().running()
    keeper.does(ProcessExited(VM))
    keeper.asks(GATE)
    keeper.reads(owned(ME, 0))
    keeper.links()
    assert keeper.reply()[0]
    keeper.does(ProcessAppeared(msgspec.structs.replace(process(), pid=43)))
    keeper.does(ProcessExited(VM))
    keeper.asks(HAND_OVER)
    assert not keeper.reply()[0]
    assert not keeper.has(LinkRegister)


def test_a_keeper_that_has_not_seen_the_end_hands_nothing_over() -> None:
    keeper = Keeper().guarded()
    keeper.asks(HAND_OVER)
    assert not keeper.reply()[0]
    assert not keeper.has(LinkRegister)
