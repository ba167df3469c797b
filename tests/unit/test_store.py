"""The agent's view of a datastore's lists: what is torn, what was never written, what cannot be read."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from outlast.codec import records
from outlast.drivers.datastore.client import HelperClient
from outlast.drivers.datastore.store import Store
from outlast.drivers.datastore.wire import UNREADABLE, Op, Result, Slots
from outlast.model.effects import ReadProtectedList
from outlast.model.events import ProtectedListRead
from outlast.model.ids import DatastoreName, ElectionTerm, Epoch, HostId, RequestId
from outlast.model.inventory import DatastoreMember
from outlast.model.records import ProtectedList

KEY = bytes(32)
DS1 = DatastoreName("ds1")


class Answering:
    """A helper's client whose every answer is known."""

    def __init__(self, result: Result) -> None:
        self._result = result

    async def ask(self, _: Op) -> Result:
        return self._result


def read(*slots: bytes) -> ProtectedListRead:
    client = cast(HelperClient, Answering(Slots((slots,))))
    store = Store(DatastoreMember(DS1, "/nowhere"), client, KEY, ())
    event = asyncio.run(store.execute(ReadProtectedList(RequestId(1), DS1)))
    assert isinstance(event, ProtectedListRead)
    return event


LIST = ProtectedList(datastore=DS1, sequence=1, writer=HostId("h1"), primary_epoch=Epoch(1), term=ElectionTerm(1), vms=())
WHOLE = records.seal_protected_list(LIST, KEY)
TORN = bytes(byte ^ 1 if 40 <= place < 60 else byte for place, byte in enumerate(WHOLE))
HOLE = bytes(4096)


@pytest.mark.parametrize("slots", [(), (TORN,), (HOLE, TORN), (TORN, HOLE), (HOLE,)])
def test_a_first_list_that_is_torn_is_none_yet(slots: tuple[bytes, ...]) -> None:
    assert (read(*slots).ok, read(*slots).content) == (True, None)


@pytest.mark.parametrize("slots", [(TORN, TORN), (UNREADABLE, UNREADABLE), (UNREADABLE,), (HOLE, UNREADABLE)])
def test_a_list_that_is_there_and_cannot_be_read_is_a_problem(slots: tuple[bytes, ...]) -> None:
    assert not read(*slots).ok
    assert read(*slots).problem


@pytest.mark.parametrize("slots", [(WHOLE,), (HOLE, WHOLE), (TORN, WHOLE), (WHOLE, TORN), (WHOLE, UNREADABLE)])
def test_one_whole_slot_is_enough(slots: tuple[bytes, ...]) -> None:
    assert read(*slots).content is not None
