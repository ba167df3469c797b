"""The disks of what runs here: each VM's are asked for once, and told of as long as another one uses them."""

from __future__ import annotations

from agent_values import agent_config, keeper_report

from outlast.model.effects import AskKeeper, Note
from outlast.model.events import KeeperAnswered
from outlast.model.ids import DatastoreName, Epoch, RequestId, VmId, VmName
from outlast.model.inventory import VmDefinition
from outlast.model.keeping import AskClaim, KeeperReply, KeptVm
from outlast.model.policy import VmPolicy
from outlast.model.time import NEVER, Instant, seconds
from outlast.protocol.claiming import RunningDisks
from outlast.protocol.knowledge import Knowledge, Outbox

DS, VM, OTHER = DatastoreName("ds1"), VmId("u-1"), VmId("u-2")


class Agent:
    """An agent's part that asks, with VMs that run as their keeper says."""

    def __init__(self, *vms: VmId) -> None:
        self.known, self.out = Knowledge(agent_config(), Instant(0)), Outbox()
        self.part = RunningDisks(self.known, self.out)
        self.kept(*vms)
        for vm in vms:
            self.writes(vm, "/srv/ds1/a.raw")

    def kept(self, *vms: VmId, phase: str = "running") -> None:
        self.known.keeper = keeper_report(vms=tuple(KeptVm(vm, VmName(vm), DS, Epoch(0), phase, 42) for vm in vms))
        self.known.running = frozenset(vms)

    def writes(self, vm: VmId, *paths: str) -> None:
        definition = VmDefinition(vm, VmName(vm), DS, (DS,), 256, True, "", VmPolicy(), "<domain/>", writes=paths)
        self.known.definitions = {**self.known.definitions, vm: definition}

    def asks(self, second: float) -> AskClaim | None:
        self.known.now = Instant(seconds(second))
        self.part.tick()
        asked = [effect.request for effect in self.out.take() if isinstance(effect, AskKeeper)]
        assert len(asked) <= 1
        ask = asked[0] if asked else None
        assert ask is None or isinstance(ask, AskClaim)
        return ask

    def answered(self, ask: AskClaim | None, sentence: str | None = None) -> list[str]:
        """What is told then; `sentence` None: claimed."""
        assert ask is not None
        reply = KeeperReply(RequestId(ask.request), sentence is None, sentence or "")
        self.part.keeper_answered(KeeperAnswered(reply))
        return [effect.kind for effect in self.out.take() if isinstance(effect, Note)]


def test_each_vm_that_runs_is_asked_for_once_and_one_at_a_time() -> None:
    agent = Agent(VM, OTHER)
    first = agent.asks(0)
    assert first is not None
    assert (first.vm, first.writes) == (VM, ("/srv/ds1/a.raw",))
    assert agent.asks(1) is None
    assert agent.answered(first) == []
    second = agent.asks(1)
    assert second is not None
    assert second.vm == OTHER
    agent.answered(second)
    assert agent.asks(100) is None
    assert agent.part.next_deadline() == NEVER


def test_a_disk_that_is_plugged_in_is_asked_for() -> None:
    agent = Agent(VM)
    agent.answered(agent.asks(0))
    agent.writes(VM, "/srv/ds1/a.raw", "/srv/ds1/b.raw")
    again = agent.asks(50)
    assert again is not None
    assert again.writes == ("/srv/ds1/a.raw", "/srv/ds1/b.raw")


def test_a_disk_that_two_use_is_told_of_until_it_is_over() -> None:
    agent = Agent(VM)
    assert agent.answered(agent.asks(0), "its disk a.raw on ds1 is used by clone") == ["disk-shared"]
    assert agent.asks(29) is None
    assert agent.answered(agent.asks(30), "its disk a.raw on ds1 is used by clone") == ["disk-shared"]
    assert agent.answered(agent.asks(61)) == []
    assert agent.asks(200) is None


def test_a_keeper_that_does_not_answer_is_asked_again() -> None:
    agent = Agent(VM)
    assert agent.asks(0) is not None
    assert agent.asks(9) is None
    assert agent.asks(10) is None, "what was asked for rests for a while"
    assert agent.asks(30) is not None


def test_what_is_frozen_is_not_asked_for_before_it_runs() -> None:
    agent = Agent(VM)
    agent.kept(VM, phase="frozen")
    assert agent.asks(0) is None
    agent.kept(VM)
    assert agent.asks(5) is not None
