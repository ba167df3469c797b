"""Fencing as a pure machine: levels in order, answers in time, and what is called off when the host shows life."""

from __future__ import annotations

from typing import Any, cast

from agent_values import agent_config
from test_sim_failover import domain, secondary

from outlast.model.effects import CancelFence, Effect, FenceHost, FenceStatus, ReadRegisters, ReadSightings
from outlast.model.events import FenceEnded, FenceStatusEnded, PowerState, Received, RegistersRead, SightingsRead
from outlast.model.ids import (
    PRIMARY_REGISTER,
    DatastoreName,
    ElectionTerm,
    Epoch,
    HostId,
    HostName,
    Incarnation,
    Nonce,
    RequestId,
)
from outlast.model.inventory import DatastoreMember, FenceLevel, HostMember
from outlast.model.keeping import LeaseReport
from outlast.model.messages import EventNotice, OperatorWord, WordReport
from outlast.model.records import ProofKind, Reason, RecordMark, RegisterRecord, RegisterState
from outlast.model.settings import Pause, Settings, SettingsMark, SettingsRecord
from outlast.model.time import SECOND, Instant, after, seconds
from outlast.protocol.datastore_watch import DatastoreWatch
from outlast.protocol.fencing import SETTLES, Fencing
from outlast.protocol.hearing import hear
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.operator_word import OperatorDesk
from outlast.protocol.reporting import Reporter
from outlast.protocol.verdict import Verdict

ME, HOST, HOME = HostId("h1"), HostId("h2"), DatastoreName("ds1")
NOW = Instant(100 * SECOND)
PAUSE = Pause("root@one", 1, "the switch is replaced")
LEVELS = (FenceLevel("fence_ipmilan", seconds(10)), FenceLevel("fence_apc", seconds(5)))


def record(owner: HostId, epoch: int, subject: str = PRIMARY_REGISTER) -> RegisterRecord:
    return RegisterRecord(
        subject=subject,
        epoch=Epoch(epoch),
        owner=owner,
        incarnation=Incarnation(3),
        session="s",
        nonce=Nonce("n"),
        state=RegisterState.OWNED,
        reason=Reason.ELECTED,
    )


class Around:
    """The parts that fencing asks: a host that has been silent for five seconds, and whose record stands still."""

    def __init__(self) -> None:
        config = agent_config(
            host=ME,
            hosts=(HostMember(ME, HostName("one"), "192.0.2.1", 1), HostMember(HOST, HostName("two"), "192.0.2.2", 1)),
            datastores=(DatastoreMember(HOME, "/srv/ds1"),),
            fencing={HOST: LEVELS},
        )
        self.known, self.out = Knowledge(config, NOW), Outbox()
        lease = LeaseReport(HOME, True, 1, after(NOW, seconds(600)), Incarnation(1), "")  # type: ignore[arg-type]
        self.known.keeper = cast(Any, type("Report", (), {"leases": (lease,)}))
        watch = self.known.watches[HOST, HOME]
        watch.looked_at, watch.incarnation = NOW, Incarnation(3)
        self.seen_at: Instant | None = None
        self.doubt = ""
        around = cast(Any, self)
        self.watch = DatastoreWatch(self.known, self.out)
        self.fencing = Fencing(
            self.known,
            self.out,
            peers=around,
            responsibility=around,
            shared=around,
            doubt=around,
            watch=self.watch,
        )
        self.known.verdict = self.verdict_of  # type: ignore[method-assign]
        self.verdict = Verdict.PRESUMED_DEAD

    def verdict_of(self, _host: HostId) -> Verdict:
        return self.verdict

    def first_ping_at(self, _host: HostId) -> Instant:
        return Instant(NOW - 4 * SECOND)

    def seen_since(self, _host: HostId, then: Instant) -> bool:
        return self.seen_at is not None and self.seen_at > then

    def why_not_fenced(self, _host: HostId) -> str:
        return self.doubt

    def holds(self, _datastore: DatastoreName) -> Epoch:
        return Epoch(5)

    def rests_on(self, datastore: DatastoreName, last: RegisterRecord) -> bool:
        return last.owner == ME and last.epoch == self.holds(datastore)

    def read_soon(self) -> None:
        pass

    def look_before_act(self, _datastore: DatastoreName) -> None:
        """Storage is asked whether recovery is paused."""

    def pause(self, pause: Pause | None) -> None:
        mark = SettingsMark(2, ElectionTerm(1), ME)
        self.known.record = SettingsRecord(mark=mark, settings=Settings(), pause=pause, by="root@one", at_ms=1)

    def turn(self, seconds_later: float = 0.0, *, wanted: bool = True) -> list[Effect]:
        self.known.now = after(self.known.now, seconds(seconds_later))
        self.fencing.look()
        if wanted:
            self.fencing.want(HOST, HOME, NOW)
        self.fencing.tick()
        return self.asked()

    def asked(self) -> list[Effect]:
        return [e for e in self.out.take() if isinstance(e, FenceHost | FenceStatus | CancelFence | ReadRegisters)]

    def confirmed(self, effects: list[Effect]) -> list[Effect]:
        (read,) = effects
        assert isinstance(read, ReadRegisters)
        self.fencing.registers_read(RegistersRead(read.request, HOME, True, {PRIMARY_REGISTER: record(ME, 5)}))
        return self.asked()

    def off(self, effects: list[Effect], ok: bool = True, problem: str = "") -> list[Effect]:
        (fence,) = effects
        assert isinstance(fence, FenceHost)
        self.fencing.ended(FenceEnded(fence.request, HOST, ok, problem))
        return self.asked()

    def says(self, effects: list[Effect], state: PowerState) -> list[Effect]:
        (ask,) = effects
        assert isinstance(ask, FenceStatus)
        self.fencing.status_ended(FenceStatusEnded(ask.request, HOST, state))
        return self.asked()

    def proof(self, read_at: Instant = NOW) -> ProofKind | None:
        return self.known.said_off(record(HOST, 1, "vm"), HOME, read_at)


def test_a_success_is_no_proof_until_the_state_was_asked_for_and_has_settled() -> None:
    around = Around()
    asked = around.off(around.confirmed(around.turn()))
    assert around.proof() is None
    around.says(asked, PowerState.OFF)
    assert around.proof() is None
    around.turn(SETTLES / SECOND)
    assert around.proof() is ProofKind.POWER_FENCED


def test_while_recovery_is_paused_nobody_is_fenced() -> None:
    around = Around()
    asked = around.turn()
    around.pause(PAUSE)
    assert around.confirmed(asked) == []
    assert around.turn(1) == []
    assert "paused" in around.fencing.why(HOST)
    around.pause(None)
    (read,) = around.turn(1)
    assert isinstance(read, ReadRegisters)


def test_a_pause_calls_off_what_has_not_reached_the_device() -> None:
    around = Around()
    around.confirmed(around.turn())
    around.pause(PAUSE)
    (cancel,) = around.turn(1)
    assert isinstance(cancel, CancelFence)


def test_a_device_that_has_switched_off_is_asked_for_the_state_in_a_pause_too() -> None:
    around = Around()
    asked = around.off(around.confirmed(around.turn()))
    around.pause(PAUSE)
    assert around.turn(1) == []
    around.says(asked, PowerState.OFF)
    around.turn(SETTLES / SECOND)
    assert around.proof() is ProofKind.POWER_FENCED


def test_it_proves_nothing_about_an_epoch_that_was_read_later() -> None:
    around = Around()
    around.says(around.off(around.confirmed(around.turn())), PowerState.OFF)
    around.turn(2)
    assert around.proof(around.known.now) is None


def test_the_first_sign_of_life_voids_it() -> None:
    around = Around()
    around.says(around.off(around.confirmed(around.turn())), PowerState.OFF)
    around.turn(2)
    around.seen_at = around.known.now
    around.turn(1)
    assert around.proof() is None


def test_levels_are_tried_in_order_and_then_all_of_them_again_later() -> None:
    around = Around()
    first = around.confirmed(around.turn())
    second = around.confirmed(around.off(first, ok=False, problem="no route"))
    assert [getattr(each, "level", None) for each in (*first, *second)] == [0, 1]
    assert around.off(second, ok=False, problem="no route") == []
    assert around.fencing.outcomes[HOST].text == "fence_apc: no route"
    assert around.turn(4) == []
    again = around.confirmed(around.turn(1.1))
    assert [getattr(each, "level", None) for each in again] == [0]


def test_a_device_that_has_only_begun_is_asked_again() -> None:
    around = Around()
    asked = around.off(around.confirmed(around.turn()))
    assert around.says(asked, PowerState.ON) == []
    assert around.turn(0.5) == []
    around.says(around.turn(0.6), PowerState.OFF)
    around.turn(2)
    assert around.proof() is ProofKind.POWER_FENCED


def test_a_late_answer_to_an_earlier_question_is_not_heard() -> None:
    around = Around()
    around.off(around.confirmed(around.turn()))
    around.fencing.status_ended(FenceStatusEnded(RequestId(1), HOST, PowerState.OFF))
    around.turn(2)
    assert around.proof() is None


def test_what_is_under_way_is_called_off_when_the_host_lives() -> None:
    around = Around()
    (fence,) = around.confirmed(around.turn())
    around.verdict = Verdict.CONNECTED
    assert around.turn(wanted=False) == [CancelFence(cast(FenceHost, fence).request)]


def test_nobody_is_fenced_for_whom_another_proof_came_first_nor_by_a_deposed_primary() -> None:
    around = Around()
    around.turn()
    assert around.turn(0.1, wanted=False) == []
    (read,) = around.turn()
    found = {PRIMARY_REGISTER: record(HOST, 6)}
    around.fencing.registers_read(RegistersRead(cast(ReadRegisters, read).request, HOME, True, found))
    assert around.asked() == []


def test_a_host_whose_record_changed_a_moment_ago_is_not_fenced() -> None:
    around = Around()
    around.known.watches[HOST, HOME].changed_at = Instant(NOW - SECOND)
    assert around.turn() == []
    assert "has not been seen unchanged for long enough" in around.fencing.why(HOST)


def test_the_look_that_is_missing_begins_when_it_can_tell_and_not_at_the_next_poll() -> None:
    around = Around()

    def poll(seconds_later: float) -> None:
        around.known.now = after(around.known.now, seconds(seconds_later))
        around.watch.tick()
        (read,) = (effect for effect in around.out.take() if isinstance(effect, ReadSightings))
        around.watch.sightings_read(SightingsRead(read.request, HOME, True, {}))

    poll(0.8)
    around.known.watches[HOST, HOME].changed_at = Instant(NOW - SECOND)
    assert around.watch.due == after(NOW, seconds(1.3))
    around.turn()
    assert around.watch.due == after(NOW, seconds(1))
    poll(0.2)
    # Whatever that one found, it is asked for once, and not in every turn.
    around.turn()
    assert around.watch.due == after(NOW, seconds(1.5))


def test_an_operators_word_is_about_what_stood_on_the_screen() -> None:
    around = Around()
    desk = OperatorDesk(around.known, around.out)

    def answer(mark: RecordMark) -> WordReport:
        desk.word_came(HOST, OperatorWord(word=1, host=HOST, marks=(mark,)))
        return cast(Any, around.out.take()[-1]).message

    assert not answer(RecordMark(HOME, Incarnation(2))).accepted
    assert around.proof() is None
    around.verdict = Verdict.PARTITIONED
    assert "nobody has to confirm" in answer(RecordMark(HOME, Incarnation(3))).detail
    around.verdict = Verdict.PRESUMED_DEAD
    assert answer(RecordMark(HOME, Incarnation(3))).accepted
    around.turn(2)
    assert around.proof() is ProofKind.OPERATOR_CONFIRMED
    around.known.watches[HOST, HOME].incarnation = Incarnation(4)
    around.turn(0.1)
    assert around.proof() is None


def test_a_word_that_nobody_believes_is_given_up() -> None:
    around = Around()
    desk = OperatorDesk(around.known, around.out)
    desk.say(HOST, ())
    for _ in range(20):
        around.known.now = after(around.known.now, seconds(0.5))
        desk.tick()
    assert desk.answer is not None
    assert "nothing that the word could be about" in desk.answer.detail


def test_nobody_is_fenced_in_doubt() -> None:
    around = Around()
    around.doubt = "2 of 3 other hosts fell silent"
    assert around.turn() == []
    assert around.doubt in around.fencing.why(HOST)
    around.doubt = ""
    around.confirmed(around.turn())


def test_whoever_is_asked_can_tell_what_a_device_said_to_the_primary() -> None:
    world = domain()
    primary, other = world.primaries()[0], secondary(world)[0]
    machine = world.hosts[other].agent.machine
    assert machine is not None
    text = "fence_ipmilan was asked, and says that host9 is off"
    notice = EventNotice(
        sequence=1, kind="fence-confirmed", host=HostId(primary), vm=None, datastore=None, text=text, wall_clock_ms=1
    )
    assert not hear(machine, Received(HostId(primary), notice)), "it is for people, and moves nothing"
    status = next(h for h in Reporter(machine, world.hosts[other].clock()).snapshot("1", {}).hosts if h.name == primary)
    assert (status.fence_result, status.fence_result_ok) == (f"{primary}: {text}", True)
