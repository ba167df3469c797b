"""An agent that is told to end stays for a moment, for a VM that has ended and that nobody else can release."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from outlast.model.time import MILLISECOND, Duration
from outlast.runtime import agent_process
from outlast.runtime.agent_process import AgentProcess


class Own:
    """It owes words, and has given them after so many looks."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    @property
    def owes_words(self) -> bool:
        self.left -= 1
        return self.left >= 0


def ends_with(looks: int) -> tuple[list[str], Own]:
    done: list[str] = []
    own = Own(looks)

    async def end(what: str) -> None:
        done.append(what)

    def closing(what: str) -> Any:
        return SimpleNamespace(stop=lambda: done.append(what), close=lambda: done.append(what))

    machine = SimpleNamespace(own=own)
    agent = SimpleNamespace(
        _executor=SimpleNamespace(machine=machine, stop=lambda: end(f"leaves, {max(own.left, 0)} looks early")),
        _hypervisor=SimpleNamespace(stop=lambda: end("libvirt")),
        _note=lambda _: None,
        _config=SimpleNamespace(host=SimpleNamespace(id="host1")),
        _tasks=[],
        _control=closing("control"),
        _keeper=closing("keeper"),
        _network=closing("network"),
        _stores={},
        _fencer=closing("fencer"),
    )
    asyncio.run(AgentProcess._stop(cast(AgentProcess, agent)))
    return done, own


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_process, "LOOKS_FOR_WORDS_S", 0.0)


@pytest.mark.parametrize("looks", [0, 3])
def test_it_leaves_when_all_is_said(looks: int) -> None:
    done, _ = ends_with(looks)
    assert (done[0], done[-1]) == ("leaves, 0 looks early", "libvirt")


def test_it_does_not_stay_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_process, "LAST_WORDS", Duration(MILLISECOND))
    done, own = ends_with(10**9)
    assert own.left > 0
    assert done[-1] == "libvirt"
