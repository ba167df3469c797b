"""`outlast fence`: an operator is warned and asked, and what the agent says is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from outlast.interfaces import fence_cli
from outlast.interfaces.cli import main
from outlast.model.ids import DatastoreName, Incarnation
from outlast.model.records import RecordMark
from outlast.runtime.control import ControlReply, ControlRequest

MARK = RecordMark(DatastoreName("ds1"), Incarnation(2), "s", 44)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ControlRequest]:
    requests: list[ControlRequest] = []

    def ask(_path: Path, request: ControlRequest, _timeout_s: float = 5.0) -> ControlReply:
        requests.append(request)
        if request.do == "fence-marks":
            return ControlReply(ok=True, lines=["beta is presumed-dead."], marks=(MARK,))
        failed = request.do == "fence-test"
        return ControlReply(
            ok=True, lines=["level 1, fence_x: no route" if failed else "beta is taken for off"], failed=failed
        )

    monkeypatch.setattr(fence_cli, "ask", ask)
    return requests


def test_the_name_is_to_be_typed(asked: list[ControlRequest]) -> None:
    done = CliRunner().invoke(main, ["fence", "confirm", "beta"], input="alpha\n")
    assert (done.exit_code, len(asked)) == (1, 1)
    assert "run TWICE" in done.output
    assert "nothing was confirmed" in done.output


@pytest.mark.parametrize(("arguments", "typed"), [(["--yes"], ""), ([], "beta\n")])
def test_the_word_is_bound_to_what_was_shown(asked: list[ControlRequest], arguments: list[str], typed: str) -> None:
    done = CliRunner().invoke(main, ["fence", "confirm", "beta", *arguments], input=typed)
    assert done.exit_code == 0, done.output
    assert (asked[-1].do, asked[-1].marks) == ("fence-confirm", (MARK,))
    assert "taken for off" in done.output


def test_a_device_that_does_not_work_ends_with_1(asked: list[ControlRequest]) -> None:
    done = CliRunner().invoke(main, ["fence", "test", "beta"])
    assert done.exit_code == 1
    assert "level 1, fence_x: no route" in done.output
    assert "docs/setup.md" in done.output
