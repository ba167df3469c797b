"""What all simulated hosts share: the members, the settings, the datastores, the network, the VMs' definitions."""

from outlast.model.ids import DatastoreName, HostId, VmId
from outlast.model.inventory import DatastoreMember, FenceLevel, HostMember, VmDefinition
from outlast.model.rules import Rule
from outlast.model.settings import Settings
from outlast.sim.datastore import Datastore
from outlast.sim.fence_device import LEVEL, FenceDevice
from outlast.sim.network import Network
from outlast.sim.physics import Physics


class Domain:
    """`reach`: the datastores that a host is configured with; all when it is absent."""

    def __init__(
        self,
        settings: Settings,
        hosts: tuple[HostMember, ...],
        datastores: tuple[DatastoreMember, ...],
        stores: dict[DatastoreName, Datastore],
        network: Network,
        *,
        physics: Physics,
    ) -> None:
        self.name = "simulated"
        self.settings = settings
        """What stands in every host's file."""
        self.hosts = hosts
        self.datastores = datastores
        self.stores = stores
        self.network = network
        self.ever_used = [settings]
        """Every host's settings since the beginning."""
        self.physics = physics
        self.isolation_addresses = ("198.51.100.1",)
        self.fence_devices: dict[HostId, FenceDevice] = {}
        self.rules: tuple[Rule, ...] = ()
        self.reach: dict[HostId, tuple[DatastoreName, ...]] = {}
        self.definitions: dict[VmId, VmDefinition] = {}
        self.homes: dict[VmId, DatastoreName] = {}

    def define(self, definition: VmDefinition) -> None:
        """A VM as it is meant."""
        self.definitions[definition.vm] = definition
        if definition.home is not None:
            self.homes[definition.vm] = definition.home

    def on_same_disk(self, vm: VmId) -> list[VmId]:
        """The other VMs that have a disk of it."""
        mine = set(self.definitions[vm].writes)
        return [other.vm for other in self.definitions.values() if other.vm != vm and mine.intersection(other.writes)]

    def fencing(self) -> dict[HostId, tuple[FenceLevel, ...]]:
        """The hosts that have a fence device, and its one level."""
        return dict.fromkeys(self.fence_devices, (LEVEL,))

    def datastores_of(self, host: HostId) -> tuple[DatastoreMember, ...]:
        """The datastores in a host's settings."""
        names = self.reach.get(host)
        return tuple(d for d in self.datastores if names is None or d.name in names)

    def used(self, settings: Settings) -> None:
        """Some host has these settings now."""
        if settings not in self.ever_used:
            self.ever_used.append(settings)

    @property
    def margins(self) -> tuple[int, ...]:
        """Every `lease_margin` that any host ever had."""
        return tuple(settings.lease_margin for settings in self.ever_used)

    def _bounded(self, member: DatastoreMember, margin: int) -> bool:
        return member.in_flight_bound is not None and member.in_flight_bound <= margin

    def risk_accepted(self, datastore: DatastoreName) -> bool:
        """Whether `lease_expired` is proof on a datastore although the kernel may hold writes for longer."""
        member = next(d for d in self.datastores if d.name == datastore)
        return member.accept_in_flight_risk and not self._bounded(member, min(self.margins))

    def expiry_allowed(self, datastore: DatastoreName) -> bool:
        """Whether `lease_expired` may be proof on a datastore at all."""
        member = next(d for d in self.datastores if d.name == datastore)
        return member.accept_in_flight_risk or self._bounded(member, max(self.margins))
