"""What is left of a failing scenario is what it needs to fail, and it is a scenario still."""

from __future__ import annotations

from outlast.scenario.model import Scenario
from outlast.scenario.reading import read
from outlast.scenario.sense import nonsense
from outlast.scenario.shrinking import shrink
from outlast.scenario.writing import write

HOSTS = "".join(f'[[hosts]]\nname = "host{i}"\n' for i in range(1, 6))
VMS = "".join(f'[[vms]]\nname = "vm{i}"\nhost = "host{i}"\n' for i in range(1, 6))
STEPS = "".join(
    f'[[steps]]\nat = "{i}.25s"\ndo = "{do}"\nhost = "host{i % 5 + 1}"\n'
    for i, do in enumerate(["agent-kill", "keeper-kill", "power-off", "power-on", "agent-stop"] * 4)
)
EXPECT = """
[[steps]]
at = "30s"
do = "network-cut"
between = [["host1"], ["host2", "host3"]]

[[expect]]
at = "end"
running = { vm1 = ["host1", "host2"], vm2 = "any", vm3 = "host3" }
not_dead = ["host1", "host3"]
restarted = { vm3 = 1 }
"""
SCENARIO = read('title = "Much"\nduration = "300s"\n[[datastores]]\nname = "ds1"\n' + HOSTS + VMS + STEPS + EXPECT)


def has(scenario: Scenario, do: str, host: str) -> bool:
    return any(step.do == do and step.keys.get("host") == host for step in scenario.steps)


def test_only_what_it_needs_to_fail_is_left() -> None:
    def fails(scenario: Scenario) -> bool:
        needed = has(scenario, "power-off", "host3") and has(scenario, "agent-stop", "host5")
        return needed and any(vm.name == "vm3" for vm in scenario.vms) and scenario.duration >= 100_000_000_000

    small = shrink(SCENARIO, fails)
    assert fails(small)
    assert [(step.do, step.at % 1_000_000_000) for step in small.steps] == [("power-off", 0), ("agent-stop", 0)]
    assert [host.name for host in small.hosts] == ["host3", "host5"]
    assert [vm.name for vm in small.vms] == ["vm3"]
    assert small.expect == ()
    assert small.duration < 200_000_000_000
    assert nonsense(small) == []
    assert read(write(small)).steps[0].keys == {"host": "host3"}


def test_claims_lose_the_names_that_are_gone() -> None:
    small = shrink(SCENARIO, lambda scenario: any("running" in each.claims for each in scenario.expect))
    assert small.expect[0].claims["running"] in ({"vm1": ("host1",)}, {"vm2": ("any",)}, {"vm3": ("host3",)})
    assert len(small.hosts) == len(small.vms) == 1
    assert small.steps == ()


def test_tries_are_bounded() -> None:
    tried = []

    def fails(scenario: Scenario) -> bool:
        tried.append(scenario)
        return True

    shrink(SCENARIO, fails, tries=5)
    assert len(tried) == 5


def test_what_cannot_be_smaller_stays() -> None:
    assert shrink(SCENARIO, lambda _: False) == SCENARIO
