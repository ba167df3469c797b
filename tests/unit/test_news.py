"""What an agent takes for calm is calm: deciding anew after such an event changes nothing and asks for nothing."""

from pathlib import Path

import pytest

from outlast.model.effects import Effect
from outlast.model.events import Event
from outlast.model.time import MILLISECOND, Instant
from outlast.protocol.agent import AgentMachine
from outlast.scenario.reading import read_file
from outlast.sim import play, random_runs

SCENARIOS = Path(__file__).parents[2] / "scenarios"
TOLD = [
    "power/02-primary-loses-power.toml",
    "network/04-partition-in-the-middle.toml",
    "network/03-isolated-and-shut-down.toml",
    "network/13-the-agent-dies-while-its-guests-shut-down.toml",
    "storage/03-outage-for-everybody.toml",
    "storage/14-who-is-responsible-dies.toml",
    "daemons/05-keeper-hangs.toml",
    "vms/05-start-fails-on-one-host.toml",
]


@pytest.fixture
def missed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What came of deciding anew after each calm event, in all agents of the simulated world."""
    found: list[str] = []
    decided: set[AgentMachine] = set()
    handle, decide = AgentMachine.handle, AgentMachine.decide

    def deciding(machine: AgentMachine) -> None:
        decided.add(machine)
        decide(machine)

    def handling(machine: AgentMachine, event: Event, now: Instant) -> list[Effect]:
        decided.discard(machine)
        effects = handle(machine, event, now)
        if machine not in decided and machine.deadline() > now + MILLISECOND:
            decide(machine)
            machine._decide_at = machine._decisions_due()
            found.extend(f"after {type(event).__name__}: {effect}" for effect in machine._out.take())
        return effects

    monkeypatch.setattr(AgentMachine, "decide", deciding)
    monkeypatch.setattr(AgentMachine, "handle", handling)
    return found


@pytest.mark.parametrize("file", TOLD)
def test_nothing_comes_of_deciding_anew_after_a_calm_event(file: str, missed: list[str]) -> None:
    play.play(read_file(SCENARIOS / file))
    assert missed == []


@pytest.mark.parametrize("seed", range(5))
def test_nor_in_random_worlds(seed: int, missed: list[str]) -> None:
    random_runs.run(seed)
    assert missed == []
