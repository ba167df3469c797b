"""What `outlast status` shows, as Prometheus reads it: names and units as its conventions ask for.

One scrape asks this host's agent once. An agent that does not answer is `outlast_up 0`, and nothing else is told: old
figures that look new would be worse than none.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from outlast.interfaces.local_agent import ask
from outlast.model.errors import OutlastError
from outlast.model.latency import BOUNDS_MS, Latencies
from outlast.model.status import DatastoreStatus, DomainStatus, HostStatus, VmStatus
from outlast.protocol.verdict import Verdict
from outlast.runtime.control import ControlRequest

MIB = 1 << 20
VM_STATES = ("running", "starting", "frozen", "lost", "restarting", "waiting", "failed", "stopped", "unknown")
"""Those that are always told, also of no VM."""


def registry_of(path: Path) -> CollectorRegistry:
    """What is to be scraped of the agent that listens at `path`."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Status(path))
    return registry


class _Status(Collector):
    def __init__(self, path: Path) -> None:
        self._path = path

    def collect(self) -> Iterator[Metric]:
        """Ask the agent, and tell what it says."""
        try:
            status = ask(self._path, ControlRequest("status")).status
        except OutlastError:
            status = None
        yield GaugeMetricFamily("outlast_up", "Whether this host's agent answers", value=float(status is not None))
        if status is not None:
            yield from domain_metrics(status)
            yield from host_metrics(status.hosts)
            yield from datastore_metrics(status.datastores)
            yield from vm_metrics(status.vms)


def domain_metrics(status: DomainStatus) -> Iterator[Metric]:
    """The fault domain as a whole, as this host's agent sees it."""
    about = {"domain": status.domain, "host": status.seen_from, "version": status.version, "primary": status.primary}
    yield InfoMetricFamily("outlast_domain", "Who sees what follows, and who is primary", value=about)
    if status.outlook is not None:
        count, short = float(status.outlook.survives), float(bool(status.outlook.short))
        text = "How many hosts, whichever they are, may be lost now so that everything finds a place"
        yield GaugeMetricFamily("outlast_survivable_host_failures", text, value=count)
        text = "Whether less is set aside for failures than the admission policy asks for"
        yield GaugeMetricFamily("outlast_capacity_short", text, value=short)
    paused = float(status.paused is not None)
    yield GaugeMetricFamily("outlast_paused", "Whether an operator holds all automatic recovery", value=paused)
    yield GaugeMetricFamily("outlast_isolated", "Whether this host hears no other one", value=float(status.isolated))
    yield GaugeMetricFamily("outlast_problems", "How many problems `outlast status` tells of", value=len(status.problems))
    yield GaugeMetricFamily("outlast_settings_version", "Of the fault domain's settings", value=status.settings_version)
    dropped = CounterMetricFamily("outlast_dropped_datagrams", "Datagrams that were not believed", labels=["reason"])
    for reason, number in sorted(status.dropped_datagrams.items()):
        dropped.add_metric([reason], number)
    yield dropped


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"outlast_{name}", text, labels=labels)


def host_metrics(hosts: tuple[HostStatus, ...]) -> Iterator[Metric]:
    """Every host, by its name."""
    verdict = _gauge("host_verdict", "1 for the verdict about this host, 0 for every other one", "host", "verdict")
    primary = _gauge("host_primary", "Whether this host is primary", "host")
    empty = _gauge("host_kept_empty", "Whether this host gets no virtual machines", "host")
    vms = _gauge("host_vms", "Virtual machines on this host", "host")
    memory = _gauge("host_memory_bytes", "Memory of this host", "host")
    free = _gauge("host_memory_free_bytes", "Memory that is free on this host", "host")
    for host in hosts:
        for each in Verdict:
            verdict.add_metric([host.name, each.value], float(host.verdict == each.value))
        primary.add_metric([host.name], float(host.primary))
        empty.add_metric([host.name], float(bool(host.kept_empty)))
        vms.add_metric([host.name], host.vms)
        if host.memory_mib:
            memory.add_metric([host.name], host.memory_mib * MIB)
            free.add_metric([host.name], host.free_memory_mib * MIB)
    yield from (verdict, primary, empty, vms, memory, free)


def datastore_metrics(datastores: tuple[DatastoreStatus, ...]) -> Iterator[Metric]:
    """Every datastore, as this host reaches it."""
    reachable = _gauge("datastore_reachable", "Whether this host reaches this datastore", "datastore")
    free = _gauge("datastore_free_bytes", "What is free on this datastore", "datastore")
    held = _gauge("datastore_lease_held", "Whether this host holds its lease here", "datastore")
    left = _gauge("datastore_lease_left_seconds", "How long that lease is good for", "datastore")
    writes = HistogramMetricFamily(
        "outlast_heartbeat_write_seconds", "How long this host's heartbeat writes take", labels=["datastore"]
    )
    for each in datastores:
        reachable.add_metric([each.name], float(each.reachable))
        if each.reachable:
            free.add_metric([each.name], each.free_bytes)
        held.add_metric([each.name], float(each.lease_held))
        if each.lease_left_s is not None:
            left.add_metric([each.name], each.lease_left_s)
        if each.writes is not None:
            writes.add_metric([each.name], _buckets(each.writes), each.writes.total_ms / 1000)
    yield from (reachable, free, held, left, writes)


def _buckets(writes: Latencies) -> list[tuple[str, float]]:
    """As Prometheus counts: each bucket holds those before it as well."""
    bounds = [*(str(bound / 1000) for bound in BOUNDS_MS), "+Inf"]
    return [(bound, float(count)) for bound, count in zip(bounds, accumulate(writes.counts), strict=True)]


def vm_metrics(vms: tuple[VmStatus, ...]) -> Iterator[Metric]:
    """Every virtual machine, by its name and uuid, and how many there are in each state."""
    states = _gauge("vms", "Virtual machines in this state", "state")
    running = _gauge("vm_running", "Whether it runs", "vm", "uuid")
    protected = _gauge("vm_protected", "Whether it is restarted when its host dies", "vm", "uuid")
    age = _gauge("vm_lease_age_seconds", "Since its owner's lease was last seen renewed", "vm", "uuid")
    counts = Counter(vm.state for vm in vms)
    for state in (*VM_STATES, *sorted(set(counts) - set(VM_STATES))):
        states.add_metric([state], counts[state])
    for vm in vms:
        running.add_metric([vm.name, vm.uuid], float(vm.state == "running"))
        protected.add_metric([vm.name, vm.uuid], float(vm.protected))
        if vm.lease_age_s is not None:
            age.add_metric([vm.name, vm.uuid], vm.lease_age_s)
    yield from (states, running, protected, age)
