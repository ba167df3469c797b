"""What the parts of a keeper see of it: `gatekeeping` and `reassertion` work on the machine that they are parts of."""

from typing import Protocol

from outlast.model.ids import DatastoreName, LeaseTerm, RequestId, VmId, VmName
from outlast.model.keeper_config import KeeperConfig
from outlast.model.keeper_effects import KeeperEffect, Remember, Tell
from outlast.model.keeper_events import FoundProcess
from outlast.model.keeping import AskGivenUp, Happening, Progress, UseSettings
from outlast.model.records import ProofKind, Reason, RegisterState
from outlast.model.settings import Settings
from outlast.model.time import Duration, Instant
from outlast.protocol.lease import Place
from outlast.protocol.ownership import Ownership, Purpose


class Gate(Protocol):
    """What the other parts ask of the gate."""

    def refusal(self, vm: VmId, name: VmName, home: DatastoreName) -> str: ...


class CopyDesk(Protocol):
    """What the gate asks about copies."""

    def let_pass(self, ownership: Ownership, client: int, request: RequestId) -> list[KeeperEffect]: ...
    def launched(self, vm: VmId) -> None: ...
    def comes_in(self, vm: VmId) -> bool: ...
    def expect_no_more(self, known: Ownership) -> list[KeeperEffect]: ...


class WordDesk(Protocol):
    """Who gives this keeper's word to others."""

    def asked(self, client: int, ask: AskGivenUp) -> list[KeeperEffect]: ...


class KeeperBooks(Protocol):
    """Its leases, its VMs, and somebody who reads and links for them."""

    config: KeeperConfig
    settings: Settings
    places: dict[DatastoreName, Place]
    vms: dict[VmId, Ownership]
    now: Instant
    idle: Duration
    """For how long nothing had happened before the present event: longer than usual, if it stood still itself."""
    closing: bool
    closed: str
    said_last_word: bool

    @property
    def gate(self) -> Gate: ...
    @property
    def copies(self) -> CopyDesk: ...
    @property
    def renouncing(self) -> WordDesk: ...

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
    def not_before(self, ownership: Ownership, wait: Duration) -> None: ...
    def not_before_long(self, ownership: Ownership) -> None: ...
