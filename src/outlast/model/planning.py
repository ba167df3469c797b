"""What placements are decided from, and what comes of it, as values: a snapshot of the fault domain, and a plan.

A snapshot is immutable and whole: whoever has it comes to the same plan, be it the primary that restarts VMs, an operator
who asks what would happen, or the simulated world that checks both. CPU is counted in hundredths of a core.
"""

import msgspec

from outlast.model.dependency import Dependency
from outlast.model.ids import DatastoreName, HostId, HostName, VmId, VmName
from outlast.model.inventory import Needs
from outlast.model.policy import VmPolicy
from outlast.model.rules import Rule
from outlast.model.settings import Settings
from outlast.model.time import Duration

UNLIMITED = 1 << 40
"""The CPU of a host that does not say how much it has."""


class PlanHost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One host as planning sees it.

    `unusable`: why nothing can be started there, empty if something can. `kept_empty`: why only what no other host may
    start is started there. `last_resort`: why it is used only where no other host will do. `memory_mib` and `cpu` are all
    that it can give to VMs; `free_*` what the VMs that run there leave of it (`free_reserved_cpu`: if only reservations
    count). `leases`: the datastores where it can hold a lease.
    """

    id: HostId
    name: HostName
    labels: dict[str, str] = {}
    unusable: str = ""
    kept_empty: str = ""
    last_resort: str = ""
    spare: bool = False
    memory_mib: int = 0
    cpu: int = UNLIMITED
    free_memory_mib: int = 0
    free_cpu: int = UNLIMITED
    free_reserved_cpu: int = UNLIMITED
    leases: frozenset[DatastoreName] = frozenset()
    networks: frozenset[str] | None = None
    cpu_models: frozenset[str] = frozenset()


class PlanVm(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One VM as planning sees it. `host` None: it runs nowhere. `wanted`: it is to run (else it only takes room).

    `tier`: lower ones are placed first. `failed_on`: hosts where its start failed, used if no other will do; `prefer`: the
    host where it ran, if that is to be tried first; `only`: the one host that may start it now.
    """

    vm: VmId
    name: VmName
    needs: Needs
    host: HostId | None = None
    wanted: bool = True
    tier: int = 0
    failed_on: frozenset[HostId] = frozenset()
    prefer: HostId | None = None
    only: HostId | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fault domain at one moment. `rules`: those that hold, contradictions removed."""

    hosts: tuple[PlanHost, ...]
    vms: tuple[PlanVm, ...]
    rules: tuple[Rule, ...] = ()


class Assignment(msgspec.Struct, frozen=True, omit_defaults=True):
    """One decision, in the order in which they were made. `host` None: the VM has to wait.

    `squeezed`: the host has the CPU that is reserved for the VM, but not what it was seen to use.
    """

    vm: VmId
    host: HostId | None
    squeezed: bool = False


class Obstacle(msgspec.Struct, frozen=True):
    """Why not all could be placed: the VM that stands in the way, and a sentence.

    `proven`: no plan whatsoever has a place for all; else none was found.
    """

    vm: VmId
    why: str
    proven: bool


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where VMs go. `steps`: every decision; a VM that was moved to make room for another stands there again.

    `obstacle` None: every VM has a place, with the CPU that it was seen to use.
    """

    steps: tuple[Assignment, ...]
    obstacle: Obstacle | None = None

    @property
    def targets(self) -> dict[VmId, HostId | None]:
        """Where each VM goes in the end; None: it waits."""
        return {step.vm: step.host for step in self.steps}

    @property
    def waiting(self) -> tuple[VmId, ...]:
        """The VMs that no host can take, in the order of the plan."""
        return tuple(vm for vm, host in self.targets.items() if host is None)


class Outlook(msgspec.Struct, frozen=True):
    """What the domain can lose now, in words for people (`protocol/planning/worst.py` has it exactly).

    `survives` hosts, whichever they are; `done` False: at least so many, more were not looked at. `why`: what the loss of
    one more would mean; `proven`: that there is no way round it. `short`: why too little is set aside for failures.
    `stale`: something has changed since, and it is looked at anew.
    """

    survives: int
    done: bool
    why: str
    proven: bool
    short: str
    stale: bool = False


class PlanBasis(msgspec.Struct, frozen=True, kw_only=True):
    """What one agent can say about what would happen: the snapshot, and what decides how long it would take.

    `window`, `heartbeat`, `poll` and what follows them are those of the settings (nanoseconds); `no_proof`: the datastores,
    by host, where the end of its lease would be no proof of its death. `policies`: of those VMs that have one of their own;
    `standings`: how the VMs that any of them names in `after` are doing now.
    """

    domain: str
    seen_from: HostName
    primary: HostId | None
    snapshot: Snapshot
    window: int
    heartbeat: int
    poll: int
    dependency_timeout: Duration = Settings().dependency_timeout
    starts_per_host: int = Settings().starts_at_once_per_host
    starts_per_datastore: int = Settings().starts_at_once_per_datastore
    no_proof: dict[HostId, tuple[DatastoreName, ...]] = {}
    policies: dict[VmId, VmPolicy] = {}
    standings: dict[VmName, Dependency] = {}


class Awaited(msgspec.Struct, frozen=True, kw_only=True):
    """A VM that another one names in `after`. `heeded`: that one is started when this one is ready, and not before; else it
    does not wait for it, or goes on without it. `sentence` says which, and why; its subject is the one that waits.
    """

    vm: VmName
    heeded: bool
    sentence: str


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One VM that would run again: where, why there, and how long after the loss (seconds, at least and at most).

    `awaits`: what becomes of the VMs that it is to be started after, as far as they are not ready anyway.
    """

    vm: VmName
    origin: HostName | None
    to: HostName
    after_s: tuple[float, float]
    squeezed: bool
    why: str
    awaits: tuple[Awaited, ...] = ()


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """One VM that would not: why, and why each host could not take it (empty if it waits for something else)."""

    vm: VmName
    origin: HostName | None
    why: str
    hosts: dict[HostName, str] = {}


class Foretold(msgspec.Struct, frozen=True, kw_only=True):
    """What would come of a loss. `moves`: in the order in which they would be started. `survives`: that every VM would run
    again, with all the CPU that it was seen to use.
    """

    lost: tuple[HostName, ...]
    moves: tuple[Move, ...]
    waits: tuple[Wait, ...]
    survives: bool
    why_not: str = ""
