"""What is written reads back as the same scenario, whatever the language can say."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlast.model.rules import Rule
from outlast.model.time import SECOND
from outlast.scenario.model import DatastoreSpec, Expectation, HostSpec, Scenario, Step, VmSpec
from outlast.scenario.reading import read
from outlast.scenario.words import CLAIMS, GUESTS, STATES, TABLES, VERBS, VERDICTS, Key, Kind
from outlast.scenario.writing import write

HOSTS = ("host1", "host2", "h-3")
VMS = ("web1", "db.1")
STORES = ("ds1", "ds2")
DURATION_NS = 3600 * SECOND

durations = st.integers(0, DURATION_NS)


def some(names: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(names), unique=True).map(tuple)


def by(names: tuple[str, ...], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), values)


VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.TEXT: st.text(st.characters(exclude_categories=["C"])),
    Kind.BOOL: st.booleans(),
    Kind.INTEGER: st.integers(0, 2**40),
    Kind.COUNT: st.integers(1, 99),
    Kind.TIMES: st.integers(-1, 9),
    Kind.PERCENT: st.integers(0, 100),
    Kind.CORES: st.floats(0, 64),
    Kind.SIZE: st.integers(1, 1 << 20),
    Kind.DURATION: durations,
    Kind.SPAN: st.integers(-DURATION_NS, DURATION_NS),
    Kind.BOUND: st.none() | durations,
    Kind.READY: st.sampled_from(["powered-on", "guest-heartbeat", "delay:30s"]),
    Kind.TEXTS: some(("lan", "v 2")),
    Kind.LABELS: st.dictionaries(st.sampled_from(["rack", "a b"]), st.text(max_size=3)),
    Kind.ANYTHING: st.sampled_from(["5s", 3, 1.5]),
    Kind.SETTING: st.just("lease_duration"),
    Kind.HOST: st.sampled_from(HOSTS),
    Kind.VM: st.sampled_from(VMS),
    Kind.DATASTORE: st.sampled_from(STORES),
    Kind.HOSTS: some(HOSTS),
    Kind.VMS: some(VMS),
    Kind.DATASTORES: some(STORES),
    Kind.GROUPS: st.just((("host1",), ("host2", "h-3"))),
    Kind.PREFERENCES: by(HOSTS, st.integers(1, 5)),
    Kind.HOSTS_BY_VM: by(VMS, some(HOSTS) | st.just(("any",))),
    Kind.GUEST_BY_VM: by(VMS, st.sampled_from(GUESTS)),
    Kind.STATE_BY_VM: by(VMS, st.sampled_from(STATES)),
    Kind.VERDICT_BY_HOST: by(HOSTS, st.sampled_from(VERDICTS)),
    Kind.COUNT_BY_VM: by(VMS, st.tuples(st.integers(0, 3), st.integers(3, 5)) | st.just((2, 2))),
    Kind.DURATION_BY_VM: by(VMS, durations),
}


def value(key: Key) -> st.SearchStrategy[Any]:
    return st.sampled_from(key.words) if key.kind is Kind.CHOICE else VALUES[key.kind]


@st.composite
def rows(draw: st.DrawFn, keys: tuple[Key, ...], **fixed: Any) -> dict[str, Any]:
    row = dict(fixed)
    for key in keys:
        if key.attribute not in row and (key.required or draw(st.booleans())):
            row[key.attribute] = draw(value(key))
    return row


@st.composite
def steps(draw: st.DrawFn) -> Step:
    verb = draw(st.sampled_from(list(VERBS.values())))
    keys = draw(rows(tuple(key for key in verb.keys if key.name not in verb.one_of)))
    if verb.one_of and not (verb.may_be_bare and draw(st.booleans())):
        name = draw(st.sampled_from(verb.one_of))
        keys[name] = draw(value(next(key for key in verb.keys if key.name == name)))
    return Step(at=draw(durations), do=verb.name, keys=keys)  # type: ignore[arg-type]


@st.composite
def expectations(draw: st.DrawFn) -> Expectation:
    names = draw(st.lists(st.sampled_from(list(CLAIMS)), min_size=1, unique=True))
    claims = {name: draw(value(CLAIMS[name])) for name in names}
    return Expectation(at=draw(st.none() | durations), claims=claims)


def sensible_rule(row: dict[str, Any]) -> Rule:
    about_hosts = row["kind"] in ("run-on", "avoid")
    row = row | {"vms": VMS, "hosts": {"host2": 2, "h-3": 1} if about_hosts else {}}
    row |= {} if row["kind"] == "run-on" else {"failback": False}
    return Rule(**(row if row["kind"] == "keep-apart" else row | {"by": ""}))


OWN_DISKS: dict[str, Any] = {"disks_on": (), "same_disk_as": ""}


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    stores = tuple(DatastoreSpec(**draw(rows(TABLES["datastores"], name=name))) for name in STORES)
    hosts = []
    for name in HOSTS:
        row = draw(rows(TABLES["hosts"], name=name))
        hosts.append(HostSpec(**(row | {"watchdog": True} if row.get("enforcement") == "watchdog" else row)))
    vms = [VmSpec(**draw(rows(TABLES["vms"], name=n, host="", after=(), datastore="ds2", **OWN_DISKS))) for n in VMS]
    return Scenario(
        title=draw(VALUES[Kind.TEXT]),
        story=draw(VALUES[Kind.TEXT]),
        seed=draw(VALUES[Kind.INTEGER]),
        duration=DURATION_NS,  # type: ignore[arg-type]
        settings=draw(st.just({}) | st.just({"datastore_stale_after": 8_250_000_000, "isolation_response": "shut-down"})),
        datastores=stores,
        hosts=tuple(hosts),
        vms=tuple(vms),
        rules=tuple(sensible_rule(row) for row in draw(st.lists(rows(TABLES["rules"]), max_size=2))),
        steps=tuple(draw(st.lists(steps(), max_size=4))),
        expect=tuple(draw(st.lists(expectations(), max_size=3))),
    )


def without_places(scenario: Scenario) -> Scenario:
    """Lines and path say where it was read, not what it is."""
    return msgspec.structs.replace(
        scenario,
        path="",
        steps=tuple(msgspec.structs.replace(step, line=0) for step in scenario.steps),
        expect=tuple(msgspec.structs.replace(each, line=0) for each in scenario.expect),
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(scenarios())
def test_round_trip(scenario: Scenario) -> None:
    assert without_places(read(write(scenario))) == scenario


def test_what_is_written_is_for_people() -> None:
    scenario = Scenario(
        title="One",
        duration=60 * SECOND,  # type: ignore[arg-type]
        datastores=(DatastoreSpec(name="ds1"),),  # type: ignore[arg-type]
        hosts=(HostSpec(name="host1", memory_mib=4096),),  # type: ignore[arg-type]
        steps=(Step(at=1_500_000_000, do="power-off", keys={"host": "host1"}),),  # type: ignore[arg-type]
        expect=(Expectation(at=None, claims={"verdict": {"host1": "dead"}}),),
    )
    assert write(scenario) == (
        'title = "One"\nduration = "60s"\n\n[[datastores]]\nname = "ds1"\n\n[[hosts]]\nname = "host1"\nmemory = "4GiB"\n\n'
        '[[steps]]\nat = "1.5s"\ndo = "power-off"\nhost = "host1"\n\n[[expect]]\nat = "end"\nverdict = {host1 = "dead"}\n'
    )
