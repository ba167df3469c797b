"""What `outlast status` shows, as values: one agent's view of the fault domain at one moment.

Ages are seconds; None: never, or not known here. Everything is from facts that the agent holds anyway: asking for it asks
nobody else.
"""

import msgspec

from outlast.model.latency import Latencies
from outlast.model.planning import Outlook
from outlast.model.policy import VmPolicy


class KeptEmpty(msgspec.Struct, frozen=True, kw_only=True):
    """An operator keeps a host empty: who, since when (milliseconds since 1970), and why."""

    by: str
    at_ms: int
    reason: str


class HostStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One host. `verdict` is the primary's where it is known, else this agent's own (`verdict_by` says whose).

    `fencing`: its fence agents, in order; `fence_result`: what they last did or said, to whichever agent. `maintenance`:
    if an operator keeps it empty; `kept_empty`: why it gets no VMs at all, for whatever reason; `emptying`: what becomes
    of those that run there still, as the primary says, and whether all of them stay (`emptying_settled`); `health`: of
    its hardware.
    """

    name: str
    id: str
    address: str
    verdict: str
    verdict_age_s: float | None
    verdict_by: str
    reason: str
    primary: bool
    here: bool
    isolated: bool
    hypervisor_up: bool | None
    enforcement: str
    memory_mib: int
    free_memory_mib: int
    vms: int
    heartbeat_age_s: float | None
    lapsed: tuple[str, ...]
    fencing: tuple[str, ...] = ()
    fence_result: str = ""
    fence_result_ok: bool | None = None
    fence_result_age_s: float | None = None
    maintenance: KeptEmpty | None = None
    health: str = "ok"
    health_reason: str = ""
    kept_empty: str = ""
    emptying: str = ""
    emptying_settled: bool = False


class DatastoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One datastore as seen from here. `score` is its accessibility score for this host, None when it is not reached.

    `risk_accepted`: a lease's end counts as proof there although writes may be in flight for longer than the margin.
    `writes`: how long this host's heartbeat writes there took, since its keeper began.
    """

    name: str
    path: str
    reachable: bool
    filesystem: str
    device: str
    free_bytes: int
    score: int | None
    heartbeats_of: tuple[str, ...]
    responsible: str
    responsible_epoch: int | None
    lease_held: bool
    lease_term: int
    lease_left_s: float | None
    expiry_is_proof: bool
    risk_accepted: bool
    problem: str
    writes: Latencies | None = None


class MigrationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A VM is being copied to another host, as its libvirt said last. `downtime_ms`: the pause that it expects."""

    to: str
    total_mib: int
    remaining_mib: int
    mib_s: int
    downtime_ms: int

    @property
    def sentence(self) -> str:
        """How far it is; memory that is written meanwhile is copied once more, so what is left may grow again."""
        done = 100 - 100 * self.remaining_mib // self.total_mib if self.total_mib else 0
        left = f"{self.remaining_mib} of {self.total_mib} MiB left at {self.mib_s} MiB/s"
        pause = f", then a pause of about {self.downtime_ms} ms" if self.downtime_ms else ""
        return f"on its way to {self.to}: {done} %, {left}{pause}"


class VmStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One virtual machine. `lease_age_s`: since its owner's lease was last seen renewed. `policy` None: not known.

    `migration`: while it is being copied to another host.
    `guest`: how its guest is (`records.GuestWord`), empty if it is not watched or has not answered yet; `guest_resets`: how
    often it was reset in the last hour.
    """

    name: str
    uuid: str
    host: str
    state: str
    protected: bool
    home: str
    epoch: int | None
    lease_age_s: float | None
    memory_mib: int
    note: str
    policy: VmPolicy | None = None
    migration: MigrationStatus | None = None
    guest: str = ""
    guest_resets: int = 0


class PauseStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An operator holds all automatic recovery: who, when (milliseconds since 1970), and why."""

    by: str
    at_ms: int
    reason: str


class SettingsView(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that this agent uses, as people write them. `version` 0: those of this host's file, never changed.

    `hosts`: which version each host used when it was last heard. `file_differs`: the settings of which this host's file has
    another value, which is not used.
    """

    version: int
    by: str
    at_ms: int
    paused: PauseStatus | None
    settings: dict[str, str]
    defaults: dict[str, str]
    hosts: dict[str, int | None]
    file_differs: dict[str, str]


class DomainStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The whole view. `outlook`: what the domain can lose now, as its primary says; None: not known (yet)."""

    domain: str
    seen_from: str
    version: str
    primary: str
    term: int
    isolated: bool
    paused: PauseStatus | None = None
    settings_version: int = 0
    hosts: tuple[HostStatus, ...]
    datastores: tuple[DatastoreStatus, ...]
    vms: tuple[VmStatus, ...]
    outlook: Outlook | None = None
    problems: tuple[str, ...]
    dropped_datagrams: dict[str, int]
