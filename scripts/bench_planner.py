"""How fast the planner is, and how good: the greedy answer, the optimised one, and CP-SAT's bound. `make bench-planner`.

Domains of one seed in which not all fit: the VMs need together as much memory or CPU as there is, or a fifth more, on hosts
of three sizes that do not all reach every datastore. One VM in twenty stands in each kind of rule, half of them required;
one in ten is of the most important tier, three in ten are of the least. The greedy time is processor time of one core,
the median of five; the optimised one is wall clock. A bound that is the number of VMs is none.
"""

import argparse
import random
import statistics
import sys
import time

import click

from outlast.drivers.optimiser import load, optimise
from outlast.model.errors import OutlastError
from outlast.model.ids import DatastoreName, HostId, HostName, VmId, VmName
from outlast.model.inventory import Needs
from outlast.model.planning import PlanHost, PlanVm, Snapshot
from outlast.model.rules import Rule
from outlast.protocol.planning.planner import make_plan
from outlast.protocol.planning.problem import Problem

SIZES = ((8, 60), (16, 150), (32, 400), (64, 1000), (1000, 10_000))
FILLS = (1.0, 1.2)
"""What is needed, as a share of what there is, of the scarcer of memory and CPU."""
STORES = [DatastoreName(f"ds{i}") for i in range(4)]
TIERS = (0, *[1] * 6, *[2] * 3)


def domain(hosts: int, vms: int, fill: float, seed: int = 1) -> Snapshot:
    """One domain in which nothing runs yet."""
    rng = random.Random(f"{seed} {hosts}")  # noqa: S311
    wanted = [_vm(rng, i) for i in range(vms)]
    memory = sum(vm.needs.memory_mib for vm in wanted) / hosts / fill
    cpu = sum(vm.needs.cpu for vm in wanted) / hosts / fill
    return Snapshot(
        hosts=tuple(_host(rng, i, memory, cpu) for i in range(hosts)), vms=tuple(wanted), rules=_rules(rng, hosts, vms)
    )


def _vm(rng: random.Random, i: int) -> PlanVm:
    cpu = rng.choice((50, 100, 200, 400))
    needs = Needs(
        memory_mib=rng.choice((1, 2, 4, 8, 16)) << 10, cpu=cpu, reserved_cpu=cpu, datastores=(rng.choice(STORES),)
    )
    return PlanVm(vm=VmId(f"vm{i}"), name=VmName(f"vm{i}"), needs=needs, tier=rng.choice(TIERS))


def _host(rng: random.Random, i: int, memory: float, cpu: float) -> PlanHost:
    size = (0.75, 1, 1.25)[i % 3]
    return PlanHost(
        id=HostId(f"host{i}"),
        name=HostName(f"host{i}"),
        labels={"rack": f"r{i % 4}"},
        memory_mib=round(memory * size),
        free_memory_mib=round(memory * size),
        cpu=round(cpu * size),
        free_cpu=round(cpu * size),
        free_reserved_cpu=round(cpu * size),
        leases=frozenset(name for name in STORES if rng.randrange(20)),
    )


def _rules(rng: random.Random, hosts: int, vms: int) -> tuple[Rule, ...]:
    names = [VmName(f"vm{i}") for i in range(vms)]
    where = [HostName(f"host{i}") for i in range(hosts)]
    rules: list[Rule] = []
    for i in range(vms // 60):
        required = i % 2 == 0
        rules.append(Rule(kind="keep-apart", vms=tuple(rng.sample(names, 3)), required=required))
        rules.append(Rule(kind="keep-together", vms=tuple(rng.sample(names, 3)), required=required))
        for kind in ("run-on", "avoid"):
            some = dict.fromkeys(rng.sample(where, max(2, hosts // 4)), 1)
            rules.append(Rule(kind=kind, vms=tuple(rng.sample(names, 3)), hosts=some, required=required))
    return tuple(rules)


HEAD = "  hosts x VMs needed |    greedy  placed | optimised  placed   bound | of the bound: greedy, optimised"


def main() -> int:
    """One line for each size and fill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time-limit", type=float, default=25.0, help="seconds for CP-SAT, for each domain")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    try:
        load()
    except OutlastError as error:
        click.echo(error, err=True)
        return 1
    click.echo(f"seed {asked.seed}, {asked.time_limit:g} s for CP-SAT and two threads\n{HEAD}")
    for hosts, vms in SIZES:
        for fill in FILLS:
            problem = Problem(domain(hosts, vms, fill, asked.seed))
            times, placed = _greedy(problem)
            click.echo(f"{f'{hosts} x {vms}':>13} {fill:6.0%} | {times * 1000:6.1f} ms {placed:7} | ", nl=False)
            click.echo(_optimised(problem, placed, asked.time_limit))
    return 0


def _greedy(problem: Problem) -> tuple[float, int]:
    times: list[float] = []
    for _ in range(5):
        began = time.process_time()
        plan = make_plan(problem)
        times.append(time.process_time() - began)
    return statistics.median(times), len(plan.targets) - len(plan.waiting)


def _optimised(problem: Problem, greedy: int, limit: float) -> str:
    found = optimise(problem, frozenset(), limit, workers=2)
    if found.discarded:
        return f"not finished: {found.discarded}"
    placed, bound = sum(tier.placed for tier in found.tiers), sum(tier.bound for tier in found.tiers)
    shares = f"{greedy / bound:6.1%} {placed / bound:6.1%}"
    return f"{found.seconds:7.1f} s {placed:7} {bound:7} | {shares}, {'proven' if found.proven else 'not finished'}"


if __name__ == "__main__":
    sys.exit(main())
