"""The agent's side of an I/O helper that hangs, ends, or cannot be started, over real sockets."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
from collections.abc import Callable, Coroutine, Iterator

import pytest

from outlast.drivers.datastore import client
from outlast.drivers.datastore.client import HelperClient
from outlast.drivers.datastore.helper_process import HelperProcess
from outlast.drivers.datastore.wire import Answer, Done, Failed, Inbox, Request, Survey, WriteSlot, pack
from outlast.model.ids import DatastoreName, HostId
from outlast.model.inventory import DatastoreMember

MEMBER = DatastoreMember(DatastoreName("ds1"), "/nowhere")


class FakeHelper:
    """The far end of a connection, in the test's hands."""

    def __init__(self, *_: str) -> None:
        self.connection, self.far = socket.socketpair()
        self.connection.setblocking(False)
        self.far.setblocking(False)
        self.was_ended = False

    def end(self) -> None:
        self.connection.close()
        self.was_ended = True

    def answer(self) -> list[int]:
        """Read all that was sent and say that it is done; the numbers of the requests."""
        inbox, numbers = Inbox(Request), []
        while True:
            try:
                data = self.far.recv(1 << 20)
            except BlockingIOError:
                break
            if not data:
                break
            numbers += [request.number for request in inbox.feed(data)]
        self.far.sendall(b"".join(pack(Answer(number, Done(True))) for number in numbers))
        return numbers


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeHelper]]:
    """The helpers that were started, in order."""
    started: list[FakeHelper] = []

    def start(*arguments: str) -> FakeHelper:
        started.append(FakeHelper(*arguments))
        return started[-1]

    monkeypatch.setattr(client, "HelperProcess", start)
    monkeypatch.setattr(client, "DEADLINE_S", 0.1)
    monkeypatch.setattr(client, "RESPAWN_S", 0.0)
    yield started
    for helper in started:
        helper.far.close()


def run(test: Callable[[HelperClient], Coroutine[None, None, None]]) -> None:
    async def main() -> None:
        one = HelperClient(MEMBER, "dom", HostId("h1"), "agent")
        await test(one)
        one.close()

    asyncio.run(main())


LARGE = WriteSlot("protected", 0, bytes(1 << 20))


def test_a_request_that_could_not_be_sent_is_not_waited_for_when_storage_is_back(helpers: list[FakeHelper]) -> None:
    async def test(one: HelperClient) -> None:
        result = await one.ask(LARGE)
        assert result == Failed("ds1 takes no request within 0.1 s: its storage hangs")
        assert helpers[0].was_ended
        asking = asyncio.ensure_future(one.ask(Survey()))
        await asyncio.sleep(0.01)
        helpers[1].answer()
        assert await asking == Done(True)

    run(test)


def test_requests_are_sent_whole_and_one_after_the_other(
    helpers: list[FakeHelper], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is late here, however busy the machine is: three megabytes may take their time.
    monkeypatch.setattr(client, "DEADLINE_S", 60)

    async def test(one: HelperClient) -> None:
        asking = [asyncio.ensure_future(one.ask(LARGE)) for _ in range(3)]
        inbox, numbers = Inbox(Request), []
        await asyncio.sleep(0)
        while len(numbers) < 3:
            await asyncio.sleep(0.001)
            try:
                data = helpers[0].far.recv(1 << 20)
            except BlockingIOError:
                continue
            assert data, "the connection was closed before all was sent"
            numbers += [request.number for request in inbox.feed(data)]
        assert numbers == [1, 2, 3]
        helpers[0].far.sendall(b"".join(pack(Answer(number, Done(True))) for number in numbers))
        assert await asyncio.gather(*asking) == [Done(True)] * 3

    run(test)


def test_who_waits_for_its_turn_behind_a_send_that_hangs_is_answered_with_it(helpers: list[FakeHelper]) -> None:
    async def test(one: HelperClient) -> None:
        results = await asyncio.gather(one.ask(LARGE), one.ask(LARGE), one.ask(Survey()))
        assert [type(result) for result in results] == [Failed] * 3
        assert len(helpers) == 1

    run(test)


def test_an_answer_that_comes_late_ends_the_refusals(helpers: list[FakeHelper]) -> None:
    async def test(one: HelperClient) -> None:
        assert await one.ask(Survey()) == Failed("ds1 gave no answer within 0.1 s: its storage hangs")
        refused = await one.ask(Survey())
        assert isinstance(refused, Failed)
        assert "has not answered" in refused.problem
        assert helpers[0].answer() == [1], "what is refused is not sent"
        await asyncio.sleep(0.01)
        asking = asyncio.ensure_future(one.ask(Survey()))
        await asyncio.sleep(0.01)
        assert helpers[0].answer() == [2]
        assert await asking == Done(True)

    run(test)


def test_a_host_without_room_for_another_process_is_told_about_and_tried_again(
    helpers: list[FakeHelper], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(one: HelperClient) -> None:
        works = client.HelperProcess

        def fails(*_: str) -> FakeHelper:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

        monkeypatch.setattr(client, "HelperProcess", fails)
        refused = await one.ask(Survey())
        assert isinstance(refused, Failed)
        assert "cannot be started (Resource temporarily unavailable)" in refused.problem
        monkeypatch.setattr(client, "HelperProcess", works)
        asking = asyncio.ensure_future(one.ask(Survey()))
        await asyncio.sleep(0.01)
        helpers[0].answer()
        assert await asking == Done(True)

    run(test)


def test_a_helper_that_could_not_be_started_leaves_no_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", fails)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Cannot allocate memory"):
        HelperProcess("/nowhere", "ds1", "dom", "h1", "agent")
    assert len(os.listdir("/proc/self/fd")) == before
