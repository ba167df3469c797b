"""A host that lives and has lost a datastore: when its VMs are asked for, of whom, and which answer is proof."""

from __future__ import annotations

import msgspec
import pytest
from agent_values import agent_config, keeper_report

from outlast.codec.datagrams import Opener, Sealer
from outlast.model.effects import AskKeeper, Effect, ReadRegisters, Send
from outlast.model.events import KeeperAnswered, RegistersRead
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
    VmId,
    VmName,
)
from outlast.model.inventory import Capacity, DatastoreMember, DatastoreReach, HostMember
from outlast.model.keeping import AskGivenUp, KeeperReply, LeaseReport
from outlast.model.messages import GivenUp, GiveUp, Heartbeat, Message, Rank
from outlast.model.policy import VmPolicy
from outlast.model.records import (
    Attempts,
    PoweredVm,
    PowerOnList,
    ProtectedVm,
    Reason,
    RegisterRecord,
    RegisterState,
)
from outlast.model.settings import Pause, Settings, SettingsMark, SettingsRecord, problems
from outlast.model.time import Duration, Instant, seconds
from outlast.protocol.agent import AgentMachine
from outlast.protocol.giving_up import GivingUp
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.restart import Restart
from outlast.protocol.verdict import Verdict

DS, VM, ME, OWNER = DatastoreName("ds1"), VmId("vm1"), HostId("c"), HostId("a")
MIB = 1024


def at(second: float) -> Instant:
    return Instant(seconds(second))


def record(owner: str, epoch: int, subject: str = VM, session: str = "k") -> RegisterRecord:
    return RegisterRecord(
        subject=subject,
        epoch=Epoch(epoch),
        owner=HostId(owner),
        incarnation=Incarnation(1),
        session=session,
        nonce=Nonce("n"),
        state=RegisterState.OWNED,
        reason=Reason.STARTED,
    )


class Agent:
    """Host c, responsible for ds1, where it holds its lease; host a lists vm1. All of it since second 0."""

    def __init__(self, *, free_mib: int = 8 * MIB) -> None:
        config = agent_config(
            host=ME,
            hosts=tuple(HostMember(HostId(name), HostName(name), "192.0.2.1", 1) for name in "abc"),
            datastores=(DatastoreMember(DS, "/srv/ds1"),),
        )
        self.machine = AgentMachine(config, at(0))
        self.known, self.loss = self.machine.known, self.machine.recovery.loss
        self.known.hypervisor_up = True
        self.known.capacity = Capacity(memory_mib=free_mib, free_memory_mib=free_mib, cpus=8)
        seat = self.machine.responsibility._seats[DS]
        seat.held, seat.loaded = Epoch(4), True
        self.entry = ProtectedVm(VM, VmName("web"), MIB, OWNER)
        seat.protection.vms[VM] = self.entry
        line = PoweredVm(VM, VmName("web"), DS, Epoch(3), "running", MIB, True)
        self.known.take_list(PowerOnList(host=OWNER, boot_id=BootId("b"), sequence=1, isolated=False, vms=(line,)))
        self.hears()
        self.leaves(0)

    def renewed(self, second: float, *, term: int = 1, held: bool = True) -> None:
        """Our keeper says that its last timely write began then."""
        lease = LeaseReport(DS, held, LeaseTerm(term), at(second + 6) if held else 0, Incarnation(1))
        self.known.keeper = keeper_report(host=ME, leases=(lease,))

    def hears(self, *, lapsed: bool = False, failing: bool = False, verdict: Verdict = Verdict.CONNECTED) -> None:
        for name in "ab":
            mine = (DS,) if name == OWNER and lapsed else ()
            self.known.take_beat(
                Heartbeat(
                    sender=HostId(name),
                    boot_id=BootId("b"),
                    sequence=1,
                    rank=Rank(True, 1, 0, HostId(name)),
                    term=ElectionTerm(1),
                    primary=ME,
                    lapsed=mine,
                    failing=mine if failing else (),
                    reach=(DatastoreReach(DS, True),),
                    capacity=Capacity(),
                    hypervisor_up=True,
                )
            )
            before = self.known.judgements[HostId(name)]
            self.known.judgements[HostId(name)] = msgspec.structs.replace(before, verdict=verdict)
        self.known.verdict_changed()

    def leaves(self, second: float, *, renewed: bool = True) -> bool:
        """Whether the VM is to leave its owner at that time, our lease being renewed all along."""
        self.known.now = at(second)
        if renewed:
            self.renewed(second)
        self.loss.look()
        return self.loss.calls_for(VM, OWNER)

    def lost(self, *, failing: bool = False) -> Agent:
        """From second 10 on the owner says that its lease has lapsed."""
        assert not self.leaves(9)
        self.hears(lapsed=True, failing=failing)
        self.leaves(10, renewed=False)
        return self

    def case(self, epoch: int = 3) -> Restart:
        case = Restart(self.entry, DS, self.known.now)
        case.last, case.epoch_read_at = record(OWNER, epoch), self.known.now
        return case

    def effects(self) -> list[Effect]:
        return self.machine._out.take()

    def reads(self, *, primary: str = ME, epoch: int = 3) -> None:
        """The registers that were asked for are found like that."""
        (read,) = [effect for effect in self.effects() if isinstance(effect, ReadRegisters)]
        last = {PRIMARY_REGISTER: record(primary, 4, PRIMARY_REGISTER), VM: record(OWNER, epoch)}
        assert self.loss.registers_read(RegistersRead(read.request, DS, True, dict(last)))

    def asked(self) -> list[Message]:
        return [effect.message for effect in self.effects() if isinstance(effect, Send) and effect.to == OWNER]


def test_it_leaves_when_the_loss_has_lasted() -> None:
    agent = Agent().lost()
    assert not agent.leaves(39.9)
    assert agent.leaves(40.1)


def test_errors_are_not_waited_for_once_our_own_storage_has_been_seen_to_work_since() -> None:
    agent = Agent().lost(failing=True)
    assert not agent.leaves(10.5, renewed=False), "what fails for all fails for some a moment sooner"
    assert agent.leaves(11)


def test_the_time_counts_only_while_we_hold_our_own_lease() -> None:
    """An outage for everybody that ends for us first."""
    agent = Agent().lost()
    agent.renewed(0, held=False)
    agent.leaves(20, renewed=False)
    agent.renewed(50, term=2)
    assert not agent.leaves(50, renewed=False)
    agent.known.now = at(79)
    agent.renewed(79, term=2)
    assert not agent.leaves(79, renewed=False)
    agent.renewed(81, term=2)
    assert agent.leaves(81, renewed=False)


def test_errors_for_everybody_that_end_for_us_first() -> None:
    agent = Agent().lost(failing=True)
    agent.renewed(0, held=False)
    agent.leaves(20, renewed=False)
    for second, leaves in ((50, False), (57, False), (58, True)):
        agent.renewed(second, term=2)
        assert agent.leaves(second, renewed=False) is leaves


def test_storage_that_is_back_is_not_lost() -> None:
    agent = Agent().lost()
    agent.leaves(39)
    agent.hears()
    assert not agent.leaves(41)
    agent.hears(lapsed=True)
    assert not agent.leaves(42), "that is another lapse"


def test_a_host_that_is_not_heard_is_not_asked_and_its_loss_goes_on() -> None:
    agent = Agent().lost()
    agent.hears(lapsed=True, verdict=Verdict.PARTITIONED)
    assert not agent.leaves(41)
    agent.hears(lapsed=True)
    assert agent.leaves(43)


def test_what_has_no_room_elsewhere_stays() -> None:
    agent = Agent(free_mib=MIB // 2).lost()
    assert not agent.leaves(41)


@pytest.mark.parametrize(
    "entry",
    [
        ProtectedVm(VM, VmName("web"), MIB, OWNER, attempts=Attempts(failed=True)),
        ProtectedVm(VM, VmName("web"), MIB, OWNER, policy=VmPolicy(priority="disabled")),
    ],
    ids=["given up", "disabled"],
)
def test_nor_is_ended_what_would_not_be_started(entry: ProtectedVm) -> None:
    agent = Agent()
    agent.machine.responsibility._seats[DS].protection.vms[VM] = entry
    assert not agent.lost().leaves(41)


def test_a_pause_holds_it() -> None:
    agent = Agent().lost()
    agent.known.record = SettingsRecord(mark=SettingsMark(), settings=Settings(), pause=Pause("somebody", 0))
    assert not agent.leaves(41)


# -- asking -----------------------------------------------------------------------------------------------------------


def asking() -> tuple[Agent, Restart]:
    agent = Agent().lost()
    assert agent.leaves(41)
    agent.effects()
    case = agent.case()
    assert agent.loss.ask(case)
    return agent, case


def test_it_is_asked_for_exactly_what_was_read_and_again() -> None:
    agent, case = asking()
    agent.reads()
    wanted = GiveUp(vm=VM, home=DS, epoch=Epoch(3), session="k")
    assert agent.asked() == [wanted]
    agent.loss.ask(case)
    agent.known.now = at(41.6)
    agent.loss.tick()
    assert agent.asked() == [wanted]


def test_nobody_is_asked_by_who_is_not_responsible_any_more() -> None:
    agent, _ = asking()
    agent.reads(primary="b")
    assert agent.asked() == []


def test_a_register_that_has_changed_is_read_anew() -> None:
    agent, case = asking()
    agent.reads(epoch=4)
    assert agent.asked() == []
    assert agent.loss.ask(case) is None


def test_nobody_is_asked_on_for_what_is_not_wanted_any_more() -> None:
    agent, _ = asking()
    agent.reads()
    agent.effects()
    for second in (41.6, 42.2):
        agent.known.now = at(second)
        agent.loss.tick()
    assert len(agent.asked()) <= 1
    agent.known.now = at(43)
    agent.loss.tick()
    assert agent.asked() == []


def answer(epoch: int = 3, *, done: bool = True, session: str = "k") -> GivenUp:
    return GivenUp(vm=VM, home=DS, epoch=Epoch(epoch), session=session, done=done, sentence="" if done else "it hangs")


def test_the_owners_word_about_what_was_read_is_proof() -> None:
    agent, _ = asking()
    agent.loss.answered(OWNER, answer())
    assert agent.known.has_given_up(record(OWNER, 3), DS)
    assert agent.known.lister(VM) is None, "what its list said is over"


@pytest.mark.parametrize(
    ("sender", "message"),
    [
        (OWNER, answer(done=False)),
        (OWNER, answer(2)),
        (OWNER, answer(4)),
        (OWNER, answer(session="another")),
        (HostId("b"), answer()),
    ],
    ids=["not yet", "earlier", "later", "another session", "another host"],
)
def test_nothing_else_is(sender: HostId, message: GivenUp) -> None:
    agent, _ = asking()
    agent.loss.answered(sender, message)
    assert not agent.known.has_given_up(record(OWNER, 3), DS)


def test_an_old_word_takes_nothing_back() -> None:
    agent, _ = asking()
    agent.loss.answered(OWNER, answer(3))
    agent.loss.answered(OWNER, answer(1))
    assert agent.known.has_given_up(record(OWNER, 3), DS)


def test_why_not_is_told_to_people_when_it_takes_long() -> None:
    agent, case = asking()
    agent.reads()
    agent.loss.answered(OWNER, answer(done=False))
    assert agent.loss.problems() == []
    agent.loss.ask(case)
    agent.known.now = at(72)
    agent.loss.tick()
    (problem,) = agent.loss.problems()
    assert "it hangs" in problem


# -- who is asked -----------------------------------------------------------------------------------------------------


def test_the_keeper_is_asked_and_its_answer_passed_on() -> None:
    known, out = Knowledge(agent_config(), at(0)), Outbox()
    known.keeper = keeper_report()
    desk, question = GivingUp(known, out), GiveUp(vm=VM, home=DS, epoch=Epoch(3), session="k")
    desk.asked(ME, question)
    (asked,) = out.take()
    assert isinstance(asked, AskKeeper)
    assert isinstance(asked.request, AskGivenUp)
    desk.keeper_answered(KeeperAnswered(KeeperReply(asked.request.request, True, epoch=Epoch(3))))
    (sent,) = out.take()
    assert sent == Send(ME, answer())
    desk.keeper_answered(KeeperAnswered(KeeperReply(asked.request.request, True, epoch=Epoch(3))))
    assert out.take() == []


def test_a_keeper_that_is_away_gives_no_word() -> None:
    known, out = Knowledge(agent_config(), at(0)), Outbox()
    GivingUp(known, out).asked(ME, GiveUp(vm=VM, home=DS, epoch=Epoch(3), session="k"))
    (sent,) = out.take()
    assert isinstance(sent, Send)
    assert isinstance(sent.message, GivenUp)
    assert not sent.message.done


@pytest.mark.parametrize("message", [GiveUp(vm=VM, home=DS, epoch=Epoch(3), session="k"), answer()])
def test_it_travels_in_a_sealed_datagram(message: Message) -> None:
    key = bytes(32)
    datagram = Sealer(key, OWNER, 1, b"01234567").seal(ME, message)
    assert Opener(key, ME, frozenset({ME, OWNER})).open(datagram) == (OWNER, message)


def test_it_is_longer_than_a_new_keeper_needs() -> None:
    assert problems(Settings(storage_loss_after=Duration(seconds(3)))) == []
    (problem,) = problems(Settings(storage_loss_after=Duration(seconds(2))))
    assert problem.startswith("storage_loss_after")


@pytest.mark.parametrize(
    ("bound_s", "accepted", "leaves"), [(None, True, True), (None, False, False), (1, False, True), (5, False, False)]
)
def test_what_a_kernel_may_hold_is_a_risk_to_be_accepted(bound_s: float | None, accepted: bool, leaves: bool) -> None:
    agent = Agent()
    bound = Duration(seconds(bound_s)) if bound_s is not None else None
    member = msgspec.structs.replace(agent.known.datastores[DS], in_flight_bound=bound, accept_in_flight_risk=accepted)
    agent.known.datastores[DS] = member
    assert agent.lost().leaves(41) is leaves
