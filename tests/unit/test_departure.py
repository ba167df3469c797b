"""A host that goes down in good order: what it says, when it may go, and what others hold back."""

from __future__ import annotations

import pytest
from agent_values import BOOT, agent_config

from outlast.drivers.host_shutdown import of_jobs
from outlast.model.commands import DrainHost
from outlast.model.effects import Note
from outlast.model.events import CommandGiven, HostGoesDown
from outlast.model.ids import BootId, DatastoreName, Epoch, HostId, HostName, Incarnation, Nonce, VmId, VmName
from outlast.model.inventory import HostMember
from outlast.model.messages import Emptying
from outlast.model.records import PoweredVm, PowerOnList, ProofKind, Reason, RegisterRecord, RegisterState
from outlast.model.settings import Maintenance, Settings, SettingsMark, SettingsRecord
from outlast.model.time import SECOND, Duration, Instant
from outlast.protocol.departure import Departure
from outlast.protocol.host_condition import kept_empty
from outlast.protocol.knowledge import Knowledge, Outbox, PoweredOff
from outlast.protocol.planned_reboot import PlannedReboots
from outlast.protocol.verdict import Verdict

A, B = HostId("a"), HostId("b")
HOSTS = (HostMember(A, HostName("host1"), "192.0.2.1", 1), HostMember(B, HostName("host2"), "192.0.2.2", 1))
HOME, VM = DatastoreName("ds1"), VmId("v")


def known_of(**settings: object) -> Knowledge:
    known = Knowledge(agent_config(host=A, hosts=HOSTS), Instant(0))
    known.settings = Settings(**settings)  # type: ignore[arg-type]
    known.record = SettingsRecord(mark=SettingsMark(1), settings=known.settings)
    return known


def listed(host: HostId, *states: str, departs: str = "", boot: BootId = BOOT, sequence: int = 1) -> PowerOnList:
    vms = tuple(
        PoweredVm(VmId(f"v{i}"), VmName(f"web{i}"), HOME, Epoch(1), state, 64, True) for i, state in enumerate(states)
    )
    return PowerOnList(host=host, boot_id=boot, sequence=sequence, isolated=False, vms=vms, departs=departs)  # type: ignore[arg-type]


class Going:
    """Host a, which goes down."""

    def __init__(self, policy: str, how: str = "reboot", *states: str) -> None:
        self.known, self.out = known_of(host_shutdown_policy=policy), Outbox()
        self.given: list[CommandGiven] = []
        self.emptying: tuple[Emptying, ...] = ()
        self.hands_over = False
        self.departure = Departure(self.known, self.out, self.given.append, lambda: self.emptying, lambda: self.hands_over)
        self.known.take_list(listed(A, *states))
        self.departure.begin(HostGoesDown(how, 0))  # type: ignore[arg-type]

    def may_go(self, at_s: float, *, has_said: bool = True) -> bool:
        self.known.now = Instant(round(at_s * SECOND))
        self.departure.tick(has_said=has_said)
        return self.departure.may_go

    def drained(self) -> None:
        assert self.known.record is not None
        kept = {A: Maintenance("root", 0)}
        self.known.record = SettingsRecord(mark=SettingsMark(2), settings=self.known.settings, maintenance=kept)


@pytest.mark.parametrize(
    ("policy", "how", "departs"),
    [
        ("failover", "reboot", "failover"),
        ("freeze", "power-off", "freeze"),
        ("conditional", "reboot", "freeze"),
        ("conditional", "power-off", "failover"),
        ("migrate", "reboot", "failover"),
    ],
)
def test_what_it_says(policy: str, how: str, departs: str) -> None:
    assert Going(policy, how).known.departs == departs


def test_it_goes_when_its_word_is_on_storage_and_later_if_others_must_have_read_it() -> None:
    going = Going("failover")
    assert not going.may_go(0.1, has_said=False)
    assert going.may_go(0.2)
    frozen = Going("freeze")
    assert not frozen.may_go(0.2)
    assert not frozen.may_go(1.1)
    assert frozen.may_go(1.3)


def test_storage_that_does_not_answer_holds_it_up_for_a_while_only() -> None:
    going = Going("failover")
    assert not going.may_go(4.9, has_said=False)
    assert going.may_go(5.0, has_said=False)


def test_who_has_not_gone_after_all_takes_its_word_back() -> None:
    going = Going("freeze")
    assert [going.may_go(at_s) for at_s in (0.1, 1.2)] == [False, True]
    assert not going.may_go(1803)
    assert going.known.departs == ""


def test_it_asks_to_be_drained_until_its_next_boot_and_waits_until_it_is_empty() -> None:
    going = Going("migrate", "reboot", "running", "ending")
    assert not going.may_go(0.2)
    (given,) = going.given
    assert isinstance(given.command, DrainHost)
    assert (given.command.host, given.command.boot) == (A, BOOT)
    assert given.number < 0
    going.drained()
    assert not going.may_go(100)
    going.known.take_list(listed(A, "ending", sequence=2))
    assert going.may_go(101)


def test_it_stays_until_the_last_copy_has_said_that_it_runs() -> None:
    going = Going("migrate", "reboot", "running")
    going.drained()
    going.hands_over = True
    going.known.take_list(listed(A, sequence=2))
    assert not going.may_go(10)
    going.hands_over = False
    assert going.may_go(11)


def test_nothing_is_drained_where_nothing_runs() -> None:
    going = Going("migrate")
    assert going.may_go(0.2)
    assert going.given == []


def test_a_drain_that_nobody_records_is_asked_for_again_until_the_time_is_over() -> None:
    going = Going("migrate", "reboot", "running")
    assert not any(going.may_go(at_s) for at_s in range(299))
    assert len(going.given) > 10
    assert len({given.number for given in going.given}) == len(going.given)
    assert going.may_go(300)


def test_what_can_go_nowhere_does_not_hold_it_up() -> None:
    going = Going("migrate", "reboot", "running")
    going.drained()
    going.emptying = (Emptying(A, "web0 is to move to host2"),)
    assert not any(going.may_go(at_s) for at_s in range(60))
    going.emptying = (Emptying(A, "web0 stays: no other host can take it", settled=True),)
    assert not going.may_go(60)
    assert not going.may_go(64)
    assert going.may_go(65)


def test_whoever_goes_down_gets_nothing_also_from_itself() -> None:
    known = known_of()
    known.take_list(listed(A, departs="failover"))
    assert kept_empty(known) == {A: "it is going down"}
    known.take_list(listed(A, sequence=2))
    assert kept_empty(known) == {}


# -- what others hold back ----------------------------------------------------------------------------------------------


class Observer:
    """Host a, which has read that host b keeps its VMs."""

    def __init__(self) -> None:
        self.known, self.out = known_of(), Outbox()
        self.reboots = PlannedReboots(self.known, self.out)
        self.verdict = Verdict.PARTITIONED
        self.boot: BootId | None = BOOT
        self.known.verdict = lambda _: self.verdict  # type: ignore[method-assign]
        self.known.boot_of = lambda _: self.boot  # type: ignore[method-assign]
        self.known.take_list(listed(B, departs="freeze"))

    def holds(self, at_s: float, kind: ProofKind = ProofKind.RENOUNCED, reason: Reason = Reason.HOST_SHUTDOWN) -> bool:
        self.known.now = Instant(round(at_s * SECOND))
        self.reboots.look()
        last = RegisterRecord(
            subject=VM,
            epoch=Epoch(3),
            owner=B,
            incarnation=Incarnation(1),
            session="s",
            nonce=Nonce("n"),
            state=RegisterState.RELEASED,
            reason=reason,
        )
        return bool(self.reboots.why_held(last, kind, HOME))


def test_only_what_a_good_end_proves_is_held_back() -> None:
    observer = Observer()
    assert observer.holds(1)
    assert observer.holds(1, ProofKind.CLEAN_SHUTDOWN)
    for kind in (ProofKind.LEASE_EXPIRED, ProofKind.POWER_FENCED, ProofKind.OPERATOR_CONFIRMED):
        assert not observer.holds(1, kind)
    for reason in (Reason.CRASHED, Reason.SWITCHED_OFF, Reason.ISOLATED):
        assert not observer.holds(1, reason=reason)


def test_not_for_ever() -> None:
    observer = Observer()
    assert observer.holds(899)
    assert not observer.holds(900)
    observer.known.settings = Settings(freeze_timeout=Duration(7200 * SECOND))
    assert not observer.holds(901), "half of its VMs may run elsewhere"
    assert "planned-reboot-over" in [effect.kind for effect in observer.out.take() if isinstance(effect, Note)]


def test_a_word_that_says_that_it_is_off_ends_it() -> None:
    observer = Observer()
    observer.known.powered_off[B] = PoweredOff(ProofKind.OPERATOR_CONFIRMED, Instant(0), Instant(0))
    assert not observer.holds(1)


def test_it_is_given_time_after_its_next_boot() -> None:
    observer = Observer()
    assert observer.holds(10)
    observer.boot = BootId("next")
    assert observer.holds(20, ProofKind.REBOOTED)
    assert observer.holds(79, ProofKind.REBOOTED)
    assert not observer.holds(80, ProofKind.REBOOTED)


def test_a_list_that_says_it_no_more_in_the_same_boot_takes_it_back() -> None:
    observer = Observer()
    assert observer.holds(1)
    observer.known.take_list(listed(B, sequence=2))
    assert not observer.holds(2)


# -- systemd ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "how"),
    [
        ("12 reboot.target start waiting\n13 outlast-shutdown.service stop running\n", "reboot"),
        ("12 poweroff.target start waiting\n", "power-off"),
        ("12 kexec.target start waiting\n", "reboot"),
        ("12 reboot.target stop waiting\n", ""),
        ("No jobs running.\n", ""),
    ],
)
def test_systemd_tells_a_reboot_from_an_end(jobs: str, how: str) -> None:
    assert of_jobs(jobs) == how
