"""What the keeper and the agent of a simulated host find in its files when they start."""

from typing import TYPE_CHECKING

from outlast.model.ids import KeeperSession, VmId
from outlast.model.keeper_config import KeeperConfig
from outlast.model.settings import SettingsMark
from outlast.model.time import MILLISECOND, SECOND, Duration, Instant
from outlast.protocol.enforcement import watchdog_needs
from outlast.protocol.knowledge import AgentConfig
from outlast.sim.physics import WATCHDOG_TIMEOUT

if TYPE_CHECKING:
    from outlast.sim.host import Host


def of_keeper(host: "Host", session: KeeperSession) -> KeeperConfig:
    """For a keeper that starts on this host now."""
    domain = host.domain
    return KeeperConfig(
        domain=domain.name,
        host=host.id,
        name=next(m.name for m in domain.hosts if m.id == host.id),
        hosts=domain.hosts,
        datastores=domain.datastores_of(host.id),
        settings=host.settings,
        settings_mark=host.record.mark if host.record is not None else SettingsMark(),
        closed=host.record.closed(host.id) if host.record is not None else "",
        datastore_key="",
        run_dir="/run/outlast",
        state_dir="/var/lib/outlast",
        boot_id=host.boot_id,
        session=session,
        watchdog_device="/dev/watchdog" if host.watchdog else "",
        enforcement=host.enforcement,
    )


def of_agent(host: "Host", session: str, told: dict[VmId, Instant]) -> AgentConfig:
    """For an agent that starts there; `told`: what its predecessor wrote down."""
    domain = host.domain
    return AgentConfig(
        domain=domain.name,
        host=host.id,
        hosts=domain.hosts,
        datastores=domain.datastores_of(host.id),
        settings=domain.settings,
        isolation_addresses=domain.isolation_addresses,
        boot_id=host.boot_id,
        session=session,
        first_sequence=host.scheduler.now // MILLISECOND + 1,
        record=host.record,
        least_margin=watchdog_needs(WATCHDOG_TIMEOUT // SECOND) if host.watchdog else Duration(0),
        fencing=domain.fencing(),
        told=told,
        rules=domain.rules,
        health=host.health,
    )
