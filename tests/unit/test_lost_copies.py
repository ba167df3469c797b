"""Frozen copies of VMs that another host owns: named in heartbeats, answered by the owner alone, killed in good time."""

from __future__ import annotations

import pytest
from agent_values import ME, agent_config, keeper_report

from outlast.codec.datagrams import Opener, Sealer
from outlast.model.effects import AskKeeper, Send
from outlast.model.ids import (
    DatastoreName,
    Epoch,
    HostId,
    HostName,
    VmId,
    VmName,
)
from outlast.model.keeping import AskLost, KeptVm
from outlast.model.messages import FrozenVm, TakenOver
from outlast.model.settings import Settings
from outlast.model.time import Instant
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.lost_copies import NAMED_AT_ONCE, LostCopies
from outlast.scenario.model import DatastoreSpec, HostSpec, VmSpec
from outlast.sim.world import World

PEER, DS = HostId("b"), DatastoreName("ds1")


class Desk:
    """One agent, whose keeper has these VMs: (phase, epoch) by name."""

    def __init__(self, **vms: tuple[str, int | None]) -> None:
        self.known, self.out = Knowledge(agent_config(), Instant(0)), Outbox()
        self.known.keeper = keeper_report(
            vms=tuple(
                KeptVm(VmId(vm), VmName(vm), DS, Epoch(epoch) if epoch is not None else None, phase, 1)
                for vm, (phase, epoch) in vms.items()
            ),
        )
        self.copies = LostCopies(self.known, self.out)

    def hears(self, epoch: int, home: str = "ds1") -> list[TakenOver]:
        """What it answers a host on which vm1 stands frozen on that epoch."""
        self.copies.heard(PEER, (FrozenVm(VmId("vm1"), DatastoreName(home), Epoch(epoch)),))
        sent = self.out.take()
        assert all(isinstance(effect, Send) and effect.to == PEER for effect in sent)
        return [effect.message for effect in sent if isinstance(effect, Send) and isinstance(effect.message, TakenOver)]


def test_what_stands_frozen_on_an_epoch_of_ours_is_named() -> None:
    desk = Desk(vm1=("frozen", 4), vm2=("running", 2), vm3=("frozen", None))
    assert desk.copies.named() == (FrozenVm(VmId("vm1"), DS, Epoch(4)),)


def test_of_many_each_is_named_in_its_turn() -> None:
    desk = Desk(**{f"vm{i}": ("frozen", i) for i in range(NAMED_AT_ONCE * 2 + 3)})
    named = [desk.copies.named() for _ in range(3)]
    assert {len(each) for each in named} == {NAMED_AT_ONCE}
    assert len({vm.vm for each in named for vm in each}) == NAMED_AT_ONCE * 2 + 3


@pytest.mark.parametrize("phase", ["granted", "starting", "void", "running", "frozen"])
def test_the_owner_of_a_later_epoch_answers(phase: str) -> None:
    assert Desk(vm1=(phase, 5)).hears(4) == [TakenOver(vm=VmId("vm1"), home=DS, epoch=Epoch(5))]


@pytest.mark.parametrize(
    ("phase", "epoch", "home"),
    [
        ("running", 4, "ds1"),  # The same epoch, or an earlier one.
        ("running", 3, "ds1"),
        ("claiming", 5, "ds1"),  # An epoch that it may only want to take from.
        ("ended", 5, "ds1"),
        ("frozen", None, "ds1"),
        ("running", 5, "ds2"),  # Another register: its numbers say nothing about this one's.
    ],
)
def test_nobody_else_does(phase: str, epoch: int | None, home: str) -> None:
    assert Desk(vm1=(phase, epoch)).hears(4, home) == []
    assert Desk().hears(4) == []


def test_the_word_goes_to_the_keeper_with_the_name_of_who_said_it() -> None:
    desk = Desk(vm1=("frozen", 4))
    desk.copies.told(PEER, TakenOver(vm=VmId("vm1"), home=DS, epoch=Epoch(5)))
    (asked,) = desk.out.take()
    assert isinstance(asked, AskKeeper)
    assert isinstance(asked.request, AskLost)
    assert (asked.request.owner, asked.request.epoch) == (PEER, 5)


def test_it_travels_in_a_sealed_datagram() -> None:
    key = bytes(32)
    message = TakenOver(vm=VmId("vm1"), home=DS, epoch=Epoch(5))
    datagram = Sealer(key, PEER, 1, b"01234567").seal(ME, message)
    assert Opener(key, ME, frozenset({ME, PEER})).open(datagram) == (PEER, message)


def test_a_lost_copy_is_killed_while_its_storage_is_still_gone() -> None:
    world = World(
        [HostSpec(name=HostName(name)) for name in ("host1", "host2", "host3")],
        [DatastoreSpec(name=DS)],
        [VmSpec(name=VmName("vm1"), host=HostName("host1"), datastore=DS)],
        settings=Settings(),
        seed=1,
    )
    world.settle()
    world.network_cut("host1")
    world.storage_cut("host1", DS)
    assert world.run_until(lambda: world.where("vm1") not in ([], ["host1"]), 20) is not None
    world.run(5)
    assert sorted(world.processes("vm1")) != world.where("vm1"), "a frozen copy is left"
    world.network_heal("host1")
    assert world.run_until(lambda: sorted(world.processes("vm1")) == world.where("vm1"), 5) is not None
    world.storage_heal("host1", DS)
    world.run(20)
    assert world.invariants.violations == []
