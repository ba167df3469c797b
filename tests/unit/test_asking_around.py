"""An operator may name a VM on any host: where nobody knows it, the others are asked."""

from __future__ import annotations

import pytest
from test_sim_failover import domain, secondary
from test_wishes import wants

from outlast.model.commands import Outcome, WantVm
from outlast.model.effects import Send
from outlast.model.ids import HostId, VmId
from outlast.model.messages import CommandRequest, VmMeant, WhichVm
from outlast.model.time import Duration, after
from outlast.protocol.asking_around import PATIENCE, RESEND, AskingAround
from outlast.sim.world import World


def off(world: World) -> tuple[str, str]:
    """A secondary whose VM was switched off, so long ago that it stands on no list."""
    host, vm = secondary(world)
    world.vm_power_off(vm)
    world.run(8)
    return host, vm


def test_a_vm_that_is_off_is_started_by_a_command_that_is_given_elsewhere() -> None:
    world = domain()
    host, vm = off(world)
    elsewhere = next(name for name in world.hosts if name != host and name not in world.primaries())
    outcome = wants(world, vm, "running", elsewhere)
    assert outcome == Outcome(ok=True, sentences=("it is started where it may run",))
    assert world.run_until(lambda: bool(world.where(vm)), 5) is not None


class Asking:
    """Somebody asks around on the first host of the world for a VM that nobody knows there."""

    def __init__(self) -> None:
        machine = next(iter(domain().hosts.values())).agent.machine
        assert machine is not None
        self.known, self.out = machine.known, machine._out
        self.out.take()
        self.around = AskingAround(self.known, self.out)
        command = WantVm(vm="web", wanted="running")
        self.request = CommandRequest(number=7, by="ann", at_ms=1, command=command)
        self.around.ask(self.request, command)

    def asked(self) -> list[HostId]:
        assert not self.around.ended()
        sent = [effect for effect in self.out.take() if isinstance(effect, Send) and isinstance(effect.message, WhichVm)]
        return [each.to for each in sent]

    def answer(self, host: HostId, vm: str = "", sentence: str = "") -> None:
        command = WantVm(vm=VmId(vm), wanted="running", name="web") if vm else None
        self.around.answered(host, VmMeant(number=7, command=command, sentence=sentence))

    def later(self, by: Duration) -> None:
        self.known.now = after(self.known.now, by)


def test_who_has_not_answered_is_asked_again() -> None:
    asking = Asking()
    first, second = asking.asked()
    assert asking.asked() == []
    asking.answer(first)
    asking.later(RESEND)
    assert asking.asked() == [second]
    asking.answer(second, vm="a")
    ((number, found),) = asking.around.ended()
    assert isinstance(found, CommandRequest)
    assert (number, found.number, found.by) == (7, 7, "ann")
    assert isinstance(found.command, WantVm)
    assert found.command.vm == "a"
    assert asking.around.ended() == []
    assert asking.around.next_deadline() is None


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"vm": "a"}, {"vm": "b"}, "2 VMs are called web: name one by its uuid (a, b)"),
        ({}, {}, "no VM web is known on any host that can be asked: define it on one first"),
        ({"sentence": "no VM web is known here: it cannot be protected: it has no disk"}, {}, "it has no disk"),
    ],
)
def test_who_is_meant_by_none_or_by_several_is_refused(one: dict[str, str], other: dict[str, str], said: str) -> None:
    asking = Asking()
    for host, answer in zip(asking.asked(), (one, other), strict=True):
        asking.answer(host, **answer)
    ((_, found),) = asking.around.ended()
    assert isinstance(found, Outcome)
    assert (found.ok, found.try_again) == (False, False)
    assert said in found.sentences[0]


def test_what_the_silent_might_know_is_not_waited_for_for_ever() -> None:
    asking = Asking()
    first, second = asking.asked()
    asking.answer(first)
    asking.later(PATIENCE)
    ((_, found),) = asking.around.ended()
    assert isinstance(found, Outcome)
    assert found.try_again
    assert found.sentences[0].endswith(f"{asking.known.name(second)} gave no answer")
