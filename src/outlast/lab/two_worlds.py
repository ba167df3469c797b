"""One scenario in both worlds: in the simulated one with many seeds, in a lab once, and the two held against each other.

Several scenarios are played in labs side by side. Each lab then belongs to a process of its own, because a network
namespace is entered by a whole process; all use one cache. A lab that plays waits most of the time, so that two processors
carry four of them; but the more there are, the later the guests start, and the times say so.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from outlast.lab import guest, run, scenario_plan
from outlast.lab.errors import LabError
from outlast.lab.lab import Lab
from outlast.lab.layout import Layout
from outlast.model.errors import OutlastError
from outlast.scenario.comparing import Comparison, compare
from outlast.scenario.model import Scenario
from outlast.scenario.result import Result
from outlast.sim import stage
from outlast.sim.play import play

Outcome = Comparison | str
"""What came of a comparison, or the sentence that says why it could not be made."""


def check(scenario: Scenario) -> None:
    """Raises UsageError that names what one of the worlds cannot do."""
    stage.check(scenario)
    scenario_plan.check(scenario)


def simulated(scenario: Scenario, seeds: int) -> list[Result]:
    """Its runs in the simulated world, with the seed of its file and those that follow. Raises OutlastError."""
    return [play(scenario, scenario.seed + n) for n in range(seeds)]


def play_both(scenario: Scenario, lab: Lab, seeds: int) -> Comparison:
    """Play it in both worlds, with a new lab in the place of one that is left over. Raises LabError, OutlastError."""
    runs = simulated(scenario, seeds)
    lab.down()
    try:
        return compare(scenario, runs, run.run(lab, scenario))
    finally:
        # Also what a lab has left that could not be made.
        lab.down()


def play_all(
    scenarios: Sequence[Scenario], layout: Layout, seeds: int, labs: int, say: Callable[[str], None]
) -> Iterator[tuple[Scenario, Outcome]]:
    """Each scenario with what came of it, as soon as it is over, in `labs` labs next to the one in this directory."""
    guest.build(layout)
    context = multiprocessing.get_context("spawn")
    roots: SimpleQueue[Path] = context.SimpleQueue()
    for number in range(1, labs + 1):
        roots.put(layout.root.with_name(f"{layout.root.name}-compare{number}"))
    # The longest first, so that none of them is alone at the end.
    ordered = sorted(scenarios, key=lambda scenario: -scenario.duration)
    with ProcessPoolExecutor(labs, context, _Worker.begin, (roots, layout.cache)) as pool:
        futures = {pool.submit(_Worker.play, scenario, seeds): scenario for scenario in ordered}
        say(f"playing {len(futures)} scenarios in {labs} labs")
        for future in as_completed(futures):
            yield futures[future], future.result()


class _Worker:
    """A process that has a lab of its own, for one scenario after the other."""

    lab: Lab

    @classmethod
    def begin(cls, roots: SimpleQueue[Path], cache: Path) -> None:
        """Take a lab."""
        cls.lab = Lab(roots.get(), cache)

    @classmethod
    def play(cls, scenario: Scenario, seeds: int) -> Outcome:
        """What came of one scenario."""
        try:
            return play_both(scenario, cls.lab, seeds)
        except (LabError, OutlastError) as error:
            return str(error)
