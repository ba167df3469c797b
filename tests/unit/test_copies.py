"""The keeper's part of a live migration at its destination: what a copy may become, and on whose word (decision 19)."""

from __future__ import annotations

import pytest
from test_keeping import DS, ME, OTHER, VM, Keeper

from outlast.model.ids import NO_TERM, Epoch, Handover, HostId, Incarnation, Nonce, RequestId, VmName
from outlast.model.keeper_effects import (
    Freeze,
    KeeperEffect,
    Kill,
    LinkRegister,
    LookForProcess,
    ReadRegister,
    Remember,
    StopWatching,
    Thaw,
    WatchForProcess,
)
from outlast.model.keeper_events import FoundProcess, LinkOutcome, ProcessAppeared, ProcessExited, ProcessMissing, Woken
from outlast.model.keeping import (
    AskDropped,
    AskEnded,
    AskExpect,
    AskForgotten,
    AskGate,
    AskIncoming,
    AskInherit,
    AskLaunch,
    AskResumed,
)
from outlast.model.records import Reason, RegisterRecord, RegisterState

MIGRATION = Handover("b-1")
EXPECT = AskExpect(RequestId(1), VM, VmName("web"), DS, OTHER, MIGRATION)
GATE = AskGate(RequestId(2), VM, VmName("web"), ("/srv/ds1/web.raw",))
PROCESS = FoundProcess(VM, VmName("web"), DS, 42, False, incoming=True)


def says(
    epoch: int,
    owner: HostId = OTHER,
    state: RegisterState = RegisterState.OWNED,
    *,
    heir: HostId | None = None,
    handover: Handover = MIGRATION,
) -> RegisterRecord:
    return RegisterRecord(
        subject=VM,
        epoch=Epoch(epoch),
        owner=owner,
        incarnation=Incarnation(1),
        session="s",
        nonce=Nonce(f"n{epoch}"),
        state=state,
        reason=Reason.MIGRATED,
        heir=heir,
        handover=handover if heir is not None else Handover(""),
    )


NAMES_US = says(4, state=RegisterState.RELEASED, heir=ME)


def expecting() -> Keeper:
    keeper = Keeper().guarded()
    keeper.asks(EXPECT)
    assert keeper.reply() == (True, "")
    keeper.asks(AskIncoming(RequestId(1), VM))
    assert keeper.reply() == (True, "")
    return keeper


def with_copy() -> Keeper:
    keeper = expecting()
    keeper.asks(GATE)
    assert keeper.reply() == (True, "")
    keeper.asks(AskLaunch(RequestId(3), VM))
    assert keeper.reply() == (True, "")
    keeper.does(ProcessAppeared(PROCESS))
    assert phase(keeper) == "copy"
    return keeper


def with_heir() -> Keeper:
    keeper = with_copy()
    keeper.asks(AskInherit(RequestId(4), VM, MIGRATION))
    return keeper


def phase(keeper: Keeper) -> str:
    known = keeper.machine.vms.get(VM)
    return str(known.phase) if known is not None else ""


def test_one_start_passes_for_a_copy_and_makes_no_epoch() -> None:
    keeper = expecting()
    keeper.asks(GATE)
    assert keeper.reply() == (True, "")
    assert keeper.has(WatchForProcess)
    assert not keeper.has(LinkRegister)
    assert not keeper.has(ReadRegister)
    keeper.asks(GATE)
    assert not keeper.reply()[0]


def test_who_migrates_it_by_another_way_is_told_how_to() -> None:
    keeper = Keeper().guarded()
    keeper.asks(AskIncoming(RequestId(1), VM))
    allowed, sentence = keeper.reply()
    assert not allowed
    assert "outlast vm migrate" in sentence
    keeper.asks(EXPECT)
    keeper.asks(AskIncoming(RequestId(1), VM))
    assert keeper.reply()[0]


def test_a_process_that_is_no_copy_is_killed() -> None:
    """Somebody's `virsh start` has taken the place that was kept."""
    keeper = expecting()
    keeper.asks(GATE)
    keeper.does(ProcessAppeared(FoundProcess(VM, VmName("web"), DS, 42, False)))
    assert keeper.has(Kill)


def test_without_a_lease_there_is_no_place() -> None:
    keeper = Keeper()
    keeper.asks(EXPECT)
    assert not keeper.reply()[0]


def test_a_whole_copy_is_frozen_before_anything_else() -> None:
    keeper = with_heir()
    kinds: list[type[KeeperEffect]] = [type(effect) for effect in keeper.effects]
    assert kinds[0] is Freeze
    assert ReadRegister in kinds


def test_it_goes_on_by_the_release_that_names_it() -> None:
    keeper = with_heir()
    keeper.reads(NAMES_US)
    record = keeper.one(LinkRegister)
    assert isinstance(record, LinkRegister)
    assert (record.record.epoch, record.record.owner, record.record.handover) == (5, ME, MIGRATION)
    keeper.links()
    assert keeper.has(Thaw)
    assert phase(keeper) == "running"
    (kept,) = keeper.machine.report().vms
    assert kept.inherited
    keeper.asks(AskResumed(RequestId(5), VM))
    assert not keeper.machine.report().vms[0].inherited


@pytest.mark.parametrize(
    "last",
    [
        says(4, state=RegisterState.RELEASED),
        says(4, state=RegisterState.RELEASED, heir=HostId("c")),
        says(4, state=RegisterState.RELEASED, heir=ME, handover=Handover("an earlier one")),
        says(4, HostId("c")),
        None,
    ],
    ids=["names nobody", "names another", "of another migration", "owned by a third", "nothing"],
)
def test_nothing_else_makes_it_go_on(last: RegisterRecord | None) -> None:
    keeper = with_heir()
    keeper.reads(last)
    assert keeper.has(Kill)
    assert not keeper.has(LinkRegister)


def test_it_waits_while_its_source_owns_the_vm() -> None:
    keeper = with_heir()
    keeper.reads(says(3))
    assert not keeper.has(Kill)
    assert not keeper.has(LinkRegister)
    keeper.now += 0.2
    keeper.does(Woken())
    keeper.reads(NAMES_US)
    assert keeper.has(LinkRegister)


def test_an_epoch_that_is_won_in_a_term_that_broke_does_not_thaw_it() -> None:
    keeper = with_heir()
    keeper.reads(NAMES_US)
    link = keeper.one(LinkRegister)
    keeper.lapses_and_renews()
    assert isinstance(link, LinkRegister)
    keeper.effects = [link]
    keeper.links()
    assert not keeper.has(Thaw)
    assert phase(keeper) == "frozen"
    keeper.links()
    assert keeper.has(Thaw)


def test_a_link_that_landed_unheard_is_found_by_its_migration() -> None:
    keeper = with_heir()
    keeper.reads(NAMES_US)
    keeper.links(LinkOutcome.UNKNOWN)
    keeper.reads(says(5, ME, heir=None))
    assert keeper.has(Kill)  # An epoch of ours that does not bear this migration is of something else.
    keeper = with_heir()
    keeper.reads(NAMES_US)
    keeper.links(LinkOutcome.UNKNOWN)
    inherited = RegisterRecord(
        subject=VM,
        epoch=Epoch(5),
        owner=ME,
        incarnation=Incarnation(1),
        session="session",
        nonce=Nonce("x"),
        state=RegisterState.OWNED,
        reason=Reason.MIGRATED,
        handover=MIGRATION,
    )
    keeper.reads(inherited)
    again = keeper.one(LinkRegister)
    assert isinstance(again, LinkRegister)
    assert again.record.epoch == 6


def test_a_copy_that_is_not_whole_is_killed_at_a_lapse_and_forgotten() -> None:
    keeper = with_copy()
    keeper.now += 6.1
    keeper.does(Woken())
    assert keeper.has(Kill)
    keeper.does(ProcessExited(VM))
    assert VM not in keeper.machine.vms


def test_a_migration_that_comes_to_nothing_ends_what_has_arrived() -> None:
    keeper = with_copy()
    keeper.asks(AskDropped(RequestId(6), VM, Handover("another")))
    assert not keeper.has(Kill)
    keeper.asks(AskDropped(RequestId(6), VM, MIGRATION))
    assert keeper.has(Kill)
    keeper = expecting()
    keeper.asks(AskDropped(RequestId(6), VM, MIGRATION))
    assert VM not in keeper.machine.vms


def test_a_copy_that_nobody_releases_is_not_kept_for_ever() -> None:
    keeper = with_heir()
    keeper.reads(says(3))
    for _ in range(70):
        keeper.now += 1
        keeper.does(Woken())
        if keeper.has(Kill):
            return
        keeper.renews()
    pytest.fail("it waits still")


def test_a_copy_that_libvirt_lets_go_of_before_its_process_came_is_forgotten() -> None:
    keeper = expecting()
    keeper.asks(GATE)
    keeper.asks(AskEnded(RequestId(7), VM))
    assert keeper.reply()[0]
    assert VM not in keeper.machine.vms


def test_a_copy_that_libvirt_has_forgotten_is_expected_no_more_when_no_process_is_there() -> None:
    """Its libvirtd died between the gate's last word and the process."""
    keeper = expecting()
    keeper.asks(GATE)
    keeper.asks(AskLaunch(RequestId(3), VM))
    keeper.asks(AskForgotten(RequestId(8), VM, None, Handover("an earlier one")))
    assert not keeper.has(LookForProcess)
    keeper.asks(AskForgotten(RequestId(8), VM, None, MIGRATION))
    assert keeper.one(LookForProcess) == LookForProcess(VM, VmName("web"), None, MIGRATION)
    keeper.does(ProcessMissing(VM, None, Handover("an earlier one")))
    assert phase(keeper) == "arriving"
    keeper.does(ProcessMissing(VM, None, MIGRATION))
    assert VM not in keeper.machine.vms
    assert keeper.has(StopWatching)


def test_a_forgotten_copy_whose_lease_lapsed_meanwhile_leaves_the_register_alone() -> None:
    keeper = expecting()
    keeper.asks(GATE)
    keeper.asks(AskLaunch(RequestId(3), VM))
    keeper.lapses_and_renews()
    assert phase(keeper) == "void"
    keeper.asks(AskForgotten(RequestId(8), VM, None, MIGRATION))
    keeper.does(ProcessMissing(VM, None, MIGRATION))
    keeper.reads(says(3))
    assert not keeper.has(LinkRegister)
    assert VM not in keeper.machine.vms


def test_what_is_remembered_of_a_vm_ends_with_its_process() -> None:
    keeper = with_heir()
    keeper.reads(NAMES_US)
    keeper.links()
    remembered = keeper.one(Remember)
    assert isinstance(remembered, Remember)
    assert remembered.term == keeper.machine.term(DS)
    keeper.does(ProcessExited(VM))
    forgotten = keeper.one(Remember)
    assert isinstance(forgotten, Remember)
    assert forgotten.term == NO_TERM


def test_what_had_migrated_here_before_outlast_came_is_not_killed() -> None:
    """Its command line says that it was begun for a migration, and no register knows of it."""
    keeper = Keeper(PROCESS).guarded()
    assert phase(keeper) == "frozen"
    keeper.reads(None)
    assert not keeper.has(Kill)
    keeper.links()
    assert keeper.has(Thaw)
