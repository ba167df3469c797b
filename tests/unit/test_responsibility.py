"""Who is called to hold a datastore's `primary` register, and when a holder yields it."""

from __future__ import annotations

import msgspec
import pytest
from agent_values import agent_config, keeper_report

from outlast.model.effects import LinkPrimary, ReadRegisters
from outlast.model.events import RegistersRead
from outlast.model.ids import (
    PRIMARY_REGISTER,
    BootId,
    DatastoreName,
    ElectionTerm,
    Epoch,
    HostId,
    HostName,
    Incarnation,
    LeaseTerm,
    Nonce,
)
from outlast.model.inventory import Capacity, DatastoreMember, DatastoreReach, HostMember
from outlast.model.keeping import LeaseReport
from outlast.model.messages import Heartbeat, Rank
from outlast.model.records import Reason, RegisterRecord, RegisterState
from outlast.model.time import Instant, seconds
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.responsibility import Responsibility, Standing
from outlast.protocol.verdict import Verdict

DS = DatastoreName("ds1")
NAMES = ("a", "b", "c", "d")


class Agent:
    """Host c's part in it; it holds a lease, unless told otherwise."""

    def __init__(self, *, lease: bool = True) -> None:
        config = agent_config(
            host=HostId("c"),
            hosts=tuple(HostMember(HostId(name), HostName(name), "192.0.2.1", 1) for name in NAMES),
            datastores=(DatastoreMember(DS, "/srv/ds1"),),
        )
        self.known, self.out = Knowledge(config, at(0)), Outbox()
        held = LeaseReport(DS, lease, LeaseTerm(1), at(1000), Incarnation(1))
        self.known.keeper = keeper_report(host=config.host, leases=(held,))
        self.responsibility = Responsibility(self.known, self.out)

    def hears(self, name: str, *, primary: str | None = "a", lease: bool = True, isolated: bool = False) -> Agent:
        self.known.take_beat(
            Heartbeat(
                sender=HostId(name),
                boot_id=BootId("b"),
                sequence=1,
                rank=rank(name, isolated=isolated),
                term=ElectionTerm(1),
                primary=HostId(primary) if primary is not None else None,
                lapsed=() if lease else (DS,),
                reach=(DatastoreReach(DS, True),),
                capacity=Capacity(),
                hypervisor_up=True,
            )
        )
        before = self.known.judgements[HostId(name)]
        self.known.judgements[HostId(name)] = msgspec.structs.replace(before, verdict=Verdict.CONNECTED)
        return self

    def turn(self, second: float, register: RegisterRecord | None, *, primary: str | None = "a") -> list[RegisterRecord]:
        """One turn, in which every read finds that; what is linked."""
        self.known.now = at(second)
        standing = Standing(True, HostId(primary) if primary is not None else None, rank("c"), ElectionTerm(1))
        linked: list[RegisterRecord] = []
        for _ in range(2):
            self.responsibility.tick(standing)
            for effect in self.out.take():
                if isinstance(effect, ReadRegisters):
                    found = {PRIMARY_REGISTER: register}
                    self.responsibility.registers_read(RegistersRead(effect.request, DS, True, found))
                elif isinstance(effect, LinkPrimary):
                    linked.append(effect.record)
        return linked


def at(second: float) -> Instant:
    return Instant(seconds(second))


def rank(name: str, *, isolated: bool = False) -> Rank:
    return Rank(not isolated, 1, 1, HostId(name))


def held_by(name: str, state: RegisterState = RegisterState.OWNED) -> RegisterRecord:
    return RegisterRecord(
        subject=PRIMARY_REGISTER,
        epoch=Epoch(4),
        owner=HostId(name),
        incarnation=Incarnation(1),
        session="s" if name == "c" else "another",
        nonce=Nonce("n"),
        state=state,
        reason=Reason.ELECTED,
    )


FREE = held_by("b", RegisterState.RELEASED)


@pytest.mark.parametrize(
    ("agent", "register", "primary", "takes"),
    [
        (Agent().hears("a").hears("b"), FREE, "a", False),  # The primary holds a lease there.
        (Agent().hears("a", lease=False).hears("b"), FREE, "a", True),  # The best rank of those who do.
        (Agent().hears("a", lease=False).hears("d"), FREE, "a", False),  # There is a better rank.
        (Agent().hears("a", lease=False).hears("d", lease=False), FREE, "a", True),
        (Agent().hears("a", lease=False).hears("d", isolated=True), FREE, "a", True),
        (Agent().hears("a", lease=False).hears("d", primary=None), FREE, "a", True),  # It follows another, or nobody.
        (Agent(lease=False).hears("a", lease=False), FREE, "a", False),
        (Agent().hears("a", lease=False).hears("b"), FREE, None, False),  # Nobody is called while there is no primary.
        (Agent().hears("a"), FREE, "c", True),  # The primary itself.
    ],
)
def test_who_is_called(agent: Agent, register: RegisterRecord, primary: str | None, takes: bool) -> None:
    assert [record.state for record in agent.turn(1, register, primary=primary)] == [RegisterState.OWNED] * takes


def test_a_holder_that_can_goes_on_although_there_is_a_better_rank() -> None:
    agent = Agent().hears("a", lease=False).hears("b")
    assert agent.turn(1, held_by("b")) == []
    standing = Standing(True, HostId("a"), rank("c"), ElectionTerm(1))
    seat = agent.responsibility._seats[DS]
    assert agent.responsibility._called(DS, seat, standing) == "b"
    agent.hears("b", lease=False)
    assert agent.responsibility._called(DS, seat, standing) == "c"


def test_a_holder_yields_when_another_was_called_for_long_and_not_for_a_moments_lapse() -> None:
    agent = Agent().hears("a", lease=False)
    agent.responsibility._seats[DS].held = Epoch(4)
    mine = held_by("c")
    assert agent.turn(1, mine) == []
    agent.hears("a")
    assert agent.turn(6.5, mine) == []
    agent.hears("a", lease=False)
    assert agent.turn(9, mine) == []
    agent.hears("a")
    assert agent.turn(9.5, mine) == []
    assert agent.turn(12, mine) == []
    assert [record.reason for record in agent.turn(12.6, mine)] == [Reason.YIELDED]


def test_a_holder_keeps_its_register_while_no_primary_is_known() -> None:
    agent = Agent().hears("b", primary=None)
    agent.responsibility._seats[DS].held = Epoch(4)
    assert agent.turn(1, held_by("c"), primary=None) == []
    assert agent.turn(30, held_by("c"), primary=None) == []
