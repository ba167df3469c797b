"""A scenario as values: a small fault domain, what happens to it, and what must be true.

The language is a contract (docs/scenarios.md). `reading` makes these values from a file and refuses what is wrong with it;
`words` is the table of verbs and expectations. Times are integer nanoseconds from the start; None means the end.
"""

from typing import Any, Literal

import msgspec

from outlast.model.ids import DatastoreName, HostName, VmName
from outlast.model.policy import Priority
from outlast.model.rules import Rule
from outlast.model.settings import GuestMonitoring
from outlast.model.time import SECOND, Duration

WantedState = Literal["running", "stopped", "unprotected"]


class DatastoreSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One datastore. `device` empty: one of its own. `in_flight_bound` None: nobody knows."""

    name: DatastoreName
    filesystem: str = "nfs"
    device: str = ""
    in_flight_bound: Duration | None = SECOND
    accept_in_flight_risk: bool = True


class HostSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One host. `datastores` None: all of them. `enforcement` empty: watchdog if there is one, else keeper.

    `networks` None: every one that a VM asks for; `cpu_models` empty: every one.
    """

    name: HostName
    cpus: int = 8
    memory_mib: int = 32 << 10
    datastores: tuple[DatastoreName, ...] | None = None
    power: Literal["on", "off"] = "on"
    watchdog: bool = False
    fencing: bool = False
    enforcement: Literal["", "watchdog", "keeper", "none"] = ""
    labels: dict[str, str] = {}
    networks: tuple[str, ...] | None = None
    cpu_models: tuple[str, ...] = ()
    spare: bool = False


class VmSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One virtual machine. `host` empty: it does not run at the start. `disks_on`: datastores of disks beside its home.

    `same_disk_as`: the disk on its home is not its own but that VM's, as a clone's may be by mistake; empty: its own.
    """

    name: VmName
    datastore: DatastoreName
    host: HostName = HostName("")
    state: WantedState = "running"
    cpus: int = 1
    memory_mib: int = 2048
    cpu_usage: float | None = None
    memory_usage_mib: int | None = None
    priority: Priority = "medium"
    isolation_response: Literal["leave-running", "shut-down", "power-off"] | None = None
    max_restarts: int = 1
    max_relocations: int = 1
    start_time: Duration = SECOND // 2  # type: ignore[assignment]
    after: tuple[VmName, ...] = ()
    ready: str = "powered-on"
    disks_on: tuple[DatastoreName, ...] = ()
    same_disk_as: VmName = VmName("")
    networks: tuple[str, ...] = ()
    cpu_model: str = ""
    guest_monitoring: GuestMonitoring | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """At `at`, do the verb `do` with `keys` (checked against `words.VERBS`); `line` is where it stands in its file."""

    at: Duration
    do: str
    keys: dict[str, Any] = {}
    line: int = 0


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """At `at` (None: the end), every entry of `claims` holds (checked against `words.CLAIMS`)."""

    at: Duration | None
    claims: dict[str, Any]
    line: int = 0


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of it. `settings` are the fault domain's, by name, as written (durations in nanoseconds)."""

    title: str
    story: str = ""
    seed: int = 1
    duration: Duration
    settings: dict[str, Any] = {}
    datastores: tuple[DatastoreSpec, ...]
    hosts: tuple[HostSpec, ...]
    vms: tuple[VmSpec, ...] = ()
    rules: tuple[Rule, ...] = ()
    steps: tuple[Step, ...] = ()
    expect: tuple[Expectation, ...] = ()
    path: str = ""
