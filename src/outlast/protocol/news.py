"""Whether what an agent has just learnt can change a decision.

Most of what an agent hears says that all is as it was: a heartbeat like the last one, a record that was rewritten in
time, a lease that was renewed. Such an event is *calm*: the facts are kept, and nobody decides anew; whatever time alone
changes has a deadline (`AgentMachine.deadline`). Every other event is *news*, and all parts look at it. When in doubt it
is news: that costs a turn, and the other error costs an answer.

A domain that is at peace lets its agents sleep. `tests/unit/test_news.py` decides anew after every calm event of all
scenarios, and demands that nothing comes of it.
"""

from outlast.model.inventory import DatastoreReach
from outlast.model.keeping import KeeperReport, LeaseReport
from outlast.model.messages import Heartbeat
from outlast.model.time import Instant
from outlast.protocol.knowledge import BeatSeen


def in_heartbeat(beat: Heartbeat, before: BeatSeen | None) -> bool:
    """Whether a heartbeat says anything that the last one of its sender did not. Free memory is asked for when needed."""
    if before is None:
        return True
    old = before.beat
    return (
        beat.boot_id != old.boot_id
        or beat.rank != old.rank
        or beat.term != old.term
        or beat.primary != old.primary
        or beat.power_on_sequence != old.power_on_sequence
        or beat.lapsed != old.lapsed
        or beat.failing != old.failing
        or beat.hypervisor_up != old.hypervisor_up
        or beat.leaving != old.leaving
        or beat.settings != old.settings
        or beat.health != old.health
        or any(map(in_reach, beat.reach, old.reach))
        or len(beat.reach) != len(old.reach)
    )


def in_reach(reach: DatastoreReach, before: DatastoreReach | None) -> bool:
    """Whether a datastore is reached otherwise than before; free space decides nothing."""
    return before is None or (reach.datastore, reach.reachable, reach.filesystem, reach.device) != (
        before.datastore,
        before.reachable,
        before.filesystem,
        before.device,
    )


def in_report(report: KeeperReport, before: KeeperReport | None, now: Instant) -> bool:
    """Whether a keeper says more than that its leases were renewed before they ended."""
    if before is None:
        return True
    return (
        report.session != before.session
        or report.enforcement is not before.enforcement
        or report.vms != before.vms
        or len(report.leases) != len(before.leases)
        or any(_in_lease(*both, now) for both in zip(report.leases, before.leases, strict=True))
    )


def _in_lease(lease: LeaseReport, before: LeaseReport, now: Instant) -> bool:
    return before.deadline <= now or (
        lease.datastore,
        lease.held,
        lease.term,
        lease.incarnation,
        lease.failing,
        lease.slow,
    ) != (
        before.datastore,
        before.held,
        before.term,
        before.incarnation,
        before.failing,
        before.slow,
    )
