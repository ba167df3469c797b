"""The settings of a fault domain, and the relations between them that safety needs.

The relations are checked where settings are made and where they are changed (`problems`), so that a domain never has a
lease that its own heartbeats cannot hold. What every host has in its file counts until an operator changes a setting for
the whole domain: from then on the newest `SettingsRecord` counts, which lies on every datastore and on every host.
"""

import difflib
import typing
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from outlast.model.ids import BootId, HostId, VmId
from outlast.model.time import MILLISECOND, SECOND, Duration, in_seconds
from outlast.model.units import duration_text, parse_duration

IsolationResponse = Literal["leave-running", "shut-down", "power-off"]
AdmissionPolicy = Literal["host-failures", "percent", "spare-hosts"]
AdmissionMode = Literal["refuse", "warn", "off"]
HostShutdownPolicy = Literal["failover", "freeze", "conditional", "migrate"]
MOST_BROUGHT_BACK = 256
"""How many VMs a record names that are to go back to a host: it goes to every host in one datagram."""
GuestMonitoring = Literal["off", "on"]
FREEZES_WITHIN = Duration(SECOND)
"""A keeper freezes at once; should it hang or be dead, the agent's grace and its next look come first (rule 4)."""
GUEST_SHORTEST = Duration(10 * SECOND)
"""A guest agent is waited for a few seconds each time: in less than this, one late answer would look like silence."""


class LeaseSpan(msgspec.Struct, frozen=True):
    """How long an owner runs after the start of a timely write (`lease`), and how long an observer waits (`window`)."""

    lease: Duration
    window: Duration


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One fault domain's settings; defaults as in design.md section 5."""

    heartbeat_interval: Duration = SECOND
    unreachable_after: Duration = Duration(3 * SECOND)
    ping_timeout: Duration = Duration(2 * SECOND)
    datastore_heartbeat_interval: Duration = SECOND
    datastore_poll_interval: Duration = Duration(500 * MILLISECOND)
    lease_duration: Duration = Duration(6 * SECOND)
    lease_margin: Duration = Duration(1500 * MILLISECOND)
    datastore_stale_after: Duration = Duration(7500 * MILLISECOND)
    isolation_after: Duration = Duration(5 * SECOND)
    election_timeout: Duration = Duration(3 * SECOND)
    storage_loss_after: Duration = Duration(30 * SECOND)
    heartbeat_datastores_per_host: int = 2
    accessibility_threshold: int = 50
    isolation_response: IsolationResponse = "leave-running"
    shutdown_timeout: Duration = Duration(60 * SECOND)
    host_shutdown_policy: HostShutdownPolicy = "failover"
    shutdown_migrate_timeout: Duration = Duration(300 * SECOND)
    freeze_timeout: Duration = Duration(900 * SECOND)
    start_timeout: Duration = Duration(60 * SECOND)
    dependency_timeout: Duration = Duration(60 * SECOND)
    stable_after: Duration = Duration(300 * SECOND)
    mass_failure_grace: Duration = Duration(10 * SECOND)
    startup_grace: Duration = Duration(60 * SECOND)
    starts_at_once_per_host: int = 4
    starts_at_once_per_datastore: int = 16
    moves_at_once_per_host: int = 2
    admission_policy: AdmissionPolicy = "host-failures"
    admission_mode: AdmissionMode = "warn"
    admission_host_failures: int = 1
    admission_percent: int = 25
    guest_monitoring: GuestMonitoring = "off"
    guest_failure_after: Duration = Duration(30 * SECOND)
    guest_io_quiet: Duration = Duration(120 * SECOND)
    guest_min_uptime: Duration = Duration(120 * SECOND)
    guest_resets_per_hour: int = 3

    @property
    def window(self) -> Duration:
        """How long an observer must have seen a record unchanged before `lease_expired` is proof."""
        return Duration(self.lease_duration + self.lease_margin)

    @property
    def span(self) -> LeaseSpan:
        """What a host with these settings says about its lease."""
        return LeaseSpan(self.lease_duration, self.window)


class SettingsMark(msgspec.Struct, frozen=True, order=True):
    """Which of two records is newer: the greater one. Version 0: nobody has ever changed anything, the files count.

    Two primaries that cannot hear each other might make one version each; then the later term wins, and the other change
    is lost, which is told.
    """

    version: int = 0
    term: int = 0
    writer: HostId = HostId("")


class Pause(msgspec.Struct, frozen=True):
    """An operator holds all automatic recovery: who, when (wall clock, milliseconds since 1970), and why."""

    by: str
    at_ms: int
    reason: str = ""

    @property
    def sentence(self) -> str:
        """Who holds it, and why."""
        return f"automatic recovery is paused by {self.by}" + (f": {self.reason}" if self.reason else "")


class Maintenance(msgspec.Struct, frozen=True):
    """An operator keeps a host empty: who, when (wall clock, milliseconds since 1970), and why.

    `vms`: those that ran there then, and may be brought back afterwards. `boot`: it ends by itself when the host has booted
    anew since that boot, which is shutting down (`host_shutdown_policy`).
    """

    by: str
    at_ms: int
    reason: str = ""
    vms: tuple[VmId, ...] = ()
    boot: BootId = BootId("")

    @property
    def sentence(self) -> str:
        """As the end of a sentence that begins with the host."""
        return f"it is in maintenance ({self.by}{': ' + self.reason if self.reason else ''})"


class Returning(msgspec.Struct, frozen=True):
    """VMs that are to go back to a host that was emptied, by whose word, and when that was given."""

    by: str
    at_ms: int
    vms: tuple[VmId, ...]


class SettingsRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the whole fault domain, whole, with who changed them last and when.

    `pause`: if recovery is held. `maintenance`: the hosts that are kept empty. `returning`: those whose VMs go back there.
    """

    mark: SettingsMark
    settings: Settings
    pause: Pause | None = None
    maintenance: dict[HostId, Maintenance] = {}
    returning: dict[HostId, Returning] = {}
    by: str = ""
    at_ms: int = 0

    def closed(self, host: HostId) -> str:
        """Why nobody may start a VM by hand on that host; empty if they may."""
        kept = self.maintenance.get(host)
        return f"{kept.sentence}, and kept empty until `outlast host undrain`" if kept is not None else ""


class StoredSettings(msgspec.Struct, frozen=True):
    """The record as it lies on one datastore: `sequence` rises with each write there, and says which slot is the newer."""

    sequence: int
    record: SettingsRecord


def newest_stored(found: Iterable[StoredSettings]) -> StoredSettings | None:
    """What counts of all slots of one datastore; None if there is nothing.

    What is newer is for the record to say, and where the next one is written for the highest number of a slot.
    """
    slots = list(found)
    newest = max(slots, key=lambda each: each.record.mark, default=None)
    return None if newest is None else StoredSettings(max(each.sequence for each in slots), newest.record)


_TYPES = typing.get_type_hints(Settings)


def is_length(name: str) -> bool:
    """Whether a setting is a length of time."""
    return _TYPES.get(name) is Duration


def parse_setting(name: str, value: object) -> Any:
    """A setting's value from what people write. Raises ValueError with the rest of a sentence that begins with the name."""
    if name not in _TYPES:
        raise ValueError(f"is not a setting: {_nearest(name, list(_TYPES))}")
    words = typing.get_args(_TYPES[name])
    if words:
        if value not in words:
            raise ValueError(f"is {value!r}: {_nearest(str(value), list(words))}")
        return value
    if is_length(name):
        found = parse_duration(value)
        if found < 0:
            raise ValueError(f"is {value!r}: a time must not be negative")
        return found
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"is {value!r}, but must be a whole number")
    return value


def setting_text(name: str, value: Any) -> str:
    """A setting's value as people write it."""
    return duration_text(value) if is_length(name) else str(value)


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1, 0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _text(value: Duration) -> str:
    return f"{in_seconds(value):g}s"


def problems(settings: Settings) -> list[str]:
    """One sentence per broken relation, naming both settings and what to change; empty when all hold."""
    found: list[str] = []

    def at_least(name: str, value: Duration, least: Duration, why: str) -> None:
        if value < least:
            found.append(f"{name} is {_text(value)}, but must be at least {_text(least)} ({why}): raise {name}")

    s = settings
    for name in s.__struct_fields__:
        value = getattr(s, name)
        if isinstance(value, int) and value <= 0:
            found.append(f"{name} must be greater than zero")
    at_least("unreachable_after", s.unreachable_after, Duration(2 * s.heartbeat_interval), "2 x heartbeat_interval")
    at_least(
        "lease_duration",
        s.lease_duration,
        Duration(3 * s.datastore_heartbeat_interval),
        "3 x datastore_heartbeat_interval",
    )
    at_least(
        "storage_loss_after",
        s.storage_loss_after,
        Duration(3 * s.datastore_heartbeat_interval),
        "3 x datastore_heartbeat_interval: a keeper that was restarted holds its leases again by then",
    )
    at_least("datastore_stale_after", s.datastore_stale_after, s.window, "lease_duration + lease_margin")
    at_least(
        "lease_margin",
        s.lease_margin,
        Duration(s.window // 50 + FREEZES_WITHIN),
        "1 % drift of either clock over the window, and a second for the agent to freeze when the keeper cannot",
    )
    for name in ("guest_failure_after", "guest_io_quiet"):
        at_least(name, getattr(s, name), GUEST_SHORTEST, "a guest that only answers late is not one that hangs")
    at_least(
        "guest_min_uptime",
        s.guest_min_uptime,
        s.guest_failure_after,
        "guest_failure_after: a guest that was reset has to boot before it can answer",
    )
    at_least(
        "startup_grace",
        s.startup_grace,
        s.mass_failure_grace,
        "mass_failure_grace: hosts that have not come back are many silent at once as well",
    )
    if s.isolation_after <= s.unreachable_after:
        found.append(
            f"isolation_after is {_text(s.isolation_after)}, but must be longer than unreachable_after "
            f"({_text(s.unreachable_after)}): raise isolation_after"
        )
    if not 1 <= s.heartbeat_datastores_per_host <= 5:
        found.append("heartbeat_datastores_per_host must be from 1 to 5")
    if not 0 < s.admission_percent <= 100:
        found.append("admission_percent must be from 1 to 100")
    if not 0 < s.accessibility_threshold <= 100:
        found.append("accessibility_threshold must be from 1 to 100")
    return found
