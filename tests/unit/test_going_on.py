"""What nobody expected is told with its traceback, and the agent's loops and batches go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog

from outlast.drivers.hypervisor import libvirt as driver
from outlast.drivers.hypervisor.libvirt import Hypervisor
from outlast.model.effects import Effect, Note, Ping
from outlast.model.events import Event, KeeperAnswered, KeeperGone
from outlast.runtime import agent_process, keeper_link
from outlast.runtime.agent_process import AgentProcess
from outlast.runtime.executor import Executor
from outlast.runtime.keeper_link import KeeperLink

Logs = list[dict[str, Any]]


@pytest.fixture
def logs() -> Iterator[Logs]:
    with structlog.testing.capture_logs() as captured:
        yield cast(Logs, captured)


async def until(condition: Any) -> None:
    async with asyncio.timeout(5.0):
        while not condition():
            await asyncio.sleep(0.001)


def test_one_effect_that_cannot_be_begun_does_not_cost_the_others(logs: Logs) -> None:
    pinged: list[str] = []

    def broken(note: Note) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    async def main() -> None:
        pinger = SimpleNamespace(ping=lambda _, address: pinged.append(address))
        nothing = cast(Any, SimpleNamespace())
        executor = Executor(
            nothing,
            stores={},
            hypervisor=nothing,
            network=nothing,
            pinger=cast(Any, pinger),
            keeper=nothing,
            fencer=nothing,
            told=nothing,
            health=nothing,
            on_note=broken,
            on_settings=nothing,
            on_outcome=nothing,
        )
        effects: list[Effect] = [Ping(None, "192.0.2.1"), Note("verdict"), Ping(None, "192.0.2.2")]
        executor.run(effects)

    asyncio.run(main())
    assert pinged == ["192.0.2.1", "192.0.2.2"]
    assert [(log["event"], log["effect"]) for log in logs] == [("an effect could not be begun", "Note")]


def test_the_link_to_the_keeper_is_made_again_after_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: Logs
) -> None:
    monkeypatch.setattr(keeper_link, "RECONNECT_S", 0.0)
    events: list[Event] = []

    def happen(event: Event) -> None:
        events.append(event)
        if isinstance(event, KeeperAnswered) and event.reply.request == 1:
            raise ValueError("a bug")

    async def keeper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        number = 1 + sum(isinstance(event, KeeperGone) for event in events)
        line = json.dumps({"type": "reply", "request": number, "allowed": True}).encode()
        writer.write(line + b"\n" + b"not json\n")
        await writer.drain()
        await reader.read()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_unix_server(keeper, str(tmp_path / "socket"))
        link = KeeperLink(str(tmp_path / "socket"), happen)
        link.start()
        await until(lambda: any(isinstance(e, KeeperAnswered) and e.reply.request == 2 for e in events))
        link.stop()
        server.close()

    asyncio.run(main())
    assert KeeperGone() in events
    assert [log["event"] for log in logs] == ["the conversation with the keeper broke off; it is begun anew"]


def test_libvirt_is_followed_again_after_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: Logs) -> None:
    monkeypatch.setattr(driver, "RECONNECT_FIRST_S", 0.001)
    tried: list[int] = []

    async def connect() -> None:
        tried.append(1)
        raise KeyError("a bug")

    async def main() -> None:
        hypervisor = Hypervisor("test:///none", (), tmp_path, lambda _: None, lambda _: None)
        monkeypatch.setattr(hypervisor, "_connect", connect)
        task = asyncio.ensure_future(hypervisor._keep_connected())
        await until(lambda: len(tried) >= 3)
        task.cancel()

    asyncio.run(main())
    assert logs[0]["event"] == "following libvirt failed; it is begun anew"
    assert logs[0]["log_level"] == "error"


def test_the_second_freezer_looks_again_after_anything(monkeypatch: pytest.MonkeyPatch, logs: Logs) -> None:
    monkeypatch.setattr(agent_process, "FREEZER_LOOKS_EVERY_S", 0.0)
    looks: list[int] = []

    def look(_: int) -> list[Any]:
        looks.append(1)
        raise PermissionError(1, "Operation not permitted")

    async def main() -> None:
        agent = SimpleNamespace(_freezer=SimpleNamespace(look=look), _log=structlog.get_logger())
        task = asyncio.ensure_future(AgentProcess._look_as_freezer(cast(AgentProcess, agent)))
        await until(lambda: len(looks) >= 3)
        task.cancel()

    asyncio.run(main())
    assert logs[0]["event"] == "a look as second freezer failed; the next one comes"
