"""What a domain's XML means for Outlast: its disks, its home datastore, its policy, and whether it can be protected.

The policy is one element in libvirt's <metadata>:

    <outlast:vm xmlns:outlast="https://outlast.dev/ns/vm/1" protected="yes" isolation-response="power-off" cpus="2"/>

A VM is protected unless it says protected="no". It can be protected only if every disk lies on a datastore of the fault
domain: on another host it could not be started otherwise.
"""

import posixpath
from typing import get_args
from xml.etree import ElementTree

import msgspec

from outlast.drivers.hypervisor.needs import NAMESPACE, needs_of, reservation_problem
from outlast.model.ids import DatastoreName, VmId, VmName
from outlast.model.inventory import DatastoreMember, VmDefinition
from outlast.model.settings import IsolationResponse

_POLICY = f"metadata/{{{NAMESPACE}}}vm"
_RESPONSES: tuple[str, ...] = get_args(IsolationResponse)
_UNITS = {"b": 1, "bytes": 1, "k": 1 << 10, "kib": 1 << 10, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30, "gib": 1 << 30}


class Policy(msgspec.Struct, frozen=True):
    """What an operator wants for one VM. `isolation_response` None: the fault domain's."""

    protected: bool = True
    isolation_response: IsolationResponse | None = None


class PolicyFound(msgspec.Struct, frozen=True):
    """The policy in a definition, None if it has none; and what was wrong with it, in words."""

    policy: Policy | None
    problem: str = ""


def parse(xml: str) -> ElementTree.Element:
    """The definition's root element. It comes from libvirt, which has checked it; raises ElementTree.ParseError."""
    return ElementTree.fromstring(xml)  # noqa: S314


def find_policy(domain: ElementTree.Element) -> PolicyFound:
    """The policy element. A bad value is named, and the careful choice is taken in its place: protected."""
    element = domain.find(_POLICY)
    if element is None:
        return PolicyFound(None)
    problems: list[str] = []
    protected = element.get("protected", "yes")
    if protected not in ("yes", "no"):
        problems.append(f"protected is {protected!r}, and must be yes or no: it counts as yes")
    response = element.get("isolation-response")
    if response is not None and response not in _RESPONSES:
        problems.append(f"isolation-response is {response!r}, and must be one of {', '.join(_RESPONSES)}: it is not used")
        response = None
    if wrong := reservation_problem(domain):
        problems.append(wrong)
    typed = msgspec.convert(response, IsolationResponse | None)
    return PolicyFound(Policy(protected != "no", typed), "; ".join(problems))


def disk_sources(domain: ElementTree.Element) -> list[tuple[str, str]]:
    """(path, why it cannot be protected) per disk with a medium, in order; one of the two is empty."""
    found: list[tuple[str, str]] = []
    for disk in domain.findall("devices/disk"):
        source = disk.find("source")
        target = disk.find("target")
        name = target.get("dev", "?") if target is not None else "?"
        if source is None:
            continue  # An empty drive.
        path = source.get("file")
        if path:
            found.append((posixpath.normpath(path), ""))
        else:
            kind = disk.get("type", "?")
            found.append(("", f"its disk {name} is of type {kind}, and only files on a datastore can be followed"))
    return found


def home_of(path: str, datastores: tuple[DatastoreMember, ...]) -> DatastoreName | None:
    """The datastore that a path lies on, None if on none."""
    for datastore in datastores:
        if path.startswith(datastore.path.rstrip("/") + "/"):
            return datastore.name
    return None


def define(xml: str, policy: Policy, datastores: tuple[DatastoreMember, ...]) -> VmDefinition:
    """The VM as Outlast sees it. Raises ElementTree.ParseError."""
    domain = parse(xml)
    name = VmName(domain.findtext("name", "?"))
    homes: list[DatastoreName] = []
    why = ""
    for path, problem in disk_sources(domain):
        home = home_of(path, datastores) if path else None
        if home is None:
            why = why or problem or f"its disk {path} is not on a datastore of the fault domain: move it to one"
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
        isolation_response=policy.isolation_response,
        xml=xml,
        needs=needs_of(domain, memory, tuple(homes)),
    )


def _memory_mib(domain: ElementTree.Element) -> int:
    element = domain.find("memory")
    if element is None or not (element.text or "").strip().isdigit():
        return 0
    unit = _UNITS.get(element.get("unit", "KiB").lower(), 1 << 10)
    return int((element.text or "0").strip()) * unit >> 20
