"""What may be newly started: decided by the agent beforehand, refused at the gate, and never what is to run again."""

from __future__ import annotations

import msgspec
import pytest
from planning_values import domain, host, rule, vm
from test_keeping import GATE, ME, OTHER, VM, Keeper, owned

from outlast.model.ids import DatastoreName, HostId, HostName, VmName
from outlast.model.keeper_effects import Reply
from outlast.model.keeping import Admission
from outlast.model.planning import Snapshot
from outlast.model.records import Reason, RegisterRecord, RegisterState
from outlast.model.settings import Settings
from outlast.protocol.planning.admission import Policy, admit, policy_of
from outlast.protocol.reporting import Reporter
from outlast.scenario.model import DatastoreSpec, HostSpec, VmSpec
from outlast.sim.world import World

DS1 = DatastoreName("ds1")
ONE = Policy("host-failures", 1, 25)


def answer(snapshot: Snapshot, name: str, memory: int, policy: Policy = ONE, on: str = "a") -> str:
    return list(admit(snapshot, vm(name, memory), HostId(on), policy))[-1]


# -- the policies -----------------------------------------------------------------------------------------------------

PAIR = domain([host("a", 8192), host("b", 8192)], [vm("v", 4096, on="a"), vm("w", 3000, on="b")])


def test_any_one_host_may_be_lost() -> None:
    assert answer(PAIR, "new", 1000) == ""
    said = answer(PAIR, "new", 2000)
    assert said.startswith("the domain would not survive the loss of one host: without a, ")
    assert "2 VMs need 6096 MiB, and the hosts that can take them have 5192 MiB free" in said
    assert answer(PAIR, "new", 2000, Policy("host-failures", 2, 25)).startswith(
        "the domain would not survive the loss of 2"
    )


def test_rules_count_and_the_vm_in_the_way_is_named() -> None:
    apart = rule("keep-apart", "v", "new")
    snapshot = domain([host("a"), host("b")], [vm("v", on="b")], apart)
    said = answer(snapshot, "new", 1000)
    assert "without a, new has no place: no host could take new even if it were placed first" in said
    assert "keep-apart" in answer(snapshot, "new", 1000, on="b"), "a required rule forbids the start itself"


def test_a_host_without_room_starts_nothing_whatever_the_policy() -> None:
    for policy in (ONE, Policy("percent", 1, 1), Policy("spare-hosts", 1, 1)):
        assert "of memory free" in answer(PAIR, "new", 5000, policy)


def test_a_share_of_memory_and_cpu() -> None:
    policy = Policy("percent", 1, 50)
    assert answer(PAIR, "new", 1000, policy) == ""
    assert answer(PAIR, "new", 1100, policy) == "49 % of the hosts' memory is free then, and 50 % is set aside for failures"
    busy = domain([host("a"), host("b")], [vm("v", 512, cpus=7.5, on="b")])
    assert "CPU" in answer(busy, "new", 100, policy)


def test_spare_hosts() -> None:
    snapshot = domain([host("a", spare=True), host("b")], [])
    policy = Policy("spare-hosts", 1, 25)
    assert answer(snapshot, "new", 100, policy) == "a is kept spare for failures"
    assert answer(snapshot, "new", 100, policy, on="b") == ""


def test_a_policy_in_words() -> None:
    assert str(policy_of(Settings())) == "room for the VMs of any one host that is lost"
    assert str(Policy("host-failures", 2, 1)) == "room for the VMs of any 2 hosts that are lost"
    assert str(Policy("percent", 1, 30)) == "30 % of memory and CPU"


# -- the gate ---------------------------------------------------------------------------------------------------------

WHY = "web may not be started on alpha now: too little is left"


def told() -> Keeper:
    keeper = Keeper().guarded()
    keeper.asks(Admission({VM: WHY}))
    keeper.asks(GATE)
    return keeper


def released(owner: HostId, reason: Reason) -> RegisterRecord:
    return msgspec.structs.replace(owned(owner, 4, state=RegisterState.RELEASED), reason=reason)


@pytest.mark.parametrize("last", [None, released(OTHER, Reason.SWITCHED_OFF), released(ME, Reason.SWITCHED_OFF)])
def test_a_new_start_is_refused_with_the_agents_sentence(last: RegisterRecord | None) -> None:
    keeper = told()
    keeper.reads(last)
    assert keeper.reply() == (False, WHY)


@pytest.mark.parametrize(
    "last",
    [
        released(ME, Reason.CRASHED),
        released(OTHER, Reason.ISOLATED),
        released(OTHER, Reason.HOST_SHUTDOWN),
        owned(ME, 4, incarnation=0),
        owned(ME, 4),
    ],
)
def test_what_is_to_run_again_is_never_refused_for_that(last: RegisterRecord) -> None:
    keeper = told()
    keeper.reads(last)
    keeper.links()
    assert keeper.reply() == (True, "")


def test_an_agent_that_says_nothing_for_a_while_refuses_nothing() -> None:
    keeper = Keeper().guarded()
    keeper.asks(Admission({VM: WHY}))
    for _ in range(4):
        keeper.now += 4
        keeper.renews()
    keeper.asks(GATE)
    assert not keeper.has(Reply)
    keeper.reads(None)
    keeper.links()
    assert keeper.reply() == (True, "")


# -- what people see --------------------------------------------------------------------------------------------------


def world(settings: Settings, **vms: tuple[str, int]) -> World:
    made = World(
        [HostSpec(name=HostName(f"host{i + 1}"), memory_mib=16384) for i in range(3)],
        [DatastoreSpec(name=DS1)],
        [
            VmSpec(name=VmName(n), host=HostName(h), datastore=DatastoreName("ds1"), memory_mib=m)
            for n, (h, m) in vms.items()
        ],
        settings=settings,
        seed=5,
    )
    made.settle()
    made.run(6)
    return made


def outlooks(at: World) -> set[tuple[int, bool, str]]:
    found = set()
    for each in at.hosts.values():
        if each.powered and each.agent.machine is not None:
            status = Reporter(each.agent.machine, each.clock()).snapshot("", {})
            assert status.outlook is not None
            found.add((status.outlook.survives, status.outlook.done, status.outlook.short))
    return found


def test_every_host_says_how_many_may_be_lost_and_it_follows_what_happens() -> None:
    at = world(Settings(), a=("host1", 6000), b=("host2", 6000), c=("host3", 6000))
    assert outlooks(at) == {(1, True, "")}
    at.power_off("host1")
    at.run(20)
    ((survives, done, short),) = outlooks(at)
    assert (survives, done) == (0, True)
    assert short.startswith("the domain would not survive the loss of one host: without host")
    assert [entry.kind for entry in at.timeline if entry.kind.startswith("capacity")] == ["capacity-short"]
    at.power_on("host1")
    at.run(20)
    assert outlooks(at) == {(1, True, "")}
    assert [entry.kind for entry in at.timeline if entry.kind.startswith("capacity")][-1] == "capacity-enough"


def test_what_was_before_the_last_change_is_told_as_such() -> None:
    at = world(Settings(), a=("host1", 6000), b=("host2", 6000), c=("host3", 6000))
    name = next(name for name in at.hosts if name not in at.primaries())

    def stale() -> bool:
        primary = at.hosts[at.primaries()[0]].agent.machine
        assert primary is not None
        assert primary.capacity.outlook is not None
        return primary.capacity.outlook.stale

    assert not stale()
    at.maintenance_on(name)
    assert at.run_until(stale, 4) is not None
    assert at.run_until(lambda: not stale(), 20) is not None


def test_switched_off_it_says_what_is_and_complains_of_nothing() -> None:
    at = world(Settings(admission_mode="off"), a=("host1", 16000), b=("host2", 16000), c=("host3", 16000))
    assert outlooks(at) == {(0, True, "")}
    assert not [entry for entry in at.timeline if entry.kind == "capacity-short"]
