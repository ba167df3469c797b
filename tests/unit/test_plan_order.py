"""`outlast plan` foretells who waits for whom (`after`), and how long that takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from planning_values import DS, domain, host, vm

from outlast.interfaces.cli import main
from outlast.model.dependency import Dependency, Standing
from outlast.model.ids import HostId, HostName, VmId, VmName
from outlast.model.planning import Foretold, Move, PlanBasis, PlanHost, PlanVm
from outlast.model.policy import VmPolicy, parse_ready, rank
from outlast.model.time import seconds
from outlast.protocol.planning.foretelling import foretell, ranked
from outlast.protocol.planning.problem import Problem
from outlast.protocol.planning.worst import worst_losses
from outlast.protocol.restart import Restart
from outlast.protocol.sequence import Waiter
from outlast.scenario.reading import read
from outlast.sim import plan_checks

SCENARIOS = Path(__file__).parents[2] / "scenarios"
LOST = frozenset({HostId("host1")})


def policy(*after: str, ready: str = "powered-on", **more: Any) -> VmPolicy:
    return VmPolicy(after=tuple(VmName(name) for name in after), ready=parse_ready(ready), **more)


def basis(vms: dict[PlanVm, VmPolicy | None], *, room: int = 8192, **more: Any) -> PlanBasis:
    """Two hosts; everything runs on host1, and host2 has so much room."""
    hosts: list[PlanHost] = [host("host1", 65536, 64), host("host2", room, 64)]
    ranks = [
        msgspec.structs.replace(each, tier=rank(own.priority)) if own is not None else each for each, own in vms.items()
    ]
    return PlanBasis(
        domain="d",
        seen_from=HostName("host2"),
        primary=None,
        snapshot=domain(hosts, ranks),
        window=seconds(7.5),
        heartbeat=seconds(1),
        poll=seconds(0.5),
        dependency_timeout=seconds(20),
        policies={each.vm: own for each, own in vms.items() if own is not None},
        **more,
    )


def there(name: str, memory: int = 1024, **more: Any) -> PlanVm:
    return vm(name, memory, on="host1", **more)


def told(found: Foretold) -> dict[str, list[str]]:
    return {move.vm: [each.sentence for each in move.awaits] for move in found.moves}


def move_of(found: Foretold, name: str) -> Move:
    return next(move for move in found.moves if move.vm == name)


def test_a_chain_is_started_in_its_order_and_its_delays_count() -> None:
    vms = {there("web"): policy("app"), there("app"): policy("db", ready="delay:30s"), there("db"): None}
    found = foretell(basis(vms), LOST)
    assert [move.vm for move in found.moves] == ["db", "app", "web"]
    assert told(found) == {"db": [], "app": ["waits for db until it runs"], "web": ["waits for app 30s after it runs"]}
    assert [move.after_s for move in found.moves] == [(6.5, 10.5), (7.0, 13.0), (37.5, 48.5)]
    assert all(each.heeded for move in found.moves for each in move.awaits)


def test_a_guest_that_may_answer_or_not() -> None:
    found = foretell(basis({there("web"): policy("db"), there("db"): policy(ready="guest-heartbeat")}), LOST)
    assert told(found)["web"] == ["waits for db until its guest answers, for 20s at most"]
    assert move_of(found, "web").after_s == (7.0, 30.5)


def test_it_goes_on_without_one_that_finds_no_room() -> None:
    vms = {there("web"): policy("app"), there("app"): policy("db"), there("db", 16384): None}
    found = foretell(basis(vms), LOST)
    assert [wait.vm for wait in found.waits] == ["db"]
    assert told(found) == {
        "app": ["goes on without db after 20s: no host can take it"],
        "web": ["waits for app until it runs"],
    }
    assert not move_of(found, "app").awaits[0].heeded
    assert move_of(found, "app").after_s == (26.5, 30.5)
    assert move_of(found, "web").after_s == (27.0, 33.0)


def test_it_goes_on_without_one_that_is_not_proven_off() -> None:
    vms = {there("web"): policy("db"), there("db", stores=DS[1:]): None}
    found = foretell(basis(vms, no_proof={HostId("host1"): DS[1:]}), LOST)
    assert told(found) == {"web": ["goes on without db after 20s: there would be no proof that it is off"]}
    assert move_of(found, "web").after_s[0] == 26.5


def test_nobody_waits_for_one_that_nobody_starts() -> None:
    vms = {
        there("web"): policy("off", "disabled", "unprotected"),
        there("disabled", wanted=False): policy(priority="disabled"),
        there("unprotected", wanted=False): None,
    }
    standings = {VmName("off"): Dependency(Standing.NEVER, why="off has failed")}
    found = foretell(basis(vms, standings=standings), LOST)
    assert told(found)["web"] == [
        "does not wait for off: off has failed",
        "does not wait for disabled: disabled is off, and its priority is disabled",
        "does not wait for unprotected: unprotected is off, and nobody wants it to run",
    ]
    assert move_of(found, "web").after_s == (6.5, 10.5)


def test_who_runs_elsewhere_is_ready_or_comes() -> None:
    standings = {VmName("db"): Dependency(Standing.READY), VmName("cache"): Dependency(Standing.COMING)}
    vms = {there("web"): policy("db"), there("shop"): policy("cache"), vm("db", on="host2"): None}
    found = foretell(basis(vms, standings=standings), LOST)
    assert told(found) == {"web": [], "shop": ["waits for cache until it is ready, for 20s at most"]}
    assert move_of(found, "shop").after_s == (6.5, 30.5)


def test_a_ring_is_broken_where_recovery_breaks_it() -> None:
    vms = {there("a"): policy("b", priority="high"), there("b"): policy("a")}
    found = foretell(basis(vms), LOST)
    assert [move.vm for move in found.moves] == ["b", "a"]
    assert told(found)["b"] == ["does not wait for a: b and a wait for each other"]


def test_the_last_room_goes_to_whom_the_most_important_one_waits_for() -> None:
    vms = {
        there("shop"): policy("db", priority="highest"),
        there("db"): policy(priority="lowest"),
        there("batch", tier=2): None,
    }
    made = basis(vms, room=2048)
    assert [move.vm for move in foretell(made, LOST).moves] == ["db", "shop"]
    problem = Problem(made.snapshot)
    lost = frozenset({problem.number[HostId("host1")]})
    assert {each.name: each.tier for each in ranked(made, problem, lost).snapshot.vms}["db"] == 0
    worst = list(worst_losses(problem, 1, lambda gone: ranked(made, problem, gone)))[-1]
    assert worst.waiting == (VmId("batch"),)


def test_no_more_starts_at_once_than_the_settings_say() -> None:
    vms: dict[PlanVm, VmPolicy | None] = {there(f"vm{i}", 256): None for i in range(4)}
    found = foretell(basis(vms, starts_per_host=1), LOST)
    assert [move.after_s[0] for move in found.moves] == [6.5, 7.0, 7.5, 8.0]
    found = foretell(basis(vms, starts_per_datastore=2), LOST)
    assert [move.after_s[0] for move in found.moves] == [6.5, 6.5, 7.0, 7.0]


def test_a_basis_of_an_earlier_release_has_no_order() -> None:
    made = json.loads(msgspec.json.encode(basis({there("web"): policy("db"), there("db"): None})))
    for new in ("dependency_timeout", "starts_per_host", "starts_per_datastore", "policies", "standings"):
        del made[new]
    found = foretell(msgspec.json.decode(json.dumps(made), type=PlanBasis), LOST)
    assert told(found) == {"db": [], "web": []}


def test_the_command_tells_it(tmp_path: Path) -> None:
    path = tmp_path / "basis.json"
    path.write_bytes(msgspec.json.encode(basis({there("web"): policy("db"), there("db"): None})))
    done = CliRunner().invoke(main, ["plan", "--from", str(path), "--fail", "host1"])
    assert "web waits for db until it runs" in done.output
    done = CliRunner().invoke(main, ["plan", "--from", str(path), "--worst", "1", "--json"])
    moves = {move["vm"]: move for move in json.loads(done.output)["foretold"]["moves"]}
    assert moves["web"]["awaits"] == [{"vm": "db", "heeded": True, "sentence": "waits for db until it runs"}]


# -- against what happens ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["02-a-chain", "06-its-dependencys-host-never-returns", "24-no-room-for-a-dependency"])
def test_the_scenarios_of_order_are_foretold(name: str) -> None:
    scenario = read((SCENARIOS / "order" / f"{name}.toml").read_text())
    found = plan_checks.foretold(scenario)
    assert any(move.awaits for move in found.moves)
    end = scenario.expect[-1].claims
    assert {move.vm for move in found.moves} == set(end["running"])
    assert {wait.vm for wait in found.waits} == set(end.get("state", ()))
    for move in found.moves:
        assert move.after_s[0] <= end["recovered_within"][move.vm] / seconds(1)


def test_the_check_notices_who_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_checks.check(43).passed
    real = Restart.waiter

    def impatient(case: Restart) -> Waiter:
        return msgspec.structs.replace(real(case), after=())

    monkeypatch.setattr(Restart, "waiter", impatient)
    assert "vm10 waits for vm8 3s after it runs" in [each.expectation for each in plan_checks.check(43).failures]
