"""The keeper's machine, one rule at a time: what it lets start, freezes, re-asserts, kills, and never says too early."""

from __future__ import annotations

import msgspec

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
    PetWatchdog,
    ReadRegister,
    Reply,
    Thaw,
    WriteHeartbeat,
)
from outlast.model.keeper_events import (
    Asked,
    CloseAsked,
    FoundProcess,
    HeartbeatWritten,
    IncarnationWon,
    KeeperEvent,
    Linked,
    LinkOutcome,
    ProcessAppeared,
    ProcessesFound,
    ProcessExited,
    RegisterRead,
    Woken,
)
from outlast.model.keeping import AskGate, KeeperRequest, Progress
from outlast.model.records import Enforcement, Reason, RegisterRecord, RegisterState
from outlast.model.settings import Settings
from outlast.model.time import SECOND, Instant, seconds
from outlast.protocol.keeping import KeeperMachine

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
        adopted = {DS: Instant(seconds(adopted_s))} if adopted_s is not None else {}
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
    keeper.now += 6.1
    keeper.does(Woken())
    keeper.renews(ok=False)
    keeper.now += 1
    keeper.does(Woken())
    keeper.renews()
    keeper.links(LinkOutcome.LOST)
    keeper.reads(owned(OTHER, 1))
    keeper.one(Kill)
    assert not keeper.has(Thaw)


def test_an_unknown_reassertion_stays_frozen() -> None:
    keeper = Keeper().running()
    keeper.now += 6.1
    keeper.does(Woken())
    keeper.renews(ok=False)
    keeper.now += 1
    keeper.does(Woken())
    keeper.renews()
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
    keeper = Keeper(process(), adopted_s=105.0)
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
