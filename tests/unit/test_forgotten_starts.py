"""Starts that libvirt has forgotten: it is asked about those that take long, and only its answer about this one counts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from agent_values import agent_config, keeper_report

from outlast.drivers.hypervisor import libvirt as driver
from outlast.drivers.hypervisor.libvirt import Hypervisor
from outlast.model.effects import AskKeeper, Effect, LookAtVm
from outlast.model.events import Event, VmLookedAt
from outlast.model.ids import DatastoreName, Epoch, Handover, HostId, RequestId, VmId, VmName
from outlast.model.keeping import AskForgotten, KeptVm
from outlast.model.time import Instant, seconds
from outlast.protocol.forgotten_starts import ForgottenStarts
from outlast.protocol.knowledge import Knowledge, Outbox

VM, ME = VmId("u-1"), HostId("a")


class Desk:
    def __init__(self) -> None:
        self.known, self.out = Knowledge(agent_config(), Instant(0)), Outbox()
        self.starts = ForgottenStarts(self.known, self.out)

    def turn(self, second: float, phase: str, epoch: int | None = 0, handover: str = "") -> list[Effect]:
        self.known.now = Instant(seconds(second))
        made = Epoch(epoch) if epoch is not None else None
        vm = KeptVm(VM, VmName("web"), DatastoreName("ds1"), made, phase, None, handover=Handover(handover))
        self.known.keeper = keeper_report(vms=(vm,))
        self.starts.tick()
        return self.out.take()

    def answers(self, asked: list[Effect], *, off: bool) -> list[Effect]:
        (look,) = asked
        assert isinstance(look, LookAtVm)
        self.starts.looked_at(VmLookedAt(look.request, VM, off))
        return self.out.take()


def test_libvirt_is_asked_about_a_start_that_takes_long_and_its_word_goes_to_the_keeper() -> None:
    desk = Desk()
    assert desk.turn(0, "starting") == []
    assert desk.turn(4, "starting") == []
    asked = desk.turn(5, "starting")
    assert desk.turn(6, "starting") == []
    (told,) = desk.answers(asked, off=True)
    assert isinstance(told, AskKeeper)
    assert isinstance(told.request, AskForgotten)
    assert (told.request.vm, told.request.epoch) == (VM, 0)


def test_what_is_on_is_asked_about_again() -> None:
    desk = Desk()
    desk.turn(0, "void")
    assert desk.answers(desk.turn(5, "void"), off=False) == []
    assert len(desk.turn(10, "void")) == 1


@pytest.mark.parametrize(("phase", "epoch"), [("starting", 2), ("running", 0), ("ended", 0)])
def test_an_answer_that_comes_when_that_start_is_over_is_worth_nothing(phase: str, epoch: int) -> None:
    desk = Desk()
    desk.turn(0, "starting")
    asked = desk.turn(5, "starting")
    desk.turn(6, phase, epoch)
    assert desk.answers(asked, off=True) == []


@pytest.mark.parametrize("phase", ["arriving", "void"])
def test_libvirt_is_asked_about_a_copy_too_which_has_no_epoch(phase: str) -> None:
    desk = Desk()
    desk.turn(0, phase, None, "m1")
    (told,) = desk.answers(desk.turn(5, phase, None, "m1"), off=True)
    assert isinstance(told, AskKeeper)
    assert isinstance(told.request, AskForgotten)
    assert (told.request.epoch, told.request.handover) == (None, "m1")
    asked = desk.turn(10, phase, None, "m1")
    desk.turn(11, phase, None, "m2")
    assert desk.answers(asked, off=True) == [], "it was asked about the copy before"


def test_the_driver_says_who_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_run_event_loop_once", lambda: None)
    events: list[Event] = []
    libvirt = driver.libvirt.open("test:///default")
    runs = VmId(libvirt.listAllDomains()[0].UUIDString())
    nobody = VmId("00000000-0000-0000-0000-000000000000")

    async def main() -> None:
        hypervisor = Hypervisor("test:///default", (), tmp_path, events.append, lambda _: None)
        hypervisor.connection = libvirt
        hypervisor.look_at(RequestId(2), runs)
        hypervisor.look_at(RequestId(3), nobody)
        await asyncio.gather(*hypervisor._calls)
        await hypervisor.stop()

    asyncio.run(main())
    assert sorted((e.request, e.off) for e in events if isinstance(e, VmLookedAt)) == [(2, False), (3, True)]
