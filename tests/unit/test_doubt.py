"""Many hosts silent at once, and a site that starts: what is held back, for how long, and what people are told of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from agent_values import agent_config

from outlast.model.effects import Note
from outlast.model.health import Health
from outlast.model.ids import BootId, DatastoreName, HostId, HostName, Incarnation
from outlast.model.inventory import DatastoreMember, HostMember
from outlast.model.keeping import LeaseReport
from outlast.model.messages import Heartbeat
from outlast.model.records import PowerOnList, ProofKind
from outlast.model.settings import Settings, problems
from outlast.model.time import SECOND, Instant, after, seconds
from outlast.protocol.doubt import COMES_UP, Doubt
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.verdict import Verdict
from outlast.scenario.reading import read
from outlast.sim.play import play

HOME, NOW = DatastoreName("ds1"), Instant(1000 * SECOND)
ME = HostId("h1")
HOSTS = tuple(HostMember(HostId(f"h{i}"), HostName(f"host{i}"), f"192.0.2.{i}", 1) for i in range(1, 6))
H2, H3, H4, H5 = (member.id for member in HOSTS[1:])
SCENARIOS = Path(__file__).parents[2] / "scenarios" / "doubt"

_BEAT = SimpleNamespace(rank=SimpleNamespace(not_isolated=True), leaving=False, hypervisor_up=False, health=Health())
NOT_READY: Any = SimpleNamespace(beat=_BEAT)
"""A host is heard, but nothing can be started there yet."""


class Around:
    """Host 1 of five, which has heard all the others until a moment ago, unless they are `missing`."""

    def __init__(self, *, missing: tuple[HostId, ...] = (), hosts: int = 5) -> None:
        config = agent_config(
            host=ME, hosts=HOSTS[:hosts], datastores=(DatastoreMember(HOME, "/srv/ds1"),), boot_id=BootId("b2")
        )
        self.known, self.out = Knowledge(config, NOW), Outbox()
        lease = LeaseReport(HOME, True, 1, after(NOW, seconds(600)), Incarnation(1), "")  # type: ignore[arg-type]
        self.known.keeper = cast(Any, SimpleNamespace(leases=(lease,)))
        self.heard = {host: NOW for host in self.known.peers if host not in missing}
        self.known.beats = dict.fromkeys(self.heard, NOT_READY)
        self.verdicts = dict.fromkeys(self.heard, Verdict.CONNECTED)
        self.known.verdict = self._verdict  # type: ignore[method-assign]
        self.address_answers = False
        self.pinged: set[HostId] = set()
        self.in_question = self.known.peers
        self.doubt = Doubt(self.known, self.out, cast(Any, self), cast(Any, self))
        self.turn()

    def _verdict(self, host: HostId) -> Verdict:
        return self.verdicts.get(host, Verdict.PRESUMED_DEAD)

    def silent_since(self, host: HostId) -> Instant:
        return self.heard.get(host, NOW)

    def first_ping_at(self, host: HostId) -> Instant | None:
        return None if self.known.live(host) and host not in self.pinged else after(self.silent_since(host), seconds(1.5))

    def connected_to_something(self, _now: Instant) -> bool:
        return self.address_answers

    def turn(self, to_s: float = 0.0, *silent: HostId) -> list[str]:
        """It is that many seconds after the start, and these hosts have just been found silent."""
        self.known.now = after(NOW, seconds(to_s))
        for host in silent:
            self.verdicts[host] = Verdict.PRESUMED_DEAD
        self.known.silent = tuple(host for host in self.known.peers if not self.known.live(host))
        self.doubt.look(responsible=True)
        return [effect.kind for effect in self.out.take() if isinstance(effect, Note)]

    def held(self, host: HostId, proof: ProofKind = ProofKind.LEASE_EXPIRED) -> str:
        return self.doubt.why_held(host, proof, HOME, booted=proof is ProofKind.REBOOTED)

    def comes(self, host: HostId) -> None:
        self.heard[host] = self.known.now
        self.known.beats[host] = NOT_READY
        self.verdicts[host] = Verdict.PARTITIONED


def beat(sender: HostId, starting_ms: int | None) -> Heartbeat:
    return cast(Heartbeat, SimpleNamespace(sender=sender, starting_ms=starting_ms))


# -- many at once -----------------------------------------------------------------------------------------------------


def test_more_than_half_of_the_others_are_many_and_are_held_until_the_grace_since_the_first_silence() -> None:
    around = Around()
    around.heard[H3] = after(NOW, seconds(4))
    assert around.turn(5, H2, H3) == []
    assert around.held(H2) == ""
    around.heard[H4] = after(NOW, seconds(2))
    assert around.turn(6, H4) == ["mass-failure"]
    assert around.doubt.asks
    told = "held: 3 of 4 other hosts fell silent within 10 s (host2, host3, host4); "
    assert around.held(H2) == around.held(H3) == told + "restarts begin in 4 s unless they come back"
    assert "which may be this host's fault" in around.doubt.why_not_fenced(H2)
    assert around.doubt.next_deadline() == after(NOW, seconds(10))
    assert "restarts begin in 4 s" in around.doubt.problems()[0]
    assert around.turn(10) == ["mass-failure-over"]
    assert around.held(H2) == around.held(H3) == ""
    assert around.doubt.problems() == []


def test_one_of_two_is_not_many_nor_is_a_single_peer() -> None:
    for hosts, silent in ((3, (H2,)), (2, (H2,)), (5, (H2, H3))):
        around = Around(hosts=hosts)
        assert around.turn(5, *silent) == []
        assert around.held(H2) == around.doubt.why_not_fenced(H2) == ""


def test_silences_far_apart_are_not_one() -> None:
    around = Around()
    around.turn(5, H2, H3)
    around.heard[H4] = after(NOW, seconds(30))
    assert around.turn(34, H4) == []
    assert around.held(H4) == ""


@pytest.mark.parametrize("proof", [kind for kind in ProofKind if kind is not ProofKind.LEASE_EXPIRED])
def test_what_no_cable_can_bring_about_is_not_held(proof: ProofKind) -> None:
    around = Around()
    around.heard |= dict.fromkeys((H2, H3, H4), after(NOW, seconds(12)))
    around.turn(15, H2, H3, H4)
    assert around.held(H2)
    assert around.held(H2, proof) == ""


def test_nothing_is_held_once_my_own_reach_is_proven_but_who_is_fenced_must_have_stood_still() -> None:
    around = Around()
    around.address_answers = True
    around.known.watches[H2, HOME].incarnation = Incarnation(1)
    assert around.turn(5, H2, H3, H4) == ["mass-failure"]
    assert around.held(H2) == ""
    assert around.doubt.why_not_fenced(H2)
    assert around.doubt.why_not_fenced(H3) == "", "it never had a record"
    around.known.keeper = None
    assert around.held(H2), "a lease of our own is not held"


def test_they_are_back() -> None:
    around = Around()
    around.turn(5, H2, H3, H4)
    for host in (H2, H3, H4):
        around.comes(host)
    assert around.turn(6) == ["mass-failure-over"]
    assert around.held(H2) == around.doubt.why_not_fenced(H2) == ""
    assert not around.doubt.asks


def test_the_last_of_many_to_come_back_waits_like_the_others() -> None:
    around = Around()
    around.turn(5, H2, H3, H4)
    around.comes(H2)
    around.comes(H3)
    assert around.turn(6) == []
    assert around.held(H4)
    assert around.doubt.why_not_fenced(H4)
    around.turn(10)
    assert around.held(H4) == ""


def test_who_has_only_missed_a_heartbeat_counts_among_many() -> None:
    around = Around()
    around.turn(3, H2)
    assert around.doubt.why_not_fenced(H2) == ""
    around.pinged = {H3, H4}
    assert around.doubt.why_not_fenced(H2)
    assert around.held(H2)


# -- a cold start -----------------------------------------------------------------------------------------------------


def test_hosts_that_are_not_back_are_waited_for_and_told_of_once() -> None:
    around = Around(missing=(H4, H5))
    around.turn(1)
    held = "held: the site is starting, and host4 is not back; restarts begin in 55 s unless they come back"
    assert around.turn(5) == []
    for proof in (ProofKind.LEASE_EXPIRED, ProofKind.CLEAN_SHUTDOWN, ProofKind.RENOUNCED):
        assert around.held(H4, proof) == held
        assert around.held(H2, proof) == ""
    assert "not back yet: host4, host5" in around.doubt.problems()[0]
    assert around.doubt.why_not_fenced(H4)
    assert around.turn(60) == ["startup-over"]
    assert around.held(H4) == around.doubt.why_not_fenced(H4) == ""


@pytest.mark.parametrize("proof", [ProofKind.OPERATOR_CONFIRMED, ProofKind.POWER_FENCED, ProofKind.REBOOTED])
def test_a_cold_start_waits_for_nobody_who_is_known_to_be_off_or_back(proof: ProofKind) -> None:
    around = Around(missing=(H4,))
    assert around.held(H4, proof) == ""


def test_it_is_over_when_everybody_is_back() -> None:
    around = Around(missing=(H5,))
    around.turn(20)
    around.comes(H5)
    assert around.turn(30) == ["startup-over"]
    assert around.doubt.starting_ms == 0


def test_who_has_just_come_back_may_take_what_it_ran_for_a_moment() -> None:
    around = Around(missing=(H5,))
    around.comes(H5)
    around.turn(20)
    assert around.held(H5, ProofKind.REBOOTED) == "held: host5 has just come back, and is given 10 s to take it itself"
    around.turn(20 + COMES_UP / SECOND)
    assert around.held(H5, ProofKind.REBOOTED) == ""


def test_others_tell_for_how_long_the_site_is_starting() -> None:
    around = Around(missing=(H5,))
    around.doubt.heard(beat(H2, None))
    assert around.doubt.starting_ms == 60_000
    around.doubt.heard(beat(H2, 20_000))
    assert around.doubt.starting_ms == 20_000
    around.doubt.heard(beat(H3, 50_000))
    assert around.doubt.starting_ms == 20_000
    around.doubt.heard(beat(H3, 0))
    assert not around.doubt.is_starting
    assert around.held(H5) == ""


def test_an_agent_that_was_restarted_starts_no_site_and_cannot_tell_others() -> None:
    around = Around(missing=(H5,))
    around.known.predecessors_list = PowerOnList(host=ME, boot_id=BootId("b1"), sequence=0, isolated=False, vms=())
    around.turn(1)
    assert around.doubt.is_starting, "the list is of an earlier boot"
    around.known.predecessors_list = PowerOnList(host=ME, boot_id=BootId("b2"), sequence=0, isolated=False, vms=())
    around.turn(2)
    assert not around.doubt.is_starting
    assert around.doubt.starting_ms is None
    around.turn(60)
    assert around.doubt.starting_ms == 0


def test_the_graces_hold_together() -> None:
    assert problems(Settings()) == []
    (problem,) = problems(Settings(mass_failure_grace=seconds(90)))
    assert problem.startswith("startup_grace is 60s, but must be at least 90s (mass_failure_grace")


# -- every part of it is needed ---------------------------------------------------------------------------------------

_PARTS: list[tuple[str, Callable[..., Any], str]] = [
    ("why_held", lambda *_, **__: "", "01-a-real-mass-loss-after-the-grace"),
    ("_reach_is_proven", lambda *_: False, "02-my-own-reach-is-proven"),
    ("_reach_is_proven", lambda *_: True, "03-a-switch-fails-and-is-back"),
    ("why_not_fenced", lambda *_: "", "03-a-switch-fails-and-is-back"),
    ("_comes_up_within", lambda *_: 0, "05-a-cold-start-waits-for-the-hosts"),
    ("_is_awaited", lambda *_: False, "06-a-host-that-does-not-come-back"),
    ("_is_awaited", lambda *_: False, "10-shut-down-and-started-again"),
    ("heard", lambda *_: None, "11-the-one-that-waits-dies-as-well"),
    ("heard", lambda *_: None, "12-who-has-just-booted-becomes-primary"),
]


@pytest.mark.parametrize(("part", "instead", "scenario"), _PARTS)
def test_without_a_part_of_it_a_scenario_fails(
    part: str, instead: Callable[..., Any], scenario: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Doubt, part, instead)
    assert not play(read((SCENARIOS / f"{scenario}.toml").read_text())).passed
