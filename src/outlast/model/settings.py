"""The settings of a fault domain, and the relations between them that safety needs.

The relations are checked where settings are made (`problems`), so that a domain with a lease that its own heartbeats
cannot hold never starts. Reading a file, units and unknown keys are the business of `runtime/config.py`.
"""

from typing import Literal

import msgspec

from outlast.model.time import MILLISECOND, SECOND, Duration, in_seconds

IsolationResponse = Literal["leave-running", "shut-down", "power-off"]
AdmissionPolicy = Literal["host-failures", "percent", "spare-hosts"]
AdmissionMode = Literal["refuse", "warn", "off"]
FREEZES_WITHIN = Duration(SECOND)
"""A keeper freezes at once; should it hang or be dead, the agent's grace and its next look come first (rule 4)."""


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
    start_timeout: Duration = Duration(60 * SECOND)
    dependency_timeout: Duration = Duration(60 * SECOND)
    stable_after: Duration = Duration(300 * SECOND)
    mass_failure_grace: Duration = Duration(10 * SECOND)
    startup_grace: Duration = Duration(60 * SECOND)
    starts_at_once_per_host: int = 4
    starts_at_once_per_datastore: int = 16
    admission_policy: AdmissionPolicy = "host-failures"
    admission_mode: AdmissionMode = "warn"
    admission_host_failures: int = 1
    admission_percent: int = 25
    version: int = 1

    @property
    def window(self) -> Duration:
        """How long an observer must have seen a record unchanged before `lease_expired` is proof."""
        return Duration(self.lease_duration + self.lease_margin)


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
    at_least("datastore_stale_after", s.datastore_stale_after, s.window, "lease_duration + lease_margin")
    at_least(
        "lease_margin",
        s.lease_margin,
        Duration(s.window // 50 + FREEZES_WITHIN),
        "1 % drift of either clock over the window, and a second for the agent to freeze when the keeper cannot",
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
