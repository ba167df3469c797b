"""Pings: an answer is told; one that never left this host is not taken for silence without a word."""

from __future__ import annotations

import asyncio

import icmplib
import pytest
import structlog
from icmplib.exceptions import SocketPermissionError

from outlast.drivers import ping
from outlast.drivers.ping import Pinger
from outlast.model.events import Event, PingAnswered, PingNotSent
from outlast.model.ids import HostId

ADDRESS = "192.0.2.1"


def pings(monkeypatch: pytest.MonkeyPatch, outcome: icmplib.Host | Exception, times: int = 1) -> tuple[list[Event], int]:
    """What happened, and how often it was said that a ping could not be sent."""
    events: list[Event] = []

    async def async_ping(*_: object, **__: object) -> icmplib.Host:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(ping, "async_ping", async_ping)

    async def main() -> None:
        pinger = Pinger(0.1, events.append)
        for _ in range(times):
            pinger.ping(HostId("h2"), ADDRESS)
            await asyncio.gather(*pinger._tasks)

    with structlog.testing.capture_logs() as logs:
        asyncio.run(main())
    return events, sum(log["event"] == "a ping cannot be sent" for log in logs)


def test_an_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pings(monkeypatch, icmplib.Host(ADDRESS, 1, [0.5])) == ([PingAnswered(HostId("h2"), ADDRESS)], 0)


def test_silence_is_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pings(monkeypatch, icmplib.Host(ADDRESS, 1, [])) == ([], 0)


@pytest.mark.parametrize(
    "outcome", [icmplib.Host(ADDRESS, 0, []), SocketPermissionError(False), OSError(24, "Too many open files")]
)
def test_a_ping_that_never_left_is_told_once(monkeypatch: pytest.MonkeyPatch, outcome: icmplib.Host | Exception) -> None:
    events, said = pings(monkeypatch, outcome, times=3)
    assert said == 1
    assert [type(event) for event in events] == 3 * [PingNotSent], "the machine is told each time: it counts no silence"


def test_why_no_ping_can_be_sent_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object, **__: object) -> None:
        raise SocketPermissionError(False)

    monkeypatch.setattr(ping, "async_ping", refused)
    assert "sysctl -w net.ipv4.ping_group_range" in asyncio.run(ping.problem())
