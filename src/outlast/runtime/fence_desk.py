"""What `outlast fence` asks of the agent: devices tried, marks for an operator's screen, and the operator's word."""

import asyncio
from collections.abc import Callable

from outlast.drivers import clock
from outlast.drivers.fencing import Fencer
from outlast.model.events import Event, FenceTested, PowerState, Woken
from outlast.model.ids import HostId
from outlast.model.time import in_seconds
from outlast.protocol.agent import AgentMachine
from outlast.runtime.control import ControlReply, ControlRequest

_LOOKS_EVERY_S = 0.1
_MOST_LOOKS = 120


class FenceDesk:
    """See the top of this file. `happen` feeds the machine."""

    def __init__(self, machine: AgentMachine, fencer: Fencer, happen: Callable[[Event], None]) -> None:
        self._machine = machine
        self._fencer = fencer
        self._happen = happen

    async def answer(self, request: ControlRequest) -> ControlReply:
        """One of the requests that begin with `fence-`."""
        known = self._machine.known
        host = next((h for h in known.members if request.name in (known.name(h), h)), None)
        if host is None:
            return ControlReply(ok=False, problem=f"there is no host {request.name}; see `outlast status`")
        if request.do == "fence-test":
            return await self._test(host)
        if request.do == "fence-marks":
            return self._marks(host)
        return await self._confirm(host, request)

    async def _test(self, host: HostId) -> ControlReply:
        name = self._machine.known.name(host)
        found = await self._fencer.test(host)
        if not found:
            remedy = "give it [[hosts.fencing]] in the settings file: see docs/setup.md"
            return ControlReply(ok=False, problem=f"{name} has no fence device\n  -> {remedy}")
        lines = [
            f"level {i + 1}, {agent}: {problem if state is PowerState.UNKNOWN else f'{name} is {state}'}"
            for i, (agent, state, problem) in enumerate(found)
        ]
        failed = any(state is PowerState.UNKNOWN for _, state, _ in found)
        self._happen(FenceTested(host, not failed, f"tested: {'; '.join(lines)}"))
        return ControlReply(ok=True, lines=lines, failed=failed)

    def _marks(self, host: HostId) -> ControlReply:
        known = self._machine.known
        name, now = known.name(host), clock.now()
        if host == known.me:
            return ControlReply(ok=False, problem=f"{name} is this very host, and it lives")
        marks = self._machine.operator.marks(host)
        if not marks:
            return ControlReply(
                ok=False, problem=f"nothing that {name} ever wrote can be read from here: ask on another host"
            )
        lines = [f"{name} is {known.verdict(host)}."]
        for mark in marks:
            changed = known.watches[host, mark.datastore].changed_at
            age = (
                "has not changed since this agent started" if changed is None else f"last changed {_age(now - changed)} ago"
            )
            what = f"sequence {mark.sequence}" if mark.session else "no record that can be decoded"
            lines.append(f"Its record on {mark.datastore} {age}: incarnation {mark.incarnation}, {what}.")
        return ControlReply(ok=True, lines=lines, marks=marks)

    async def _confirm(self, host: HostId, request: ControlRequest) -> ControlReply:
        desk = self._machine.operator
        desk.say(host, request.marks)
        self._happen(Woken())
        for _ in range(_MOST_LOOKS):
            if desk.answer is not None:
                break
            await asyncio.sleep(_LOOKS_EVERY_S)
        if desk.answer is None:
            return ControlReply(ok=False, problem="nobody has answered: see `outlast status`, and say it again")
        if not desk.answer.accepted:
            return ControlReply(ok=False, problem=f"refused: {desk.answer.detail}")
        return ControlReply(ok=True, lines=[desk.answer.detail])


def _age(length: int) -> str:
    return f"{in_seconds(length):.1f} s"
