"""What libvirt's words say of a guest, and what is kept of one before it is reset. libvirt is a fake here; `tests/lab` asks
a real one."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import libvirt
import pytest

from outlast.drivers.hypervisor import guest_agent, guests, last_sight
from outlast.model.events import Event, GuestLookedAt, GuestReset, GuestState
from outlast.model.ids import RequestId, VmId

VM = VmId("6c2c1f2e-0000-4000-8000-000000000001")
CHANNEL = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='{}'/></channel>"
STATS = {"block.0.name": "vda", "block.0.rd.reqs": 3, "block.0.wr.reqs": 4, "block.0.wr.bytes": 9, "block.1.fl.reqs": 1}
NET = {"net.0.rx.pkts": 100, "net.0.tx.pkts": 20}


class RefusedError(libvirt.libvirtError):
    def __init__(self, code: int, words: str = "no") -> None:
        Exception.__init__(self, words)
        self._code, self._words = code, words

    def get_error_code(self) -> int:
        return self._code

    def get_error_message(self) -> str:
        return self._words


class Stream:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def recvAll(self, take: Callable[[Any, bytes, Any], int], opaque: Any) -> None:
        for i in range(0, len(self._content), 1 << 20):
            if take(self, self._content[i : i + (1 << 20)], opaque) < 0:
                raise RefusedError(1, "aborted")

    def finish(self) -> None:
        pass


class Domain:
    """One domain, and the connection that knows it. `agent`: None answers, else libvirt's error code."""

    def __init__(self, devices: str = CHANNEL.format("connected"), rest: str = "") -> None:
        self.xml = f"<domain><name>web</name>{rest}<devices>{devices}</devices></domain>"
        self.now, self.agent = libvirt.VIR_DOMAIN_RUNNING, None
        self.image: bytes | None = b"\x89PNG"
        self.kind, self.takes_s = "image/png", 0.0
        self.resets = 0

    def lookupByUUIDString(self, vm: str) -> Domain:
        return self

    def name(self) -> str:
        return "web"

    def state(self) -> list[int]:
        return [self.now, 0]

    def XMLDesc(self, flags: int) -> str:
        return self.xml

    def domainListGetStats(self, domains: list[Any], stats: int, flags: int) -> list[Any]:
        return [(self, STATS | NET)]

    def newStream(self, flags: int) -> Stream:
        return Stream(self.image or b"")

    def screenshot(self, stream: Stream, screen: int, flags: int) -> str:
        time.sleep(self.takes_s)
        if self.image is None:
            raise RefusedError(1, "no screens to take screenshot from")
        return self.kind

    def reset(self, flags: int) -> None:
        self.resets += 1


def looked_at(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> tuple[GuestState, int]:
    def command(_domain: Any, text: str, timeout: int, flags: int) -> str:
        if domain.agent is not None:
            raise RefusedError(domain.agent)
        return '{"return": {}}'

    monkeypatch.setattr(guest_agent.libvirt_qemu, "qemuAgentCommand", command)
    return guest_agent.look(domain, VM)


@pytest.mark.parametrize(
    ("code", "channel", "state"),
    [
        (None, "connected", GuestState.ANSWERS),
        (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "connected", GuestState.SILENT),
        (libvirt.VIR_ERR_AGENT_UNSYNCED, "connected", GuestState.SILENT),
        (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "disconnected", GuestState.CLOSED),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, "connected", GuestState.UNKNOWN),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "connected", GuestState.UNKNOWN),
        (libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, "connected", GuestState.UNKNOWN),
    ],
)
def test_what_libvirts_words_say_of_the_guest(
    code: int | None, channel: str, state: GuestState, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = Domain(CHANNEL.format(channel))
    domain.agent = code  # type: ignore[assignment]
    found = looked_at(domain, monkeypatch)
    assert found == (state, 28 if state in (GuestState.SILENT, GuestState.CLOSED) else 0)


def test_a_paused_machine_says_nothing_of_its_guest(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = Domain()
    domain.now = libvirt.VIR_DOMAIN_PAUSED
    assert looked_at(domain, monkeypatch)[0] is GuestState.UNKNOWN


def test_screen_and_console_are_kept_and_named(tmp_path: Path) -> None:
    log = tmp_path / "console"
    log.write_bytes(b"x" * last_sight.TAIL + b"panic")
    domain = Domain(f"<serial type='file'><source path='{log}'/></serial>")
    kept = last_sight.keep(domain, VM, tmp_path / "guests")
    image, text = sorted((tmp_path / "guests").iterdir(), key=lambda path: path.suffix, reverse=True)
    assert (image.suffix, image.read_bytes()) == (".png", b"\x89PNG")
    assert (len(text.read_bytes()), text.read_bytes()[-5:]) == (last_sight.TAIL, b"panic")
    assert str(image) in kept
    assert str(text) in kept


def test_what_a_pty_wrote_into_a_log_is_kept_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    log, pipe = tmp_path / "log", tmp_path / "pipe"
    log.write_bytes(b"login:")
    os.mkfifo(pipe)
    devices = f"<serial type='file'><source path='{pipe}'/></serial><console type='pty'><log file='{log}'/></console>"
    last_sight.keep(Domain(devices), VM, tmp_path / "guests")
    assert next((tmp_path / "guests").glob("*.log")).read_bytes() == b"login:"


def test_what_there_is_not_is_told_in_words(tmp_path: Path) -> None:
    domain = Domain()
    domain.image = None
    kept = last_sight.keep(domain, VM, tmp_path / "guests")
    assert kept == (
        "it has no screen that can be kept (no screens to take screenshot from); no console of it is written to a file"
    )


def test_an_image_that_is_too_large_is_not_kept(tmp_path: Path) -> None:
    domain = Domain()
    domain.image = bytes(last_sight.LARGEST_IMAGE + 1)
    assert "no screen that can be kept" in last_sight.keep(domain, VM, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_told_and_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "guests").write_text("a file in its place")
    assert "was not kept" in last_sight.keep(Domain(), VM, tmp_path / "guests")


def test_old_ones_make_room(tmp_path: Path) -> None:
    for i in range(last_sight.MOST_FILES + 5):
        (tmp_path / f"old{i}.png").write_bytes(b"x")
        os.utime(tmp_path / f"old{i}.png", (i, i))
    last_sight.keep(Domain(), VM, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) <= last_sight.MOST_FILES
    assert "old0.png" not in names
    assert f"old{last_sight.MOST_FILES + 4}.png" in names


class Libvirtd:
    """As much of `Hypervisor` as `Guests` needs."""

    def __init__(self, domain: Domain | None) -> None:
        self.connection: Any = domain
        self.tasks: list[asyncio.Task[None]] = []

    def call(self, work: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        return asyncio.to_thread(work, *arguments)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))


def done(domain: Domain | None, ask: Callable[[guests.Guests], None], directory: Path) -> list[Event]:
    events: list[Event] = []

    async def main() -> None:
        libvirtd = Libvirtd(domain)
        asked = guests.Guests(libvirtd, events.append, directory)
        ask(asked)
        await asyncio.gather(*libvirtd.tasks)
        asked.stop()

    asyncio.run(main())
    return events


def test_a_guest_is_reset_when_what_it_shows_is_kept(tmp_path: Path) -> None:
    domain = Domain()
    (event,) = done(domain, lambda asked: asked.reset(RequestId(1), VM), tmp_path)
    assert isinstance(event, GuestReset)
    assert (event.ok, domain.resets) == (True, 1)
    assert f"its screen: {tmp_path}" in event.kept


def test_a_screen_that_takes_too_long_does_not_hold_up_a_reset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests, "KEEP_TIMEOUT_S", 0.01)
    domain = Domain()
    domain.takes_s = 0.2
    (event,) = done(domain, lambda asked: asked.reset(RequestId(1), VM), tmp_path)
    assert isinstance(event, GuestReset)
    assert (event.ok, domain.resets, event.kept) == (True, 1, "what it showed was not kept within 0.01 s")


def test_a_machine_that_a_reset_would_end_is_left_alone(tmp_path: Path) -> None:
    domain = Domain(rest="<on_reboot>destroy</on_reboot>")
    (event,) = done(domain, lambda asked: asked.reset(RequestId(1), VM), tmp_path)
    assert isinstance(event, GuestReset)
    assert (event.ok, domain.resets) == (False, 0)
    assert "on_reboot" in event.problem


def test_without_libvirt_a_look_has_no_answer_and_a_reset_says_why(tmp_path: Path) -> None:
    assert done(None, lambda asked: asked.look(RequestId(1), VM), tmp_path) == []
    (event,) = done(None, lambda asked: asked.reset(RequestId(1), VM), tmp_path)
    assert event == GuestReset(RequestId(1), VM, False, "libvirt is not connected")


def test_a_look_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guests.guest_agent, "look", lambda *_: (GuestState.SILENT, 5))
    assert done(Domain(), lambda asked: asked.look(RequestId(1), VM), tmp_path) == [
        GuestLookedAt(RequestId(1), VM, GuestState.SILENT, 5)
    ]
