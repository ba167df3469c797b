"""How fast the simulated world is, with its invariants on, and how that falls with the number of hosts.

Each domain has two VMs a host and three datastores; one host in eight loses its power and gets it back. The median of
three runs, on one processor. `make bench-simulation`.
"""

import statistics
import sys
import time

import click

from outlast.model.ids import DatastoreName, HostName, VmName
from outlast.model.time import SECOND, Duration
from outlast.scenario.model import DatastoreSpec, HostSpec, Scenario, Step, VmSpec
from outlast.sim import random_runs

SIZES = (3, 8, 32, 64)
RUNS = 3


def domain(size: int) -> Scenario:
    """A domain of `size` hosts."""
    hosts = [HostName(f"host{i + 1}") for i in range(size)]
    stores = [DatastoreName(f"ds{i + 1}") for i in range(3)]
    lost = hosts[: max(1, size // 8)]
    return Scenario(
        title=f"{size} hosts",
        seed=1,
        duration=Duration(60 * SECOND),
        datastores=tuple(DatastoreSpec(name=name) for name in stores),
        hosts=tuple(HostSpec(name=name) for name in hosts),
        vms=tuple(
            VmSpec(name=VmName(f"vm{i + 1}"), host=hosts[i % size], datastore=stores[i % 3]) for i in range(2 * size)
        ),
        steps=tuple(Step(at=Duration(10 * SECOND), do="power-off", keys={"host": name}) for name in lost)
        + tuple(Step(at=Duration(40 * SECOND), do="power-on", keys={"host": name}) for name in lost),
    )


def main() -> None:
    """Print one line a size."""
    click.echo("hosts  events a second of one processor  events  simulated s  CPU s")
    for size in SIZES:
        took, events, simulated = [], 0, 0.0
        for _ in range(RUNS):
            began = time.process_time()
            outcome = random_runs.play(domain(size))
            took.append(time.process_time() - began)
            events, simulated = outcome.events, outcome.ended / SECOND
            if outcome.violations:
                sys.exit(f"{size} hosts: {outcome.violations[0]}")
        median = statistics.median(took)
        click.echo(f"{size:5}  {round(events / median, -2):32,.0f}  {events:6}  {simulated:11.0f}  {median:5.1f}")


if __name__ == "__main__":
    main()
