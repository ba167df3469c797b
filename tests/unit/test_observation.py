"""When a record that does not change becomes proof: rule 5 of design.md section 2, word by word."""

import pytest

from outlast.model.ids import Incarnation
from outlast.model.records import Sighting
from outlast.model.settings import Settings
from outlast.model.time import Duration, Instant, seconds
from outlast.protocol.observation import Freshness, RecordWatch

WINDOW = Settings().window
GAP = Duration(seconds(2))


def at(second: float) -> Instant:
    return Instant(seconds(second))


def watched(until_s: float, *, step_s: float = 0.5, raw: bytes = b"same") -> RecordWatch:
    """Reads of an unchanged record from 0 s on; each takes 10 ms."""
    watch = RecordWatch(GAP)
    moment = 0.0
    while moment <= until_s:
        watch.observe(Sighting(raw, None), at(moment), at(moment + 0.01))
        moment += step_s
    return watch


def test_the_window_counts_from_the_completion_of_the_first_read() -> None:
    watch = watched(0.0)
    assert watch.window_ends(WINDOW) == at(0.01) + WINDOW
    # A read that began a moment too early proves nothing, even if it ended later.
    watch = watched(7.0)
    watch.observe(Sighting(b"same", None), at(7.505), at(7.6))
    assert not watch.lease_is_over(at(0), WINDOW)
    watch.observe(Sighting(b"same", None), at(7.52), at(7.6))
    assert watch.lease_is_over(at(0), WINDOW)


def test_the_last_read_must_begin_after_the_epoch_was_read() -> None:
    watch = watched(8.0)
    assert watch.lease_is_over(at(7.9), WINDOW)
    assert not watch.lease_is_over(at(8.1), WINDOW)


def test_any_change_of_the_bytes_is_life() -> None:
    watch = watched(8.0)
    assert watch.observe(Sighting(b"another format, which nobody can decode", None, "it has version 9"), at(8.1), at(8.2))
    assert not watch.lease_is_over(at(0), WINDOW)
    assert watch.freshness(at(8.3), WINDOW) is Freshness.FRESH
    assert watch.window_ends(WINDOW) == at(8.2) + WINDOW


def test_a_record_that_cannot_be_read_is_unknown_and_never_stale() -> None:
    watch = watched(8.0)
    watch.observe(Sighting(None, None, "Input/output error"), at(8.1), at(8.2))
    assert watch.freshness(at(8.3), WINDOW) is Freshness.UNKNOWN
    assert not watch.lease_is_over(at(0), WINDOW)


def test_a_gap_in_the_reads_voids_the_window() -> None:
    watch = watched(3.0)
    watch.observe(Sighting(b"same", None), at(6.0), at(6.01))
    assert watch.window_ends(WINDOW) == at(6.01) + WINDOW


def test_a_lapse_of_the_observer_voids_the_window() -> None:
    watch = watched(8.0)
    watch.void()
    assert not watch.lease_is_over(at(0), WINDOW)
    watch.observe(Sighting(b"same", None), at(8.5), at(8.51))
    assert watch.window_ends(WINDOW) == at(8.51) + WINDOW


@pytest.mark.parametrize(
    ("until_s", "now_s", "expected"),
    [
        (0.0, 0.5, Freshness.UNKNOWN),
        (7.0, 7.2, Freshness.UNKNOWN),
        (8.0, 8.1, Freshness.STALE),
        (8.0, 11.0, Freshness.UNKNOWN),
    ],
)
def test_freshness(until_s: float, now_s: float, expected: Freshness) -> None:
    assert watched(until_s).freshness(at(now_s), WINDOW) is expected


def test_incarnations_only_rise() -> None:
    watch = RecordWatch(GAP)
    watch.observe(Sighting(b"a", None, incarnation=Incarnation(3)), at(0), at(0.01))
    watch.observe(Sighting(b"a", None, incarnation=Incarnation(2)), at(0.5), at(0.51))
    assert watch.incarnation == 3
