"""`drain --wait` and `migrate --wait`: what they show, and with which exit code they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_operator_cli import STATUS, Agent, host_status, serving

from outlast.interfaces import waiting
from outlast.model.status import DomainStatus, MigrationStatus, VmStatus
from outlast.runtime.control import ControlReply, ControlRequest

KEPT = "it is in maintenance (ann@host1)"
COPY = MigrationStatus(to="host1", total_mib=2000, remaining_mib=500, mib_s=110, downtime_ms=60)


class Steps(Agent):
    """Shows one status after the other, the last one for ever."""

    statuses: tuple[DomainStatus, ...] = ()

    async def answer(self, request: ControlRequest) -> ControlReply:
        if request.do == "status":
            self.status, self.statuses = self.statuses[0], self.statuses[1:] or self.statuses
        return await super().answer(request)


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(waiting, "LOOKS_EVERY_S", 0.0)
    monkeypatch.setattr(waiting, "SETTLED_FOR_S", 0.0)
    monkeypatch.setattr(waiting, "ARRIVES_WITHIN_S", 0.0)
    yield from serving(Steps(tmp_path / "agent.sock"))


def of(host: str = "host2", *, migration: MigrationStatus | None = None, **more: Any) -> DomainStatus:
    facts = {"kept_empty": KEPT, "vms": 1} | more
    vm = VmStatus(
        name="web1",
        uuid="v1",
        host=host,
        state="running",
        protected=True,
        home="ds1",
        epoch=1,
        lease_age_s=0.1,
        memory_mib=2048,
        note="",
        migration=migration,
    )
    return msgspec.structs.replace(STATUS, hosts=(host_status("host1"), host_status("host2", **facts)), vms=(vm,))


def test_a_drain_is_followed_until_the_host_is_empty(steps: Steps) -> None:
    steps.statuses = (of(emptying="web1 is to move to host1"), of(migration=COPY), of("host1", vms=0))
    done = steps.runs("host", "drain", "host2", "--wait")
    assert done.exit_code == 0
    assert "host2: 1 VM left; web1 is to move to host1" in done.output
    assert "web1 on its way to host1: 75 %, 500 of 2000 MiB left at 110 MiB/s, then a pause of about 60 ms" in done.output
    assert done.output.endswith("host2 is empty\n")


def test_what_stays_ends_the_waiting_with_a_code_of_its_own(steps: Steps) -> None:
    steps.statuses = (of(emptying="web1 stays: no other host can take it", emptying_settled=True),)
    done = steps.runs("host", "drain", "host2", "--wait")
    assert done.exit_code == 3
    assert "web1 stays: no other host can take it" in done.output
    assert "the drain goes on" in done.output


def test_the_time_is_over(steps: Steps) -> None:
    steps.statuses = (of(emptying="web1 moves to host1"),)
    done = steps.runs("host", "drain", "host2", "--wait", "--timeout", "0s")
    assert done.exit_code == 4
    assert "not done within 0 s: host2: 1 VM left; web1 moves to host1" in done.output
    assert "`outlast host undrain host2` ends it" in done.output


def test_somebody_else_ends_the_maintenance(steps: Steps) -> None:
    steps.statuses = (of(kept_empty=""),)
    done = steps.runs("host", "drain", "host2", "--wait")
    assert done.exit_code == 3
    assert "somebody has ended its maintenance" in done.output


def test_a_length_of_time_that_is_none_is_refused(steps: Steps) -> None:
    done = steps.runs("host", "drain", "host2", "--wait", "--timeout", "soon")
    assert done.exit_code == 2
    assert steps.asked == []


def test_a_migration_is_followed_until_it_is_there(steps: Steps) -> None:
    steps.statuses = (of(migration=COPY), of("host1"))
    done = steps.runs("vm", "migrate", "web1", "host1", "--wait")
    assert done.exit_code == 0
    assert "75 %" in done.output
    assert done.output.endswith("web1 runs on host1\n")


def test_a_migration_that_fails_says_where_it_is(steps: Steps) -> None:
    steps.statuses = (of(migration=COPY), of())
    done = steps.runs("vm", "migrate", "web1", "host1", "--wait")
    assert done.exit_code == 3
    assert "web1 did not arrive on host1: it is running on host2" in done.output
