"""What all simulated hosts share: the members, the settings, the datastores, the network, the VMs' definitions."""

from outlast.model.ids import DatastoreName, HostId, VmId
from outlast.model.inventory import DatastoreMember, HostMember, VmDefinition
from outlast.model.settings import Settings
from outlast.sim.datastore import Datastore
from outlast.sim.network import Network


class Domain:
    """`reach`: the datastores that a host is configured with; all when it is absent."""

    def __init__(
        self,
        settings: Settings,
        hosts: tuple[HostMember, ...],
        datastores: tuple[DatastoreMember, ...],
        stores: dict[DatastoreName, Datastore],
        network: Network,
    ) -> None:
        self.name = "simulated"
        self.settings = settings
        self.hosts = hosts
        self.datastores = datastores
        self.stores = stores
        self.network = network
        self.isolation_addresses = ("198.51.100.1",)
        self.reach: dict[HostId, tuple[DatastoreName, ...]] = {}
        self.definitions: dict[VmId, VmDefinition] = {}

    @property
    def homes(self) -> dict[VmId, DatastoreName]:
        """The home datastore of each VM."""
        return {vm: definition.home for vm, definition in self.definitions.items() if definition.home is not None}

    def datastores_of(self, host: HostId) -> tuple[DatastoreMember, ...]:
        """The datastores in a host's settings."""
        names = self.reach.get(host)
        return tuple(d for d in self.datastores if names is None or d.name in names)
