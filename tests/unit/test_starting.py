"""A VM is started afresh where its copy was: libvirt is asked until it has cleared that away."""

from __future__ import annotations

import asyncio

import libvirt
import pytest

from outlast.drivers.hypervisor import starting
from outlast.drivers.hypervisor.faults import is_host_fault

OFF, COPY, RUNS = "off", "a copy", "runs"


class Domain:
    def __init__(self, state: str) -> None:
        self._state = state
        self.started = 0

    def isActive(self) -> bool:
        return self._state != OFF

    def state(self) -> list[int]:
        if self._state == COPY:
            return [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION]
        return [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED]

    def createWithFlags(self, _: int) -> None:
        self.started += 1


class Connection:
    """What it answers to each `defineXML` in turn, and then the last one again."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)
        self.domain = Domain(OFF)

    def defineXML(self, _: str) -> Domain:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer not in (OFF, COPY, RUNS):
            raise libvirt.libvirtError(answer)
        self.domain = Domain(answer)
        return self.domain


def start(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "LOOKS_EVERY_S", 0.001)
    monkeypatch.setattr(starting, "CLEARED_WITHIN_S", 0.01)

    async def begin() -> bool:
        return starting.begin(connection, "<domain/>")

    asyncio.run(starting.start(begin))


def test_it_is_started_when_its_copy_has_been_cleared_away(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection(COPY, "operation failed: domain 'web' is already being removed", OFF)
    start(connection, monkeypatch)
    assert connection.domain.started == 1


def test_what_runs_already_is_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection(RUNS)
    start(connection, monkeypatch)
    assert connection.domain.started == 0


def test_a_libvirt_that_never_clears_it_away_is_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(libvirt.libvirtError, match="restart libvirtd") as failed:
        start(Connection(COPY), monkeypatch)
    assert is_host_fault(failed.value)


def test_any_other_refusal_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(libvirt.libvirtError, match="unsupported"):
        start(Connection("unsupported configuration: CPU model", OFF), monkeypatch)
