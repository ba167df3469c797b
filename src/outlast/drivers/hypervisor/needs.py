"""What a domain needs of the host that it runs on: memory, CPU, datastores, networks, a CPU model.

CPU is reserved by an attribute of the policy element, cpus="2"; how many virtual CPUs a domain has says only how much it
could use at most, and most hosts promise more of those than they have. What it really uses is measured (`CpuUse`).
"""

import re
from collections.abc import Iterable
from xml.etree import ElementTree

import msgspec

from outlast.model.ids import DatastoreName, VmId
from outlast.model.inventory import Needs, VmDefinition

NAMESPACE = "https://outlast.dev/ns/vm/1"
MEASURED_FOR_S = 30.0
"""The shortest time over which the use of CPU is measured."""
STEP = 25
"""Hundredths of a core: what is measured is rounded up to these, so that lists are not written anew all the time."""


def needs_of(domain: ElementTree.Element, memory_mib: int, datastores: tuple[DatastoreName, ...]) -> Needs:
    """As the definition says it; what is measured comes on top."""
    reserved = reserved_cpu(domain)
    return Needs(
        memory_mib=memory_mib,
        cpu=reserved,
        reserved_cpu=reserved,
        datastores=datastores,
        networks=tuple(sorted(set(_networks(domain)))),
        cpu_model=_cpu_model(domain),
    )


def reserved_cpu(domain: ElementTree.Element) -> int:
    """Hundredths of a core; 0 if the policy element does not say, or says nonsense (`reservation_problem`)."""
    said = _said(domain)
    return round(float(said) * 100) if re.fullmatch(r"\d{1,4}(\.\d+)?", said) else 0


def reservation_problem(domain: ElementTree.Element) -> str:
    """What is wrong with cpus="..." in the policy element, in words."""
    said = _said(domain)
    if not said or re.fullmatch(r"\d{1,4}(\.\d+)?", said):
        return ""
    return f"cpus is {said!r}, and must be a number of cores like 2 or 0.5: nothing is reserved"


def _said(domain: ElementTree.Element) -> str:
    element = domain.find(f"metadata/{{{NAMESPACE}}}vm")
    return element.get("cpus", "") if element is not None else ""


def _networks(domain: ElementTree.Element) -> Iterable[str]:
    """The networks, bridges and devices that its interfaces hang on, as `host_facts.networks` names them."""
    for source in domain.findall("devices/interface/source"):
        for attribute, kind in (("network", "network"), ("bridge", "bridge"), ("dev", "device")):
            if name := source.get(attribute):
                yield f"{kind}:{name}"
                break


def _cpu_model(domain: ElementTree.Element) -> str:
    """The named model that its guest was promised; the host's own, or emulated ones, every host has."""
    cpu = domain.find("cpu")
    if cpu is None or domain.get("type") != "kvm" or cpu.get("mode", "custom") != "custom":
        return ""
    return (cpu.findtext("model") or "").strip()


class _Seen(msgspec.Struct):
    """The CPU time of a VM at some time, and what it used in the last two intervals before."""

    cpu_ns: int
    at_s: float
    last: int = 0
    told: int = 0


class CpuUse:
    """What running VMs use of the CPU, measured from their CPU time: the larger of the last two intervals."""

    def __init__(self) -> None:
        self._seen: dict[VmId, _Seen] = {}

    def observe(self, vm: VmId, cpu_ns: int, at_s: float) -> int:
        """Hundredths of a core, rounded up; 0 until it could be measured."""
        seen = self._seen.get(vm)
        if seen is None or cpu_ns < seen.cpu_ns:
            seen = self._seen[vm] = _Seen(cpu_ns, at_s)
        elif at_s - seen.at_s >= MEASURED_FOR_S:
            used = round((cpu_ns - seen.cpu_ns) / (at_s - seen.at_s) / 1e7)
            rounded = -(-max(used, seen.last) // STEP) * STEP
            # Downwards only by more than one step: what swings around a step is no news.
            if rounded > seen.told or rounded < seen.told - STEP:
                seen.told = rounded
            seen.cpu_ns, seen.at_s, seen.last = cpu_ns, at_s, used
        return seen.told

    def keep(self, running: Iterable[VmId]) -> None:
        """Forget the others."""
        left = set(running)
        self._seen = {vm: seen for vm, seen in self._seen.items() if vm in left}


def with_use(definition: VmDefinition, cpu: int) -> VmDefinition:
    """The VM with what it was seen to use, if that is more than what is reserved for it."""
    needs = definition.needs
    if cpu <= needs.cpu:
        return definition
    return msgspec.structs.replace(definition, needs=msgspec.structs.replace(needs, cpu=cpu))
