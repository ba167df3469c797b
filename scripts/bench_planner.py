"""How fast the planner is, and how good: greedy against CP-SAT's bound. `make bench-planner`, or with --time-limit SECONDS.

Domains of one seed: VMs that need together as much memory or CPU as there is, on hosts that not all reach every datastore;
one VM in twenty stands in each kind of rule. The greedy time is the best of five.
"""

import argparse
import random
import time

from outlast.drivers.optimiser import optimise
from outlast.model.ids import DatastoreName, HostId, HostName, VmId, VmName
from outlast.model.inventory import Needs
from outlast.model.planning import PlanHost, PlanVm, Snapshot
from outlast.model.rules import Rule
from outlast.protocol.planning.planner import make_plan
from outlast.protocol.planning.problem import Problem

SIZES = ((8, 60), (16, 150), (32, 400), (64, 1000), (1000, 10_000))
STORES = [DatastoreName(f"ds{i}") for i in range(4)]


def domain(hosts: int, vms: int, fill: float) -> Snapshot:
    """`fill`: what is needed, as a share of what there is, of the scarcer of memory and CPU."""
    rng = random.Random(hosts)
    wanted = [_vm(rng, i) for i in range(vms)]
    memory = round(sum(vm.needs.memory_mib for vm in wanted) / hosts / fill)
    cpu = round(sum(vm.needs.cpu for vm in wanted) / hosts / fill)
    return Snapshot(
        hosts=tuple(_host(rng, i, memory, cpu) for i in range(hosts)), vms=tuple(wanted), rules=_rules(rng, hosts, vms)
    )


def _vm(rng: random.Random, i: int) -> PlanVm:
    cpu = rng.choice((50, 100, 200, 400))
    needs = Needs(
        memory_mib=rng.choice((1, 2, 4, 8, 16)) << 10, cpu=cpu, reserved_cpu=cpu, datastores=(rng.choice(STORES),)
    )
    return PlanVm(vm=VmId(f"vm{i}"), name=VmName(f"vm{i}"), needs=needs)


def _host(rng: random.Random, i: int, memory: int, cpu: int) -> PlanHost:
    return PlanHost(
        id=HostId(f"host{i}"),
        name=HostName(f"host{i}"),
        labels={"rack": f"r{i % 4}"},
        memory_mib=memory,
        free_memory_mib=memory,
        cpu=cpu,
        free_cpu=cpu,
        free_reserved_cpu=cpu,
        leases=frozenset(name for name in STORES if rng.randrange(20)),
    )


def _rules(rng: random.Random, hosts: int, vms: int) -> tuple[Rule, ...]:
    names = [VmName(f"vm{i}") for i in range(vms)]
    where = [HostName(f"host{i}") for i in range(hosts)]
    rules: list[Rule] = []
    for i in range(vms // 60):
        required = i % 2 == 0
        rules.append(Rule(kind="keep-apart", vms=tuple(rng.sample(names, 3)), required=required))
        rules.append(Rule(kind="keep-together", vms=tuple(rng.sample(names, 2)), required=required))
        some = dict.fromkeys(rng.sample(where, max(2, hosts // 4)), 1)
        rules.append(Rule(kind="run-on", vms=tuple(rng.sample(names, 3)), hosts=some, required=required))
    return tuple(rules)


def main() -> None:
    """One line for each size and fill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds for CP-SAT, for each domain")
    limit = parser.parse_args().time_limit
    print(f"{'hosts x VMs':>14} {'needed':>7} {'greedy':>9} {'placed':>8}   CP-SAT ({limit:g} s at most)")
    for hosts, vms in SIZES:
        for fill in (0.8, 0.95, 1.0):
            problem = Problem(domain(hosts, vms, fill))
            times: list[float] = []
            for _ in range(5):
                began = time.perf_counter()
                plan = make_plan(problem)
                times.append(time.perf_counter() - began)
                if times[-1] > 1:
                    break
            placed = vms - len(plan.waiting)
            told = f"{f'{hosts} x {vms}':>14} {fill:7.0%} {min(times) * 1000:6.1f} ms {placed / vms:8.1%}  "
            print(told, end="", flush=True)
            print(f" {_optimised(problem, vms, placed, limit)}", flush=True)


def _optimised(problem: Problem, vms: int, greedy: int, limit: float) -> str:
    if greedy == vms:
        return "not asked: all have a place"
    began = time.perf_counter()
    found = optimise(problem, frozenset(), limit)
    took = time.perf_counter() - began
    if found.problem:
        return found.problem
    bound = "optimal" if found.finished else f"at most {found.bound / vms:.1%}"
    share = greedy / found.bound
    return f"{found.placed / vms:.1%}, {bound}, in {took:.1f} s: greedy has {share:.1%} of {'it' if found.finished else 'that'}"


if __name__ == "__main__":
    main()
