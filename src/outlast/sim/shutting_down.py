"""An orderly shutdown of a simulated host, as systemd and its units do it on a real one.

first      the agent is asked when it may begin, for as long as it answers (`outlast-shutdown.service`)
then       the guests, the agent, and the keeper with its last word
last       the power
"""

from typing import TYPE_CHECKING, Literal

from outlast.model.events import HostGoesDown, StopReason
from outlast.model.time import MILLISECOND, SECOND
from outlast.sim.scheduler import Action

if TYPE_CHECKING:
    from outlast.sim.host import Host

KEEPER_CLOSES = 20 * SECOND
AGENT_ANSWERS_WITHIN = 10 * SECOND
"""How long it waits for an agent that gives no answer."""
GUESTS_END_WITHIN = 30 * SECOND
ASKS_EVERY = SECOND // 10
LOOKS_EVERY = SECOND // 4


class OrderlyShutdown:
    """See the top of this file. `off`: what to do when the power is gone."""

    def __init__(self, host: "Host", off: Action) -> None:
        self._host = host
        self._off = off
        self._boot = host.boots
        self._since = host.now

    def begin(self, how: Literal["reboot", "power-off"]) -> None:
        """Ask the agent."""
        self._host.agent.happen(HostGoesDown(how, self._host.wall_clock_s() * 1000))
        self._ask()

    def _ask(self) -> None:
        agent = self._host.agent
        machine, silent_for = agent.machine, self._host.now - self._since
        is_asked = machine is not None and (agent.works or silent_for < AGENT_ANSWERS_WITHIN)
        if is_asked and machine is not None and not (agent.works and machine.departure.may_go):
            self._host.later(ASKS_EVERY, self._ask)
        else:
            self._end_guests()

    def _end_guests(self) -> None:
        host = self._host
        self._since = host.now
        for vm, process in list(host.hypervisor.processes.items()):
            if process.executing and not process.hung:
                host.guests.end(vm, StopReason.HOST_SHUTDOWN, (2000 + host.rng.randrange(2000)) * MILLISECOND)
        host.later(LOOKS_EVERY, self._stop_services)

    def _stop_services(self) -> None:
        host = self._host
        if host.hypervisor.processes and host.now - self._since < GUESTS_END_WITHIN:
            host.later(LOOKS_EVERY, self._stop_services)
            return
        host.agent.leave(restart=False)
        host.keeper.close()
        # Until it has said its last word, or has waited in vain for the last guest to end.
        last_word = 2 * host.settings.datastore_heartbeat_interval + SECOND
        host.later(KEEPER_CLOSES if host.hypervisor.processes else last_word, self._power_off)

    def _power_off(self) -> None:
        if self._host.boots == self._boot and self._host.powered:
            self._host.power_off()
            self._off()
