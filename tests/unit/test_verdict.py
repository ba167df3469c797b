"""Every row of the state table in design.md section 4, from facts alone."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.model.ids import DatastoreName
from outlast.model.settings import Settings
from outlast.model.time import Instant, seconds
from outlast.protocol.observation import Freshness
from outlast.protocol.verdict import DatastoreFact, Facts, Judgement, Rule, Verdict, explain, first_judgement, judge

NOW = Instant(seconds(1000))
S = Settings()


def ago(age_s: float | None) -> Instant | None:
    return None if age_s is None else Instant(NOW - seconds(age_s))


def record(
    freshness: Freshness, *, changed_s: float | None = 0.5, works: bool = True, proven: bool = False
) -> DatastoreFact:
    return DatastoreFact(DatastoreName("ds1"), freshness, ago(changed_s), works, proven)


FRESH = record(Freshness.FRESH)
STALE = record(Freshness.STALE, changed_s=20)
UNKNOWN = record(Freshness.UNKNOWN, changed_s=None)
PROVEN = record(Freshness.STALE, changed_s=20, proven=True)


def facts(
    heard_s: float | None,
    *records: DatastoreFact,
    ping_s: float | None = None,
    answer_s: float | None = None,
    lapsed: tuple[DatastoreName, ...] = (),
    isolated: bool = False,
) -> Facts:
    return Facts(
        watched_since=Instant(NOW - seconds(500)),
        heartbeat_at=ago(heard_s),
        first_ping_at=ago(ping_s),
        ping_answer_at=ago(answer_s),
        lapsed=lapsed,
        datastores=records,
        listed_isolated=isolated,
    )


def after(verdict: Verdict, found: Facts) -> Judgement:
    before = Judgement(verdict=verdict, rule=Rule.NO_FACTS_YET, since=Instant(0), facts=found)
    return judge(before, found, S, NOW)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (facts(0.5), Verdict.CONNECTED),
        (facts(0.5, STALE), Verdict.CONNECTED),
        (facts(0.5, lapsed=(DatastoreName("ds1"),)), Verdict.STORAGE_LOST),
        (facts(2.9, ping_s=1.5), Verdict.CONNECTED),
        (facts(3.1, FRESH, ping_s=1.9), Verdict.UNREACHABLE),
        (facts(3.1, FRESH), Verdict.UNREACHABLE),
        (facts(5.0, FRESH, ping_s=3.5, answer_s=0.2), Verdict.PARTITIONED),
        (facts(5.0, record(Freshness.FRESH, works=False), ping_s=3.5, answer_s=0.2), Verdict.AGENT_DOWN),
        (facts(20, STALE, ping_s=18, answer_s=0.2), Verdict.UNRESPONSIVE),
        (facts(5.0, FRESH, ping_s=3.5), Verdict.PARTITIONED),
        (facts(5.0, FRESH, ping_s=3.5, isolated=True), Verdict.ISOLATED),
        # Written before the silence began: no sign of life, so that a power loss is not taken for a partition.
        (facts(5.0, record(Freshness.FRESH, changed_s=4.5), ping_s=3.5), Verdict.PRESUMED_DEAD),
        (facts(20, STALE, ping_s=18), Verdict.PRESUMED_DEAD),
        (facts(20, UNKNOWN, ping_s=18), Verdict.PRESUMED_DEAD),
        (facts(20, ping_s=18), Verdict.PRESUMED_DEAD),
        (facts(20, PROVEN, ping_s=18), Verdict.DEAD),
        # One proof is enough for the verdict: each VM's own home is asked for its own proof.
        (facts(20, PROVEN, STALE, ping_s=18), Verdict.DEAD),
        (facts(20, PROVEN, record(Freshness.FRESH, changed_s=4.5), ping_s=3.5), Verdict.PRESUMED_DEAD),
        (facts(20, PROVEN, FRESH, ping_s=18), Verdict.PARTITIONED),
        (facts(20, PROVEN, ping_s=18, answer_s=0.2), Verdict.UNRESPONSIVE),
    ],
)
def test_the_table(found: Facts, verdict: Verdict) -> None:
    assert after(Verdict.CONNECTED, found).verdict is verdict


def test_a_new_primary_judges_nobody_before_it_has_watched_long_enough() -> None:
    found = Facts(watched_since=Instant(NOW - seconds(2)), heartbeat_at=None, first_ping_at=None, ping_answer_at=None)
    assert judge(first_judgement(NOW), found, S, NOW).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("dead", [Verdict.PRESUMED_DEAD, Verdict.DEAD])
def test_who_was_dead_and_answers_ping_again_gets_the_time_to_boot(dead: Verdict) -> None:
    found = facts(20, STALE, ping_s=18, answer_s=0.2)
    before = Judgement(verdict=dead, rule=Rule.PING_UNANSWERED, since=Instant(0), facts=found)
    booting = judge(before, found, S, NOW)
    assert (booting.verdict, booting.rule) == (Verdict.UNREACHABLE, Rule.PING_ANSWERED_AGAIN)
    later = Instant(NOW + S.unreachable_after)
    still = msgspec.structs.replace(found, ping_answer_at=Instant(later - 1))
    assert judge(booting, still, S, Instant(later - 1)).rule is Rule.PING_ANSWERED_AGAIN
    assert judge(booting, still, S, later).verdict is Verdict.UNRESPONSIVE
    assert judge(booting, msgspec.structs.replace(still, datastores=(UNKNOWN,)), S, later).verdict is Verdict.UNREACHABLE


def test_whose_record_changes_has_booted() -> None:
    assert after(Verdict.DEAD, facts(20, FRESH, ping_s=18, answer_s=0.2)).verdict is Verdict.PARTITIONED


def test_a_heartbeat_ends_every_verdict() -> None:
    for verdict in Verdict:
        assert after(verdict, facts(0.1, STALE, ping_s=18)).verdict is Verdict.CONNECTED


@given(
    st.none() | st.floats(0, 100),
    st.none() | st.floats(0, 100),
    st.none() | st.floats(0, 100),
    st.lists(
        st.builds(record, st.sampled_from(Freshness), changed_s=st.none() | st.floats(0, 100), works=st.booleans()),
        max_size=3,
    ),
    st.sampled_from(Verdict),
)
def test_nobody_is_dead_without_proof_or_while_anything_answers(
    heard_s: float | None, ping_s: float | None, answer_s: float | None, records: list[DatastoreFact], before: Verdict
) -> None:
    found = facts(heard_s, *records, ping_s=ping_s, answer_s=answer_s)
    assert after(before, found).verdict is not Verdict.DEAD


def test_the_evidence_is_told_in_sentences() -> None:
    lines = explain(after(Verdict.PRESUMED_DEAD, facts(20, PROVEN, ping_s=18)), NOW)
    assert lines[0] == (
        "Verdict: dead, for 0.0 s, because it is silent on every channel, and its lease is provably over on every "
        "associated datastore."
    )
    assert "Its last network heartbeat arrived 20.0 s ago." in lines
    assert "It has been pinged for 18.0 s; none was answered." in lines
    assert "Its record on ds1 is stale (last changed 20.0 s ago); its lease there is proven to be over." in lines
