"""One datastore for the agent: its machine's storage effects in, events out.

Opens and seals what the I/O helper reads and writes. A record that cannot be believed never raises: its problem goes into
the event, beside what could be read.
"""

import hashlib

from outlast.codec import records
from outlast.codec.frames import FrameError
from outlast.drivers.datastore import places
from outlast.drivers.datastore.client import HelperClient
from outlast.drivers.datastore.opening import open_newest
from outlast.drivers.datastore.wire import (
    UNREADABLE,
    Blocks,
    Done,
    Failed,
    Lasts,
    LinkEnded,
    LinkNext,
    Raw,
    ReadBlocks,
    ReadLast,
    ReadSlots,
    Result,
    Slots,
    Survey,
    Surveyed,
    WriteSlot,
)
from outlast.model.effects import (
    LinkPrimary,
    ReadPowerOnLists,
    ReadProtectedList,
    ReadRegisters,
    ReadSettings,
    ReadSightings,
    StoreDefinition,
    WritePowerOnList,
    WriteProtectedList,
    WriteSettings,
)
from outlast.model.events import (
    Event,
    PowerOnListsRead,
    PrimaryLinked,
    ProtectedListRead,
    RegistersRead,
    SettingsRead,
    SightingsRead,
    Stored,
)
from outlast.model.ids import DatastoreName, HostId, VmId
from outlast.model.inventory import DatastoreMember, DatastoreReach
from outlast.model.keeper_events import LinkOutcome
from outlast.model.records import PowerOnList, ProtectedList, RegisterRecord, Sighting
from outlast.model.settings import StoredSettings, newest_stored

StorageEffect = (
    ReadSightings
    | ReadPowerOnLists
    | ReadRegisters
    | LinkPrimary
    | ReadProtectedList
    | WriteProtectedList
    | WritePowerOnList
    | StoreDefinition
    | ReadSettings
    | WriteSettings
)


def _problem(result: Result) -> str:
    return result.problem if isinstance(result, Failed | Done) else "the I/O helper gave an answer of another kind"


class Store:
    """`hosts`: whose records and lists are read."""

    def __init__(self, member: DatastoreMember, client: HelperClient, key: bytes, hosts: tuple[HostId, ...]) -> None:
        self._name: DatastoreName = member.name
        self._client = client
        self._key = key
        self._hosts = hosts
        self._definition_sequence: dict[VmId, int] = {}

    async def execute(self, effect: StorageEffect) -> Event:
        """Do what the machine asks for, and say how it went."""
        match effect:
            case ReadSightings():
                return await self._sightings(effect)
            case ReadPowerOnLists():
                return await self._power_on_lists(effect)
            case ReadRegisters():
                return await self._registers(effect)
            case LinkPrimary():
                return await self._link_primary(effect)
            case ReadProtectedList():
                return await self._protected_list(effect)
            case WriteProtectedList():
                data = records.seal_protected_list(effect.content, self._key)
                return await self._write(effect, places.PROTECTED, effect.content.sequence, data)
            case WritePowerOnList():
                data = records.seal_power_on_list(effect.content, self._key)
                return await self._write(effect, places.power_on(effect.content.host), effect.content.sequence, data)
            case StoreDefinition():
                return await self._store_definition(effect)
            case ReadSettings():
                return await self._settings(effect)
            case WriteSettings():
                data = records.seal_settings(effect.content, self._key)
                return await self._write(effect, places.SETTINGS, effect.content.sequence, data)

    # -- reading --------------------------------------------------------------------------------------------------

    async def _sightings(self, effect: ReadSightings) -> SightingsRead:
        result = await self._client.ask(ReadBlocks(tuple(places.heartbeat(host) for host in self._hosts)))
        if not isinstance(result, Blocks):
            return SightingsRead(effect.request, self._name, False, {}, _problem(result))
        found = {host: self._sighting(host, raw) for host, raw in zip(self._hosts, result.found, strict=True)}
        return SightingsRead(effect.request, self._name, True, found)

    def _sighting(self, host: HostId, raw: Raw) -> Sighting:
        if raw.data is None:
            return Sighting(None, None, raw.problem or "it has no heartbeat record yet")
        digest = hashlib.blake2b(raw.data, digest_size=16).digest()
        try:
            record = records.open_heartbeat(raw.data, self._key)
        except FrameError as error:
            return Sighting(digest, None, f"its heartbeat record is not believed: {error}")
        if record.host != host:
            return Sighting(
                digest, None, f"its heartbeat record was written by {record.host}: two hosts with one directory?"
            )
        return Sighting(digest, record, "", record.incarnation)

    async def _power_on_lists(self, effect: ReadPowerOnLists) -> PowerOnListsRead:
        result = await self._client.ask(ReadSlots(tuple(places.power_on(host) for host in self._hosts)))
        if not isinstance(result, Slots):
            return PowerOnListsRead(effect.request, self._name, False, {}, _problem(result))
        lists: dict[HostId, PowerOnList] = {}
        for host, slots in zip(self._hosts, result.found, strict=True):
            newest: PowerOnList | None = None
            for slot in slots:
                try:
                    content = records.open_power_on_list(slot, self._key)
                except FrameError:
                    continue  # The other slot is whole; a list that is torn twice is missing.
                if content.host == host and (newest is None or content.sequence > newest.sequence):
                    newest = content
            if newest is not None:
                lists[host] = newest
        return PowerOnListsRead(effect.request, self._name, True, lists)

    async def _registers(self, effect: ReadRegisters) -> RegistersRead:
        result = await self._client.ask(ReadLast(tuple(places.register(subject) for subject in effect.subjects)))
        if not isinstance(result, Lasts):
            return RegistersRead(effect.request, self._name, False, {}, _problem(result))
        last: dict[str, RegisterRecord | None] = {}
        problems: list[str] = []
        for subject, newest in zip(effect.subjects, result.found, strict=True):
            record, problem = open_newest(newest, subject, self._key)
            if problem:
                problems.append(problem)
            else:
                last[subject] = record
        return RegistersRead(effect.request, self._name, True, last, "; ".join(problems))

    async def _protected_list(self, effect: ReadProtectedList) -> ProtectedListRead:
        result = await self._client.ask(ReadSlots((places.PROTECTED,)))
        if not isinstance(result, Slots):
            return ProtectedListRead(effect.request, self._name, False, None, _problem(result))
        newest: ProtectedList | None = None
        problems: list[str] = []
        # A slot of zeros is a hole before the other one: a first list that is torn is still none, and is written anew.
        slots = [slot for slot in result.found[0] if slot.strip(b"\0")]
        for slot in slots:
            try:
                content = records.open_protected_list(slot, self._key)
            except FrameError as error:
                problems.append(str(error))
                continue
            order = (content.primary_epoch, content.sequence)
            if newest is None or order > (newest.primary_epoch, newest.sequence):
                newest = content
        if newest is None and (len(problems) == 2 or UNREADABLE in slots):
            return ProtectedListRead(effect.request, self._name, False, None, problems[0])
        return ProtectedListRead(effect.request, self._name, True, newest)

    async def _settings(self, effect: ReadSettings) -> SettingsRead:
        result = await self._client.ask(ReadSlots((places.SETTINGS,)))
        if not isinstance(result, Slots):
            return SettingsRead(effect.request, self._name, False, None, _problem(result))
        found: list[StoredSettings] = []
        problem = ""
        for slot in result.found[0]:
            try:
                found.append(records.open_settings(slot, self._key))
            except FrameError as error:
                problem = str(error) if slot.strip(b"\0") else problem
        return SettingsRead(effect.request, self._name, True, newest_stored(found), problem)

    async def read_definition(self, vm: VmId) -> tuple[str | None, str]:
        """The VM's domain XML, or None and why."""
        result = await self._client.ask(ReadSlots((places.definition(vm),)))
        if not isinstance(result, Slots):
            return None, _problem(result)
        newest: records.Definition | None = None
        problem = f"there is none on {self._name}"
        for slot in result.found[0]:
            try:
                content = records.open_definition(slot, self._key)
            except FrameError as error:
                problem = str(error)
                continue
            if newest is None or content.sequence > newest.sequence:
                newest = content
        if newest is None:
            return None, problem
        self._definition_sequence[vm] = newest.sequence
        return newest.xml, ""

    async def survey(self) -> DatastoreReach:
        """What the datastore is and how it does now."""
        result = await self._client.ask(Survey())
        if not isinstance(result, Surveyed):
            return DatastoreReach(self._name, False, problem=_problem(result))
        problem = "it is mounted read-only: mount it read-write" if result.read_only else ""
        return DatastoreReach(
            self._name, not result.read_only, result.filesystem, result.device, result.free_bytes, problem
        )

    # -- writing --------------------------------------------------------------------------------------------------

    async def _write(
        self,
        effect: WriteProtectedList | WritePowerOnList | StoreDefinition | WriteSettings,
        path: str,
        sequence: int,
        data: bytes,
    ) -> Stored:
        result = await self._client.ask(WriteSlot(path, sequence, data))
        ok = isinstance(result, Done) and result.ok
        return Stored(effect.request, self._name, ok, "" if ok else _problem(result))

    async def _store_definition(self, effect: StoreDefinition) -> Stored:
        if effect.first or effect.vm not in self._definition_sequence:
            known, _ = await self.read_definition(effect.vm)
            if known == effect.xml or (effect.first and known is not None):
                return Stored(effect.request, self._name, True)
        sequence = self._definition_sequence.get(effect.vm, 0) + 1
        self._definition_sequence[effect.vm] = sequence
        data = records.seal_definition(records.Definition(sequence, effect.xml), self._key)
        return await self._write(effect, places.definition(effect.vm), sequence, data)

    async def _link_primary(self, effect: LinkPrimary) -> PrimaryLinked:
        record = effect.record
        data = records.seal_register(record, self._key)
        result = await self._client.ask(LinkNext(places.register(record.subject), record.epoch, data))
        if isinstance(result, LinkEnded):
            return PrimaryLinked(effect.request, self._name, LinkOutcome(result.outcome), result.problem)
        return PrimaryLinked(effect.request, self._name, LinkOutcome.UNKNOWN, _problem(result))

    def close(self) -> None:
        """End the I/O helper."""
        self._client.close()
