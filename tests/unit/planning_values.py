"""Small snapshots for the tests of planning, and hypothesis strategies for larger ones."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from outlast.model.ids import DatastoreName, HostId, HostName, VmId, VmName
from outlast.model.inventory import HostMember, Needs
from outlast.model.planning import PlanHost, PlanVm, Snapshot
from outlast.model.rules import Rule
from outlast.protocol.planning.rulebook import resolve

DS = (DatastoreName("ds1"), DatastoreName("ds2"))


def host(name: str, memory: int = 8192, cpus: int = 8, **more: Any) -> PlanHost:
    """An empty host that reaches everything."""
    facts = {
        "memory_mib": memory,
        "free_memory_mib": memory,
        "cpu": cpus * 100,
        "free_cpu": cpus * 100,
        "free_reserved_cpu": cpus * 100,
        "leases": frozenset(DS),
    }
    return PlanHost(id=HostId(name), name=HostName(name), **(facts | more))


def vm(name: str, memory: int = 1024, cpus: float = 1, **more: Any) -> PlanVm:
    """A VM that needs a host, or runs on `on`, which the snapshot's hosts must have room for."""
    on = more.pop("on", None)
    cpu = round(cpus * 100)
    needs = Needs(memory_mib=memory, cpu=cpu, reserved_cpu=more.pop("reserved", cpu), datastores=more.pop("stores", DS[:1]))
    return PlanVm(vm=VmId(name), name=VmName(name), needs=needs, host=HostId(on) if on else None, **more)


def rule(kind: Any, *vms: str, hosts: dict[str, int] | None = None, **more: Any) -> Rule:
    named = {HostName(name): value for name, value in (hosts or {}).items()}
    return Rule(kind=kind, vms=tuple(VmName(name) for name in vms), hosts=named, **more)


def member(name: str, **labels: str) -> HostMember:
    return HostMember(HostId(name), HostName(name), "192.0.2.1", 7710, labels)


def domain(hosts: list[PlanHost], vms: list[PlanVm], *rules: Rule) -> Snapshot:
    """A snapshot whose hosts have the room that their VMs leave."""
    filled = []
    for each in hosts:
        there = [v.needs for v in vms if v.host == each.id]
        memory, cpu = sum(n.memory_mib for n in there), sum(n.cpu for n in there)
        reserved = sum(n.reserved_cpu for n in there)
        filled.append(
            PlanHost(
                **{name: getattr(each, name) for name in each.__struct_fields__}
                | {
                    "free_memory_mib": each.free_memory_mib - memory,
                    "free_cpu": each.free_cpu - cpu,
                    "free_reserved_cpu": each.free_reserved_cpu - reserved,
                }
            )
        )
    members = [HostMember(h.id, h.name, "", 1, h.labels) for h in hosts]
    return Snapshot(hosts=tuple(filled), vms=tuple(vms), rules=resolve(rules, members).rules)


@st.composite
def snapshots(draw: st.DrawFn, most_hosts: int = 5, most_vms: int = 12, rules: bool = True) -> Snapshot:
    """Domains of a few hosts, some of whose VMs run, with rules."""
    names = [f"host{i + 1}" for i in range(draw(st.integers(1, most_hosts)))]
    reach = st.sampled_from([frozenset(DS), frozenset(DS), frozenset(DS[:1])])
    hosts = [
        host(
            name,
            memory=draw(st.sampled_from([2048, 4096, 8192])),
            cpus=draw(st.sampled_from([2, 4, 8])),
            leases=draw(reach),
            labels={"rack": draw(st.sampled_from(["r1", "r2"]))},
            kept_empty=draw(st.sampled_from(["", "", "", "", "", "it is in maintenance"])),
            last_resort=draw(st.sampled_from(["", "", "", "it failed often"])),
        )
        for name in names
    ]
    vms: list[PlanVm] = []
    for i in range(draw(st.integers(1, most_vms))):
        cpus = draw(st.sampled_from([0.5, 1, 2]))
        vms.append(
            vm(
                f"vm{i + 1}",
                memory=draw(st.sampled_from([512, 1024, 2048, 3000])),
                cpus=cpus,
                reserved=draw(st.sampled_from([0, round(cpus * 100)])),
                stores=draw(st.sampled_from([DS[:1], DS[:1], DS])),
                tier=draw(st.integers(0, 2)),
                on=draw(st.sampled_from([None, None, *names])),
                failed_on=frozenset(draw(st.lists(st.sampled_from([HostId(n) for n in names]), max_size=1))),
            )
        )
    written = draw(st.lists(_rules([v.name for v in vms], names), max_size=5)) if rules and len(vms) > 1 else []
    return domain(hosts, vms, *written)


def _rules(vms: list[VmName], hosts: list[str]) -> st.SearchStrategy[Rule]:
    some = st.lists(st.sampled_from(vms), min_size=2, max_size=4, unique=True).map(tuple)
    where = st.dictionaries(st.sampled_from([HostName(h) for h in hosts]), st.integers(1, 3), min_size=1)
    required = st.booleans()
    about_vms = st.builds(
        Rule, kind=st.sampled_from(["keep-apart", "keep-apart", "keep-together"]), vms=some, required=required
    )
    by_rack = st.builds(Rule, kind=st.just("keep-apart"), vms=some, required=required, by=st.just("rack"))
    about_hosts = st.builds(Rule, kind=st.sampled_from(["run-on", "avoid"]), vms=some, hosts=where, required=required)
    return st.one_of(about_vms, by_rack, about_hosts)
