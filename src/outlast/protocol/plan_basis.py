"""What an agent hands out to whoever asks what would happen (`outlast plan`): values only, nothing is decided here.

Any agent knows from the power-on lists what runs; what waits for a restart, the primary alone. A VM whose host is
presumed dead, and that nobody has taken up yet, counts as one that needs a host.
"""

from outlast.model.planning import PlanBasis
from outlast.protocol.agent import AgentMachine


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
        snapshot=machine.recovery.placement.whole(measured=True),
        window=known.settings.window,
        heartbeat=known.settings.datastore_heartbeat_interval,
        poll=known.settings.datastore_poll_interval,
        no_proof={host: names for host, names in no_proof.items() if names},
    )
