"""What one agent knows, gathered in one place for the parts that decide, and the outbox that they write to.

`Knowledge` holds facts with times and answers simple questions about them; it decides nothing. `Outbox` collects the
effects of one turn in order, and numbers requests, so that an answer finds its asker.
"""

from collections.abc import Callable, Iterable

import msgspec

from outlast.model.effects import Effect, Note
from outlast.model.events import InventoryChanged
from outlast.model.health import Health
from outlast.model.ids import BootId, DatastoreName, HostId, HostName, RequestId, VmId, VmName
from outlast.model.inventory import Capacity, DatastoreMember, DatastoreReach, FenceLevel, HostMember, VmDefinition
from outlast.model.keeping import KeeperReport, KeptVm, LeaseReport
from outlast.model.messages import Heartbeat
from outlast.model.records import (
    AsideVm,
    Departs,
    Enforcement,
    GuestWord,
    PoweredVm,
    PowerOnList,
    ProofKind,
    ProtectedVm,
    RecordMark,
    RegisterRecord,
    Renounced,
)
from outlast.model.rules import Rule
from outlast.model.settings import Pause, Settings, SettingsMark, SettingsRecord
from outlast.model.time import LONG_AGO, MILLISECOND, SECOND, Duration, Instant
from outlast.protocol.flapping import Flapping, avoided
from outlast.protocol.heartbeat_datastores import Scored, choose
from outlast.protocol.observation import Freshness, RecordWatch
from outlast.protocol.planning.rulebook import RuleBook, resolve
from outlast.protocol.verdict import Judgement, Verdict, first_judgement

LIVE = frozenset({Verdict.CONNECTED, Verdict.STORAGE_LOST})
"""Verdicts of a host that hears us and whom we hear."""

LIVES = LIVE | {Verdict.PARTITIONED, Verdict.ISOLATED, Verdict.AGENT_DOWN, Verdict.UNRESPONSIVE}
"""Verdicts of a host that certainly lives, reachable or not: its VMs are its own."""


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's place in its fault domain. `session` is random and new at each start of the agent.

    `first_sequence` numbers this agent's first power-on list; it must be higher than every number that an earlier agent
    of this host ever used (wall clock in milliseconds, or a stored counter), so that the highest number is the newest.
    `settings` are those of this host's file; `record` the newest of the fault domain's that this host has kept.
    `least_margin`: what this host's watchdog needs, zero without one.
    `fencing`: the ways of switching each host off, in the order in which they are tried.
    `told`: what an earlier agent of this boot had written down last (`effects.RememberTold`); `health`: what any earlier
    one had been told of this host's hardware.
    """

    domain: str
    host: HostId
    hosts: tuple[HostMember, ...]
    datastores: tuple[DatastoreMember, ...]
    settings: Settings
    isolation_addresses: tuple[str, ...]
    boot_id: BootId
    session: str
    first_sequence: int
    record: SettingsRecord | None = None
    least_margin: Duration = Duration(0)
    fencing: dict[HostId, tuple[FenceLevel, ...]] = {}
    told: dict[VmId, Instant] = {}
    rules: tuple[Rule, ...] = ()
    health: Health = Health()


class BeatSeen(msgspec.Struct, frozen=True):
    """The last network heartbeat of a host, and when it arrived."""

    at: Instant
    beat: Heartbeat


SETTLES = Duration(SECOND)
"""How long switches and arrays may hold what a host sent before its power went: no word that it is off is used sooner."""


class PoweredOff(msgspec.Struct, frozen=True):
    """Somebody who can tell says that a host is off, as of `asked_at`; it holds until the host shows life.

    `kind` is the proof that it makes; `usable_at`: when what the host sent last has landed for certain. `marks`: the
    boots that an operator's word is about; a fence device speaks of all that there were when it was asked.
    """

    kind: ProofKind
    asked_at: Instant
    usable_at: Instant
    marks: tuple[RecordMark, ...] = ()


class Outbox:
    """The effects of one turn, in order. Orders are numbered from `first_order` on: above those of all earlier agents."""

    def __init__(self, first_order: int = 0) -> None:
        self._effects: list[Effect] = []
        self._orders = first_order
        self._requests = 0

    def put(self, effect: Effect) -> None:
        """Ask for `effect` after all that were put before."""
        self._effects.append(effect)

    def request(self) -> RequestId:
        """A new number for a request."""
        self._requests += 1
        return RequestId(self._requests)

    def order(self) -> int:
        """A new number for an order to a host, of whatever kind: whoever carries out an earlier one may still report."""
        self._orders += 1
        return self._orders

    def note(
        self,
        kind: str,
        *,
        host: HostId | None = None,
        vm: VmId | None = None,
        datastore: DatastoreName | None = None,
        relay: bool = False,
        **facts: object,
    ) -> None:
        """One line for the event log; `relay`: for every agent's."""
        texts = {key: str(value) for key, value in facts.items()}
        self.put(Note(kind=kind, host=host, vm=vm, datastore=datastore, facts=texts, relay=relay))

    def take(self) -> list[Effect]:
        """All effects of this turn; the next one begins empty."""
        effects, self._effects = self._effects, []
        return effects


class Knowledge:
    """See the top of this file."""

    departs: Departs = ""
    """What this host has to say of its going down (`departure`)."""

    def __init__(self, config: AgentConfig, now: Instant) -> None:
        self.config = config
        self.record = config.record
        self.settings: Settings = config.record.settings if config.record is not None else config.settings
        self.me = config.host
        self.members = {member.id: member for member in config.hosts}
        self.peers = tuple(member.id for member in config.hosts if member.id != config.host)
        self.datastores = {member.name: member for member in config.datastores}
        self.rulebook: RuleBook = resolve(config.rules, config.hosts)
        self.now = now
        self.started = now
        self.beats: dict[HostId, BeatSeen] = {}
        max_gap = _most_apart(self.settings)
        self.watches = {(host, datastore): RecordWatch(max_gap) for host in self.members for datastore in self.datastores}
        self.power_on: dict[HostId, PowerOnList] = {}
        self.predecessors_list: PowerOnList | None = None
        """This host's newest list by an earlier agent of it: what libvirt does not tell of a VM may stand there."""
        self.looked_back = False
        """Whether storage was read for it at all."""
        self._lines: dict[VmId, dict[HostId, PoweredVm]] = {}
        """Every VM's line on each list on which it stands."""
        self.who_runs_what = 0
        """Rises when the answer of `lister` may have become another one: a list, a verdict or a boot is new."""
        self.protected: dict[VmId, tuple[DatastoreName, ProtectedVm]] = {}
        """What stands, or stood, on a protected list that was read here, with its home."""
        self.asked: dict[VmId, ProtectedVm] = {}
        self.aside: dict[VmId, AsideVm] = {}
        """What operators want of VMs, as the protected lists say; replaced when anything changes, never changed."""
        self.lists_changed: set[DatastoreName] = set()
        """Whose protected lists are worth being read now."""
        self._vm_names: dict[VmId, VmName] = {}
        self.killed: set[VmId] = set()
        """This host's VMs whose processes our keeper ended, or will not let run."""
        self.troubles: dict[VmId, str] = {}
        """What was last said of a VM that crashed, for people: no decision rests on it."""
        self.reach: dict[DatastoreName, DatastoreReach] = {}
        self.keeper: KeeperReport | None = None
        self.definitions: dict[VmId, VmDefinition] = {}
        self.ordered: dict[VmId, PoweredVm] = {}
        """What the order to start a VM here said of it, until libvirt says that it runs: what it knew before is older."""
        self.running: frozenset[VmId] = frozenset()
        self.ready: frozenset[VmId] = frozenset()
        """This host's VMs that are ready for those that wait for them (`readiness`)."""
        self.guests: dict[VmId, GuestWord] = {}
        """How the guests of this host are that are watched (`guest_watch`); replaced when anything changes."""
        self.capacity, self.health = Capacity(), config.health
        self.left_paused: frozenset[VmId] = frozenset()
        """Those of them whose guest a failed migration has left paused."""
        self.hypervisor_up, self.hypervisor_problem = False, "not connected yet"
        self._inventory: dict[HostId, tuple[object, ...]] = {}
        self._scores: dict[HostId, tuple[Scored, ...]] = {}
        self._associated: dict[HostId, tuple[DatastoreName, ...]] = {}
        self.flapping = Flapping()
        self.judgements: dict[HostId, Judgement] = {host: first_judgement(now) for host in self.peers}
        self.powered_off: dict[HostId, PoweredOff] = {}
        self.renounced: dict[VmId, Renounced] = {}
        """The newest word of an owner that gave a VM up whose home it has lost (`storage_loss`)."""
        self.silent = self.peers
        """The hosts that cannot be talked to, or of which nothing is known yet."""

    @property
    def mark(self) -> SettingsMark:
        """Which of the fault domain's settings this host uses."""
        return self.record.mark if self.record is not None else SettingsMark()

    @property
    def pause(self) -> Pause | None:
        """Whether an operator holds all automatic recovery, and who."""
        return self.record.pause if self.record is not None else None

    def take_record(self, record: SettingsRecord) -> None:
        """The fault domain's settings are others now."""
        self.record, self.settings = record, record.settings
        for watch in self.watches.values():
            watch.max_gap = _most_apart(record.settings)
        self._scores.clear()
        self._associated.clear()

    def name(self, host: HostId | None) -> HostName:
        """What people call a host."""
        if host is None:
            return HostName("nobody")
        member = self.members.get(host)
        return member.name if member is not None else HostName(host)

    def vm_name(self, vm: VmId) -> VmName:
        """What people call a VM; its id if it was never heard of. Names outlive the lists that they stood on."""
        return self._vm_names.get(vm, VmName(vm))

    def learn_vm_name(self, vm: VmId, name: VmName) -> None:
        """A list, a definition or an order names a VM."""
        self._vm_names[vm] = name

    def take_list(self, content: PowerOnList) -> None:
        """A host's power-on list, newer than the one that was known."""
        old = self.power_on.get(content.host)
        self.power_on[content.host] = content
        self.who_runs_what += 1
        for line in old.vms if old is not None else ():
            self._lines[line.vm].pop(content.host, None)
        for line in content.vms:
            self._lines.setdefault(line.vm, {})[content.host] = line
            self.learn_vm_name(line.vm, line.name)

    def look_back(self, own: PowerOnList | None) -> bool:
        """This host's list on a datastore was read; True if that says more about an earlier agent's than was known."""
        news, self.looked_back = not self.looked_back, True
        if own is None or own.sequence >= self.config.first_sequence:
            return news
        if self.predecessors_list is not None and own.sequence <= self.predecessors_list.sequence:
            return news
        self.predecessors_list = own
        return True

    def take_beat(self, beat: Heartbeat) -> None:
        """A network heartbeat of another host, now."""
        before = self.beats.get(beat.sender)
        if before is None or before.beat.boot_id != beat.boot_id:
            self.who_runs_what += 1
        self.beats[beat.sender] = BeatSeen(self.now, beat)
        if before is None or before.beat.reach != beat.reach:
            self._inventory_of(beat.sender, beat.reach)

    def take_reach(self, reach: DatastoreReach) -> None:
        """What this host found out about one of its datastores, now."""
        self.reach[reach.datastore] = reach
        self._inventory_of(self.me, tuple(self.reach.values()))

    def _inventory_of(self, host: HostId, reach: tuple[DatastoreReach, ...]) -> None:
        """Heartbeat datastores are chosen anew only when the inventory changed; free space is not part of it."""
        inventory = tuple((r.datastore, r.reachable, r.filesystem, r.device) for r in reach)
        if self._inventory.get(host) != inventory:
            self._inventory[host] = inventory
            self._scores.clear()
            self._associated.clear()

    def take_order(self, vm: VmId, line: PoweredVm) -> None:
        """A VM is to be started here; `line`: as it would stand on our list. What runs here, libvirt knows better."""
        if vm not in self.running:
            self.ordered = {**self.ordered, vm: line}

    def forget_orders(self, vms: Iterable[VmId]) -> None:
        """Libvirt tells of these VMs itself, or they were not started after all."""
        if not self.ordered.keys().isdisjoint(vms := frozenset(vms)):
            self.ordered = {vm: line for vm, line in self.ordered.items() if vm not in vms}

    def take_inventory(self, event: InventoryChanged) -> None:
        """This host's VMs as libvirt knows them now."""
        self.definitions = {definition.vm: definition for definition in event.definitions}
        for definition in event.definitions:
            self.learn_vm_name(definition.vm, definition.name)
        self.running, self.left_paused = event.running, event.left_paused
        self.forget_orders(event.running)
        self.capacity = event.capacity

    def verdict(self, host: HostId) -> Verdict:
        """The verdict about a host; this host is always connected to itself."""
        if host == self.me:
            return Verdict.CONNECTED
        judgement = self.judgements.get(host)
        return judgement.verdict if judgement is not None else Verdict.UNKNOWN

    def verdict_changed(self) -> None:
        """Some host's verdict is another one now."""
        self.who_runs_what += 1
        self.silent = tuple(host for host in self.peers if self.judgements[host].verdict not in LIVE)

    def lives(self, host: HostId) -> bool:
        """Whether a host certainly lives."""
        return self.verdict(host) in LIVES

    def live(self, host: HostId) -> bool:
        """Whether a host can be talked to."""
        return self.verdict(host) in LIVE

    def avoided(self) -> dict[HostId, Duration]:
        """The hosts that failed again and again, by what this agent and those that it hears have seen."""
        told = [self.flapping.left(self.now)]
        for host, seen in self.beats.items():
            if self.live(host):
                told.append({each: Duration(ms * MILLISECOND) for each, ms in seen.beat.avoided.items()})
        return avoided(told, len(self.members))

    @property
    def kept(self) -> tuple[KeptVm, ...]:
        """The VMs in our keeper's care; none while it does not answer."""
        return self.keeper.vms if self.keeper is not None else ()

    def kept_vm(self, vm: VmId) -> KeptVm | None:
        """One of them."""
        return next((kept for kept in self.kept if kept.vm == vm), None)

    @property
    def leases(self) -> tuple[LeaseReport, ...]:
        """Our keeper's leases, as it says; none while it does not answer."""
        return self.keeper.leases if self.keeper is not None else ()

    def lease(self, datastore: DatastoreName) -> LeaseReport | None:
        """Our own lease on a datastore, None while the keeper says nothing."""
        return next((lease for lease in self.leases if lease.datastore == datastore), None)

    def holds_lease(self, datastore: DatastoreName) -> bool:
        """Whether our own lease on a datastore is good, as our keeper last said; a keeper that hangs says nothing new."""
        lease = self.lease(datastore)
        return lease is not None and lease.held and self.now < lease.deadline

    def next_lapse(self) -> Instant | None:
        """When the first of our own leases ends, unless it is renewed: a keeper that hangs does not say so."""
        return min((Instant(x.deadline) for x in self.leases if x.held and x.deadline > self.now), default=None)

    def lapsed(self) -> tuple[DatastoreName, ...]:
        """The datastores on which this host holds no lease."""
        return tuple(name for name in self.datastores if not self.holds_lease(name))

    def failing(self) -> tuple[DatastoreName, ...]:
        """The datastores on which this host's lease has lapsed by errors, as its keeper says."""
        return tuple(lease.datastore for lease in self.leases if lease.failing and not self.holds_lease(lease.datastore))

    def has_lease(self, host: HostId, datastore: DatastoreName) -> bool:
        """Whether a host says that its lease on a datastore is good."""
        if host == self.me:
            return self.holds_lease(datastore)
        seen = self.beats.get(host)
        if seen is None or datastore in seen.beat.lapsed:
            return False
        return any(reach.datastore == datastore and reach.reachable for reach in seen.beat.reach)

    def leases_of(self, host: HostId) -> frozenset[DatastoreName]:
        """The datastores on which a host says that its lease is good."""
        seen = self.beats.get(host)
        if host == self.me:
            named = tuple(self.datastores)
        else:
            named = tuple(reach.datastore for reach in seen.beat.reach) if seen is not None else ()
        return frozenset(name for name in named if self.has_lease(host, name))

    def boot_of(self, host: HostId) -> BootId | None:
        """The newest boot of a host that anything tells of: its heartbeats while it is heard, else its newest record."""
        if host == self.me:
            return self.config.boot_id
        seen = self.beats.get(host)
        if seen is not None and self.live(host):
            return seen.beat.boot_id
        watches = [self.watches[host, name] for name in self.datastores]
        newest = max(watches, key=lambda watch: watch.changed_at or LONG_AGO, default=None)
        return newest.record.boot_id if newest is not None and newest.record is not None else None

    def lister(self, vm: VmId) -> HostId | None:
        """The host on whose power-on list the VM stands: one that lives before one that does not."""
        found = self._place(vm, self._counts)
        return found[0] if found is not None else None

    def listed(self, vm: VmId) -> PoweredVm | None:
        """The VM's line on the power-on list of `lister`."""
        found = self._place(vm, self._counts)
        return found[1] if found is not None else None

    def whereabouts(self) -> dict[VmId, tuple[HostId, PoweredVm]]:
        """Every VM on any host's power-on list: its `lister` and its line there."""
        counting = {host for host in self.power_on if self._counts(host)}
        places = ((vm, self._place(vm, counting.__contains__)) for vm in self._lines)
        return {vm: place for vm, place in places if place is not None}

    def _counts(self, host: HostId) -> bool:
        """The list of an earlier boot tells of nothing any more, however well its host is now."""
        return self.boot_of(host) in (None, self.power_on[host].boot_id)

    def _place(self, vm: VmId, counts: Callable[[HostId], bool]) -> tuple[HostId, PoweredVm] | None:
        """The best of the hosts that list it, and its line there; of the lists that count, and have not given it up."""
        best: tuple[HostId, PoweredVm] | None = None
        for host, line in self._lines.get(vm, {}).items():
            if not counts(host) or self._is_given_up(host, line):
                continue
            if best is None or self._rank(host, line) > self._rank(*best):
                best = host, line
        return best

    def _rank(self, host: HostId, line: PoweredVm) -> tuple[bool, int, HostId]:
        """Of two hosts that list a VM, whose list tells where it is: who cannot write any more lists an older epoch."""
        return self.lives(host), line.epoch if line.epoch is not None else -1, host

    def _is_given_up(self, host: HostId, line: PoweredVm) -> bool:
        """Whether its host has said since that it runs nothing of what it lists there."""
        word = self.renounced.get(line.vm)
        if word is None or (word.owner, word.home) != (host, line.home):
            return False
        return line.epoch is not None and line.epoch <= word.epoch

    def has_given_up(self, last: RegisterRecord, home: DatastoreName) -> bool:
        """Whether the owner of exactly this epoch has said that it does not and will not run it."""
        word = Renounced(last.owner, home, last.epoch, last.session)
        return self.renounced.get(VmId(last.subject)) == word

    def domain_reach(self) -> dict[HostId, tuple[DatastoreReach, ...]]:
        """What every host reaches, as far as it ever said so."""
        reach = {host: seen.beat.reach for host, seen in self.beats.items()}
        reach[self.me] = tuple(self.reach.values())
        return reach

    def scores(self, host: HostId) -> tuple[Scored, ...]:
        """The accessibility scores behind `associated`, best first."""
        known = self._scores.get(host)
        if known is None:
            per_host, threshold = self.settings.heartbeat_datastores_per_host, self.settings.accessibility_threshold
            known = self._scores[host] = choose(host, self.domain_reach(), per_host, threshold)
        return known

    def associated(self, host: HostId) -> tuple[DatastoreName, ...]:
        """The host's heartbeat datastores; all datastores as long as nothing is known of what it reaches."""
        known = self._associated.get(host)
        if known is None:
            chosen = tuple(sorted(s.datastore for s in self.scores(host) if s.chosen and s.datastore in self.datastores))
            known = self._associated[host] = chosen or tuple(sorted(self.datastores))
        return known

    def is_fresh(self, host: HostId) -> bool:
        """Whether a host's record changes on any datastore."""
        stale_after = self.settings.datastore_stale_after
        return any(
            self.watches[host, datastore].freshness(self.now, stale_after) is Freshness.FRESH
            for datastore in self.datastores
        )

    def said_off(self, last: RegisterRecord, home: DatastoreName, read_at: Instant) -> ProofKind | None:
        """Whether somebody who can tell says that the owner of this epoch is gone; `read_at`: when it was read.

        A fence device speaks of every boot that there was when it was asked: the epoch was read before. An operator speaks
        of the boots that stood on the screen: the epoch is of one of them.
        """
        off = self.powered_off.get(last.owner)
        if off is None or self.now < off.usable_at:
            return None
        if off.kind is ProofKind.POWER_FENCED:
            return off.kind if read_at <= off.asked_at else None
        meant = any(mark.datastore == home and last.incarnation <= mark.incarnation for mark in off.marks)
        return off.kind if meant else None

    def expiry_may_prove(self, host: HostId, datastore: DatastoreName, answers_ping: bool) -> bool:
        """Rules 5 and 6: whether `lease_expired` may be proof about that host on that datastore."""
        record = self.watches[host, datastore].record
        if record is None or record.enforcement is Enforcement.NONE:
            return False
        if record.enforcement is Enforcement.KEEPER and answers_ping:
            return False
        member = self.datastores[datastore]
        margin = min(self.settings.lease_margin, Duration(record.window - record.lease))
        bounded = member.in_flight_bound is not None and member.in_flight_bound <= margin
        return bounded or member.accept_in_flight_risk


def _most_apart(settings: Settings) -> Duration:
    """Reads of a record that are further apart than this belong to different windows."""
    return Duration(4 * settings.datastore_poll_interval)
