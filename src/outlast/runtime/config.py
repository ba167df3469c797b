"""The settings file: TOML in, checked values out, every problem named at once with its remedy.

Tables and keys:

    [domain]      name, key_file, isolation_addresses
    [host]        name: which of the hosts below this one is; reserved_memory, reserved_cpus: what it keeps for itself
    [[hosts]]     name, id, address, port, labels (rack, site), spare (true: for failures alone)
    [[hosts.fencing]] agent, timeout, parameters, secrets (files); in the order in which they are tried
    [[datastores]] name, path, in_flight_bound, accept_in_flight_risk
    [[rules]]     kind, vms, hosts, required, failback, by; see model/rules.py
    [settings]    durations ("6s", "500ms") and numbers; see model/settings.py. They count until somebody changes one for
                  the whole fault domain (`outlast settings set`)
    [paths]       run, state          [hypervisor] uri; migration_uri: another host's libvirt
    [watchdog]    device, timeout (whole seconds; it and the reset must fit in lease_margin)
"""

import re
import tomllib
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from outlast.codec.keys import derive, parse_key
from outlast.drivers.fencing import FenceMethod, missing
from outlast.model.errors import UsageError
from outlast.model.ids import DatastoreName, HostId, HostName
from outlast.model.inventory import DatastoreMember, FenceLevel, HostMember
from outlast.model.keeper_config import KeeperConfig
from outlast.model.records import Enforcement
from outlast.model.rules import Rule, RuleKind, problem
from outlast.model.settings import (
    AdmissionMode,
    AdmissionPolicy,
    GuestMonitoring,
    HostShutdownPolicy,
    Settings,
    SettingsMark,
    problems,
)
from outlast.model.time import SECOND, Duration, in_seconds
from outlast.model.units import parse_duration, parse_size
from outlast.protocol.enforcement import RESET_TIME, watchdog_needs
from outlast.runtime import settings_file

DEFAULT_PATH = Path("/etc/outlast/outlast.toml")
DEFAULT_PORT = 7710
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def _name(value: object) -> object:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("is not a name: up to 63 letters, digits, '.', '-' or '_', beginning with a letter or digit")
    return value


_Duration = Annotated[Duration, BeforeValidator(parse_duration)]
_Size = Annotated[int, BeforeValidator(parse_size)]
_Name = Annotated[str, BeforeValidator(_name)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Domain(_Table):
    name: _Name
    key_file: Path
    isolation_addresses: tuple[str, ...] = ()


class _Host(_Table):
    name: _Name
    reserved_memory: _Size = 0
    reserved_cpus: float = Field(default=0.0, ge=0, le=4096)


class _Fencing(_Table):
    agent: str = Field(min_length=1)
    timeout: _Duration = Duration(20 * SECOND)
    parameters: dict[str, str | int | bool] = {}
    secrets: dict[str, Path] = {}

    @field_validator("parameters", "secrets")
    @classmethod
    def _are_options(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name, value in values.items():
            if name in ("action", "option") or not re.fullmatch(r"[A-Za-z0-9_-]+", name) or "\n" in str(value):
                raise ValueError(
                    f"cannot hold {name}: options are single lines, and Outlast itself says what is to be done"
                )
        return values


class _Member(_Table):
    name: _Name
    id: str
    address: str
    port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    fencing: tuple[_Fencing, ...] = ()
    labels: dict[str, str] = {}
    spare: bool = False

    @field_validator("id")
    @classmethod
    def _is_uuid(cls, value: str) -> str:
        try:
            return str(uuid.UUID(value))
        except ValueError:
            raise ValueError("is not a UUID: make one with `uuidgen`") from None


class _Datastore(_Table):
    name: _Name
    path: Path
    in_flight_bound: _Duration | None = None
    accept_in_flight_risk: bool = True

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        if not value.is_absolute() or ".." in value.parts:
            raise ValueError("must be an absolute path without '..'")
        return value


def _preferences(value: object) -> object:
    return dict.fromkeys(value, 1) if isinstance(value, list) else value


class _Rule(_Table):
    kind: RuleKind
    vms: tuple[_Name, ...]
    hosts: Annotated[dict[str, int], BeforeValidator(_preferences)] = {}
    required: bool = True
    failback: bool = False
    by: str = ""

    def rule(self) -> Rule:
        """The rule as a value."""
        return msgspec.convert(self.model_dump(), Rule)


class _Settings(_Table):
    heartbeat_interval: _Duration | None = None
    unreachable_after: _Duration | None = None
    ping_timeout: _Duration | None = None
    datastore_heartbeat_interval: _Duration | None = None
    datastore_poll_interval: _Duration | None = None
    lease_duration: _Duration | None = None
    lease_margin: _Duration | None = None
    datastore_stale_after: _Duration | None = None
    isolation_after: _Duration | None = None
    election_timeout: _Duration | None = None
    storage_loss_after: _Duration | None = None
    shutdown_timeout: _Duration | None = None
    host_shutdown_policy: HostShutdownPolicy | None = None
    shutdown_migrate_timeout: _Duration | None = None
    freeze_timeout: _Duration | None = None
    start_timeout: _Duration | None = None
    dependency_timeout: _Duration | None = None
    stable_after: _Duration | None = None
    mass_failure_grace: _Duration | None = None
    startup_grace: _Duration | None = None
    starts_at_once_per_host: int | None = None
    starts_at_once_per_datastore: int | None = None
    moves_at_once_per_host: int | None = None
    heartbeat_datastores_per_host: int | None = None
    accessibility_threshold: int | None = None
    isolation_response: Literal["leave-running", "shut-down", "power-off"] | None = None
    admission_policy: AdmissionPolicy | None = None
    admission_mode: AdmissionMode | None = None
    admission_host_failures: int | None = None
    admission_percent: int | None = None
    guest_monitoring: GuestMonitoring | None = None
    guest_failure_after: _Duration | None = None
    guest_io_quiet: _Duration | None = None
    guest_min_uptime: _Duration | None = None
    guest_resets_per_hour: int | None = None


class _Paths(_Table):
    run: Path = Path("/run/outlast")
    state: Path = Path("/var/lib/outlast")


class _Hypervisor(_Table):
    uri: str = "qemu:///system"
    migration_uri: str = "qemu+tls://{address}/system"

    @field_validator("migration_uri")
    @classmethod
    def _names_the_host(cls, value: str) -> str:
        if "{address}" not in value:
            raise ValueError("must hold {address}, in the place of which the destination's address is put")
        return value


class _Watchdog(_Table):
    device: str = ""
    timeout: _Duration = SECOND


class _File(_Table):
    domain: _Domain
    host: _Host
    hosts: tuple[_Member, ...] = Field(min_length=1)
    datastores: tuple[_Datastore, ...] = Field(min_length=1)
    rules: tuple[_Rule, ...] = ()
    settings: _Settings = _Settings()
    paths: _Paths = _Paths()
    hypervisor: _Hypervisor = _Hypervisor()
    watchdog: _Watchdog = _Watchdog()


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """One host's settings, complete and consistent. `cluster_key` is None if it was not asked for."""

    path: Path
    domain: str
    host: HostMember
    hosts: tuple[HostMember, ...]
    datastores: tuple[DatastoreMember, ...]
    rules: tuple[Rule, ...]
    reserved_memory_mib: int
    reserved_cpu: int
    settings: Settings
    isolation_addresses: tuple[str, ...]
    cluster_key: bytes
    run_dir: str
    state_dir: str
    libvirt_uri: str
    migration_uri: str
    watchdog_device: str
    watchdog_timeout_s: int
    fencing: dict[HostId, tuple[FenceMethod, ...]] = {}

    @property
    def datastore_key(self) -> bytes:
        """The key that authenticates records on datastores."""
        return derive(self.cluster_key, "datastore")

    @property
    def keeper_socket(self) -> str:
        """Where the keeper answers its agent and the hook."""
        return f"{self.run_dir}/keeper.sock"

    @property
    def control_socket(self) -> str:
        """Where the agent answers `outlast status` and its kin."""
        return f"{self.run_dir}/agent.sock"

    @property
    def least_margin(self) -> Duration:
        """The least `lease_margin` in which this host's watchdog resets it; zero without one."""
        return watchdog_needs(self.watchdog_timeout_s) if self.watchdog_device else Duration(0)

    def for_keeper(self) -> KeeperConfig:
        """What the keeper needs, without its boot id and session; the domain's settings if this host has kept them."""
        kept = settings_file.load(self.state_dir)
        return KeeperConfig(
            domain=self.domain,
            host=self.host.id,
            name=self.host.name,
            hosts=self.hosts,
            datastores=self.datastores,
            settings=kept.settings if kept is not None else self.settings,
            settings_mark=kept.mark if kept is not None else SettingsMark(),
            closed=kept.closed(self.host.id) if kept is not None else "",
            datastore_key=self.datastore_key.hex(),
            run_dir=self.run_dir,
            state_dir=self.state_dir,
            watchdog_device=self.watchdog_device,
            watchdog_timeout_s=self.watchdog_timeout_s,
            enforcement=Enforcement.WATCHDOG if self.watchdog_device else Enforcement.KEEPER,
        )


def load_config(path: Path) -> Config:
    """Read and check a settings file. Raises UsageError that lists every problem, one to a line."""
    file = _parse(path)
    found = _relations(file)
    settings = Settings(**{key: value for key, value in file.settings.model_dump().items() if value is not None})
    found += [f"[settings] {sentence}" for sentence in problems(settings)]
    if file.watchdog.device:
        found += _watchdog_problems(file.watchdog.timeout, settings)
    found += [problem for member in file.hosts for problem in _fencing_problems(member)]
    key, key_problem = _read_key(file.domain.key_file)
    found += key_problem
    if found:
        raise _error(path, found)
    members = tuple(HostMember(HostId(m.id), HostName(m.name), m.address, m.port, m.labels, m.spare) for m in file.hosts)
    return Config(
        path=path,
        domain=file.domain.name,
        host=next(m for m in members if m.name == file.host.name),
        hosts=members,
        datastores=tuple(
            DatastoreMember(DatastoreName(d.name), str(d.path), d.in_flight_bound, d.accept_in_flight_risk)
            for d in file.datastores
        ),
        rules=tuple(rule.rule() for rule in file.rules),
        reserved_memory_mib=file.host.reserved_memory,
        reserved_cpu=round(file.host.reserved_cpus * 100),
        settings=settings,
        isolation_addresses=file.domain.isolation_addresses,
        cluster_key=key,
        run_dir=str(file.paths.run),
        state_dir=str(file.paths.state),
        libvirt_uri=file.hypervisor.uri,
        migration_uri=file.hypervisor.migration_uri,
        watchdog_device=file.watchdog.device,
        watchdog_timeout_s=file.watchdog.timeout // SECOND,
        fencing={HostId(m.id): tuple(_method(each) for each in m.fencing) for m in file.hosts if m.fencing},
    )


def _method(each: _Fencing) -> FenceMethod:
    words = {True: "1", False: "0"}
    parameters = {k: words[v] if isinstance(v, bool) else str(v) for k, v in each.parameters.items()}
    return FenceMethod(FenceLevel(each.agent, each.timeout), parameters, each.secrets)


def _fencing_problems(member: _Member) -> list[str]:
    return [
        f"[[hosts]] {member.name}, fencing number {i + 1}: timeout is {in_seconds(each.timeout):g}s: from 1s to 2min"
        for i, each in enumerate(member.fencing)
        if not SECOND <= each.timeout <= 120 * SECOND
    ]


def fencing_warnings(config: Config) -> list[str]:
    """Fence devices that would fail if they were needed now. No host stays down for that: the lease is proof too."""
    found: list[str] = []
    names = {member.id: member.name for member in config.hosts}
    for host, methods in config.fencing.items():
        for method in methods:
            if problem := missing(method.level.agent):
                found.append(f"{names[host]} could not be fenced: {problem}")
            for name, file in method.secrets.items():
                try:
                    file.read_text()
                except (OSError, UnicodeDecodeError) as error:
                    reason = error.strerror if isinstance(error, OSError) else "it is not text"
                    found.append(
                        f"{names[host]} could not be fenced: the file {file} of its {name} cannot be read ({reason})"
                    )
    return found


def _parse(path: Path) -> _File:
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        remedy = "name it with --config, or make it: see docs/setup.md"
        raise UsageError(f"there is no settings file {path}", remedy) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the settings file {path} cannot be read: {error}", "check the file and its mode") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the settings file {path} is not TOML: {error}", "correct that place") from None
    try:
        return _File.model_validate(content)
    except ValidationError as error:
        raise _error(path, [_sentence(each) for each in error.errors()]) from None


def _error(path: Path, found: list[str]) -> UsageError:
    lines = "\n".join(f"  - {sentence}" for sentence in found)
    return UsageError(f"{path} cannot be used:\n{lines}", "correct it; nothing was started or changed")


def _sentence(error: Any) -> str:
    location = error["loc"]
    numbered = [f"[{part}]" if isinstance(part, str) else f"number {part + 1}" for part in location[:-1]]
    where = " ".join([*numbered, str(location[-1])]) if location else "the file"
    match error["type"]:
        case "extra_forbidden":
            return f"{where} is not known: misspelt? {_nearest(location)}"
        case "missing":
            return f"{where} is missing"
        case "value_error":
            return f"{where} {error['ctx']['error']}"
        case _:
            return f"{where}: {error['msg']} (it is {error['input']!r})"


def _nearest(location: tuple[Any, ...]) -> str:
    import difflib

    tables: dict[str, type[BaseModel]] = {
        "settings": _Settings,
        "domain": _Domain,
        "host": _Host,
        "hosts": _Member,
        "datastores": _Datastore,
        "rules": _Rule,
        "paths": _Paths,
        "hypervisor": _Hypervisor,
        "watchdog": _Watchdog,
    }
    table = tables.get(str(location[0]), _File) if len(location) > 1 else _File
    near = difflib.get_close_matches(str(location[-1]), list(table.model_fields), 1)
    return f"the nearest is {near[0]}" if near else f"known are {', '.join(table.model_fields)}"


def _relations(file: _File) -> list[str]:
    found: list[str] = []
    for what, values in (
        ("[[hosts]] name", [m.name for m in file.hosts]),
        ("[[hosts]] id", [m.id for m in file.hosts]),
        ("[[hosts]] address and port", [f"{m.address}:{m.port}" for m in file.hosts]),
        ("[[datastores]] name", [d.name for d in file.datastores]),
        ("[[datastores]] path", [str(d.path) for d in file.datastores]),
    ):
        for value in sorted({v for v in values if values.count(v) > 1}):
            found.append(f"{what} {value} is there more than once: each must be its own")
    if file.host.name not in [m.name for m in file.hosts]:
        found.append(f"[host] name {file.host.name} is not among [[hosts]]: add it there, or correct it")
    for inner in file.datastores:
        for outer in file.datastores:
            if outer.path in inner.path.parents:
                found.append(f"[[datastores]] {inner.name} lies inside {outer.name} ({outer.path}): keep them apart")
    return found + _rule_problems(file)


def _rule_problems(file: _File) -> list[str]:
    found: list[str] = []
    names = [member.name for member in file.hosts]
    for i, each in enumerate(file.rules):
        where, rule = f"[[rules]] number {i + 1} ({each.kind})", each.rule()
        if wrong := problem(rule):
            found.append(f"{where} {wrong}")
        for vm in sorted({vm for vm in rule.vms if rule.vms.count(vm) > 1}):
            found.append(f"{where} names {vm} twice")
        for host in rule.hosts:
            if host not in names:
                found.append(f"{where} names the host {host}, which is not among [[hosts]]: known are {', '.join(names)}")
        if rule.by and not any(rule.by in member.labels for member in file.hosts):
            found.append(f"{where} wants VMs apart by {rule.by}, a label that no host has: give labels to [[hosts]]")
    return found


def _watchdog_problems(timeout: Duration, settings: Settings) -> list[str]:
    """Rule 6: a host whose keeper could not freeze must have been reset before anybody may take its VMs."""
    found: list[str] = []
    if timeout <= 0 or timeout % SECOND:
        found.append(f"[watchdog] timeout is {in_seconds(timeout):g}s, but watchdogs count in whole seconds: at least 1s")
    if timeout + RESET_TIME > settings.lease_margin:
        found.append(
            f"[watchdog] timeout ({in_seconds(timeout):g}s) and the reset ({in_seconds(RESET_TIME):g}s) do not fit in "
            f"lease_margin ({in_seconds(settings.lease_margin):g}s): lower the one or raise the other"
        )
    return found


def _read_key(path: Path) -> tuple[bytes, list[str]]:
    try:
        return parse_key(path.read_text()), []
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        return b"", [f"[domain] key_file {path} cannot be read ({reason}): make one with `openssl rand -hex 32`"]
    except ValueError as error:
        return b"", [f"[domain] key_file {path}: {error}; make one with `openssl rand -hex 32`"]
