"""A broken invariant is told so that it can be understood, and seen again."""

import re

from click.testing import CliRunner

from outlast.interfaces.simulate_cli import simulate


def test_a_violation_tells_what_led_to_it_and_how_to_see_it_again() -> None:
    told = CliRunner().invoke(simulate, ["--random", "2", "--seed", "3", "--break", "no-window"])
    assert told.exit_code == 1
    assert "invariant proof-holds was broken at" in told.output
    assert "may be taken from" in told.output
    assert re.search(r"seed \d+, outlast \d", told.output)
    assert re.search(r"outlast simulate --random 1 --seed \d+ --break no-window --timeline", told.output)
