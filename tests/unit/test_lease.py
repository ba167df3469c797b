"""The lease: granted from the start of a timely write, never extended by a late one (safety rule 2)."""

from outlast.model.settings import Settings
from outlast.model.time import Instant, seconds
from outlast.protocol.lease import Adopted, Lease, Renewal

S = Settings()


def at(second: float) -> Instant:
    return Instant(seconds(second))


def held(begun_s: float = 0.0, ended_s: float = 0.1) -> Lease:
    lease = Lease(S, at(begun_s))
    sequence = lease.begin_write(at(begun_s))
    assert sequence is not None
    assert lease.end_write(sequence, True, at(ended_s)) is Renewal.NEW_TERM
    return lease


def adopted(deadline_s: float, length_s: float = 6.0) -> Adopted:
    return Adopted(at(deadline_s), seconds(length_s))


def test_it_runs_from_the_start_of_the_write() -> None:
    lease = held(0.0, 2.0)
    assert lease.deadline == at(0) + S.lease_duration
    assert not lease.lapse(at(5.999))
    assert lease.lapse(at(6.0))
    assert not lease.lapse(at(6.1)), "told once"


def test_a_timely_renewal_extends_the_same_term() -> None:
    lease = held()
    sequence = lease.begin_write(at(1))
    assert sequence is not None
    assert lease.end_write(sequence, True, at(1.1)) is Renewal.EXTENDED
    assert lease.term == 1
    assert lease.deadline == at(1) + S.lease_duration


def test_a_late_renewal_begins_a_new_term() -> None:
    lease = held()
    sequence = lease.begin_write(at(5))
    assert sequence is not None
    assert lease.lapse(at(6.5))
    assert lease.end_write(sequence, True, at(6.6)) is Renewal.NEW_TERM
    assert lease.term == 2


def test_a_renewal_that_took_longer_than_the_lease_grants_nothing() -> None:
    lease = Lease(S, at(0))
    sequence = lease.begin_write(at(0))
    assert sequence is not None
    assert lease.end_write(sequence, True, at(6.0)) is Renewal.NOTHING
    assert not lease.held


def test_one_write_at_a_time() -> None:
    lease = Lease(S, at(0))
    assert lease.begin_write(at(0)) == 1
    assert lease.begin_write(at(10)) is None
    assert lease.end_write(7, True, at(10)) is Renewal.NOTHING, "not the write that is under way"


def test_a_write_that_failed_is_repeated_soon_and_grants_nothing() -> None:
    lease = held()
    assert lease.begin_write(at(1)) == 2
    assert lease.end_write(2, False, at(1.1)) is Renewal.NOTHING
    assert lease.deadline == at(0) + S.lease_duration
    assert lease.begin_write(at(1.2)) is None
    assert lease.begin_write(at(1.6)) == 3


def test_only_an_unexpired_deadline_is_adopted() -> None:
    assert Lease(S, at(10), adopted(12)).deadline == at(12)
    assert not Lease(S, at(10), adopted(10)).held
    assert not Lease(S, at(10), adopted(9)).held
    assert not Lease(S, at(10), adopted(17)).held, "longer than any lease: not of this boot's clock"
