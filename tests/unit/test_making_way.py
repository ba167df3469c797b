"""A host takes a VM over whose copy it has, because the source did not survive the migration (`protocol/copies.py`)."""

from __future__ import annotations

import pytest
from test_copies import EXPECT, MIGRATION, NAMES_US, phase, says, with_copy, with_heir
from test_keeping import DS, GATE, ME, OTHER, VM, Keeper

from outlast.model.ids import NO_HANDOVER, Epoch, HostId, Incarnation, RequestId, VmName
from outlast.model.keeper_effects import Kill, LinkRegister, ReadRegister, Reply
from outlast.model.keeper_events import ClientGone, LinkOutcome, ProcessExited, RegisterRead, Woken
from outlast.model.keeping import AskInherit, AskTakeover
from outlast.model.records import Proof, ProofKind, Reason, RegisterRecord, RegisterState
from outlast.protocol.gatekeeping import GATE_PATIENCE

HERS = says(3)
"""The source's epoch, on which it died."""


def take(epoch: int = 3) -> AskTakeover:
    proof = Proof(
        kind=ProofKind.LEASE_EXPIRED, owner=OTHER, incarnation=Incarnation(1), epoch=Epoch(epoch), observer=HostId("c")
    )
    return AskTakeover(RequestId(9), VM, VmName("web"), DS, proof)


def linked(keeper: Keeper) -> RegisterRecord:
    link = keeper.one(LinkRegister)
    assert isinstance(link, LinkRegister)
    return link.record


def test_its_copy_is_ended_and_nothing_is_linked_before_that() -> None:
    keeper = with_copy()
    keeper.asks(take())
    assert not keeper.has(Kill), "whether it may be ended for that, its register has to say"
    keeper.reads(HERS)
    assert keeper.has(Kill)
    assert not keeper.has(LinkRegister)
    keeper.does(ProcessExited(VM))
    record = linked(keeper)
    assert (record.epoch, record.owner, record.state) == (4, ME, RegisterState.OWNED)
    assert (record.reason, record.handover) == (Reason.TAKEN_OVER, NO_HANDOVER)
    keeper.links()
    assert keeper.reply() == (True, "")
    keeper.asks(GATE)
    assert keeper.reply() == (True, "")
    assert phase(keeper) == "starting"


def test_a_whole_copy_that_nobody_has_released_makes_way_too() -> None:
    keeper = with_heir()
    keeper.reads(HERS)
    keeper.asks(take())
    keeper.reads(HERS)
    assert keeper.has(Kill)
    keeper.does(ProcessExited(VM))
    assert linked(keeper).epoch == 4


@pytest.mark.parametrize(
    ("last", "epoch"),
    [(NAMES_US, 4), (NAMES_US, 3), (says(4, HostId("c")), 3), (says(5, ME), 3), (None, 3)],
    ids=["named", "named since", "somebody else's", "ours", "nothing"],
)
def test_an_order_that_is_too_late_ends_no_copy(last: RegisterRecord | None, epoch: int) -> None:
    keeper = with_copy()
    keeper.asks(take(epoch))
    keeper.reads(last)
    assert not keeper.reply()[0]
    assert not keeper.has(Kill)
    assert not keeper.has(LinkRegister)
    assert phase(keeper) == "copy"


def test_a_release_to_another_copy_names_no_copy() -> None:
    keeper = with_copy()
    keeper.asks(take(4))
    keeper.reads(says(4, state=RegisterState.RELEASED, heir=HostId("c")))
    assert keeper.has(Kill)


def test_an_order_that_waits_while_the_copy_becomes_the_vm_leaves_it_alone() -> None:
    keeper = with_heir()
    asked = keeper.one(ReadRegister)
    keeper.asks(take())
    assert not keeper.has(ReadRegister), "its own read is under way"
    keeper.effects = [asked]
    keeper.reads(NAMES_US)
    assert linked(keeper).handover == MIGRATION
    keeper.links()
    assert not keeper.reply()[0]
    assert not keeper.has(Kill)
    assert phase(keeper) == "running"


def test_a_copy_that_ends_by_itself_while_its_register_is_read_has_made_way() -> None:
    keeper = with_copy()
    keeper.asks(take())
    asked = keeper.one(ReadRegister)
    keeper.does(ProcessExited(VM))
    assert not keeper.has(LinkRegister)
    keeper.effects = [asked]
    keeper.reads(HERS)
    assert linked(keeper).epoch == 4


def test_a_register_that_cannot_be_read_ends_no_copy() -> None:
    keeper = with_copy()
    keeper.asks(take())
    request = keeper.one(ReadRegister)
    assert isinstance(request, ReadRegister)
    keeper.does(RegisterRead(request.request, False, None, "it hangs"))
    allowed, sentence = keeper.reply()
    assert not allowed
    assert "cannot be read" in sentence
    assert not keeper.has(Kill)
    assert phase(keeper) == "copy"


def test_without_a_lease_no_whole_copy_is_ended() -> None:
    keeper = with_heir()
    keeper.reads(HERS)
    keeper.asks(take())
    asked = keeper.one(ReadRegister)
    keeper.now += 3.9
    keeper.machine.places[DS].lease.void(keeper.machine.now)
    keeper.effects = [asked]
    keeper.reads(HERS)
    assert not keeper.reply()[0]
    assert not keeper.has(Kill)
    assert phase(keeper) == "heir"


def test_a_copy_that_does_not_end_is_not_waited_for_for_ever() -> None:
    keeper = with_copy()
    keeper.asks(take())
    keeper.reads(HERS)
    keeper.now += GATE_PATIENCE / 1e9
    keeper.does(Woken())
    allowed, sentence = keeper.reply()
    assert not allowed
    assert "its copy on this host did not end" in sentence
    keeper.renews()
    assert phase(keeper) == "killing"
    keeper.asks(EXPECT)
    assert not keeper.reply()[0], "nothing else comes in there"
    keeper.asks(take())
    assert not keeper.has(Reply), "the next order waits for it again"
    assert not keeper.has(LinkRegister)
    keeper.does(ProcessExited(VM))
    assert linked(keeper).epoch == 4


def test_nobody_waits_any_more_when_it_has_ended() -> None:
    keeper = with_copy()
    keeper.asks(take())
    keeper.reads(HERS)
    keeper.does(ClientGone(7))
    keeper.does(ProcessExited(VM))
    assert not keeper.has(LinkRegister)
    assert VM not in keeper.machine.vms
    keeper = with_copy()
    keeper.asks(take())
    keeper.does(ProcessExited(VM))
    keeper.does(ClientGone(7))
    assert VM not in keeper.machine.vms


def test_the_agents_late_word_that_it_is_whole_changes_nothing() -> None:
    keeper = with_copy()
    keeper.asks(take())
    keeper.reads(HERS)
    keeper.asks(AskInherit(RequestId(4), VM, MIGRATION))
    assert phase(keeper) == "killing"
    keeper.does(ProcessExited(VM))
    assert linked(keeper).handover == NO_HANDOVER
    keeper.links(LinkOutcome.LOST)
    keeper.reads(NAMES_US)
    assert not keeper.reply()[0]
    assert VM not in keeper.machine.vms


def test_a_copy_made_whole_while_its_register_is_read_for_the_takeover_is_judged_by_what_was_read() -> None:
    keeper = with_copy()
    keeper.asks(take())
    keeper.effects = [effect for effect in keeper.effects if isinstance(effect, ReadRegister)]
    asked = keeper.effects
    keeper.asks(AskInherit(RequestId(4), VM, MIGRATION))
    assert phase(keeper) == "heir"
    assert not keeper.has(ReadRegister)
    keeper.effects = asked
    keeper.reads(NAMES_US)
    assert keeper.has(ReadRegister), "the copy goes its own way"
    assert not keeper.has(Kill)
    keeper.reads(NAMES_US)
    assert linked(keeper).handover == MIGRATION
