"""One agent: everything a host's `outlast agent` decides, as one pure machine.

It composes the parts, each in the file of its name, over one `Knowledge`:

    peers              heartbeats, pings, a verdict of every other host
    datastore_watch    everybody's records and power-on lists on storage
    isolation          is it me?
    doubt              is it me or the network, if many are silent at once? Who is not back after a cold start?
    election           who is primary
    responsibility     which datastores this agent is responsible for; their protected lists
    command_desk       what operators ask; `asking_around`: of a VM unknown here; `wish_keeping`, `wish_following`: of VMs
    health_desk        what is said of this host's hardware
    shared_settings    the fault domain's settings, whether it is paused, and which hosts are kept empty
    fencing            (primary) switching silent hosts off, so that their end is proof
    operator_word      an operator's word that a host is off, and the primary's answer to it
    recovery           (who is responsible) VMs that should run and do not
    maintenance        (primary) emptying the hosts that are kept empty; `moving` has VMs go on elsewhere
    retrying           an operator asks for one to be tried once more
    orders             (any host) carrying out a restart
    readiness          which of this host's VMs are ready for those that wait for them
    guest_watch        guests that hang while their processes are well, and are reset
    migrating          live migrations, from here and to here
    own_host           this host's power-on list, definitions, ends, isolation response
    departure          this host goes down in good order; those that keep their VMs meanwhile are in `planned_reboot`
    capacity           (primary) what the domain can lose now
    admission          which VMs may not be newly started here, for the gate
    claiming           the disks of what runs here: nobody else is to write to them
    lost_copies        frozen VMs that another host owns by now
    giving_up          VMs whose home is lost to this host, and that another one asks for (`recovery`, by `storage_loss`)
    storage_pace       datastores that answer slowly, told before it hurts
    forgotten_starts   starts that libvirt carries out no more, and does not say so

Order of a turn: the event becomes knowledge; then, if it is news (`news`) or time alone may have changed something, the
parts look at it in the order above; what is written to storage is asked for before what is sent. Heartbeats and reads go
out when they are due, whether anything is decided or not. Nothing waits: answers are events, and every wait in a part has
a deadline of its own.
"""

from outlast.model.effects import AskKeeper, Effect, Ping
from outlast.model.events import (
    CommandGiven,
    DatastoreSurveyed,
    Event,
    FenceEnded,
    FenceStatusEnded,
    FenceTested,
    GuestLookedAt,
    GuestProbed,
    GuestReset,
    HostGoesDown,
    HypervisorState,
    InventoryChanged,
    KeeperAnswered,
    KeeperDid,
    KeeperGone,
    KeeperReported,
    PingAnswered,
    PingNotSent,
    PowerOnListsRead,
    PrimaryLinked,
    ProtectedListRead,
    Received,
    RegistersRead,
    RetryAsked,
    SettingsRead,
    SightingsRead,
    Stored,
    VmLookedAt,
    VmMigrationEnded,
    VmMigrationProgress,
    VmResumed,
    VmStartEnded,
    VmStopped,
    Woken,
)
from outlast.model.ids import DatastoreName
from outlast.model.keeping import Progress
from outlast.model.messages import (
    Emptying,
    Heartbeat,
    Rank,
)
from outlast.model.time import MILLISECOND, NEVER, Instant, after
from outlast.protocol.admission import AdmissionDesk
from outlast.protocol.capacity import CapacityWatch
from outlast.protocol.claiming import RunningDisks
from outlast.protocol.command_desk import CommandDesk
from outlast.protocol.datastore_watch import DatastoreWatch
from outlast.protocol.departure import Departure
from outlast.protocol.doubt import Doubt
from outlast.protocol.election import Election
from outlast.protocol.fencing import Fencing
from outlast.protocol.forgotten_starts import ForgottenStarts
from outlast.protocol.giving_up import GivingUp
from outlast.protocol.guest_watch import GuestWatch
from outlast.protocol.health_desk import HealthDesk
from outlast.protocol.hearing import hear
from outlast.protocol.isolation import Isolation
from outlast.protocol.knowledge import AgentConfig, Knowledge, Outbox
from outlast.protocol.lost_copies import LostCopies
from outlast.protocol.maintenance import Maintenance
from outlast.protocol.migrating import Migrating
from outlast.protocol.moving import Mover
from outlast.protocol.news import in_report
from outlast.protocol.operator_word import OperatorDesk
from outlast.protocol.orders import OrderDesk
from outlast.protocol.own_heartbeat import own_heartbeat
from outlast.protocol.own_host import OwnHost
from outlast.protocol.peers import Peers
from outlast.protocol.readiness import Readiness
from outlast.protocol.recovery import Recovery
from outlast.protocol.responsibility import Responsibility, Standing
from outlast.protocol.retrying import Retrying
from outlast.protocol.settings_changing import SettingsChanger
from outlast.protocol.shared_settings import SharedSettings
from outlast.protocol.storage_pace import StoragePace
from outlast.protocol.wish_following import WishFollower
from outlast.protocol.wish_keeping import WishKeeper


class AgentMachine:
    """See the top of this file. One instance an agent process."""

    def __init__(self, config: AgentConfig, now: Instant) -> None:
        self.known = Knowledge(config, now)
        self._out = Outbox(config.first_sequence)
        self.peers = Peers(self.known, self._out)
        self.watch = DatastoreWatch(self.known, self._out)
        self.isolation = Isolation(self.known.settings, len(self.known.peers), len(config.isolation_addresses), now)
        self.election = Election(self.known.settings, config.host, now)
        self.responsibility = Responsibility(self.known, self._out)
        self.settings = SharedSettings(self.known, self._out, self.responsibility)
        self.follower = WishFollower(self.known, self._out, self.responsibility)
        self.wishes = WishKeeper(self.known, self._out, self.responsibility)
        self.health = HealthDesk(self.known, self._out)
        self.migrating = Migrating(self.known, self._out)
        changer = SettingsChanger(self.known, self._out, self.settings, lambda: self.election.term)
        self.commands = CommandDesk(
            self.known,
            self._out,
            responsibility=self.responsibility,
            settings=changer,
            wishes=self.wishes,
            health=self.health,
            migrations=self.migrating.leaving,
        )
        self.desk = OrderDesk(self.known, self._out)
        self.doubt = Doubt(self.known, self._out, self.peers, self.isolation)
        peers, responsibility, shared, watch = self.peers, self.responsibility, self.settings, self.watch
        self.fencing = Fencing(
            self.known, self._out, peers=peers, responsibility=responsibility, shared=shared, doubt=self.doubt, watch=watch
        )
        self.operator = OperatorDesk(self.known, self._out)
        self.recovery = Recovery(
            self.known,
            self._out,
            peers=self.peers,
            responsibility=self.responsibility,
            shared=self.settings,
            desk=self.desk,
            fencing=self.fencing,
            doubt=self.doubt,
        )
        self.mover = Mover(self.known, self._out)
        self.maintenance = Maintenance(self.known, self._out, self.mover, self.recovery.placement, changer.take)
        self.departure = Departure(self.known, self._out, self.commands.given, self.emptying, self.hands_over)
        self.retrying = Retrying(self.known, self._out, self.recovery, self.responsibility)
        self.readiness = Readiness(self.known, self._out, self.desk)
        self.guests = GuestWatch(self.known, self._out, self.desk, self.migrating.leaving)
        self.own = OwnHost(self.known, self._out, desk=self.desk, wishes=self.follower, migrations=self.migrating.leaving)
        self.capacity = CapacityWatch(self.known, self._out, self.recovery.placement)
        self.admission = AdmissionDesk(self.known, self._out, self.recovery.placement)
        self.forgotten = ForgottenStarts(self.known, self._out)
        self.claiming = RunningDisks(self.known, self._out)
        self.lost = LostCopies(self.known, self._out)
        self.pace = StoragePace(self.known, self._out)
        self.giving_up = GivingUp(self.known, self._out)
        self._isolation_ping_due = self._progress_due = self._decide_at = now
        self._progress, self._leaving = 0, False
        self._protected_from: tuple[int, tuple[DatastoreName, ...]] = (-1, ())

    # -- the two calls of every machine ---------------------------------------------------------------------------

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """What to do about `event`, in order."""
        self.known.now = now
        news = self._learn(event)
        self._show_progress()
        if news or now >= self._decide_at or self.peers.missed() or now >= self.isolation.silence_due:
            self.decide()
            self._decide_at = self._decisions_due()
        else:
            self._go_on()
        if self.peers.beat_is_due() and not self._leaving:
            self.peers.send_beat(self._beat())
        return self._out.take()

    def deadline(self) -> Instant:
        """When to be called again with `Woken`."""
        waits = (self._progress_due, self._decide_at, self.peers.beat_due, self.peers.miss_due, self.isolation.silence_due)
        reads = (self.watch.due, self.settings.due, self.follower.due, self.capacity.due, self.admission.due)
        due = min(*waits, *reads)
        # A part that is overdue has just had its turn: it is called again soon, not in a tight loop.
        return max(after(self.known.now, MILLISECOND), due)

    def _decisions_due(self) -> Instant:
        """When time alone may change what was decided."""
        now = self.known.now
        due = [
            self.peers.next_deadline(),
            self.isolation.next_deadline(now),
            self.responsibility.next_deadline(),
            self.election.next_deadline(now),
            self.doubt.next_deadline(),
            self.commands.next_deadline(),
            self.follower.next_deadline(),
            self.recovery.next_deadline(),
            self.maintenance.next_deadline(),
            self.fencing.next_deadline(),
            self.operator.next_deadline(),
            self.desk.next_deadline(),
            self.migrating.next_deadline(),
            self.retrying.next_deadline(),
            self.readiness.next_deadline(),
            self.guests.next_deadline(),
            self.own.next_deadline(),
            self.departure.next_deadline(),
            self.forgotten.next_deadline(),
            self.claiming.next_deadline(),
            self.known.next_lapse(),
        ]
        if self.isolation.silent(now) or self.doubt.asks:
            due.append(self._isolation_ping_due)
        if self.known.who_runs_what != self._protected_from[0]:
            due.append(now)  # Our own list has just become another one, after everybody looked.
        return max(after(now, MILLISECOND), min((t for t in due if t is not None), default=NEVER))

    def _go_on(self) -> None:
        """Nobody has to decide. What looks at the domain on its own account goes on when its time has come."""
        now = self.known.now
        if now >= self.watch.due:
            self.watch.tick()
        if now >= self.settings.due:
            self.settings.tick()
        if now >= self.follower.due:
            self.follower.read()
        if now >= self.capacity.due:
            self.capacity.tick(self.election.am_primary)
        if now >= self.admission.due:
            self.admission.tick()

    def leave(self, now: Instant) -> list[Effect]:
        """The agent ends in good order: yield what it is responsible for, and say so. Its VMs and keeper go on."""
        self.known.now = now
        self._leaving = True
        self.responsibility.tick(self._standing())
        self.peers.send_beat(self._beat())
        return self._out.take()

    # -- learning -------------------------------------------------------------------------------------------------

    def _learn(self, event: Event) -> bool:
        """Take an event into what is known. Returns whether it is news."""
        match event:
            case Woken():
                return False
            case Received():
                return hear(self, event)
            case SightingsRead():
                return self.watch.sightings_read(event) or self._waits_for_proof()
            case PowerOnListsRead():
                return self.watch.lists_read(event)
            case RegistersRead():
                return self._registers_read(event)
            case Stored():
                return self.responsibility.stored(event) or self.settings.stored(event) or self.own.stored(event)
            case KeeperReported():
                news = in_report(event.report, self.known.keeper, self.known.now)
                self.known.keeper = event.report
                self.pace.counted()
                self.settings.keeper_reports(event.report)
                return news
            case DatastoreSurveyed():
                return self.own.surveyed(event)
            case SettingsRead():
                return self.settings.settings_read(event)
            case VmMigrationProgress():
                self.migrating.leaving.progressed(event)
                return False
            case ProtectedListRead():
                return self.responsibility.list_read(event) or self.follower.list_read(event)
            case _:
                self._learn_news(event)
                return True

    def _waits_for_proof(self) -> bool:
        """Whether any read of a record may be the one that something waits for, though it finds the record as it was."""
        waits = self.recovery.cases or self.fencing.under_way or self.known.powered_off
        return bool(waits) or not self.responsibility.has_what_it_takes()

    def _registers_read(self, event: RegistersRead) -> bool:
        asked = (self.responsibility, self.recovery, self.wishes, self.fencing)
        news = any(part.registers_read(event) for part in asked)
        if not news:
            self._decide_at = min(self._decide_at, self.responsibility.next_deadline())  # The next read.
        return news

    def _learn_news(self, event: Event) -> None:
        match event:
            case PingAnswered():
                self._ping_answered(event)
            case PingNotSent():
                self.peers.ping_not_sent(event)
            case PrimaryLinked():
                self.responsibility.linked(event)
            case CommandGiven():
                self.commands.given(event)
            case KeeperDid() | KeeperAnswered() | KeeperGone():
                self._keeper(event)
            case HostGoesDown():
                self.departure.begin(event)
            case GuestProbed():
                self.readiness.probed(event)
            case GuestLookedAt():
                self.guests.looked_at(event)
            case GuestReset():
                self.guests.reset(event)
            case VmMigrationEnded() | VmResumed():
                self.migrating.happened(event)
            case RetryAsked():
                self.retrying.asked(event)
            case InventoryChanged() | VmStopped() | HypervisorState() | VmStartEnded() | VmLookedAt():
                self._hypervisor(event)
            case FenceEnded():
                self.fencing.ended(event)
            case FenceStatusEnded():
                self.fencing.status_ended(event)
            case FenceTested():
                self.fencing.tested(event)

    def _ping_answered(self, event: PingAnswered) -> None:
        if event.host is not None:
            self.isolation.heard_peer(self.known.now)
            self.peers.ping_answered(event.host)
        else:
            self.isolation.address_answered(self.known.now)

    def _keeper(self, event: KeeperDid | KeeperAnswered | KeeperGone) -> None:
        match event:
            case KeeperDid():
                self.watch.keeper_did(event.happened)
                self.own.keeper_did(event.happened)
            case KeeperAnswered():
                self.desk.keeper_answered(event)
                self.giving_up.keeper_answered(event)
                self.migrating.happened(event)
                self.claiming.keeper_answered(event)
            case KeeperGone():
                self.known.keeper = None
                for name in self.known.datastores:
                    self.watch.void(name)
                self._out.note("keeper-gone", host=self.known.me, relay=True)

    def _hypervisor(self, event: InventoryChanged | VmStopped | HypervisorState | VmStartEnded | VmLookedAt) -> None:
        match event:
            case InventoryChanged():
                self.known.take_inventory(event)
                self.own.inventory_changed(event)
            case VmStopped():
                self.own.vm_stopped(event)
            case HypervisorState():
                self.own.hypervisor_told(event)
            case VmStartEnded():
                self.desk.start_ended(event)
            case VmLookedAt():
                self.forgotten.looked_at(event)

    # -- deciding -------------------------------------------------------------------------------------------------

    def decide(self) -> None:
        """Every part looks at what is known now."""
        self._use_settings()
        self.fencing.look()
        self.peers.tick()
        self.watch.tick()
        self._judge_isolation()
        self.readiness.tick()
        self.follower.tick()
        self.migrating.tick()
        self.guests.tick(self.isolation.isolated)
        self.own.tick(self.isolation.isolated)  # First, so that what ends here is on no list when recovery looks at it.
        self.departure.tick(has_said=self.own.has_said_departs)
        self._elect()
        self._protect()
        self.commands.tick(self.election.primary)
        if self.health.changed:
            self.health.changed = False
            self.peers.beat_soon()
        self.responsibility.tick(self._standing())
        self.settings.tick()
        self.doubt.look(bool(self.responsibility.held_datastores()))
        self.desk.tick()
        self.retrying.tick()
        self.recovery.tick()
        self._empty_hosts()
        self.fencing.tick()
        self.operator.tick()
        while self.desk.own_reports:
            self.recovery.reported(self.known.me, self.desk.own_reports.pop(0))
        self.capacity.tick(self.election.am_primary)
        self.admission.tick()
        self.forgotten.tick()
        self.claiming.tick()
        self.pace.tick()

    def _empty_hosts(self) -> None:
        """What this host has ordered of itself goes no way round, nor does its answer."""
        me = self.known.me
        self.maintenance.tick(self.election.am_primary)
        for order in self.mover.own_orders.values():
            self.migrating.leaving.ordered(me, order)
        while self.migrating.own_reports:
            self.mover.reported(me, self.migrating.own_reports.pop(0))

    def hands_over(self) -> bool:
        """Whether what has ended here is owed a word, or its copy elsewhere has not said that it runs."""
        return self.own.owes_words or self.migrating.leaving.under_way

    def emptying(self) -> tuple[Emptying, ...]:
        """How far the hosts are that are kept empty: our own finding, or what the primary says."""
        if self.election.am_primary:
            return self.maintenance.emptying
        primary = self.election.primary
        seen = self.known.beats.get(primary) if primary is not None and self.known.live(primary) else None
        return seen.beat.emptying if seen is not None else ()

    def _use_settings(self) -> None:
        """Other settings were taken: whoever keeps them gets them, and the others hear of them with our next heartbeat."""
        if self.settings.taken:
            self.settings.taken = False
            self.isolation.use(self.known.settings)
            self.election.use(self.known.settings)
            self.peers.beat_soon()

    def _show_progress(self) -> None:
        if self.known.now >= self._progress_due:
            self._progress += 1
            self._progress_due = after(self.known.now, self.known.settings.datastore_heartbeat_interval)
            self._out.put(AskKeeper(Progress(self._progress, self.isolation.isolated)))

    def _judge_isolation(self) -> None:
        now = self.known.now
        if (self.isolation.silent(now) or self.doubt.asks) and now >= self._isolation_ping_due:
            self._isolation_ping_due = after(now, self.known.settings.heartbeat_interval)
            for address in self.known.config.isolation_addresses:
                self._out.put(Ping(None, address))
        if self.isolation.judge(now):
            kind = "isolated" if self.isolation.isolated else "isolation-ended"
            self._out.note(kind, host=self.known.me, relay=True)

    def _elect(self) -> None:
        now = self.known.now
        sure = self.isolation.hears_peers(now) or self.isolation.connected_to_something(now)
        may_lead = not self.isolation.isolated and (sure or not self.known.peers) and not self._leaving
        if self.election.judge(self.rank(), may_lead, now):
            self.responsibility.read_soon()
            self.peers.beat_soon()
            if self.election.am_primary:
                self._out.note("primary-elected", host=self.known.me, relay=True, term=self.election.term)
            elif self.election.primary is None:
                self._out.note("primary-lost", host=self.known.me)

    def _protect(self) -> None:
        """Learn from the lists of hosts that live, when anything about them is new. A VM on two lists stands on one."""
        known, held = self.known, self.responsibility.held_datastores()
        if (known.who_runs_what, held) == self._protected_from:
            return
        self._protected_from = (known.who_runs_what, held)
        for host, content in known.power_on.items() if held else ():
            if not known.lives(host) and host != known.me:
                continue
            lines = [line for line in content.vms if known.lister(line.vm) == host]
            for name in held:
                for entry in self.responsibility.protection(name).learn(name, host, lines):
                    self._out.note("vm-protected", vm=entry.vm, host=host, datastore=name, relay=True, name=entry.name)

    def _standing(self) -> Standing:
        may_hold = not self.isolation.isolated and not self._leaving
        return Standing(may_hold, self.election.primary, self.rank(), self.election.term)

    # -- what it says ---------------------------------------------------------------------------------------------

    def rank(self) -> Rank:
        """How good a primary this agent would be."""
        held = len(self.known.datastores) - len(self.known.lapsed())
        return Rank(not self.isolation.isolated, held, self.known.mark.version, self.known.me)

    def _beat(self) -> Heartbeat:
        return own_heartbeat(self, self.rank(), leaving=self._leaving)
