"""How things stand with the keeper, as it tells its agent and people."""

from collections.abc import Iterable, Mapping

from outlast.model.ids import DatastoreName
from outlast.model.keeper_config import KeeperConfig
from outlast.model.keeping import KeeperReport, KeptVm, LeaseReport
from outlast.protocol.lease import Place
from outlast.protocol.ownership import Ownership


def keeper_report(config: KeeperConfig, places: Mapping[DatastoreName, Place], vms: Iterable[Ownership]) -> KeeperReport:
    """One report, whole."""
    leases = tuple(
        LeaseReport(
            datastore=name,
            held=place.lease.held,
            term=place.lease.term,
            deadline=place.lease.deadline or 0,
            incarnation=place.incarnation,
            problem=place.problem,
        )
        for name, place in places.items()
    )
    return KeeperReport(
        host=config.host,
        boot_id=config.boot_id,
        session=config.session,
        enforcement=config.enforcement,
        leases=leases,
        vms=tuple(KeptVm(vm=v.vm, name=v.name, home=v.home, epoch=v.epoch, phase=v.phase, pid=v.pid) for v in vms),
    )
