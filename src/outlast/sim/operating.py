"""What the operator of a simulated fault domain does: he gives a command on a host whose agent works, and sees to it.

One command after the other, as a person does: the next one is given when the one before was answered. One that nobody
could carry out is given again, on whatever host answers then, until GIVES_UP; a refusal is a refusal. What watches the
hardware of a host gives its commands beside him, in the same way.
"""

from typing import Any

import msgspec

from outlast.model.commands import (
    ChangeSettings,
    Command,
    DrainHost,
    MoveVm,
    Outcome,
    PauseRecovery,
    ReportHealth,
    ResumeRecovery,
    UndrainHost,
    Wanted,
    WantVm,
)
from outlast.model.health import HealthLevel
from outlast.model.ids import VmId
from outlast.model.settings import parse_setting
from outlast.model.time import SECOND
from outlast.sim.ground import Ground

PATIENCE = 15 * SECOND
TRIES_AGAIN_AFTER = 2 * SECOND
GIVES_UP = 90 * SECOND


class _Errand(msgspec.Struct):
    """One command on its way. `on`: the host whose monitor gives it; empty: the operator does.

    `attempt`: which answer would be one to the last try.
    """

    command: Command
    text: str
    since: int
    on: str
    attempt: int = 0
    done: bool = False


class Operating(Ground):
    """See the top of this file. A verb of the scenario language is a method."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._errands: dict[str, list[_Errand]] = {}
        self._commands = 0

    # -- the verbs ------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """All automatic recovery is held."""
        self._give(PauseRecovery("the scenario says so"), "pauses automatic recovery")

    def resume(self) -> None:
        """It goes on."""
        self._give(ResumeRecovery(), "resumes automatic recovery")

    def set_state(self, vm: str, state: Wanted) -> None:
        """A VM is to be so from now on."""
        if state == "running":
            self.recovery.failures.pop(VmId(vm), None)
        self._give(WantVm(vm=vm, wanted=state), f"wants {vm} to be {state}")

    def maintenance_on(self, host: str) -> None:
        """A host is to be kept empty."""
        self._give(DrainHost(host, "the scenario says so"), f"drains {host}")

    def maintenance_off(self, host: str, bring_back: bool = False) -> None:
        """It may be used again, perhaps with the VMs that ran there."""
        self._give(UndrainHost(host, bring_back), f"ends the maintenance of {host}")

    def health(self, host: str, level: HealthLevel) -> None:
        """A monitor on that host says how its hardware is."""
        self._give(ReportHealth(host, level), f"says that {host} is {level}", on=host)

    def migrate(self, vm: str, host: str) -> None:
        """A VM that runs is to go on, running, on that host."""
        self._give(MoveVm(vm=vm, host=host), f"wants {vm} to go on on {host}")

    def begin(self) -> None:
        """The domain has settled; what runs and is not to run is to be stopped from now on."""
        for spec in self.vm_specs:
            if spec.host and spec.state == "stopped":
                self.set_state(spec.name, "stopped")

    def set(self, setting: str, value: object) -> None:
        """A setting of the fault domain gets another value."""
        changes = {setting: parse_setting(setting, value)}
        self._give(ChangeSettings(changes), f"sets {setting} to {value}")

    # -- on the way -----------------------------------------------------------------------------------------------

    def _give(self, command: Command, text: str, on: str = "") -> None:
        self.entry(on, "monitor" if on else "operator", text)
        self.recovery.disturbed()
        errands = self._errands.setdefault(on, [])
        errands.append(_Errand(command, text, self.now, on))
        if len(errands) == 1:
            self._try(errands[0])

    def _desk(self, on: str) -> str:
        """The host on which it is given: that one if it can be, else the primary's, else the first whose agent works."""
        working = [name for name, host in self.hosts.items() if host.powered and not host.stalled and host.agent.works]
        return next((name for name in (on, *self.primaries()) if name in working), working[0] if working else "")

    def _try(self, errand: _Errand) -> None:
        if errand.done:
            return
        errand.attempt += 1
        attempt, name = errand.attempt, self._desk(errand.on)

        def answered(outcome: Outcome) -> None:
            if not errand.done and errand.attempt == attempt:
                self._answered(errand, name, outcome)

        def over() -> None:
            answered(Outcome(ok=False, sentences=("nobody answers",), try_again=True))

        if name:
            self._commands += 1
            self.scheduler.after(PATIENCE, over)
            self.hosts[name].agent.give_command(self._commands, errand.command, answered)
        else:
            self.scheduler.after(TRIES_AGAIN_AFTER, over)

    def _answered(self, errand: _Errand, host: str, outcome: Outcome) -> None:
        self.entry(host, "monitor" if errand.on else "operator", f"{errand.text}: {'; '.join(outcome.sentences)}")
        if outcome.try_again and self.now - errand.since < GIVES_UP:
            self.scheduler.after(TRIES_AGAIN_AFTER, lambda: self._try(errand))
            return
        errand.done = True
        if outcome.ok:
            self._carried_out(errand.command)
        self.recovery.disturbed()
        errands = self._errands[errand.on]
        errands.pop(0)
        if errands:
            self._try(errands[0])

    def _carried_out(self, command: Command) -> None:
        match command:
            case PauseRecovery():
                self.paused = True
            case ResumeRecovery():
                self.paused = False
            case DrainHost(host=host):
                self.kept_empty.add(host)
            case UndrainHost(host=host):
                self.kept_empty.discard(host)
            case WantVm(vm=vm, wanted=wanted):
                (self.recovery.wanted.add if wanted == "running" else self.recovery.wanted.discard)(VmId(vm))
