"""What a VM needs of a host: as its definition says it, as it is measured, and as lists of older releases have it."""

from __future__ import annotations

import pytest

from outlast.drivers.hypervisor.domains import find_policy, parse
from outlast.drivers.hypervisor.needs import NAMESPACE, CpuUse, needs_of
from outlast.model.ids import DatastoreName, HostId, VmId, VmName
from outlast.model.inventory import Needs
from outlast.model.records import PoweredVm, ProtectedVm
from outlast.protocol import domain_snapshot

STORES = (DatastoreName("ds1"), DatastoreName("ds2"))


def domain(*, kind: str = "kvm", policy: str = "", cpu: str = "", interfaces: str = "") -> str:
    metadata = f"<metadata><o:vm xmlns:o='{NAMESPACE}' {policy}/></metadata>"
    return f"<domain type='{kind}'><name>web</name>{metadata}{cpu}<devices>{interfaces}</devices></domain>"


def needs(**parts: str) -> Needs:
    return needs_of(parse(domain(**parts)), 2048, STORES)


def test_cpu_is_reserved_by_the_policy_alone() -> None:
    assert needs() == Needs(memory_mib=2048, datastores=STORES)
    assert (needs(policy="cpus='2'").reserved_cpu, needs(policy="cpus='0.5'").cpu) == (200, 50)


def test_nonsense_is_named_and_reserves_nothing() -> None:
    text = domain(policy="cpus='many'")
    assert needs_of(parse(text), 1, ()).reserved_cpu == 0
    assert "cpus is 'many'" in find_policy(parse(text)).problem
    assert find_policy(parse(domain(policy="cpus='4'"))).problem == ""


def test_networks_bridges_and_devices() -> None:
    interfaces = """<interface type='network'><source network='lan' portid='x' bridge='virbr0'/></interface>
        <interface type='bridge'><source bridge='br0'/></interface>
        <interface type='direct'><source dev='eth0' mode='bridge'/></interface>
        <interface type='user'/>"""
    assert needs(interfaces=interfaces).networks == ("bridge:br0", "device:eth0", "network:lan")


@pytest.mark.parametrize(
    ("kind", "cpu", "model"),
    [
        ("kvm", "<cpu mode='custom'><model fallback='forbid'>Haswell</model></cpu>", "Haswell"),
        ("kvm", "<cpu><model>Haswell</model></cpu>", "Haswell"),
        ("kvm", "<cpu mode='host-passthrough'/>", ""),
        ("qemu", "<cpu mode='custom'><model>Haswell</model></cpu>", ""),
        ("kvm", "", ""),
    ],
)
def test_a_named_cpu_model_binds_kvm_guests(kind: str, cpu: str, model: str) -> None:
    assert needs(kind=kind, cpu=cpu).cpu_model == model


def test_the_use_of_cpu_is_measured_over_a_while_and_does_not_flutter() -> None:
    use, vm = CpuUse(), VmId("v")
    assert use.observe(vm, 0, 0.0) == 0
    assert use.observe(vm, 10**10, 10.0) == 0, "too soon"
    assert use.observe(vm, 4 * 10**10, 40.0) == 100
    assert use.observe(vm, 4 * 10**10 + 33 * 10**9, 70.0) == 125, "1.1 cores, rounded up"
    assert use.observe(vm, 4 * 10**10 + 63 * 10**9, 100.0) == 125, "the larger of the last two"
    assert use.observe(vm, 4 * 10**10 + 93 * 10**9, 130.0) == 125, "one step down is no news"
    assert use.observe(vm, 4 * 10**10 + 94 * 10**9, 160.0) == 125
    assert use.observe(vm, 4 * 10**10 + 95 * 10**9, 190.0) == 25
    assert use.observe(vm, 5, 220.0) == 0, "another process"
    use.keep([])
    assert use.observe(vm, 10**12, 300.0) == 0


def test_an_older_list_says_memory_and_home_alone() -> None:
    line = PoweredVm(VmId("v"), VmName("web"), STORES[0], None, "running", 512, True)
    assert domain_snapshot.needs_of(line, line.home) == Needs(memory_mib=512, datastores=STORES[:1])
    entry = ProtectedVm(VmId("v"), VmName("web"), 512, HostId("h"), needs=Needs(memory_mib=700, cpu=50, datastores=STORES))
    assert domain_snapshot.needs_of(entry, STORES[0]) == Needs(memory_mib=700, cpu=50, datastores=STORES)
