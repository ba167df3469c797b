"""The keeper's machine, one rule at a time: what it lets start, freezes, re-asserts, kills, and never says too early."""

from __future__ import annotations

import msgspec
import pytest

from outlast.model.ids import (
    BootId,
    DatastoreName,
    Epoch,
    HostId,
    HostName,
    Incarnation,
    KeeperSession,
    Nonce,
    RequestId,
    VmId,
    VmName,
)
from outlast.model.inventory import DatastoreMember, HostMember
from outlast.model.keeper_config import KeeperConfig
from outlast.model.keeper_effects import (
    Freeze,
    KeeperEffect,
    Kill,
    LinkRegister,
    LookForProcess,
    PetWatchdog,
    ReadRegister,
    Remember,
    Reply,
    Thaw,
    WriteHeartbeat,
)
from outlast.model.keeper_events import (
    Asked,
    CloseAsked,
    DeviceSeen,
    FoundProcess,
    HeartbeatWritten,
    IncarnationWon,
    KeeperEvent,
    Linked,
    LinkOutcome,
    ProcessAppeared,
    ProcessesFound,
    ProcessExited,
    ProcessMissing,
    RegisterRead,
    Woken,
)
from outlast.model.keeping import (
    AskEnded,
    AskForgotten,
    AskGate,
    AskLaunch,
    AskLost,
    AskRelease,
    AskTakeover,
    KeeperRequest,
    Progress,
)
from outlast.model.records import Enforcement, Proof, ProofKind, Reason, RegisterRecord, RegisterState
from outlast.model.settings import Settings
from outlast.model.time import SECOND, Instant, seconds
from outlast.protocol.keeping import KeeperMachine
from outlast.protocol.lease import Adopted
from outlast.protocol.under_way import MOST_UNDER_WAY

DS, VM, ME, OTHER = DatastoreName("ds1"), VmId("u-1"), HostId("a"), HostId("b")
CONFIG = KeeperConfig(
    domain="d",
    host=ME,
    name=HostName("alpha"),
    hosts=(HostMember(ME, HostName("alpha"), "192.0.2.1", 1), HostMember(OTHER, HostName("beta"), "192.0.2.2", 1)),
    datastores=(DatastoreMember(DS, "/srv/ds1"),),
    settings=Settings(),
    datastore_key="",
    run_dir="/run",
    state_dir="/var",
    boot_id=BootId("boot"),
    session=KeeperSession("session"),
)
GATE = AskGate(RequestId(1), VM, VmName("web"), ("/srv/ds1/web.raw",))


class Keeper:
    """A machine on a clock of its own, and what it asked for last."""

    def __init__(self, *found: FoundProcess, adopted_s: float | None = None, config: KeeperConfig = CONFIG) -> None:
        self.now = 100.0
        adopted = {DS: Adopted(Instant(seconds(adopted_s)), Settings().lease_duration)} if adopted_s is not None else {}
        self.machine = KeeperMachine(config, Instant(seconds(self.now)), adopted)
        self.effects: list[KeeperEffect] = []
        self.does(ProcessesFound(found))
        self.does(IncarnationWon(DS, Incarnation(1)))

    def does(self, event: KeeperEvent) -> None:
        self.effects = self.machine.handle(event, Instant(seconds(self.now)))

    def asks(self, request: KeeperRequest) -> None:
        self.does(Asked(7, request))

    def renews(self, *, ok: bool = True) -> None:
        """The write that is under way ends now, after one was begun if none was."""
        sequence = self.machine.places[DS].lease.sequence
        self.does(HeartbeatWritten(DS, sequence, ok))

    def guarded(self) -> Keeper:
        """With a good lease."""
        self.renews()
        assert self.machine.term(DS) is not None
        return self

    def lapses_and_renews(self) -> None:
        """The lease ends, and a while later a new term begins."""
        self.now += 6.1
        self.does(Woken())
        self.renews(ok=False)
        self.now += 1
        self.does(Woken())
        self.renews()

    def reads(self, last: RegisterRecord | None) -> None:
        self.does(RegisterRead(self.one(ReadRegister).request, True, last))

    def links(self, outcome: LinkOutcome = LinkOutcome.WON) -> None:
        self.does(Linked(self.one(LinkRegister).request, outcome))

    def one(self, kind: type) -> KeeperEffect:
        """The only effect of a kind in the last batch."""
        found = [effect for effect in self.effects if isinstance(effect, kind)]
        assert len(found) == 1, self.effects
        return found[0]

    def has(self, kind: type) -> bool:
        return any(isinstance(effect, kind) for effect in self.effects)

    def reply(self) -> tuple[bool, str]:
        reply = self.one(Reply)
        assert isinstance(reply, Reply)
        return reply.reply.allowed, reply.reply.sentence

    def running(self) -> Keeper:
        """With the VM running on epoch 0."""
        self.guarded()
        self.asks(GATE)
        self.reads(None)
        self.links()
        assert self.reply()[0]
        self.does(ProcessAppeared(process()))
        return self


def process(*, stopped: bool = False) -> FoundProcess:
    return FoundProcess(VM, VmName("web"), DS, 42, stopped)


def owned(owner: HostId, epoch: int, incarnation: int = 1, state: RegisterState = RegisterState.OWNED) -> RegisterRecord:
    return RegisterRecord(
        subject=VM,
        epoch=Epoch(epoch),
        owner=owner,
        incarnation=Incarnation(incarnation),
        session="of somebody",
        nonce=Nonce("n"),
        state=state,
        reason=Reason.STARTED,
    )


def test_a_start_makes_the_next_epoch_and_only_then_passes() -> None:
    keeper = Keeper().guarded()
    keeper.asks(GATE)
    assert not keeper.has(Reply)
    keeper.reads(owned(OTHER, 4, state=RegisterState.RELEASED))
    link = keeper.one(LinkRegister)
    assert isinstance(link, LinkRegister)
    assert link.record.epoch == 5
    keeper.links()
    assert keeper.reply() == (True, "")


def test_a_start_of_what_another_host_owns_is_refused_with_its_name() -> None:
    keeper = Keeper().guarded()
    keeper.asks(GATE)
    keeper.reads(owned(OTHER, 4))
    allowed, sentence = keeper.reply()
    assert not allowed
    assert "owned by beta (epoch 4)" in sentence


def test_a_start_without_a_lease_is_refused() -> None:
    keeper = Keeper()
    keeper.asks(GATE)
    allowed, sentence = keeper.reply()
    assert not allowed
    assert "holds no lease on its home datastore ds1" in sentence


def test_a_lapse_freezes_and_a_won_reassertion_thaws() -> None:
    keeper = Keeper().running()
    keeper.now += 6.1
    keeper.does(Woken())
    keeper.one(Freeze)
    keeper.renews(ok=False)
    keeper.now += 1
    keeper.does(Woken())
    assert not keeper.has(Thaw)
    keeper.renews()
    assert not keeper.has(Thaw), "a new term alone thaws nothing"
    keeper.links()
    keeper.one(Thaw)


def test_a_lost_reassertion_kills() -> None:
    keeper = Keeper().running()
    keeper.lapses_and_renews()
    keeper.links(LinkOutcome.LOST)
    keeper.reads(owned(OTHER, 1))
    keeper.one(Kill)
    assert not keeper.has(Thaw)


def test_an_unknown_reassertion_stays_frozen() -> None:
    keeper = Keeper().running()
    keeper.lapses_and_renews()
    keeper.links(LinkOutcome.UNKNOWN)
    assert not keeper.has(Thaw)
    assert not keeper.has(Kill)
    keeper.one(ReadRegister)


def test_a_link_that_is_confirmed_in_a_later_term_gives_no_right() -> None:
    keeper = Keeper().guarded()
    keeper.asks(GATE)
    keeper.reads(None)
    request = keeper.one(LinkRegister).request
    keeper.now += 3.0
    keeper.does(Woken())
    keeper.now += 3.1
    keeper.does(Woken())  # The lease lapses while the write and the link hang.
    keeper.renews(ok=False)
    keeper.now += 0.6
    keeper.does(Woken())
    keeper.renews()  # A new term.
    keeper.does(Linked(request, LinkOutcome.WON))
    assert not any(isinstance(effect, Reply) and effect.reply.allowed for effect in keeper.effects)


def test_a_process_that_appears_after_its_start_was_void_is_killed() -> None:
    keeper = Keeper().guarded()
    keeper.asks(GATE)
    keeper.reads(None)
    keeper.links()
    keeper.now += 6.1
    keeper.does(Woken())
    keeper.does(ProcessAppeared(process()))
    keeper.one(Kill)


def test_a_keeper_that_starts_freezes_what_it_finds() -> None:
    keeper = Keeper(process())
    assert keeper.machine.vms[VM].phase == "frozen"
    keeper.renews()
    keeper.reads(owned(ME, 3))
    keeper.links()
    keeper.one(Thaw)


def test_a_keeper_that_starts_within_its_predecessors_lease_freezes_nothing_but_asserts() -> None:
    keeper = Keeper(msgspec.structs.replace(process(), by_right=Settings().lease_duration), adopted_s=105.0)
    assert keeper.machine.vms[VM].phase == "running"
    keeper.reads(owned(ME, 3))
    link = keeper.one(LinkRegister)
    assert isinstance(link, LinkRegister)
    assert link.record.epoch == 4


def last_word(keeper: Keeper) -> bool:
    """Whether the next heartbeat says that this session is over."""
    keeper.renews()
    keeper.now += 1.0
    keeper.does(Woken())
    write = keeper.one(WriteHeartbeat)
    assert isinstance(write, WriteHeartbeat)
    return write.record.ended


def test_the_last_word_comes_after_the_last_process() -> None:
    keeper = Keeper().running()
    keeper.now += 1.0
    keeper.does(CloseAsked())
    assert not last_word(keeper)
    keeper.does(ProcessExited(VM))
    assert last_word(keeper)


def test_a_claim_that_is_under_way_when_the_host_shuts_down_starts_nothing() -> None:
    """Otherwise the last word would be said, and then a VM would start: two owners with a proof."""
    keeper = Keeper().guarded()
    keeper.asks(GATE)
    keeper.reads(None)
    request = keeper.one(LinkRegister).request
    keeper.does(CloseAsked())
    allowed, sentence = keeper.reply()
    assert not allowed
    assert "shutting down" in sentence
    keeper.does(Linked(request, LinkOutcome.WON))
    assert not keeper.has(Reply)
    keeper.asks(GATE)
    assert not keeper.reply()[0]


def test_renewals_begin_only_when_the_processes_are_known() -> None:
    machine = KeeperMachine(CONFIG, Instant(SECOND), {})
    effects = machine.handle(IncarnationWon(DS, Incarnation(1)), Instant(2 * SECOND))
    assert not any(isinstance(effect, WriteHeartbeat) for effect in effects)
    effects = machine.handle(ProcessesFound(()), Instant(2 * SECOND))
    assert any(isinstance(effect, WriteHeartbeat) for effect in effects)


WATCHED = msgspec.structs.replace(CONFIG, enforcement=Enforcement.WATCHDOG, watchdog_device="/dev/watchdog")


def published(keeper: Keeper) -> Enforcement:
    keeper.renews()
    keeper.now += 1.0
    keeper.does(Woken())
    write = keeper.one(WriteHeartbeat)
    assert isinstance(write, WriteHeartbeat)
    return write.record.enforcement


def test_a_guest_that_a_freeze_does_not_stop_makes_the_lease_no_proof() -> None:
    keeper = Keeper().guarded()
    keeper.asks(msgspec.structs.replace(GATE, unfreezable=True))
    assert published(keeper) is Enforcement.NONE
    # A watchdog stops it all the same: it is let to fire at the lapse.
    keeper = Keeper(msgspec.structs.replace(process(), unfreezable=True), config=WATCHED)
    assert published(keeper) is Enforcement.WATCHDOG
    assert keeper.has(PetWatchdog)
    keeper.now += 6.1
    keeper.does(Woken())
    assert not keeper.has(PetWatchdog)


def test_cut_off_from_storage_and_network_the_watchdog_is_let_to_fire() -> None:
    keeper = Keeper(config=WATCHED).running()
    keeper.asks(Progress(1, isolated=True))
    assert keeper.has(PetWatchdog), "storage is well"
    keeper.now += 5.9
    keeper.asks(Progress(2, isolated=False))
    keeper.now += 0.2
    keeper.does(Woken())
    keeper.one(Freeze)
    assert keeper.has(PetWatchdog), "the network is well: others can be told, and nothing is taken for long"
    keeper.asks(Progress(3, isolated=True))
    assert not keeper.has(PetWatchdog)
    keeper.now += 7.0
    keeper.does(Woken())
    assert keeper.has(PetWatchdog), "an agent that has said nothing for a lease says nothing about the network"


# -- what a review found ----------------------------------------------------------------------------------------------


DS2 = DatastoreName("ds2")
TWO = msgspec.structs.replace(CONFIG, datastores=(*CONFIG.datastores, DatastoreMember(DS2, "/srv/ds2")))


def two_places() -> Keeper:
    """Good leases on two datastores."""
    keeper = Keeper(config=TWO)
    keeper.does(IncarnationWon(DS2, Incarnation(1)))
    for name in (DS, DS2):
        keeper.does(HeartbeatWritten(name, keeper.machine.places[name].lease.sequence, True))
    return keeper


def test_a_process_whose_start_was_void_does_not_run_on_through_a_change_of_keepers() -> None:
    """Its predecessor's lease is good again, but it was never asserted in that term."""
    keeper = Keeper(process(), adopted_s=105.0)
    assert keeper.machine.vms[VM].phase == "frozen"
    keeper.reads(owned(OTHER, 1))
    keeper.one(Kill)


def test_what_passes_or_thaws_is_remembered_before_it_runs() -> None:
    keeper = Keeper().running()
    keeper.lapses_and_renews()
    keeper.links()
    kinds = [type(effect) for effect in keeper.effects]
    assert kinds.index(Remember) < kinds.index(Thaw)


def test_a_start_is_asked_about_again_a_moment_before_its_process() -> None:
    keeper = Keeper().guarded()
    keeper.asks(GATE)
    keeper.reads(None)
    keeper.links()
    keeper.asks(AskLaunch(RequestId(2), VM))
    assert keeper.reply()[0]
    keeper.now += 6.1  # libvirt hangs, and so does storage.
    keeper.does(Woken())
    keeper.asks(AskLaunch(RequestId(3), VM))
    allowed, sentence = keeper.reply()
    assert not allowed
    assert "the lease lapsed meanwhile" in sentence
    keeper.asks(AskLaunch(RequestId(4), VmId("u-9")))
    assert not keeper.reply()[0]


def test_disks_in_another_order_make_no_second_register() -> None:
    """The same VM, whose definition here has its first disk on another datastore than where its owner started it."""
    keeper = two_places()
    keeper.asks(msgspec.structs.replace(GATE, disks=("/srv/ds2/iso", "/srv/ds1/web.raw")))
    read = keeper.one(ReadRegister)
    assert isinstance(read, ReadRegister)
    assert read.datastore == DS2
    keeper.reads(None)
    read = keeper.one(ReadRegister)
    assert isinstance(read, ReadRegister)
    assert read.datastore == DS
    keeper.reads(owned(OTHER, 4))
    allowed, sentence = keeper.reply()
    assert not allowed
    assert "owned by beta (epoch 4)" in sentence


def test_a_register_that_is_found_elsewhere_stays_the_only_one() -> None:
    keeper = two_places()
    keeper.asks(msgspec.structs.replace(GATE, disks=("/srv/ds2/iso", "/srv/ds1/web.raw")))
    keeper.reads(None)
    keeper.reads(owned(OTHER, 4, state=RegisterState.RELEASED))
    link = keeper.one(LinkRegister)
    assert isinstance(link, LinkRegister)
    assert (link.datastore, link.record.epoch) == (DS, 5)


def test_a_later_boot_with_this_hosts_id_is_refused() -> None:
    keeper = Keeper().guarded()
    keeper.asks(GATE)
    keeper.reads(owned(ME, 4, incarnation=2))
    allowed, sentence = keeper.reply()
    assert not allowed
    assert "cloned" in sentence


def test_after_a_foreign_record_nothing_is_written_before_the_boot_is_found_out_anew() -> None:
    keeper = Keeper().running()
    keeper.does(HeartbeatWritten(DS, keeper.machine.places[DS].lease.sequence, False, foreign=True))
    keeper.one(Freeze)
    for _ in range(5):
        keeper.now += 1.0
        keeper.does(Woken())
        assert not keeper.has(WriteHeartbeat)
    keeper.does(IncarnationWon(DS, Incarnation(1)))
    keeper.one(WriteHeartbeat)


def test_what_appears_after_the_last_word_is_frozen_for_good() -> None:
    keeper = Keeper().guarded()
    keeper.does(CloseAsked())
    assert last_word(keeper)
    keeper.does(ProcessAppeared(process()))
    keeper.one(Freeze)
    assert not keeper.has(ReadRegister)
    assert last_word(keeper), "once said, it stays said"


def test_a_guest_that_cannot_be_frozen_waits_until_the_record_says_so() -> None:
    keeper = Keeper().guarded()
    keeper.asks(msgspec.structs.replace(GATE, unfreezable=True))
    assert not keeper.has(ReadRegister)
    keeper.now += 1.0
    keeper.does(Woken())
    write = keeper.one(WriteHeartbeat)
    assert isinstance(write, WriteHeartbeat)
    assert write.record.enforcement is Enforcement.NONE
    assert not keeper.has(ReadRegister)
    keeper.renews()
    keeper.one(ReadRegister)


def test_reassertions_of_many_vms_leave_room_for_the_heartbeat() -> None:
    found = tuple(msgspec.structs.replace(process(), vm=VmId(f"u-{i}"), name=VmName(f"vm{i}")) for i in range(50))
    keeper = Keeper(*found)
    keeper.renews()
    assert sum(isinstance(effect, ReadRegister) for effect in keeper.effects) == MOST_UNDER_WAY


def test_a_takeover_that_nobody_uses_is_given_back() -> None:
    keeper = Keeper().guarded()
    proof = Proof(kind=ProofKind.LEASE_EXPIRED, owner=OTHER, incarnation=Incarnation(1), epoch=Epoch(4), observer=OTHER)
    keeper.asks(AskTakeover(RequestId(1), VM, VmName("web"), DS, proof))
    keeper.links()
    assert keeper.reply()[0]
    for _ in range(16):
        keeper.now += 1.0
        keeper.does(Woken())
        if keeper.has(LinkRegister):
            break
        keeper.renews()
    link = keeper.one(LinkRegister)
    assert isinstance(link, LinkRegister)
    assert (link.record.state, link.record.reason) == (RegisterState.RELEASED, Reason.HOST_FAULT)


def test_a_start_whose_process_never_comes_is_given_back() -> None:
    keeper = Keeper().guarded()
    keeper.asks(GATE)
    keeper.reads(None)
    keeper.links()
    for _ in range(61):
        keeper.now += 1.0
        keeper.does(Woken())
        if keeper.has(LinkRegister):
            break
        keeper.renews()
    keeper.one(LinkRegister)
    keeper.does(ProcessAppeared(process()))
    keeper.one(Kill)


def test_a_link_that_can_never_be_made_is_not_tried_in_a_tight_loop() -> None:
    keeper = Keeper(process()).guarded()
    keeper.reads(owned(ME, 3))
    keeper.links(LinkOutcome.LOST)  # A full datastore: nothing was written, and nobody else won.
    keeper.reads(owned(ME, 3))
    assert not keeper.has(LinkRegister)
    keeper.now += 1.0
    keeper.does(Woken())
    keeper.one(LinkRegister)


def test_a_won_reassertion_thaws_also_what_was_taken_for_running() -> None:
    """The second freezer may have stopped it just after this keeper had found it running."""
    keeper = Keeper(msgspec.structs.replace(process(), by_right=Settings().lease_duration), adopted_s=105.0)
    keeper.reads(owned(ME, 3))
    keeper.links()
    keeper.one(Thaw)


def test_what_runs_on_an_epoch_that_storage_has_lost_is_frozen_and_asserted_anew() -> None:
    keeper = Keeper().running()
    keeper.now += 2.1
    keeper.does(Woken())
    keeper.reads(owned(ME, 0))
    assert not keeper.has(Freeze), "all is well"
    keeper.now += 2.1
    keeper.does(Woken())
    keeper.reads(None)
    keeper.one(Freeze)
    keeper.reads(None)
    keeper.links()
    keeper.one(Thaw)


def test_a_vm_that_somebody_else_owns_is_found_and_killed() -> None:
    keeper = Keeper().running()
    keeper.now += 2.1
    keeper.does(Woken())
    keeper.reads(owned(OTHER, 1))
    keeper.one(Freeze)
    keeper.reads(owned(OTHER, 1))
    keeper.one(Kill)


def test_a_start_that_was_just_launched_is_not_given_up() -> None:
    """Found by the model check: patience counted from the gate, and the process came on a released register."""
    keeper = Keeper().guarded()
    keeper.asks(GATE)
    keeper.reads(None)
    keeper.links()
    for _ in range(70):
        keeper.now += 1.0
        if keeper.now >= 159.0 and keeper.now < 160.0:
            keeper.asks(AskLaunch(RequestId(9), VM))
            assert keeper.reply()[0]
        else:
            keeper.does(Woken())
        assert not any(isinstance(e, LinkRegister) for e in keeper.effects)
        keeper.renews()
    keeper.does(ProcessAppeared(process()))
    assert keeper.machine.vms[VM].phase == "running"


def launched() -> Keeper:
    """With a start on epoch 0 that has the gate's last word."""
    keeper = Keeper().guarded()
    keeper.asks(GATE)
    keeper.reads(None)
    keeper.links()
    keeper.asks(AskLaunch(RequestId(2), VM))
    return keeper


def test_a_start_that_libvirt_has_forgotten_is_given_up_when_no_process_is_there() -> None:
    keeper = launched()
    keeper.asks(AskForgotten(RequestId(3), VM, Epoch(0)))
    assert keeper.one(LookForProcess) == LookForProcess(VM, VmName("web"), Epoch(0))
    assert not keeper.has(LinkRegister), "a process may be about to show itself"
    keeper.does(ProcessMissing(VM, Epoch(0)))
    link = keeper.one(LinkRegister)
    assert isinstance(link, LinkRegister)
    assert (link.record.state, link.record.reason) == (RegisterState.RELEASED, Reason.HOST_FAULT)


def test_what_libvirt_said_of_an_earlier_start_says_nothing_of_this_one() -> None:
    keeper = launched()
    keeper.asks(AskForgotten(RequestId(3), VM, Epoch(4)))
    assert not keeper.has(LookForProcess)
    keeper.does(ProcessMissing(VM, Epoch(4)))
    assert keeper.machine.vms[VM].phase == "starting"


def test_a_process_that_shows_itself_before_it_was_looked_for_runs() -> None:
    keeper = launched()
    keeper.asks(AskForgotten(RequestId(3), VM, Epoch(0)))
    keeper.does(ProcessAppeared(process()))
    keeper.does(ProcessMissing(VM, Epoch(0)))
    assert keeper.machine.vms[VM].phase == "running"


def test_a_device_that_is_plugged_in_makes_the_lease_no_proof_at_once() -> None:
    keeper = Keeper().running()
    keeper.does(DeviceSeen(VM, "/dev/vfio/12"))
    write = keeper.one(WriteHeartbeat)
    assert isinstance(write, WriteHeartbeat)
    assert write.record.enforcement is Enforcement.NONE
    keeper.renews()
    keeper.now += 6.1
    keeper.does(Woken())
    keeper.one(Freeze)
    assert not keeper.has(Kill), "everybody can read that the lease's end proves nothing"


def test_what_a_freeze_does_not_stop_and_nobody_knows_of_is_killed_at_the_lapse() -> None:
    """Its record says that the end of its lease is proof, and storage hangs: others will take the VM."""
    keeper = Keeper().running()
    keeper.does(DeviceSeen(VM, "/dev/vfio/12"))
    keeper.now += 6.1
    keeper.does(Woken())
    kinds = [type(effect) for effect in keeper.effects]
    assert kinds.index(Freeze) < kinds.index(Kill)


def test_a_watchdog_stops_also_what_was_plugged_in_a_moment_ago() -> None:
    keeper = Keeper(config=WATCHED).running()
    keeper.does(DeviceSeen(VM, "/dev/vfio/12"))
    keeper.now += 6.1
    keeper.does(Woken())
    assert not keeper.has(Kill)
    assert not keeper.has(PetWatchdog)


def test_a_device_of_a_vm_that_is_gone_is_nothing() -> None:
    keeper = Keeper().guarded()
    keeper.does(DeviceSeen(VM, "/dev/vfio/12"))
    assert published(keeper) is Enforcement.KEEPER


def frozen() -> Keeper:
    """With the VM frozen on epoch 0, and its storage gone."""
    keeper = Keeper().running()
    keeper.now += 6.1
    keeper.does(Woken())
    keeper.one(Freeze)
    return keeper


def lost_to(owner: HostId, epoch: int, home: DatastoreName = DS) -> AskLost:
    return AskLost(request=RequestId(9), vm=VM, home=home, owner=owner, epoch=Epoch(epoch))


def test_the_word_of_a_later_owner_kills_what_stands_frozen() -> None:
    keeper = frozen()
    keeper.asks(lost_to(OTHER, 1))
    keeper.one(Kill)
    keeper.does(ProcessExited(VM))
    assert VM not in keeper.machine.vms, "nothing of it is left to be released"


@pytest.mark.parametrize("told", [lost_to(OTHER, 0), lost_to(ME, 1), lost_to(OTHER, 1, DatastoreName("ds2"))])
def test_any_other_word_changes_nothing(told: AskLost) -> None:
    keeper = frozen()
    keeper.asks(told)
    assert not keeper.has(Kill)
    assert keeper.machine.vms[VM].phase == "frozen"


def test_what_runs_by_right_is_killed_on_nobodys_word() -> None:
    keeper = Keeper().running()
    keeper.asks(lost_to(OTHER, 1))
    assert not keeper.has(Kill)


def test_an_old_word_says_nothing_of_what_was_won_back() -> None:
    keeper = frozen()
    keeper.renews(ok=False)
    keeper.now += 1
    keeper.does(Woken())
    keeper.renews()
    keeper.links()
    assert keeper.machine.vms[VM].epoch == 1
    keeper.now += 6.1
    keeper.does(Woken())
    keeper.asks(lost_to(OTHER, 1))
    assert not keeper.has(Kill)


def test_a_keeper_that_does_not_know_its_own_epoch_kills_on_nobodys_word() -> None:
    keeper = Keeper(process())
    keeper.asks(lost_to(OTHER, 1))
    assert not keeper.has(Kill)


def failed(reason: Reason = Reason.START_FAILED, *, given_up: bool = True) -> AskRelease:
    return AskRelease(request=RequestId(9), vm=VM, name=VmName("web"), home=DS, reason=reason, given_up=given_up)


def test_a_start_that_nobody_waits_for_is_given_back_before_its_last_word() -> None:
    """libvirt hangs before it asks once more: what it asks when it goes on is answered with no."""
    keeper = Keeper().guarded()
    keeper.asks(GATE)
    keeper.reads(None)
    keeper.links()
    keeper.asks(failed(Reason.CRASHED, given_up=False))
    assert not keeper.reply()[0], "that is said of an earlier run"
    keeper.asks(failed())
    link = keeper.one(LinkRegister)
    assert isinstance(link, LinkRegister)
    assert (link.record.state, link.record.reason) == (RegisterState.RELEASED, Reason.START_FAILED)
    keeper.asks(AskLaunch(RequestId(2), VM))
    assert not keeper.reply()[0]


def test_a_start_that_is_launched_is_not_given_back_on_its_agents_word() -> None:
    keeper = launched()
    keeper.asks(failed())
    assert not keeper.reply()[0]
    assert keeper.machine.vms[VM].phase == "starting"


@pytest.mark.parametrize("reason", [Reason.START_FAILED, Reason.HOST_FAULT])
def test_a_start_of_which_libvirt_has_let_go_is_given_back_at_its_agents_word(reason: Reason) -> None:
    keeper = Keeper().guarded()
    keeper.asks(GATE)
    keeper.reads(None)
    keeper.links()
    keeper.asks(AskEnded(RequestId(2), VM))
    keeper.asks(failed(reason))
    link = keeper.one(LinkRegister)
    assert isinstance(link, LinkRegister)
    assert (link.record.state, link.record.reason) == (RegisterState.RELEASED, reason)
