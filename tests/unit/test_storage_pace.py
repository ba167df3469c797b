"""A datastore that answers slowly, but steadily: told once when it begins, and once when it is over."""

from __future__ import annotations

import pytest
from agent_values import agent_config, keeper_report

from outlast.model.effects import Note
from outlast.model.ids import DatastoreName, Incarnation, LeaseTerm
from outlast.model.keeping import LeaseReport
from outlast.model.latency import Latencies
from outlast.model.settings import Settings
from outlast.model.time import Instant, seconds
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.lease import Lease
from outlast.protocol.storage_pace import StoragePace

DS = DatastoreName("ds1")


def at(second: float) -> Instant:
    return Instant(seconds(second))


def writes(lease: Lease, took_s: float, times: int, start_s: float) -> None:
    """So many writes in a row, one every second or as they end, that take so long."""
    for _ in range(times):
        sequence = lease.begin_write(at(start_s))
        assert sequence is not None
        lease.lapse(at(start_s + took_s))
        lease.end_write(sequence, True, at(start_s + took_s))
        start_s += max(took_s, 1.0)


def test_a_write_that_is_slow_once_is_no_slow_datastore() -> None:
    lease = Lease(Settings(), at(0))
    writes(lease, 0.01, 20, 0)
    writes(lease, 3.0, 1, 20)
    assert not lease.slow


@pytest.mark.parametrize(("took_s", "is_slow"), [(0.3, False), (0.6, True), (2.0, True)])
def test_one_that_is_slow_again_and_again_is(took_s: float, is_slow: bool) -> None:
    lease = Lease(Settings(), at(0))
    writes(lease, took_s, 30, 0)
    assert lease.slow is is_slow
    assert lease.held


def test_it_is_quick_again_when_it_is_clearly_so() -> None:
    lease = Lease(Settings(), at(0))
    writes(lease, 0.6, 30, 0)
    writes(lease, 0.4, 30, 100)
    assert lease.slow
    writes(lease, 0.1, 30, 200)
    assert not lease.slow


def test_it_is_told_once_and_once_that_it_is_over() -> None:
    known, out = Knowledge(agent_config(), at(0)), Outbox()
    pace = StoragePace(known, out)
    told: list[str] = []
    counted = Latencies().and_one(seconds(0.001)).and_one(seconds(0.7))
    for held, slow in ((True, False), (True, True), (True, True), (False, False), (True, False), (True, False)):
        report = LeaseReport(DS, held, LeaseTerm(1), at(6), Incarnation(1), write_ms=700, slow=slow, writes=counted)
        known.keeper = keeper_report(leases=(report,))
        pace.tick()
        notes = [effect for effect in out.take() if isinstance(effect, Note)]
        told += [note.kind for note in notes]
        assert all(
            note.facts["writes"] == "of the last 2 writes 50 % within 5 ms, 95 % within 1 s, 99 % within 1 s"
            for note in notes
        )
        assert len(pace.problems()) == slow
    assert told == ["datastore-slow", "datastore-quick"]


def test_what_is_told_is_of_the_last_ten_minutes() -> None:
    known = Knowledge(agent_config(), at(0))
    pace, counted = StoragePace(known, Outbox()), Latencies()
    for second in range(1200):
        counted = counted.and_one(seconds(0.6) if second < 500 else seconds(0.003))
        report = LeaseReport(DS, True, LeaseTerm(1), at(second + 6), Incarnation(1), writes=counted)
        known.now, known.keeper = at(second), keeper_report(leases=(report,))
        pace.counted()
    recent = pace.recent(report)
    assert 540 <= recent.number <= 600
    assert recent.counts == (recent.number, *[0] * 10)
    assert pace.explain(DS) == [f"Its last {recent.number} heartbeat writes from here: {recent.number} within 5 ms."]
    assert pace.explain(DatastoreName("ds9")) == []


def test_a_lease_counts_the_writes_that_were_confirmed() -> None:
    lease = Lease(Settings(), at(0))
    writes(lease, 0.02, 3, 0)
    sequence = lease.begin_write(at(10))
    assert sequence is not None
    lease.end_write(sequence, False, at(11))
    assert (lease.latencies.number, lease.latencies.total_ms) == (3, 60)
