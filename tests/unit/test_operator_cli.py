"""The commands for the whole fault domain, as an operator sees them, over a socket behind which no agent is."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from outlast.interfaces.cli import main
from outlast.interfaces.status_cli import screen
from outlast.model.commands import ChangeSettings, MoveVm, Outcome, PauseRecovery, ResumeRecovery, SettingChange, WantVm
from outlast.model.status import DomainStatus, PauseStatus, SettingsView
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


class Agent:
    """Answers as it is told to, and remembers what it was asked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[ControlRequest] = []
        self.outcome = Outcome(ok=True, sentences=("written on ds1",), version=4)

    async def answer(self, request: ControlRequest) -> ControlReply:
        self.asked.append(request)
        if request.do == "settings":
            return ControlReply(ok=True, settings=VIEW)
        return ControlReply(ok=True, outcome=self.outcome)

    def runs(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, "--socket", str(self.path)])


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    found = Agent(tmp_path / "agent.sock")
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
    done = agent.runs("pause", "--reason", "new switch")
    assert "nothing is restarted until `outlast resume`" in done.output
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
