"""What is stored on one simulated datastore, at one instant. How requests get there is in `way.py`.

A host's heartbeat is a block that may be torn, damaged or another's: then its bytes changed, and nobody can read it.
Lists lie in two slots, written in turn, so that a torn one leaves the last whole one to be read. Registers follow the rules
of `drivers/datastore/registers.py`: an epoch is made once, exclusively, from an existing predecessor, with nothing higher;
it is durable before it has its name, so it is never torn.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from outlast.model.claims import DiskClaim
from outlast.model.ids import BootId, DatastoreName, DiskId, HostId, VmId
from outlast.model.keeper_events import LinkOutcome
from outlast.model.records import HeartbeatRecord, PowerOnList, ProtectedList, RegisterRecord, Sighting
from outlast.model.settings import StoredSettings, newest_stored
from outlast.sim.physics import STALE_FOR

KEEP = 16
_Content = TypeVar("_Content")


class Slots(Generic[_Content]):
    """A list's two slots, by the parity of its sequence number; None where there is nothing, or nothing readable."""

    def __init__(self) -> None:
        self.slots: list[_Content | None] = [None, None]

    def write(self, sequence: int, content: _Content) -> None:
        """The whole slot is written."""
        self.slots[sequence % 2] = content

    def tear(self, sequence: int) -> None:
        """Half of the slot is written: nobody can read it until it is written again."""
        self.slots[sequence % 2] = None

    def newest(self, order: Callable[[_Content], Any]) -> _Content | None:
        """The newest that can be read."""
        return max(self.whole(), key=order, default=None)

    def whole(self) -> list[_Content]:
        """What can be read."""
        return [content for content in self.slots if content is not None]


class Datastore:
    """See the top of this file. `on_link` is told of every new epoch, for the invariants."""

    def __init__(self, name: DatastoreName, filesystem: str, device: str, bound: int | None = None) -> None:
        self.name = name
        self.filesystem = filesystem
        self.device = device
        self.in_flight_bound = bound
        self.sightings: dict[HostId, Sighting] = {}
        self.incarnations: dict[HostId, list[BootId]] = {}
        self.registers: dict[str, dict[int, RegisterRecord]] = {}
        self.claims: dict[DiskId, dict[int, DiskClaim]] = {}
        self.claimed_at: dict[DiskId, int] = {}
        self.power_on: dict[HostId, Slots[PowerOnList]] = {}
        self.protected: Slots[ProtectedList] = Slots()
        self.settings: Slots[StoredSettings] = Slots()
        self.paused_since: int | None = None
        self.aside_since: dict[VmId, int] = {}
        """When each VM that stands aside on the newest protected list was put there."""
        self.ever_aside: set[VmId] = set()
        self.definitions: dict[VmId, str] = {}
        self.linked_at: dict[str, int] = {}
        self.made_at: dict[tuple[str, int], int] = {}
        self.landed_at: dict[HostId, int] = {}
        self.newer_format: set[HostId] = set()
        self.now: Callable[[], int] = lambda: 0
        self.on_link: Callable[[Datastore, RegisterRecord], None] = lambda _store, _record: None
        self._records: dict[HostId, HeartbeatRecord] = {}
        self._torn = 0

    # -- heartbeats -----------------------------------------------------------------------------------------------

    def put_heartbeat(self, record: HeartbeatRecord) -> None:
        """A record is whole in its place. Its raw bytes are a function of its value: msgpack stands for them."""
        raw = msgspec.msgpack.encode(record)
        self.landed_at[record.host] = self.now()
        self._records[record.host] = record
        if record.host in self.newer_format:
            self.sightings[record.host] = Sighting(
                raw, None, "its heartbeat record is not believed: it has format version 2"
            )
        else:
            self.sightings[record.host] = Sighting(raw, record, "", record.incarnation)

    def damage_heartbeat(self, host: HostId, problem: str = "it is torn: its checksum does not match") -> None:
        """A host's block holds bytes that nobody can read, and that were not there before."""
        self._torn += 1
        self.landed_at[host] = self.now()
        self._records.pop(host, None)
        raw = b"damaged %d" % self._torn
        self.sightings[host] = Sighting(raw, None, f"its heartbeat record is not believed: {problem}")

    def holds(self, record: HeartbeatRecord) -> bool:
        """Whether exactly this record lies in its host's place."""
        return self._records.get(record.host) == record

    # -- registers ------------------------------------------------------------------------------------------------

    def last(self, subject: str) -> RegisterRecord | None:
        """The newest epoch of a register."""
        register = self.registers.get(subject)
        return register[max(register)] if register else None

    def last_as_cached(self, subject: str, reader: HostId) -> RegisterRecord | None:
        """The newest epoch as a client's cache has it: one that another client has just made may be missing."""
        last = self.last(subject)
        if last is None or last.owner == reader or self.now() - self.linked_at.get(subject, -STALE_FOR) >= STALE_FOR:
            return last
        return self.registers[subject].get(last.epoch - 1)

    def link(self, record: RegisterRecord) -> LinkOutcome:
        """Create an epoch, exclusively."""
        register = self.registers.setdefault(record.subject, {})
        is_new = record.epoch not in register
        outcome = _link(register, record.epoch, record)
        if outcome is LinkOutcome.LOST or not is_new:
            return outcome
        self.linked_at[record.subject] = self.made_at[record.subject, record.epoch] = self.now()
        self.on_link(self, record)
        return LinkOutcome.WON

    def last_claim(self, disk: DiskId, cached_by: HostId | None) -> DiskClaim | None:
        """The newest claim of a disk, or what a client's cache has for it."""
        made = self.claims.get(disk)
        if not made:
            return None
        last = made[max(made)]
        old = cached_by is None or last.host == cached_by or self.now() - self.claimed_at[disk] >= STALE_FOR
        return last if old else made.get(last.number - 1)

    def link_claim(self, claim: DiskClaim) -> LinkOutcome:
        """Create a claim, exclusively."""
        made = self.claims.setdefault(claim.disk, {})
        is_new = claim.number not in made
        outcome = _link(made, claim.number, claim)
        if outcome is LinkOutcome.WON and is_new:
            self.claimed_at[claim.disk] = self.now()
        return outcome

    def boot(self, host: HostId, boot_id: BootId) -> int:
        """The incarnation of this boot, made if it is new; the first is 1."""
        boots = self.incarnations.setdefault(host, [])
        if boot_id not in boots:
            boots.append(boot_id)
        return boots.index(boot_id) + 1

    # -- lists ----------------------------------------------------------------------------------------------------

    def power_on_lists(self) -> dict[HostId, PowerOnList]:
        """Every host's newest list that can be read."""
        newest = {host: max(s.whole(), key=_sequence, default=None) for host, s in self.power_on.items()}
        return {host: content for host, content in newest.items() if content is not None}

    def put_protected(self, content: ProtectedList) -> None:
        """A protected list is whole in its slot."""
        self.protected.write(content.sequence, content)
        newest = self.newest_protected()
        aside = {each.entry.vm for each in newest.aside} if newest is not None else set[VmId]()
        self.ever_aside |= aside
        self.aside_since = {vm: self.aside_since.get(vm, self.now()) for vm in sorted(aside)}

    def newest_protected(self) -> ProtectedList | None:
        """The protected list of the highest `primary` epoch, and of that the newest."""
        return max(self.protected.whole(), key=lambda c: (c.primary_epoch, c.sequence), default=None)

    def put_settings(self, stored: StoredSettings) -> None:
        """A settings record is whole in its slot. `paused_since`: when the newest one began to say so."""
        self.settings.write(stored.sequence, stored)
        newest = self.newest_settings()
        paused = newest is not None and newest.record.pause is not None
        if paused is not (self.paused_since is not None):
            self.paused_since = self.now() if paused else None

    def newest_settings(self) -> StoredSettings | None:
        """The newest settings record, with the highest number of a slot."""
        return newest_stored(self.settings.whole())


def _link(register: dict[int, _Content], number: int, record: _Content) -> LinkOutcome:
    """Make a number, if its predecessor exists and nothing higher does, and prune the oldest. Made already: whose is it?"""
    if number in register:
        return LinkOutcome.WON if register[number] == record else LinkOutcome.LOST
    if (number > 0 and number - 1 not in register) or (register and max(register) > number):
        return LinkOutcome.LOST
    register[number] = record
    for old in sorted(register)[:-KEEP]:
        if old > 0:
            del register[old]
    return LinkOutcome.WON


def _sequence(content: PowerOnList) -> int:
    return content.sequence
