"""What an agent hands out to whoever asks what would happen (`outlast plan`): values only, nothing is decided here.

Any agent knows from the power-on lists what runs; what waits for a restart, the primary alone. A VM whose host is
presumed dead, and that nobody has taken up yet, counts as one that needs a host.
"""

from outlast.model.dependency import Dependency, Standing
from outlast.model.ids import VmId, VmName
from outlast.model.planning import PlanBasis, Snapshot
from outlast.model.policy import NO_WISH, VmPolicy
from outlast.protocol.agent import AgentMachine


def basis(machine: AgentMachine) -> PlanBasis:
    """The whole of it."""
    known, settings = machine.known, machine.known.settings
    snapshot = machine.recovery.placement.whole(measured=True)
    policies = _policies(machine)
    no_proof = {
        host: tuple(name for name in known.datastores if not known.expiry_may_prove(host, name, False))
        for host in known.members
    }
    return PlanBasis(
        domain=known.config.domain,
        seen_from=known.name(known.me),
        primary=machine.election.primary,
        snapshot=snapshot,
        window=settings.window,
        heartbeat=settings.datastore_heartbeat_interval,
        poll=settings.datastore_poll_interval,
        dependency_timeout=settings.dependency_timeout,
        starts_per_host=settings.starts_at_once_per_host,
        starts_per_datastore=settings.starts_at_once_per_datastore,
        no_proof={host: names for host, names in no_proof.items() if names},
        policies=policies,
        standings=_standings(machine, policies, snapshot),
    )


def _policies(machine: AgentMachine) -> dict[VmId, VmPolicy]:
    """The policies of all VMs that are protected, as far as they have one of their own."""
    lines = machine.known.whereabouts()
    listed = {vm: line.policy for vm, (_, line) in lines.items() if line.protected and line.policy is not None}
    own = listed | {vm: case.policy for vm, case in machine.recovery.cases.items()}
    return {vm: own[vm] for vm in sorted(own) if own[vm] != NO_WISH}


def _standings(machine: AgentMachine, policies: dict[VmId, VmPolicy], snapshot: Snapshot) -> dict[VmName, Dependency]:
    """How the VMs that others wait for are doing. Only who is responsible knows of those that nobody lists."""
    known, recovery = machine.known, machine.recovery
    found = recovery.dependencies.look((name for policy in policies.values() for name in policy.after), recovery.cases)
    if machine.responsibility.held_datastores():
        return found
    listed = {vm.name for vm in snapshot.vms}
    why = f"it is on no host's list, and {known.name(known.me)} knows no more, as it is not the primary"
    return {
        name: Dependency(Standing.NEVER, why=why) if each.standing is Standing.COMING and name not in listed else each
        for name, each in found.items()
    }
