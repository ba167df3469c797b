"""What an agent hands out to whoever asks what would happen (`outlast plan`): values only, nothing is decided here.

Any agent knows from the power-on lists what runs; what waits for a restart, the primary alone. A VM whose host is
presumed dead, and that nobody has taken up yet, counts as one that needs a host.
"""

from outlast.model.ids import VmId
from outlast.model.planning import PlanBasis, PlanVm, Snapshot
from outlast.protocol.agent import AgentMachine
from outlast.protocol.domain_snapshot import needs_of, take
from outlast.protocol.recovery import SUSPECT


def snapshot(machine: AgentMachine) -> Snapshot:
    """The domain as this agent knows it, with every VM that needs a host."""
    known, placement = machine.known, machine.recovery.placement
    waiting, ordered = placement.waiting(), placement.ordered()
    for vm, (host, line) in known.whereabouts().items():
        if vm not in waiting and vm not in ordered and line.protected and known.verdict(host) in SUSPECT:
            waiting[VmId(vm)] = PlanVm(vm=vm, name=line.name, needs=needs_of(line, line.home))
    return take(known, waiting, ordered)


def basis(machine: AgentMachine) -> PlanBasis:
    """The whole of it."""
    known = machine.known
    no_proof = {
        host: tuple(name for name in known.datastores if not known.expiry_may_prove(host, name, False))
        for host in known.members
    }
    return PlanBasis(
        domain=known.config.domain,
        seen_from=known.name(known.me),
        primary=machine.election.primary,
        snapshot=snapshot(machine),
        window=known.settings.window,
        heartbeat=known.settings.datastore_heartbeat_interval,
        poll=known.settings.datastore_poll_interval,
        no_proof={host: names for host, names in no_proof.items() if names},
    )
