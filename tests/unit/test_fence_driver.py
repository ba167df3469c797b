"""Fence agents as subprocesses: what counts as off, and that a command ends when it is to end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from outlast.drivers.fencing import FenceMethod, Fencer
from outlast.model.events import Event, FenceEnded, FenceStatusEnded, PowerState
from outlast.model.ids import HostId, RequestId
from outlast.model.inventory import FenceLevel
from outlast.model.time import seconds

HOST, NUMBER = HostId("h1"), RequestId(7)


def fencer(directory: Path, script: str, timeout_s: float = 5.0) -> tuple[Fencer, list[Event]]:
    agent, secret = directory / "fence_test", directory / "secret"
    agent.write_text(f"#!/bin/sh\ncat > {directory}/options\n{script}\n")
    agent.chmod(0o755)
    secret.write_text("pa ss\n")
    events: list[Event] = []
    method = FenceMethod(FenceLevel(str(agent), seconds(timeout_s)), {"ip": "192.0.2.66"}, {"password": secret})
    return Fencer({HOST: (method,)}, events.append), events


async def done(fencing: Fencer) -> None:
    await asyncio.gather(*fencing._tasks.values(), return_exceptions=True)


@pytest.mark.parametrize(
    ("script", "state", "problem"),
    [
        ("echo 'Status: OFF'; exit 2", PowerState.OFF, ""),
        ("echo 'Status: ON'", PowerState.ON, ""),
        ("exit 0", PowerState.ON, ""),
        ("echo 'Parse error: unknown option ip'; exit 2", PowerState.UNKNOWN, "code 2: Parse error: unknown option ip"),
        ("exit 2", PowerState.UNKNOWN, "code 2 and said nothing"),
        ("echo 'Status: OFF'; exit 1", PowerState.UNKNOWN, "code 1"),
        ("echo 'Status: OFF'; exit 0", PowerState.UNKNOWN, "code 0"),
    ],
)
def test_only_who_says_off_in_words_and_by_its_code_is_believed(
    tmp_path: Path, script: str, state: PowerState, problem: str
) -> None:
    async def main() -> None:
        fencing, events = fencer(tmp_path, script)
        fencing.ask(NUMBER, HOST, 0)
        await done(fencing)
        (event,) = events
        assert isinstance(event, FenceStatusEnded)
        assert (event.request, event.host, event.state) == (NUMBER, HOST, state)
        assert problem in event.problem

    asyncio.run(main())
    assert (tmp_path / "options").read_text() == "action=status\nip=192.0.2.66\npassword=pa ss\n"


@pytest.mark.parametrize(("script", "ok"), [("exit 0", True), ("echo 'Connection timed out' >&2; exit 1", False)])
def test_switching_off(tmp_path: Path, script: str, ok: bool) -> None:
    async def main() -> None:
        fencing, events = fencer(tmp_path, script)
        fencing.switch_off(NUMBER, HOST, 0)
        await done(fencing)
        (event,) = events
        assert isinstance(event, FenceEnded)
        assert event.ok is ok
        assert ok or "Connection timed out" in event.problem

    asyncio.run(main())
    assert (tmp_path / "options").read_text().startswith("action=off\n")


def test_a_device_that_hangs_is_given_up(tmp_path: Path) -> None:
    async def main() -> None:
        fencing, events = fencer(tmp_path, "exec sleep 100", timeout_s=0.05)
        fencing.switch_off(NUMBER, HOST, 0)
        await done(fencing)
        assert [getattr(event, "problem", "") for event in events] == ["it gave no answer within 0.05 s"]

    asyncio.run(main())


def test_what_is_called_off_is_killed_and_answers_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        fencing, events = fencer(tmp_path, f"touch {tmp_path}/began; exec sleep 100")
        fencing.switch_off(NUMBER, HOST, 0)
        while not (tmp_path / "began").exists():
            await asyncio.sleep(0.002)
        fencing.cancel(NUMBER)
        await done(fencing)
        assert events == []

    asyncio.run(main())


def test_an_agent_that_is_not_there_is_named_with_its_remedy() -> None:
    async def main() -> None:
        method = FenceMethod(FenceLevel("fence_nothing", seconds(1)), {}, {})
        (answer,) = await Fencer({HOST: (method,)}, print).test(HOST)
        assert answer[1] is PowerState.UNKNOWN
        assert "apt-get install fence-agents" in answer[2]

    asyncio.run(main())
