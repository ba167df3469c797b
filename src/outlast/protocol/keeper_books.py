"""What the parts of a keeper see of it: `gatekeeping` and `reassertion` work on the machine that they are parts of."""

from typing import Protocol

from outlast.model.ids import DatastoreName, LeaseTerm, VmId
from outlast.model.keeper_config import KeeperConfig
from outlast.model.keeper_effects import KeeperEffect, Remember, Tell
from outlast.model.keeper_events import FoundProcess
from outlast.model.keeping import Happening, Progress, UseSettings
from outlast.model.records import ProofKind, Reason, RegisterState
from outlast.model.settings import Settings
from outlast.model.time import Instant
from outlast.protocol.lease import Place
from outlast.protocol.ownership import Ownership, Purpose


class KeeperBooks(Protocol):
    """Its leases, its VMs, and somebody who reads and links for them."""

    config: KeeperConfig
    settings: Settings
    places: dict[DatastoreName, Place]
    vms: dict[VmId, Ownership]
    now: Instant
    closing: bool
    closed: str
    said_last_word: bool

    def term(self, home: DatastoreName) -> LeaseTerm | None: ...
    def busy(self, vm: VmId) -> bool: ...
    def may_begin(self, ownership: Ownership) -> bool: ...
    def read(self, ownership: Ownership, purpose: Purpose) -> list[KeeperEffect]: ...
    def link(
        self,
        ownership: Ownership,
        purpose: Purpose,
        state: RegisterState,
        reason: Reason,
        proof: ProofKind | None = None,
    ) -> list[KeeperEffect]: ...
    def ensure(self, process: FoundProcess) -> Ownership: ...
    def forget(self, vm: VmId) -> None: ...
    def tell(self, kind: Happening, ownership: Ownership, detail: str) -> Tell: ...
    def remember(self, ownership: Ownership) -> Remember: ...
    def is_published_as_unfreezable(self, home: DatastoreName) -> bool: ...
    def agent_tells(self, progress: Progress) -> None: ...
    def use_settings(self, request: UseSettings) -> list[KeeperEffect]: ...
    def not_before_long(self, ownership: Ownership) -> None: ...
