"""What an agent says of itself and of the others in each network heartbeat: gathered here from all its parts.

It decides nothing, and asks for nothing: `peers` numbers and sends it.
"""

from typing import TYPE_CHECKING

from outlast.model.messages import Heartbeat, Rank, VerdictNote
from outlast.model.time import MILLISECOND, since
from outlast.protocol.verdict import sentence

if TYPE_CHECKING:
    from outlast.protocol.agent import AgentMachine


def own_heartbeat(agent: "AgentMachine", rank: Rank, *, leaving: bool) -> Heartbeat:
    """The agent's heartbeat as of now, without a number."""
    known = agent.known
    verdicts: tuple[VerdictNote, ...] = ()
    if agent.election.am_primary:
        verdicts = tuple(
            VerdictNote(host, j.verdict, since(j.since, known.now) // MILLISECOND, sentence(j.rule))
            for host, j in sorted(known.judgements.items())
        )
    return Heartbeat(
        sender=known.me,
        boot_id=known.config.boot_id,
        sequence=0,
        rank=rank,
        term=agent.election.term,
        primary=agent.election.primary,
        lapsed=known.lapsed(),
        reach=tuple(known.reach.values()),
        capacity=known.capacity,
        hypervisor_up=known.hypervisor_up,
        power_on_sequence=agent.own.sequence,
        verdicts=verdicts,
        leaving=leaving,
        outlook=agent.capacity.outlook,
        avoided={host: left // MILLISECOND for host, left in known.flapping.left(known.now).items()},
        frozen=agent.lost.named(),
        starting_ms=agent.doubt.starting_ms,
        settings=known.mark,
        health=known.health,
        emptying=agent.maintenance.emptying,
        least_margin=known.config.least_margin,
        failing=known.failing(),
        copying=agent.migrating.leaving.copying,
    )
