"""The accessibility score of the claim: three factors, a threshold, a choice, and its explanation."""

from hypothesis import given
from hypothesis import strategies as st

from outlast.model.ids import DatastoreName, HostId
from outlast.model.inventory import DatastoreReach
from outlast.protocol.heartbeat_datastores import Scored, choose

HOSTS = tuple(HostId(f"h{number}") for number in range(4))
Place = tuple[str, str, str, int]
"""(name, device, file system, how many hosts reach it)."""


def reach(*places: Place) -> dict[HostId, tuple[DatastoreReach, ...]]:
    return {
        host: tuple(DatastoreReach(DatastoreName(n), index < by, fs, device) for n, device, fs, by in places)
        for index, host in enumerate(HOSTS)
    }


def ranked(*places: Place, per_host: int = 2, threshold: int = 50) -> tuple[Scored, ...]:
    return choose(HOSTS[0], reach(*places), per_host, threshold)


def chosen(scored: tuple[Scored, ...]) -> list[str]:
    return [each.datastore for each in scored if each.chosen]


def test_what_more_hosts_reach_is_better() -> None:
    assert chosen(ranked(("a", "x", "nfs", 2), ("b", "y", "nfs", 4), ("c", "z", "nfs", 3))) == ["b", "c"]


def test_a_second_datastore_on_one_device_is_worth_less() -> None:
    found = ranked(("a", "array-1", "nfs", 4), ("b", "array-1", "nfs", 4), ("c", "array-2", "nfs", 3))
    assert chosen(found) == ["a", "c"]
    assert "shares the device array-1 with one already chosen (+0)" in next(s.why for s in found if s.datastore == "b")


def test_the_file_system_decides_between_equals() -> None:
    assert chosen(ranked(("a", "x", "ext4", 4), ("b", "y", "nfs", 4), per_host=1)) == ["b"]


def test_below_the_threshold_nothing_is_chosen() -> None:
    found = ranked(("a", "x", "nfs", 1), ("b", "y", "nfs", 4), threshold=50)
    assert chosen(found) == ["b"]
    assert found[-1].why.endswith("discarded: below the threshold of 50")


def test_what_this_host_does_not_reach_is_not_ranked() -> None:
    assert ranked(("a", "x", "nfs", 0)) == ()


def test_a_host_alone_still_has_its_datastores() -> None:
    alone = {HOSTS[0]: (DatastoreReach(DatastoreName("a"), True, "nfs", "x"),)}
    assert chosen(choose(HOSTS[0], alone, 2, 50)) == ["a"]
    assert choose(HOSTS[0], {}, 2, 50) == ()


places = st.lists(
    st.tuples(
        st.sampled_from("abcdef"), st.sampled_from(("x", "y", "")), st.sampled_from(("nfs", "ext4", "")), st.integers(0, 4)
    ),
    max_size=6,
    unique_by=lambda place: place[0],
)


@given(places, st.integers(1, 5), st.integers(1, 100))
def test_the_choice_keeps_its_promises(found: list[Place], per_host: int, threshold: int) -> None:
    result = ranked(*found, per_host=per_host, threshold=threshold)
    assert len(chosen(result)) <= per_host
    assert {each.datastore for each in result} == {name for name, _, _, by in found if by > 0}
    for each in result:
        assert each.score == each.reach_points + each.device_points + each.filesystem_points
        assert 0 <= each.score <= 100
        assert not each.chosen or each.score >= threshold
    passed = [each for each in result if each.score >= threshold]
    assert len(chosen(result)) == min(per_host, len(passed))
    assert result == ranked(*found, per_host=per_host, threshold=threshold), "the same inventory, the same choice"
