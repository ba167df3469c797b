"""What the keeper must know, already parsed and checked, so that it need not carry a settings parser around."""

import msgspec

from outlast.model.claims import Disk
from outlast.model.ids import BootId, DatastoreName, HostId, HostName, KeeperSession
from outlast.model.inventory import DatastoreMember, HostMember
from outlast.model.records import Enforcement
from outlast.model.settings import Settings, SettingsMark


class KeeperConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`datastore_key` (hex) authenticates records; `watchdog_device` empty: none.

    `boot_id` and `session` are made when the keeper starts. `closed`: why the host is kept empty, as it has kept it.
    """

    domain: str
    host: HostId
    name: HostName
    hosts: tuple[HostMember, ...]
    datastores: tuple[DatastoreMember, ...]
    settings: Settings
    settings_mark: SettingsMark = SettingsMark()
    closed: str = ""
    datastore_key: str
    run_dir: str
    state_dir: str
    watchdog_device: str = ""
    watchdog_timeout_s: int = 1
    enforcement: Enforcement = Enforcement.KEEPER
    boot_id: BootId = BootId("")
    session: KeeperSession = KeeperSession("")

    def host_name(self, host: HostId) -> HostName:
        """What people call a host; its id if it is not a member any more."""
        return next((member.name for member in self.hosts if member.id == host), HostName(host))

    def home_of(self, disks: tuple[str, ...]) -> DatastoreName | None:
        """The datastore of the first disk that lies on one of ours, None if none does."""
        return next((disk.datastore for disk in self.disks_at(disks)), None)

    def disks_at(self, paths: tuple[str, ...]) -> tuple[Disk, ...]:
        """Those that lie on one of our datastores, as every host names them."""
        found: list[Disk] = []
        for path in paths:
            for datastore in self.datastores:
                root = datastore.path.rstrip("/") + "/"
                if path.startswith(root):
                    found.append(Disk(datastore.name, path.removeprefix(root)))
                    break
        return tuple(found)
