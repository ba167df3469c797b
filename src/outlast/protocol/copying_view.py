"""How far a VM's migration is, for people: what this host's libvirt says, or what the heartbeat of its host said last."""

from outlast.model.ids import HostId, VmId
from outlast.model.status import MigrationStatus
from outlast.protocol.agent import AgentMachine


def migration_of(machine: AgentMachine, vm: VmId, host: HostId) -> MigrationStatus | None:
    """Of a VM that runs on `host`; None if it is not being copied, or if nothing is known of it."""
    known, seen = machine.known, machine.known.beats.get(host)
    if host == known.me:
        told = machine.migrating.leaving.copying
    else:
        told = seen.beat.copying if seen is not None and known.live(host) else ()
    found = next((each for each in told if each.vm == vm), None)
    if found is None:
        return None
    return MigrationStatus(
        to=known.name(found.to),
        total_mib=found.total_mib,
        remaining_mib=found.remaining_mib,
        mib_s=found.mib_s,
        downtime_ms=found.downtime_ms,
    )
