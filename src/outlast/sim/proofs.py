"""`proof-holds`: whoever takes a VM over has the proof that safety rule 5 asks for, by what is true.

Looked at when an agent asks its keeper for a takeover. A wrong proof need not lead to a double run at once; it is a
violation all the same, so that a broken rule is seen where it is broken.

    lease_expired    the owner's lease was over when the last read began; the window elapsed on the observer's clock; the
                     owner's record did not change in it; the epoch to take from was there before the last read; the
                     observer's own lease held all the time; the owner's level, its silence to pings and the datastore's
                     in-flight bound allow it
    rebooted         a higher incarnation of the owner exists on the home datastore
    renounced        the epoch to take from says so; or its owner gave its word, and no process of the VM is left there,
                     unless a later epoch has been made since; and the in-flight bound of the datastore allows it
    power_fenced, operator_confirmed
                     the boot that made the epoch to take from is over: its host has no power, or has booted since
    clean_shutdown   the owner's last word stands in its record, and no process of the VM is left there
"""

from outlast.model.ids import DatastoreName, VmId
from outlast.model.keeping import AskTakeover
from outlast.model.records import Enforcement, Proof, ProofKind, RegisterState
from outlast.model.time import MILLISECOND, SECOND, Instant
from outlast.sim.domain import Domain
from outlast.sim.host import Host

HEARS_OF_LAPSE = 100 * MILLISECOND
"""How long it may take until an agent has heard that its keeper's lease lapsed."""
ANSWERED_FOR = 4 * SECOND
"""A host that could have answered pings for this long did answer one, and its observer knows."""


def problem_with(ask: AskTakeover, asking: Host, domain: Domain) -> str:
    """What is wrong with the proof of a takeover that `asking` asks its keeper for; empty if nothing is."""
    proof, store = ask.proof, domain.stores[ask.home]
    owner = asking.peers.get(proof.owner)
    if owner is None:
        return f"its owner {proof.owner} is no host of the domain"
    match proof.kind:
        case ProofKind.LEASE_EXPIRED:
            return _expiry(proof, ask.vm, ask.home, asking.peers[proof.observer], owner)
        case ProofKind.REBOOTED:
            boots = len(store.incarnations.get(owner.id, ()))
            return "" if boots > proof.incarnation else f"{owner.id} has no incarnation above {proof.incarnation}"
        case ProofKind.RENOUNCED:
            return _renounced(proof, ask.vm, ask.home, owner)
        case ProofKind.CLEAN_SHUTDOWN:
            left = owner.powered and ask.vm in owner.hypervisor.processes
            return f"a process of it is left on {owner.id}" if left else ""
        case ProofKind.POWER_FENCED | ProofKind.OPERATOR_CONFIRMED:
            return _was_off(proof, ask.vm, ask.home, owner)
        case _:
            return ""


def _renounced(proof: Proof, vm: VmId, home: DatastoreName, owner: Host) -> str:
    """Whether its owner does not and will not run that epoch: what is not written there, nothing that runs may belie."""
    store = owner.domain.stores[home]
    record, last = store.registers[vm].get(proof.epoch), store.last(vm)
    if record is None or record.state is RegisterState.RELEASED or last is None or last.epoch > proof.epoch:
        return ""
    if not owner.domain.expiry_allowed(home):
        return f"epoch {proof.epoch} is not released, and nobody accepted that {home} may hold writes for longer"
    left = owner.powered and vm in owner.hypervisor.processes
    return f"epoch {proof.epoch} is not released, and a process of it is left on {owner.id}" if left else ""


def _was_off(proof: Proof, vm: VmId, home: DatastoreName, owner: Host) -> str:
    """Whether the boot that made the epoch is over. What an earlier boot sent may have landed late."""
    store = owner.domain.stores[home]
    made, boots = store.made_at.get((vm, proof.epoch), 0), len(store.incarnations.get(owner.id, ()))
    of_this_boot = owner.booted_at < made and proof.incarnation >= boots
    return (
        f"{owner.id} has had its power since before epoch {proof.epoch} was made" if owner.powered and of_this_boot else ""
    )


def _expiry(proof: Proof, vm: VmId, home: DatastoreName, observer: Host, owner: Host) -> str:
    domain = observer.domain
    store = domain.stores[home]
    epoch = store.registers[vm].get(proof.epoch)
    if epoch is not None and proof.last_read - proof.first_seen < epoch.window:
        return "its window had not elapsed when the last read began"
    if owner.enforcement is Enforcement.NONE:
        return f"nothing freezes VMs on {owner.id}"
    if not domain.expiry_allowed(home):
        return f"nobody accepted that {home} may hold writes for longer than the margin"
    if not observer.powered or proof.first_seen < observer.booted_clock:
        return ""  # It rebooted since: its clock tells nothing any more.
    first_seen, last_read = observer.true_time(Instant(proof.first_seen)), observer.true_time(Instant(proof.last_read))
    this_boot = owner.powered and len(store.incarnations.get(owner.id, ())) == proof.incarnation
    if this_boot and owner.truth.holds(home, owner.clock()) and owner.true_time(owner.truth.began[home]) < last_read:
        return f"the lease of {owner.id} on {home} was not over when the last read began"
    landed = store.landed_at.get(owner.id, 0)
    if first_seen < landed < last_read:
        return f"the record of {owner.id} changed within the window"
    made = store.made_at.get((vm, proof.epoch), 0)
    if made > last_read:
        return f"epoch {proof.epoch} was made after the last read"
    lapsed = observer.truth.lapsed.get(home)
    if lapsed is not None and proof.first_seen < lapsed < proof.last_read - HEARS_OF_LAPSE:
        return f"the lease of the observer {observer.id} lapsed within the window"
    # What has booted since the proof was made answers again, and runs nothing of the epoch that is taken from; and of an
    # epoch that is not the last one any more nobody takes anything: its order is being read late, or once more.
    last = store.last(vm)
    newest = last is None or last.epoch == proof.epoch
    silent_then = owner.booted_at >= last_read or not newest
    if owner.enforcement is Enforcement.KEEPER and not silent_then and _answers_ping(observer, owner):
        return f"{owner.id} answers the pings of {observer.id}"
    return ""


def _answers_ping(observer: Host, owner: Host) -> bool:
    """Whether it must have answered: nothing stood in the way for a while."""
    network, now = observer.domain.network, observer.now
    up = owner.powered and not owner.stalled and now - owner.awake_since >= ANSWERED_FOR
    well = observer.agent.works and now - max(observer.agent.works_since, observer.awake_since) >= ANSWERED_FOR
    quiet = now - network.changed_at >= ANSWERED_FOR and not network.loss
    return up and well and quiet and network.carries(observer.id, owner.id) and network.carries(owner.id, observer.id)
