"""What happens in a scenario and what is judged, in the order of time: both worlds play it off like this."""

from collections.abc import Iterator

from outlast.scenario.model import Expectation, Scenario, Step


def moments(scenario: Scenario) -> Iterator[tuple[int, Step | Expectation]]:
    """(time, what). At one time steps come first, each kind in the order of the file; what is judged at the end, last."""
    timed: list[tuple[int, int, Step | Expectation]] = [(step.at, 0, step) for step in scenario.steps]
    for expectation in scenario.expect:
        at_end = expectation.at is None
        timed.append((expectation.at if expectation.at is not None else scenario.duration, 1 + at_end, expectation))
    for when, _, what in sorted(timed, key=lambda entry: entry[:2]):
        yield when, what
