"""What a keeper says about itself: to observers in its heartbeat record, to its agent and to people in its report."""

from collections.abc import Iterable, Mapping

from outlast.model.ids import DatastoreName, Incarnation
from outlast.model.keeper_config import KeeperConfig
from outlast.model.keeping import KeeperReport, KeptVm, LeaseReport
from outlast.model.records import Enforcement, HeartbeatRecord
from outlast.model.settings import Settings, SettingsMark
from outlast.model.time import MILLISECOND, Duration
from outlast.protocol.lease import Place
from outlast.protocol.ownership import Ownership
from outlast.protocol.renouncing import is_failing


def heartbeat_record(
    config: KeeperConfig, settings: Settings, place: Place, sequence: int, level: Enforcement
) -> HeartbeatRecord:
    """The record to write on one datastore now, but for what the agent said last."""
    return HeartbeatRecord(
        host=config.host,
        boot_id=config.boot_id,
        incarnation=place.incarnation or Incarnation(0),
        session=config.session,
        sequence=sequence,
        term=place.lease.term,
        enforcement=level,
        agent_progress=0,
        wall_clock_s=0,
        lease=place.lease.length,
        window=Duration(place.lease.length + settings.lease_margin),
    )


def keeper_report(
    config: KeeperConfig, mark: SettingsMark, places: Mapping[DatastoreName, Place], vms: Iterable[Ownership]
) -> KeeperReport:
    """One report, whole."""
    leases = tuple(
        LeaseReport(
            datastore=name,
            held=place.lease.held,
            term=place.lease.term,
            deadline=place.lease.deadline or 0,
            incarnation=place.incarnation,
            problem=place.problem,
            failing=is_failing(place),
            write_ms=place.lease.usual // MILLISECOND,
            slow=place.lease.held and place.lease.slow,
            writes=place.lease.latencies,
        )
        for name, place in places.items()
    )
    return KeeperReport(
        host=config.host,
        boot_id=config.boot_id,
        session=config.session,
        enforcement=config.enforcement,
        settings=mark,
        leases=leases,
        vms=tuple(KeptVm(v.vm, v.name, v.home, v.epoch, v.phase, v.pid, v.inherited, v.handover, v.ended) for v in vms),
    )
