"""`outlast plan` foretells what then happens, and says why."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from outlast.interfaces.cli import main
from outlast.model.ids import DatastoreName, HostId, HostName, VmName
from outlast.model.planning import PlanBasis
from outlast.model.rules import Rule
from outlast.protocol import plan_basis
from outlast.protocol.planning.foretelling import foretell
from outlast.scenario.model import DatastoreSpec, HostSpec, VmSpec
from outlast.sim.world import World


def world() -> World:
    vms = {"web1": ("host1", 4), "web2": ("host2", 4), "db": ("host1", 20), "small": ("host1", 1), "batch": ("host3", 18)}
    risky = DatastoreSpec(name=DatastoreName("ds2"), accept_in_flight_risk=False, in_flight_bound=None)
    stores = (DatastoreSpec(name=DatastoreName("ds1")), risky)
    made = World(
        [HostSpec(name=HostName(f"host{i + 1}")) for i in range(3)],
        stores,
        [
            VmSpec(name=VmName(n), host=HostName(h), memory_mib=m << 10, datastore=stores[n == "small"].name)
            for n, (h, m) in vms.items()
        ],
        rules=[Rule(kind="keep-apart", vms=(VmName("web1"), VmName("web2")))],
        seed=2,
    )
    made.settle()
    return made


def basis_of(at: World, host: str = "host3") -> PlanBasis:
    machine = at.hosts[host].agent.machine
    assert machine is not None
    machine.known.now = at.hosts[host].clock()
    return plan_basis.basis(machine)


@pytest.mark.parametrize("seen_from", ["host2", "host3"])
def test_what_is_foretold_happens(seen_from: str) -> None:
    at = world()
    found = foretell(basis_of(at, seen_from), frozenset({HostId("host1")}))
    assert {move.vm: move.to for move in found.moves} == {"web1": "host3", "db": "host2"}
    assert [(wait.vm, wait.why) for wait in found.waits] == [
        ("small", "the end of host1's lease on ds2 would be no proof: it waits until host1 boots again")
    ]
    assert not found.survives
    at.power_off("host1")
    for move in found.moves:
        took = at.run_until(lambda vm=move.vm: bool(at.where(vm)), 30)
        assert took is not None
        assert at.where(move.vm) == [move.to]
    at.run(30)
    assert at.where("small") == []


def test_how_long_it_would_take() -> None:
    at = world()
    found = foretell(basis_of(at), frozenset({HostId("host1")}))
    for move in found.moves:
        assert move.after_s[0] == 6.5
        assert 8 < move.after_s[1] < 11


def test_who_waits_is_told_why_by_every_host() -> None:
    at = world()
    found = foretell(basis_of(at), frozenset({HostId("host1"), HostId("host2")}))
    assert {wait.vm for wait in found.waits} == {"web2", "db", "small"}
    waits = {wait.vm: wait for wait in found.waits}
    assert waits["db"].hosts["host1"] == "it is taken for lost"
    assert "MiB of memory free, and the VM needs 20480 MiB" in waits["db"].hosts["host3"]
    assert "keep-apart" in waits["web2"].hosts["host3"]


def test_a_basis_survives_being_written_down() -> None:
    basis = basis_of(world())
    assert msgspec.json.decode(msgspec.json.encode(basis), type=PlanBasis) == basis


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "basis.json"
    path.write_bytes(msgspec.json.encode(basis_of(world())))
    return path


def run(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["plan", "--from", str(file), *arguments])


def said_by(done: Result) -> str:
    """What stands on the screen, however it was folded."""
    return " ".join(done.output.replace("│", " ").split())


def test_the_command_tells(file: Path) -> None:
    said = said_by(run(file, "--fail", "host1"))
    assert "Without host1: 2 VMs would start on another host, 1 would wait. Seen from host3." in said
    assert "small would wait" in said
    now = said_by(run(file))
    assert "Now: 0 VMs would start" in now


def test_json(file: Path) -> None:
    found = json.loads(run(file, "--fail", "host1", "--json").output)
    assert found["lost"] == ["host1"]
    assert {move["vm"] for move in found["moves"]} == {"web1", "db"}
    worst = json.loads(run(file, "--worst", "1", "--json").output)
    assert (worst["proven"], worst["losses"]) == (True, 3)


def test_the_worst(file: Path) -> None:
    said = said_by(run(file, "--worst", "2"))
    assert "The worst loss of 2: host" in said
    assert "Proven: no other of the 3 losses leaves more waiting." in said
    assert "Not proven: 1 of 3 losses were looked at" in said_by(run(file, "--worst", "2", "--time-limit", "0"))


def test_explaining_one_vm(file: Path) -> None:
    said = said_by(run(file, "--fail", "host1", "--explain", "web1"))
    assert "host3: chosen: no other host can take it" in said
    assert "host2: refused: the rule 'required keep-apart of web1 and web2'" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--fail", "host9"), "there is no host host9"),
        (("--fail", "host1", "--worst", "1"), "are two questions"),
        (("--worst", "4"), "4 hosts cannot be lost"),
        (("--explain", "nobody"), "there is no VM nobody"),
        (("--explain", "web1"), "needs no host"),
    ],
)
def test_questions_that_cannot_be_answered(file: Path, arguments: tuple[str, ...], words: str) -> None:
    done = run(file, *arguments)
    assert done.exit_code == 2
    assert words in said_by(done)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("{}")
    for name, words in (("x", "is no basis of a plan"), ("y", "cannot be read")):
        done = run(tmp_path / name)
        assert (done.exit_code, words in said_by(done)) == (2, True)
