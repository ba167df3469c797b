"""What a host's list says of a VM's policy, and why one that ended did: the newest that is known, whoever tells it."""

from __future__ import annotations

import pytest
from agent_values import agent_config, keeper_report

from outlast.model.effects import AskKeeper, MigrateVm, Send, WritePowerOnList
from outlast.model.events import InventoryChanged, KeeperAnswered, StopReason, VmMigrationEnded
from outlast.model.ids import DatastoreName, Epoch, HostId, HostName, Incarnation, VmId, VmName
from outlast.model.inventory import Capacity, DatastoreMember, HostMember, Needs, VmDefinition
from outlast.model.keeping import AskRelease, AskTakeover, KeeperReply, KeptVm
from outlast.model.messages import CopyReport, CopyWanted, MigrateOrder, RestartOrder
from outlast.model.policy import VmPolicy
from outlast.model.records import PoweredVm, Proof, ProofKind, ProtectedVm, Reason
from outlast.model.settings import IsolationResponse
from outlast.model.time import Instant, seconds
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.migration import Migrations
from outlast.protocol.orders import OrderDesk
from outlast.protocol.own_host import OwnHost
from outlast.protocol.responsibility import Responsibility
from outlast.protocol.wish_following import WishFollower

VM, NAME, DS, OTHER = VmId("u-1"), VmName("web"), DatastoreName("ds1"), HostId("b")
NEEDS = Needs(memory_mib=512)


class Agent:
    """The own host and the order desk of one agent."""

    def __init__(self) -> None:
        self.known, self.out = Knowledge(agent_config(datastores=(DatastoreMember(DS, "/srv/ds1"),)), Instant(0)), Outbox()
        self.known.hypervisor_up = self.known.looked_back = True
        self.known.keeper = keeper_report()
        follower = WishFollower(self.known, self.out, Responsibility(self.known, self.out))
        self.desk = OrderDesk(self.known, self.out)
        self.migrations = Migrations(self.known, self.out, tell=lambda _: None)
        self.own = OwnHost(self.known, self.out, desk=self.desk, wishes=follower, migrations=self.migrations)

    def ordered(self, response: IsolationResponse | None, *, entry: bool = True) -> None:
        """The primary orders a start of the VM, whose policy is that."""
        proof = Proof(kind=ProofKind.REBOOTED, owner=OTHER, incarnation=Incarnation(1), epoch=Epoch(0), observer=OTHER)
        wanted = ProtectedVm(VM, NAME, 512, OTHER, VmPolicy(isolation_response=response), NEEDS) if entry else None
        self.desk.ordered(OTHER, RestartOrder(order=1, vm=VM, name=NAME, home=DS, proof=proof, entry=wanted))

    def libvirt_tells(self, response: IsolationResponse | None, *, running: bool, off: StopReason | None = None) -> None:
        definition = VmDefinition(VM, NAME, DS, (DS,), 256, True, "", VmPolicy(isolation_response=response), "")
        reasons = {} if off is None else {VM: off}
        event = InventoryChanged((definition,), frozenset({VM} if running else ()), Capacity(), reasons)
        self.known.take_inventory(event)
        self.own.inventory_changed(event)

    def released(self, phase: str) -> list[Reason]:
        """The keeper reports the VM: for which reason it is asked at once to release it."""
        self.known.keeper = keeper_report(vms=(KeptVm(VM, NAME, DS, Epoch(1), phase, None),))
        self.own.tick(False)
        asked = [effect.request for effect in self.out.take() if isinstance(effect, AskKeeper)]
        return [ask.reason for ask in asked if isinstance(ask, AskRelease)]

    def keeps(self, phase: str) -> PoweredVm:
        """The keeper reports the VM: how it stands on our list then."""
        self.known.now = Instant(self.known.now + seconds(5))
        self.known.keeper = keeper_report(vms=(KeptVm(VM, NAME, DS, Epoch(1), phase, 1),))
        self.own.tick(False)
        written = [effect.content for effect in self.out.take() if isinstance(effect, WritePowerOnList)]
        (line,) = written[-1].vms
        return line


def response(line: PoweredVm) -> IsolationResponse | None:
    """What is done to it in an isolation; its policy must be known."""
    assert line.policy is not None
    return line.policy.isolation_response


def test_a_vm_that_is_started_here_has_its_policy_from_the_order() -> None:
    agent = Agent()
    agent.ordered("leave-running")
    line = agent.keeps("running")
    assert (response(line), line.memory_mib, line.needs) == ("leave-running", 512, NEEDS)
    assert (line.home, line.epoch, line.state, line.protected) == (DS, 1, "running", True)


def test_what_libvirt_knew_from_its_last_time_here_is_older_than_the_order() -> None:
    agent = Agent()
    agent.libvirt_tells("power-off", running=False)
    agent.ordered("leave-running")
    agent.libvirt_tells("power-off", running=False)
    assert response(agent.keeps("starting")) == "leave-running"


def test_what_libvirt_says_of_a_vm_that_runs_is_newer_than_the_order() -> None:
    agent = Agent()
    agent.ordered("leave-running")
    agent.libvirt_tells("power-off", running=True)
    assert response(agent.keeps("running")) == "power-off"
    agent.ordered("leave-running")
    assert response(agent.keeps("frozen")) == "power-off", "a repeated order tells nothing of what runs"


@pytest.mark.parametrize(("phase", "state"), [("running", "running"), ("void", "ending")])
def test_what_nobody_tells_of_stays_as_it_was(phase: str, state: str) -> None:
    agent = Agent()
    agent.ordered("leave-running")
    agent.keeps("starting")
    agent.known.forget_orders([VM])
    line = agent.keeps(phase)
    assert (response(line), line.needs, line.state) == ("leave-running", NEEDS, state)


def test_an_order_that_came_to_nothing_tells_nothing_of_a_later_start() -> None:
    agent = Agent()
    agent.ordered("leave-running")
    (ask,) = (effect.request for effect in agent.out.take() if isinstance(effect, AskKeeper))
    assert isinstance(ask, AskTakeover)
    agent.desk.keeper_answered(KeeperAnswered(KeeperReply(ask.request, False, "it is owned by another")))
    agent.libvirt_tells("power-off", running=False)
    assert response(agent.keeps("running")) == "power-off"


def test_an_order_of_an_older_release_tells_nothing() -> None:
    agent = Agent()
    agent.libvirt_tells("power-off", running=False)
    agent.ordered(None, entry=False)
    assert response(agent.keeps("starting")) == "power-off"


def test_what_nobody_has_told_of_is_protected_and_left_alone_until_somebody_does() -> None:
    agent = Agent()
    line = agent.keeps("running")
    assert (line.protected, line.policy, line.memory_mib) == (True, None, 0)
    agent.libvirt_tells(None, running=True)
    assert agent.keeps("running").policy == VmPolicy()


def test_why_a_domain_is_off_is_of_the_epoch_that_it_had_when_libvirt_said_so() -> None:
    """It was switched off here once, and has run elsewhere since; its next start here fails."""
    agent = Agent()
    agent.libvirt_tells(None, running=False, off=StopReason.DESTROYED)
    assert agent.released("ended") == []
    agent.libvirt_tells(None, running=False, off=StopReason.DESTROYED)
    assert agent.released("ended") == [Reason.SWITCHED_OFF]


def test_an_agent_that_has_just_started_believes_what_libvirt_remembers() -> None:
    agent = Agent()
    agent.known.keeper = None
    agent.libvirt_tells(None, running=False, off=StopReason.DESTROYED)
    assert agent.released("ended") == [Reason.SWITCHED_OFF]


def test_a_vm_that_was_taken_and_never_started_did_not_crash() -> None:
    """Its host's lease lapsed while the keeper claimed it: no failure of the VM's own (random world 20281594)."""
    agent = Agent()
    assert agent.released("ended") == []
    agent.known.now = Instant(agent.known.now + seconds(10))
    assert agent.released("ended") == [Reason.HOST_FAULT]
    agent = Agent()
    assert agent.released("running") == []
    assert agent.released("ended") == []
    agent.known.now = Instant(agent.known.now + seconds(10))
    assert agent.released("ended") == [Reason.CRASHED]


@pytest.mark.parametrize(("ended", "heirs"), [(42, [OTHER]), (43, []), (None, [])], ids=["it", "another", "unknown"])
def test_only_the_end_of_the_process_that_migrated_releases_a_vm_to_its_copy(
    ended: int | None, heirs: list[HostId], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one was started here since then, and may have written to the disk: its copy is older than that."""
    agent = Agent()
    agent.known.members[OTHER] = HostMember(OTHER, HostName("beta"), "192.0.2.2", 1)
    monkeypatch.setattr(agent.known, "live", lambda _: True)
    agent.known.keeper = keeper_report(vms=(KeptVm(VM, NAME, DS, Epoch(1), "running", 42),))
    agent.migrations.ordered(OTHER, MigrateOrder(order=1, vm=VM, destination=OTHER))
    agent.migrations.tick()
    sent = [effect.message for effect in agent.out.take() if isinstance(effect, Send)]
    (wanted,) = [message for message in sent if isinstance(message, CopyWanted)]
    agent.migrations.reported(OTHER, CopyReport(handover=wanted.handover, vm=VM, stage="expected"))
    (begun,) = [effect for effect in agent.out.take() if isinstance(effect, MigrateVm)]
    agent.migrations.ended(VmMigrationEnded(begun.request, VM, True))
    agent.known.keeper = keeper_report(vms=(KeptVm(VM, NAME, DS, Epoch(1), "ended", None, ended=ended),))
    agent.own.tick(False)
    asked = [effect.request for effect in agent.out.take() if isinstance(effect, AskKeeper)]
    assert [ask.heir for ask in asked if isinstance(ask, AskRelease)] == heirs
