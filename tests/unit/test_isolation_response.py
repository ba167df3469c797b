"""What isolation does to a host's VMs: who is told is written down first, and whose end was meant by nobody runs again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from agent_values import BOOT, ME, agent_config, keeper_report

from outlast.model.effects import AskKeeper, Effect, RememberTold, ShutDownVm
from outlast.model.events import StopReason
from outlast.model.ids import BootId, DatastoreName, VmId, VmName
from outlast.model.inventory import VmDefinition
from outlast.model.keeping import KeptVm
from outlast.model.policy import VmPolicy
from outlast.model.records import PoweredVm, PowerOnList, Reason
from outlast.model.settings import Settings
from outlast.model.time import Instant, seconds
from outlast.protocol.isolation_response import IsolationResponses
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.runtime.executor import Executor
from outlast.runtime.told_file import ToldFile

VM, DS = VmId("u-1"), DatastoreName("ds1")
POLICY = VmPolicy()
SETTINGS = Settings(isolation_response="shut-down", shutdown_timeout=seconds(60))


class Desk:
    """The responses of one agent, and what it knows."""

    def __init__(self, told: dict[VmId, Instant] | None = None) -> None:
        self.known, self.out = Knowledge(agent_config(settings=SETTINGS, told=told or {}), at(0)), Outbox()
        self.known.hypervisor_up = True
        self.known.definitions = {VM: VmDefinition(VM, VmName("web"), DS, (DS,), 1, True, "", VmPolicy(), "")}
        self.responses = IsolationResponses(self.known, self.out)
        self.keeps("running")

    def keeps(self, phase: str | None) -> None:
        kept = (KeptVm(VM, VmName("web"), DS, None, phase, 1),) if phase is not None else ()
        self.known.keeper = keeper_report(vms=kept)

    def turn(self, second: float, isolated: bool, state: str = "running", policy: VmPolicy | None = POLICY) -> list[Effect]:
        self.known.now = at(second)
        line = PoweredVm(VM, VmName("web"), DS, None, state, 1, True, policy)
        self.responses.tick(isolated, PowerOnList(host=ME, boot_id=BOOT, sequence=1, isolated=isolated, vms=(line,)))
        return [effect for effect in self.out.take() if isinstance(effect, RememberTold | ShutDownVm | AskKeeper)]


def at(second: float) -> Instant:
    return Instant(seconds(second))


def test_who_is_told_is_written_down_before_it_is_told() -> None:
    assert Desk().turn(5, True) == [RememberTold({VM: at(65)}), ShutDownVm(VM)]


def test_whose_policy_nobody_has_told_is_left_alone() -> None:
    assert Desk().turn(5, True, policy=None) == []


def test_a_shutdown_of_whom_isolation_told_is_nobodys_wish_and_a_destruction_is() -> None:
    desk = Desk({VM: at(60)})
    assert desk.responses.reason(VM, StopReason.SHUTDOWN) is Reason.ISOLATED
    assert desk.responses.reason(VM, StopReason.UNKNOWN) is Reason.ISOLATED
    assert desk.responses.reason(VM, StopReason.DESTROYED) is Reason.SWITCHED_OFF
    assert desk.responses.reason(VmId("u-2"), StopReason.SHUTDOWN) is Reason.SWITCHED_OFF
    assert desk.responses.reason(VmId("u-2"), StopReason.FAILED) is Reason.CRASHED


def test_who_runs_on_after_its_time_and_the_isolation_is_told_no_more() -> None:
    desk = Desk({VM: at(60)})
    assert desk.turn(59, False) == []
    assert desk.turn(67.4, False) == [], "that its storage hung would show a window later"
    assert desk.responses.next_deadline() == at(67.5)
    assert desk.turn(67.5, False) == [RememberTold({})]
    assert desk.responses.reason(VM, StopReason.SHUTDOWN) is Reason.SWITCHED_OFF


def test_whose_storage_hung_in_its_time_gets_it_anew_once_it_runs_again() -> None:
    desk = Desk({VM: at(60)})
    desk.keeps("frozen")
    assert desk.turn(64, False) == desk.turn(80, False) == []
    desk.keeps("running")
    assert desk.turn(81, False) == [RememberTold({VM: at(141)})]
    assert desk.responses.reason(VM, StopReason.SHUTDOWN) is Reason.ISOLATED
    assert desk.turn(148.4, False) == []
    assert desk.turn(148.5, False) == [RememberTold({})]


def test_who_ended_within_its_time_is_remembered_until_it_is_released() -> None:
    desk = Desk({VM: at(60)})
    desk.keeps("ended")
    assert desk.turn(100, False) == []
    assert desk.responses.reason(VM, StopReason.SHUTDOWN) is Reason.ISOLATED
    assert desk.responses.over() == []
    desk.keeps(None)
    assert desk.responses.over() == [VM]
    assert desk.responses.over() == []


def test_nobody_is_taken_for_gone_while_libvirt_or_the_keeper_says_nothing() -> None:
    desk = Desk({VM: at(60)})
    desk.keeps(None)
    desk.known.hypervisor_up = False
    assert desk.responses.over() == []
    desk.known.hypervisor_up, desk.known.keeper = True, None
    assert desk.responses.over() == []


def test_who_is_still_there_when_its_time_is_over_is_killed_again_and_again() -> None:
    desk = Desk()
    desk.turn(5, True)
    assert desk.turn(64, True) == []
    killed = [effect.request for effect in desk.turn(65, True) if isinstance(effect, AskKeeper)]
    assert [type(request).__name__ for request in killed] == ["AskKill"]
    assert desk.turn(66, True) == []
    assert len(desk.turn(67, True)) == 1
    assert desk.turn(72.5, False) == [RememberTold({})]


def test_a_frozen_vm_is_killed_at_once() -> None:
    told, killed = Desk().turn(5, True, "frozen")
    assert told == RememberTold({VM: at(5)})
    assert isinstance(killed, AskKeeper)


def test_what_is_written_down_lives_as_long_as_the_boot(tmp_path: Path) -> None:
    path = tmp_path / "run" / "told"
    ToldFile(path, BOOT).write({VM: at(7)})
    assert ToldFile(path, BOOT).read() == {VM: at(7)}
    assert ToldFile(path, BootId("another")).read() == {}
    path.write_text("{")
    assert ToldFile(path, BOOT).read() == {}


@pytest.mark.parametrize("writable", [True, False])
def test_nobody_is_told_as_long_as_it_cannot_be_written_down(tmp_path: Path, writable: bool) -> None:
    told: list[VmId] = []
    if not writable:
        (tmp_path / "run").write_text("in the way")

    async def main() -> None:
        nothing = cast(Any, SimpleNamespace())
        executor = Executor(
            nothing,
            stores={},
            hypervisor=cast(Any, SimpleNamespace(shut_down=told.append)),
            network=nothing,
            pinger=nothing,
            keeper=nothing,
            fencer=nothing,
            told=ToldFile(tmp_path / "run" / "told", BOOT),
            health=nothing,
            on_note=nothing,
            on_settings=nothing,
            on_outcome=nothing,
        )
        executor.run([RememberTold({VM: at(5)}), ShutDownVm(VM)])

    asyncio.run(main())
    assert told == ([VM] if writable else [])


def test_a_vm_whose_response_is_to_leave_it_alone_is_left_alone() -> None:
    desk = Desk()
    desk.known.settings = msgspec.structs.replace(SETTINGS, isolation_response="leave-running")
    assert desk.turn(5, True) == []
