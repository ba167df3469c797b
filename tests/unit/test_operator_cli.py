"""The commands for the whole fault domain, as an operator sees them, over a socket behind which no agent is."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from click.testing import CliRunner, Result
from planning_values import domain, host, vm
from rich.console import Console

from outlast.interfaces.cli import main
from outlast.interfaces.status_cli import screen
from outlast.model.commands import (
    ChangeSettings,
    DrainHost,
    MoveVm,
    Outcome,
    PauseRecovery,
    ReportHealth,
    ResumeRecovery,
    SettingChange,
    UndrainHost,
    WantVm,
)
from outlast.model.ids import HostName
from outlast.model.planning import PlanBasis
from outlast.model.status import DomainStatus, HostStatus, KeptEmpty, PauseStatus, SettingsView
from outlast.model.time import seconds
from outlast.runtime.control import ControlReply, ControlRequest, ControlServer

VIEW = SettingsView(
    version=3,
    by="root@host2",
    at_ms=1_700_000_000_000,
    paused=PauseStatus(by="ann@host1", at_ms=1_700_000_000_000, reason="new switch"),
    settings={"lease_duration": "12s", "heartbeat_interval": "1s"},
    defaults={"lease_duration": "6s", "heartbeat_interval": "1s"},
    hosts={"host1": 3, "host2": 3, "host3": 2, "host4": None},
    file_differs={"lease_duration": "6s"},
)


BASIS = PlanBasis(
    domain="d",
    seen_from=HostName("host1"),
    primary=None,
    snapshot=domain(
        [host("host1", 2048), host("host2"), host("host3", kept_empty="it is in maintenance (ann)")],
        [vm("web", 1024, on="host2"), vm("db", 4096, on="host2")],
    ),
    window=1,
    heartbeat=1,
    poll=1,
)


class Agent:
    """Answers as it is told to, and remembers what it was asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[ControlRequest] = []
        self.status: DomainStatus | None = None
        self.outcome = Outcome(ok=True, sentences=("written on ds1",), version=4)

    async def answer(self, request: ControlRequest) -> ControlReply:
        self.asked.append(request)
        if request.do == "plan":
            return ControlReply(ok=True, basis=BASIS)
        if request.do == "status":
            return ControlReply(ok=True, status=self.status)
        if request.do == "settings":
            return ControlReply(ok=True, settings=VIEW)
        return ControlReply(ok=True, outcome=self.outcome)

    def runs(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, "--socket", str(self.path)])


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    yield from serving(Agent(tmp_path / "agent.sock"))


Served = TypeVar("Served", bound=Agent)


def serving(found: Served) -> Iterator[Served]:
    loop = asyncio.new_event_loop()
    server = ControlServer(str(found.path), found.answer)
    loop.run_until_complete(server.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield found
    loop.call_soon_threadsafe(server.stop)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_change_shows_old_and_new(agent: Agent) -> None:
    agent.outcome = Outcome(
        ok=True,
        sentences=("version 4, written on ds1",),
        version=4,
        changes=(SettingChange("lease_duration", "6s", "12s"),),
    )
    done = agent.runs("settings", "set", "lease_duration", "12s", "datastore_stale_after", "14s")
    assert (done.exit_code, done.output) == (0, "lease_duration: 6s -> 12s\nversion 4, written on ds1\n")
    request = agent.asked[0]
    assert request.command == ChangeSettings({"lease_duration": seconds(12), "datastore_stale_after": seconds(14)})
    assert request.by


def test_a_refusal_has_its_sentence_and_exit_code_1(agent: Agent) -> None:
    agent.outcome = Outcome(ok=False, sentences=("lease_duration is 1s, but must be at least 3s",))
    done = agent.runs("settings", "set", "lease_duration", "1s")
    assert done.exit_code == 1
    assert "must be at least 3s" in done.output
    assert "nothing was changed" in done.output
    agent.outcome = Outcome(ok=False, sentences=("there is no primary",), try_again=True)
    assert "try it again" in agent.runs("settings", "set", "lease_duration", "1s").output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("set", "lease_duraton", "6s"), "did you mean lease_duration?"),
        (("set", "lease_duration", "6 parsecs"), "is not a duration"),
        (("set", "isolation_response", "explode"), "known are leave-running"),
        (("set", "accessibility_threshold", "much"), "must be a whole number"),
        (("set", "lease_duration", "6s", "lease_margin"), "lease_margin has no value"),
        (("get", "leases"), "is not a setting"),
    ],
)
def test_what_is_no_setting_or_no_value_is_told_before_anybody_is_asked(
    agent: Agent, arguments: tuple[str, ...], words: str
) -> None:
    done = agent.runs("settings", *arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.output.split()).replace("│ ", "").replace(" │", "")
    assert not [request for request in agent.asked if request.do == "command"]


def test_the_list_shows_what_differs_and_who_is_late(agent: Agent) -> None:
    done = agent.runs("settings", "list")
    assert "lease_duration      12s    6s" in done.output
    for words in (
        "version 3, changed by root@host2",
        "host3 uses version 2 still",
        "file says lease_duration = 6s",
        "new switch",
    ):
        assert words in " ".join(done.output.split())
    assert "host4" not in done.output, "nobody knows what a host uses that is not heard"
    assert json.loads(agent.runs("settings", "list", "-o", "json").output)["version"] == 3


def test_one_setting_is_shown_alone(agent: Agent) -> None:
    assert agent.runs("settings", "get", "lease_duration").output == "12s\n"
    found = json.loads(agent.runs("settings", "get", "lease_duration", "-o", "json").output)
    assert found == {"name": "lease_duration", "value": "12s", "version": 3}


def test_pause_and_resume(agent: Agent) -> None:
    assert agent.runs("pause", "--reason", "new switch").output == "written on ds1\n"
    assert agent.asked[0].command == PauseRecovery("new switch")
    assert json.loads(agent.runs("resume", "-o", "json").output)["version"] == 4
    assert agent.asked[1].command == ResumeRecovery()


def test_a_pause_is_the_first_thing_that_status_shows() -> None:
    status = DomainStatus(
        domain="d",
        seen_from="host1",
        version="1",
        primary="host1",
        term=1,
        isolated=False,
        paused=VIEW.paused,
        hosts=(),
        datastores=(),
        vms=(),
        problems=(),
        dropped_datagrams={},
    )
    shown = [str(part) for part in screen(status).renderables]
    assert "AUTOMATIC RECOVERY IS PAUSED by ann@host1" in shown[1]


@pytest.mark.parametrize(
    ("verb", "wanted"), [("start", "running"), ("stop", "stopped"), ("protect", "protected"), ("unprotect", "unprotected")]
)
def test_what_is_wanted_of_a_vm(agent: Agent, verb: str, wanted: str) -> None:
    agent.outcome = Outcome(ok=True, sentences=("host2 shuts it down",))
    done = agent.runs("vm", verb, "web1")
    assert (done.exit_code, done.output) == (0, "host2 shuts it down\n")
    command = agent.asked[0].command
    assert isinstance(command, WantVm)
    assert (command.vm, command.wanted) == ("web1", wanted)


def test_a_vm_is_moved_by_its_name_to_a_host_by_its_name(agent: Agent) -> None:
    agent.outcome = Outcome(ok=True, sentences=("web1 is being copied to host2",))
    result = agent.runs("vm", "migrate", "web1", "host2")
    assert (result.exit_code, result.output) == (0, "web1 is being copied to host2\n")
    assert agent.asked[0].command == MoveVm(vm="web1", host="host2")


# -- hosts ------------------------------------------------------------------------------------------------------------


def host_status(name: str, **more: Any) -> HostStatus:
    facts = {
        "id": name,
        "address": "192.0.2.1",
        "verdict": "connected",
        "verdict_age_s": None,
        "verdict_by": "host1",
        "reason": "",
        "primary": name == "host1",
        "here": name == "host1",
        "isolated": False,
        "hypervisor_up": True,
        "enforcement": "keeper",
        "memory_mib": 8192,
        "free_memory_mib": 4096,
        "vms": 0,
        "heartbeat_age_s": 0.0,
        "lapsed": (),
    }
    return HostStatus(name=name, **(facts | more))


KEPT = KeptEmpty(by="ann@host1", at_ms=1_700_000_000_000, reason="new DIMMs")
HOSTS = (
    host_status("host1", health="degraded", health_reason="PSU 2 failed"),
    host_status("host2", maintenance=KEPT, kept_empty="it is in maintenance (ann@host1: new DIMMs)", vms=2),
    host_status("host3", health="failing", kept_empty="its hardware is failing"),
)
STATUS = DomainStatus(
    domain="d",
    seen_from="host1",
    version="1",
    primary="host1",
    term=1,
    isolated=False,
    hosts=HOSTS,
    datastores=(),
    vms=(),
    problems=(),
    dropped_datagrams={},
)


def test_a_host_is_drained_and_used_again_and_its_hardware_reported(agent: Agent) -> None:
    for arguments, command in (
        (("drain", "host2", "--reason", "new DIMMs"), DrainHost("host2", "new DIMMs")),
        (("undrain", "host2"), UndrainHost("host2")),
        (("undrain", "host2", "--return"), UndrainHost("host2", back=True)),
        (("health", "host2", "failing", "--reason", "DIMM 3"), ReportHealth("host2", "failing", "DIMM 3")),
        (("health", "ok"), ReportHealth("", "ok")),
    ):
        done = agent.runs("host", *arguments)
        assert (done.exit_code, "written on ds1" in done.output) == (0, True)
        assert [request.command for request in agent.asked if request.command][-1] == command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("health", "purple"), "purple is no level of health"),
        (("health", "host1", "host2", "ok"), "2 hosts are named"),
        (("health", "ok", "--reason", "x" * 201), "longer than 200 characters"),
        (("show", "host9"), "the hosts are host1, host2, host3"),
    ],
)
def test_what_is_no_level_or_no_host_is_told_with_the_remedy(agent: Agent, arguments: tuple[str, ...], words: str) -> None:
    agent.status = STATUS
    done = agent.runs("host", *arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())


def test_what_cannot_move_is_told_before_a_host_is_drained(agent: Agent) -> None:
    said = agent.runs("host", "drain", "host2", "--dry-run").output
    assert said.startswith("web: moves to host1\ndb: stays, no other host can take it (")
    assert "host3: it is in maintenance (ann)" in said
    assert not [request for request in agent.asked if request.command]
    found = json.loads(agent.runs("host", "drain", "host2", "--dry-run", "-o", "json").output)
    assert (found["moves"], list(found["stays"])) == ({"web": "host1"}, ["db"])
    said = agent.runs("host", "drain", "host2").output
    assert said.startswith("web: moves to host1")
    assert said.endswith("written on ds1\n")
    assert agent.runs("host", "drain", "host1", "--dry-run").output == "no VM runs on host1\n"
    assert "the hosts are host1, host2, host3; nothing was changed" in " ".join(
        agent.runs("host", "drain", "host9").output.split()
    )
    assert json.loads(agent.runs("host", "drain", "host2", "-o", "json").output)["version"] == 4, "an outcome, for scripts"


def test_hosts_are_listed_and_shown(agent: Agent) -> None:
    agent.status = STATUS
    listed = agent.runs("host", "list").output
    assert "host2  connected  secondary  2    ok        it is in maintenance" in listed
    assert "failing   its hardware is failing" in listed
    assert [each["name"] for each in json.loads(agent.runs("host", "list", "-o", "json").output)] == [
        "host1",
        "host2",
        "host3",
    ]
    shown = agent.runs("host", "show", "host1").output
    assert "its hardware: degraded (PSU 2 failed)" in shown
    assert "connected, primary, degraded" in shown
    assert json.loads(agent.runs("host", "show", "host2", "-o", "json").output)["host"]["maintenance"]["by"] == "ann@host1"


def test_hosts_that_are_kept_empty_are_shown_at_the_top() -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(screen(STATUS))
    lines = console.export_text().splitlines()
    assert lines[1].startswith(" HOST2 IS IN MAINTENANCE by ann@host1 since ")
    assert lines[1].rstrip().endswith("new DIMMs; 2 VMs left")
    assert lines[2].strip() == "HOST3 IS KEPT EMPTY: its hardware is failing; no VM is left"
