"""The lab's power strip and the fence agent that asks it, with a lab that is none."""

import contextlib
import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.lab import fence_agent, power_strip
from outlast.lab.layout import Layout
from outlast.lab.state import LabState


class FakeLab:
    """Two hosts; what is fenced has no power any more."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.off: list[str] = []
        self._state = LabState(outlets={"host1": "works", "host2": "lies", "host3": "fails"})

    def state(self) -> LabState:
        return self._state

    def fence(self, host: str) -> None:
        self.off.append(host)

    def is_on(self, host: str) -> bool:
        return host not in self.off


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLab]:
    lab = FakeLab(tmp_path)
    lab.layout.power.mkdir()
    monkeypatch.setattr(fence_agent, "SOCKET", str(lab.layout.power_socket))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(lab.layout.power_socket))
    listener.listen()

    def serve() -> None:
        with contextlib.suppress(OSError):  # Its socket is closed under it at the end.
            power_strip.serve(lab, listener)  # type: ignore[arg-type]

    threading.Thread(target=serve, daemon=True).start()
    yield lab
    listener.close()


def asked(monkeypatch: pytest.MonkeyPatch, action: str, plug: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"# from Outlast\naction={action}\nplug={plug}\n"))
    return fence_agent.main()


def test_off_takes_the_power_and_status_tells(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert asked(monkeypatch, "status", "host1") == 0
    assert asked(monkeypatch, "off", "host1") == 0
    assert lab.off == ["host1"]
    assert asked(monkeypatch, "status", "host1") == 2
    assert capsys.readouterr().out == "Status: ON\nStatus: OFF\n"


def test_one_that_lies_says_off_and_does_nothing(lab: FakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (asked(monkeypatch, "off", "host2"), asked(monkeypatch, "status", "host2")) == (0, 2)
    assert lab.off == []


@pytest.mark.parametrize(
    ("action", "plug", "words"),
    [
        ("off", "host3", "outlet host3 is out of order"),
        ("off", "host9", "there is no outlet host9; outlets are host1, host2, host3"),
        ("off", "", "give it plug="),
        ("reboot", "host1", "it can do off, status and monitor, not reboot"),
    ],
)
def test_what_fails_says_why(
    lab: FakeLab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], action: str, plug: str, words: str
) -> None:
    assert asked(monkeypatch, action, plug) == 1
    assert words in capsys.readouterr().err
    assert lab.off == []


def test_without_a_power_strip(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setattr(fence_agent, "SOCKET", str(tmp_path / "none"))
    assert asked(monkeypatch, "status", "host1") == 1
    assert "the power strip does not answer" in capsys.readouterr().err
