"""A boot's number on a datastore, won through a real I/O helper: found again, counted on, and refused beside a twin."""

from __future__ import annotations

import errno
import selectors
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from outlast.codec import records
from outlast.drivers import clock, machine
from outlast.drivers.datastore import blocks, identity
from outlast.keeper import storage
from outlast.keeper.storage import KeeperStorage
from outlast.model.ids import BootId, DatastoreName, HostId, HostName, Incarnation, KeeperSession, LeaseTerm
from outlast.model.inventory import DatastoreMember, HostMember
from outlast.model.keeper_config import KeeperConfig
from outlast.model.keeper_events import HeartbeatWritten, IncarnationWon, KeeperEvent
from outlast.model.records import Enforcement, HeartbeatRecord
from outlast.model.settings import Settings
from outlast.model.time import MILLISECOND, SECOND, Duration

KEY = bytes(32)
ME = HostId("11111111-1111-1111-1111-111111111111")


class Boot:
    """One boot's storage, driven by hand until something is true."""

    def __init__(self, root: Path, boot: str, machine: str = "this one") -> None:
        self.events: list[KeeperEvent] = []
        self._selector = selectors.DefaultSelector()
        member = DatastoreMember(DatastoreName("ds1"), str(root))
        config = KeeperConfig(
            domain="d",
            host=ME,
            name=HostName("alpha"),
            hosts=(HostMember(ME, HostName("alpha"), "192.0.2.1", 1),),
            datastores=(member,),
            settings=Settings(lease_duration=Duration(300 * MILLISECOND), lease_margin=Duration(100 * MILLISECOND)),
            datastore_key=KEY.hex(),
            run_dir="/run",
            state_dir="/var",
            boot_id=BootId(boot),
            session=KeeperSession(boot),
        )
        self.storage = KeeperStorage(config, member, self._selector, self.events.append)
        self.storage._machine = machine

    def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> bool:
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                return False
            self.storage.tick()
            for key, mask in self._selector.select(0.01):
                key.data(mask)
        return True

    def won(self) -> Incarnation | None:
        return next((e.incarnation for e in self.events if isinstance(e, IncarnationWon)), None)

    def alarms(self) -> list[str]:
        return [e.problem for e in self.events if isinstance(e, HeartbeatWritten) and e.foreign]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    identity.initialise(tmp_path, "ds1", "d")
    return tmp_path


def boot(root: Path, name: str) -> Incarnation | None:
    one = Boot(root, name)
    assert one.until(one.won)
    one.storage.close()
    return one.won()


PATIENCE = Duration(SECOND)
"""The window in the record of the first boot: longer than that of whoever boots here, and it is the one that counts."""

RECORD = HeartbeatRecord(
    host=ME,
    boot_id=BootId("first"),
    incarnation=Incarnation(1),
    session=KeeperSession("first"),
    sequence=1,
    term=LeaseTerm(1),
    enforcement=Enforcement.KEEPER,
    agent_progress=1,
    wall_clock_s=0,
    lease=Duration(PATIENCE // 2),
    window=PATIENCE,
)


def renew(root: Path, sequence: int) -> None:
    """What the keeper of the first boot writes."""
    path = root / ".outlast" / "d" / "hosts" / ME / "heartbeat"
    blocks.write(str(path), records.seal_heartbeat(msgspec.structs.replace(RECORD, sequence=sequence), KEY), create=True)


def test_each_boot_has_a_number_of_its_own_and_finds_it_again(root: Path) -> None:
    assert boot(root, "first") == 1
    assert boot(root, "first") == 1
    renew(root, 1)
    assert boot(root, "second") == 2
    assert boot(root, "second") == 2


def test_a_machine_that_boots_again_does_not_wait_for_itself(root: Path) -> None:
    assert boot(root, "first") == 1
    renew(root, 1)
    again = Boot(root, "second")
    assert again.until(lambda: renew(root, 2) or again.won())
    again.storage.close()
    assert again.alarms() == []


def test_what_tells_a_machine_from_its_clone(tmp_path: Path) -> None:
    def card(name: str, address: str, kind: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "address").write_text(f"{address}\n")
        (tmp_path / name / "addr_assign_type").write_text(f"{kind}\n")

    missing = tmp_path / "no-board"
    assert machine.fingerprint(tmp_path, missing) == ""
    card("eth0", "52:54:00:00:00:01", "0")
    first = machine.fingerprint(tmp_path, missing)
    assert first
    card("vnet0", "fe:54:00:00:00:09", "3")
    card("veth1", "aa:bb:cc:00:00:01", "1")
    assert machine.fingerprint(tmp_path, missing) == first, "what comes and goes does not count"
    (tmp_path / "eth0" / "address").write_text("52:54:00:00:00:02\n")
    assert machine.fingerprint(tmp_path, missing) != first


def test_beside_a_twin_no_number_is_won(root: Path) -> None:
    assert boot(root, "first") == 1
    renew(root, 1)
    twin = Boot(root, "clone", "another one")
    sequence = 1

    def renewed_for_a_while() -> bool:
        nonlocal sequence
        sequence += 1
        renew(root, sequence)
        return len(twin.alarms()) >= 2

    assert twin.until(renewed_for_a_while)
    assert twin.won() is None
    assert "another machine renews as alpha" in twin.alarms()[0]
    # The other one ends: now it is a boot like any other.
    ended = clock.now()
    assert twin.until(twin.won)
    assert clock.now() - ended >= PATIENCE
    twin.storage.close()
    assert twin.won() == 2


def test_a_helper_that_cannot_be_started_is_told_about_and_tried_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = storage.HelperProcess

    def no_room(*_: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(storage, "HelperProcess", no_room)
    monkeypatch.setattr(storage, "RESPAWN", Duration(10 * MILLISECOND))
    one = Boot(root, "first")
    one.storage.tick()
    told = one.events.pop()
    assert isinstance(told, HeartbeatWritten)
    assert (told.ok, told.problem) == (False, "the I/O helper of ds1 cannot be started: Too many open files")
    monkeypatch.setattr(storage, "HelperProcess", real)
    assert one.until(one.won)
    one.storage.close()
