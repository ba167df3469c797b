"""What a domain's XML means for Outlast: its disks, its home datastore, its policy, and whether it can be protected.

The policy is one element in libvirt's <metadata>:

    <outlast:vm xmlns:outlast="https://outlast.dev/ns/vm/1" protected="yes" isolation-response="power-off" priority="high"
                after="db1, db2" ready="delay:30s" max-restarts="1" max-relocations="-1" guest-monitoring="on" cpus="2"/>

A VM is protected unless it says protected="no". It can be protected only if every disk lies on a datastore of the fault
domain: on another host it could not be started otherwise.
"""

import posixpath
from typing import Any, NamedTuple, get_args
from xml.etree import ElementTree

import msgspec

from outlast.drivers.hypervisor.needs import NAMESPACE, needs_of, reservation_problem
from outlast.model.ids import DatastoreName, VmId, VmName
from outlast.model.inventory import DatastoreMember, VmDefinition
from outlast.model.policy import PRIORITIES, WITHOUT_END, Ready, VmPolicy, parse_ready
from outlast.model.settings import GuestMonitoring, IsolationResponse

_POLICY = f"metadata/{{{NAMESPACE}}}vm"
_RESPONSES: tuple[str, ...] = get_args(IsolationResponse)
_MONITORING: tuple[str, ...] = get_args(GuestMonitoring)
_DEFAULT = VmPolicy()
_UNITS = {"b": 1, "bytes": 1, "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30, "gib": 1 << 30}


class Policy(msgspec.Struct, frozen=True):
    """What an operator wants for one VM: whether it is protected, and how."""

    protected: bool = True
    how: VmPolicy = _DEFAULT


class PolicyFound(msgspec.Struct, frozen=True):
    """The policy in a definition, None if it has none; and what was wrong with it, in words."""

    policy: Policy | None
    problem: str = ""


def parse(xml: str) -> ElementTree.Element:
    """The definition's root element. It comes from libvirt, which has checked it; raises ElementTree.ParseError."""
    return ElementTree.fromstring(xml)  # noqa: S314


def find_policy(domain: ElementTree.Element) -> PolicyFound:
    """The policy element. A bad value is named, and the careful choice is taken in its place: protected, the default."""
    element = domain.find(_POLICY)
    if element is None:
        return PolicyFound(None)
    problems: list[str] = []
    protected = element.get("protected", "yes")
    if protected not in ("yes", "no"):
        problems.append(f"protected is {protected!r}, and must be yes or no: it counts as yes")
    how = VmPolicy(
        priority=_one_of(element, "priority", PRIORITIES, _DEFAULT.priority, problems),
        after=_names(element, domain.findtext("name", ""), problems),
        ready=_ready(element, problems),
        max_restarts=_times(element, "max-restarts", _DEFAULT.max_restarts, problems),
        max_relocations=_times(element, "max-relocations", _DEFAULT.max_relocations, problems),
        isolation_response=_one_of(element, "isolation-response", _RESPONSES, None, problems),
        guest_monitoring=_one_of(element, "guest-monitoring", _MONITORING, None, problems),
    )
    if wrong := reservation_problem(domain):
        problems.append(wrong)
    return PolicyFound(Policy(protected != "no", how), "; ".join(problems))


def policy_element(policy: Policy, domain: ElementTree.Element | None = None) -> str:
    """The element for libvirt's <metadata> that says all of this, without a namespace: libvirt adds the caller's.

    What the policy element of `domain` says beside it (cpus="2") stays.
    """
    how = policy.how
    said = {
        "protected": "" if policy.protected else "no",
        "isolation-response": how.isolation_response or "",
        "guest-monitoring": how.guest_monitoring or "",
        "priority": how.priority if how.priority != _DEFAULT.priority else "",
        "after": ", ".join(how.after),
        "ready": str(how.ready) if how.ready != _DEFAULT.ready else "",
        "max-restarts": str(how.max_restarts) if how.max_restarts != _DEFAULT.max_restarts else "",
        "max-relocations": str(how.max_relocations) if how.max_relocations != _DEFAULT.max_relocations else "",
    }
    before = domain.find(_POLICY) if domain is not None else None
    kept = {name: value for name, value in before.items() if name not in said} if before is not None else {}
    element = ElementTree.Element("vm", kept | {name: value for name, value in said.items() if value})
    return ElementTree.tostring(element, encoding="unicode")


def _one_of(element: ElementTree.Element, name: str, words: tuple[str, ...], otherwise: Any, problems: list[str]) -> Any:
    value = element.get(name)
    if value is None or value in words:
        return value if value is not None else otherwise
    used = f"it counts as {otherwise}" if otherwise is not None else "it is not used"
    problems.append(f"{name} is {value!r}, and must be one of {', '.join(words)}: {used}")
    return otherwise


def _names(element: ElementTree.Element, own: str, problems: list[str]) -> tuple[VmName, ...]:
    names = [name for part in element.get("after", "").split(",") if (name := part.strip())]
    if own in names:
        problems.append("after names the VM itself: that is left out")
    return tuple(VmName(name) for name in dict.fromkeys(names) if name != own)


def _ready(element: ElementTree.Element, problems: list[str]) -> Ready:
    value = element.get("ready")
    try:
        return parse_ready(value) if value is not None else _DEFAULT.ready
    except ValueError as error:
        problems.append(f"ready: {error}; it counts as {_DEFAULT.ready}")
        return _DEFAULT.ready


def _times(element: ElementTree.Element, name: str, otherwise: int, problems: list[str]) -> int:
    value = element.get(name)
    if value is None:
        return otherwise
    if value.isdecimal() or value == str(WITHOUT_END):
        return int(value)
    problems.append(f"{name} is {value!r}, and must be a number from 0, or -1 for without end: it counts as {otherwise}")
    return otherwise


class DiskSource(NamedTuple):
    """A disk with a medium: its path, or why it cannot be protected; and whether the domain alone may write to it."""

    path: str
    problem: str
    alone: bool


def disk_sources(domain: ElementTree.Element) -> list[DiskSource]:
    """The domain's disks, in order."""
    found: list[DiskSource] = []
    for disk in domain.findall("devices/disk"):
        source = disk.find("source")
        target = disk.find("target")
        name = target.get("dev", "?") if target is not None else "?"
        if source is None:
            continue  # An empty drive.
        path = source.get("file")
        alone = disk.find("readonly") is None and disk.find("shareable") is None
        if path:
            found.append(DiskSource(posixpath.normpath(path), "", alone))
        else:
            kind = disk.get("type", "?")
            problem = f"its disk {name} is of type {kind}, and only files on a datastore can be followed"
            found.append(DiskSource("", problem, alone))
    return found


def home_of(path: str, datastores: tuple[DatastoreMember, ...]) -> DatastoreName | None:
    """The datastore that a path lies on, None if on none."""
    for datastore in datastores:
        if path.startswith(datastore.path.rstrip("/") + "/"):
            return datastore.name
    return None


def writes_of(domain: ElementTree.Element, datastores: tuple[DatastoreMember, ...]) -> tuple[str, ...]:
    """The paths, on datastores, of the disks that the domain alone may write to."""
    return tuple(d.path for d in disk_sources(domain) if d.alone and home_of(d.path, datastores) is not None)


def define(xml: str, policy: Policy, datastores: tuple[DatastoreMember, ...]) -> VmDefinition:
    """The VM as Outlast sees it. Raises ElementTree.ParseError."""
    domain = parse(xml)
    name = VmName(domain.findtext("name", "?"))
    homes: list[DatastoreName] = []
    why = ""
    for disk in disk_sources(domain):
        home = home_of(disk.path, datastores)
        if home is None:
            why = why or disk.problem or f"its disk {disk.path} is not on a datastore of the fault domain: move it to one"
        elif home not in homes:
            homes.append(home)
    memory = _memory_mib(domain)
    if not homes and not why:
        why = "it has no disk on a datastore of the fault domain, which would keep its register"
    return VmDefinition(
        vm=VmId(domain.findtext("uuid", "")),
        name=name,
        home=homes[0] if homes else None,
        datastores=tuple(homes),
        memory_mib=memory,
        protected=policy.protected and not why,
        unprotectable=why,
        policy=policy.how,
        xml=xml,
        needs=needs_of(domain, memory, tuple(homes)),
        writes=writes_of(domain, datastores),
    )


def _memory_mib(domain: ElementTree.Element) -> int:
    element = domain.find("memory")
    if element is None or not (element.text or "").strip().isdigit():
        return 0
    unit = _UNITS.get(element.get("unit", "KiB").lower(), 1 << 10)
    return int((element.text or "0").strip()) * unit >> 20
