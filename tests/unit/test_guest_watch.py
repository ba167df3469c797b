"""When a guest counts as hung, what is done about it, and all that must not be taken for it."""

from __future__ import annotations

import msgspec
import pytest

from outlast.model.effects import LookAtGuest, Note, ResetGuest
from outlast.model.events import GuestLookedAt, GuestReset, GuestState, InventoryChanged
from outlast.model.ids import BootId, DatastoreName, Epoch, HostId, HostName, KeeperSession, LeaseTerm, VmId, VmName
from outlast.model.inventory import Capacity, DatastoreMember, HostMember, VmDefinition
from outlast.model.keeping import KeeperReport, KeptVm, LeaseReport
from outlast.model.policy import VmPolicy
from outlast.model.records import Enforcement, GuestWord, PoweredVm, PowerOnList
from outlast.model.settings import Pause, Settings, SettingsMark, SettingsRecord, problems
from outlast.model.time import SECOND, Duration, Instant, seconds
from outlast.protocol.guest_watch import LOOKS_AT_ONCE, GuestWatch
from outlast.protocol.knowledge import AgentConfig, Knowledge, Outbox
from outlast.protocol.migration import Migrations
from outlast.protocol.orders import OrderDesk

ME, DS, DS2 = HostId("a"), DatastoreName("ds"), DatastoreName("ds2")
SETTINGS = Settings(
    guest_monitoring="on",
    guest_failure_after=Duration(12 * SECOND),
    guest_io_quiet=Duration(20 * SECOND),
    guest_min_uptime=Duration(30 * SECOND),
    guest_resets_per_hour=2,
)
WEB = VmId("web")


class Host:
    """One host with VMs whose guests answer, or do as `state` and `io` say; `at` lets time pass in steps of a second."""

    def __init__(self, *vms: str, datastores: tuple[DatastoreName, ...] = (DS,), settings: Settings = SETTINGS) -> None:
        config = AgentConfig(
            domain="d",
            host=ME,
            hosts=(HostMember(ME, HostName("a"), "192.0.2.1", 1),),
            datastores=(DatastoreMember(DS, "/srv/ds"), DatastoreMember(DS2, "/srv/ds2")),
            settings=settings,
            isolation_addresses=(),
            boot_id=BootId("b"),
            session="s",
            first_sequence=1,
        )
        self.known, self.out = Knowledge(config, Instant(0)), Outbox()
        self.watch = GuestWatch(
            self.known, self.out, OrderDesk(self.known, self.out), Migrations(self.known, self.out, tell=lambda _: None)
        )
        self.vms = tuple(map(VmId, vms or ("web",)))
        self.phase, self.pid, self.isolated = "running", 7, False
        self.lost: set[DatastoreName] = set()
        self.state, self.io = GuestState.ANSWERS, 0
        self.busy = False
        self.second = 0
        self.libvirt_hangs = False
        self.resets: list[int] = []
        self.notes: list[Note] = []
        self.looks: list[VmId] = []
        self.known.hypervisor_up = True
        definitions = tuple(_definition(vm, datastores) for vm in self.vms)
        self.known.take_inventory(InventoryChanged(definitions, frozenset(self.vms), Capacity()))

    def _report(self) -> None:
        kept = tuple(KeptVm(vm, VmName(vm), DS, Epoch(0), self.phase, self.pid) for vm in self.vms)
        leases = tuple(
            LeaseReport(name, name not in self.lost, LeaseTerm(1), self.known.now + 5 * SECOND, None) for name in (DS, DS2)
        )
        self.known.keeper = KeeperReport(
            host=ME,
            boot_id=BootId("b"),
            session=KeeperSession("k"),
            enforcement=Enforcement.KEEPER,
            leases=leases,
            vms=kept,
        )

    def until(self, second: int) -> Host:
        """Live on until then."""
        while self.second < second:
            self.second += 1
            self.known.now = Instant(seconds(self.second))
            self._report()
            self.io += self.busy
            self.watch.tick(self.isolated)
            for effect in self.out.take():
                match effect:
                    case LookAtGuest(request, vm):
                        self.looks.append(vm)
                        if not self.libvirt_hangs:
                            self.watch.looked_at(GuestLookedAt(request, vm, self.state, self.io))
                    case Note():
                        self.notes.append(effect)
            self._carry_out()
        return self

    def _carry_out(self) -> None:
        for effect in self.out.take():
            match effect:
                case ResetGuest(request, vm):
                    self.resets.append(self.second)
                    self.watch.reset(GuestReset(request, vm, True, kept="a picture"))
                    self._carry_out()
                case Note():
                    self.notes.append(effect)

    @property
    def word(self) -> GuestWord | None:
        return self.known.guests.get(WEB)

    def kinds(self) -> list[str]:
        return [note.kind for note in self.notes]


def _definition(vm: VmId, datastores: tuple[DatastoreName, ...]) -> VmDefinition:
    return VmDefinition(
        vm=vm,
        name=VmName(vm),
        home=DS,
        datastores=datastores,
        memory_mib=1,
        protected=True,
        unprotectable="",
        policy=VmPolicy(),
        xml="",
    )


def hung(host: Host | None = None) -> Host:
    """A host whose guest has answered for a minute, and is silent since."""
    host = (host or Host()).until(60)
    assert host.word is None or host.word.state == "answers"
    host.state = GuestState.SILENT
    return host


def test_it_is_reset_when_it_has_been_silent_and_still_for_long_enough() -> None:
    host = hung().until(74)
    assert host.word == GuestWord("silent")
    host.until(79)
    assert host.resets == []
    host.until(86)
    assert len(host.resets) == 1
    assert host.kinds() == ["guest-hangs", "guest-reset"]
    host.state = GuestState.ANSWERS
    host.until(90)
    assert (host.kinds()[-1], host.word is not None and host.word.state) == ("guest-back", "answers")
    host.until(600)
    assert len(host.resets) == 1


def test_one_that_answers_now_and_then_is_well() -> None:
    host = hung()
    for second in range(60, 600, 10):
        host.state = GuestState.SILENT
        host.until(second + 8)
        host.state = GuestState.ANSWERS
        host.until(second + 10)
    assert host.resets == []


def test_one_that_reads_and_writes_is_left_alone_and_told_of() -> None:
    host = hung()
    host.busy = True
    host.until(600)
    assert (host.resets, host.word) == ([], GuestWord("silent"))
    host.busy = False
    host.until(640)
    assert len(host.resets) == 1, "it stands still by now"


def test_one_that_was_never_heard_is_not_judged() -> None:
    host = Host()
    host.state = GuestState.SILENT
    host.until(600)
    assert (host.resets, host.word) == ([], None)


@pytest.mark.parametrize("state", [GuestState.CLOSED, GuestState.UNKNOWN])
def test_an_agent_that_was_ended_or_a_vm_that_is_paused_is_no_silence(state: GuestState) -> None:
    host = hung()
    host.state = state
    assert host.until(600).resets == []
    host.state = GuestState.SILENT
    assert host.until(615).resets == []
    assert len(host.until(640).resets) == 1


def test_after_a_reset_a_channel_that_stays_closed_is_a_guest_that_does_not_come_back() -> None:
    host = hung().until(90)
    assert len(host.resets) == 1
    host.state = GuestState.CLOSED
    host.until(host.resets[0] + 29)
    assert len(host.resets) == 1, "it has the time to boot"
    host.until(200)
    assert len(host.resets) == 2


def test_the_budget_of_an_hour_is_spent_and_comes_back() -> None:
    host = hung().until(3000)
    assert len(host.resets) == 2
    assert host.kinds().count("guest-failed") == 1
    assert host.word is not None
    assert (host.word.state, len(host.word.resets)) == ("failed", 2)
    assert "2 times within an hour" in host.word.why
    host.until(host.resets[0] + 3600 + 10)
    assert len(host.resets) == 3


def test_a_reset_that_libvirt_cannot_do_counts_and_is_told() -> None:
    host = hung()
    request = None
    while request is None:
        host.second += 1
        host.known.now = Instant(seconds(host.second))
        host._report()
        host.watch.tick(False)
        for effect in host.out.take():
            if isinstance(effect, LookAtGuest):
                host.watch.looked_at(GuestLookedAt(effect.request, WEB, GuestState.SILENT, 0))
        request = next((e.request for e in host.out.take() if isinstance(e, ResetGuest)), None)
    host.watch.reset(GuestReset(request, WEB, False, "no"))
    assert [e.kind for e in host.out.take() if isinstance(e, Note)] == ["guest-not-reset"]
    assert len(host.until(host.second + 25).resets) == 0
    assert len(host.until(host.second + 15).resets) == 1


def freeze(host: Host) -> None:
    host.phase = "frozen"


def lose(host: Host) -> None:
    host.lost = {DS2}


def isolate(host: Host) -> None:
    host.isolated = True


def libvirt_down(host: Host) -> None:
    host.known.hypervisor_up = False


def pause(host: Host) -> None:
    host.known.record = SettingsRecord(mark=SettingsMark(1), settings=SETTINGS, pause=Pause("root", 0))


def paused_by_migration(host: Host) -> None:
    host.known.left_paused = frozenset({WEB})


def hang(host: Host) -> None:
    host.libvirt_hangs = True


@pytest.mark.parametrize("hold", [freeze, lose, isolate, libvirt_down, pause, paused_by_migration, hang])
def test_what_keeps_a_guest_from_answering_is_not_the_guests_doing(hold: object) -> None:
    host = hung(Host(datastores=(DS, DS2))).until(76)
    assert callable(hold)
    hold(host)
    assert host.until(400).resets == []
    host.phase, host.lost, host.isolated, host.libvirt_hangs = "running", set(), False, False
    host.known.hypervisor_up, host.known.record, host.known.left_paused = True, None, frozenset()
    assert host.until(412).resets == [], "the silence begins anew"
    assert len(host.until(440).resets) == 1


def test_a_host_that_stood_still_has_heard_nobody() -> None:
    host = hung().until(70)
    host.second += 100
    assert host.until(182).resets == []
    assert len(host.until(200).resets) == 1


def test_a_new_process_is_heard_anew() -> None:
    host = hung().until(76)
    host.pid = 8
    assert host.until(600).resets == []


def test_a_keeper_that_is_restarted_changes_nothing() -> None:
    host = hung().until(64)
    host.phase = "ended"
    host.until(66)
    host.phase = "running"
    assert len(host.until(100).resets) == 1


def test_who_is_not_to_be_watched_is_not_asked() -> None:
    host = Host(settings=msgspec.structs.replace(SETTINGS, guest_monitoring="off")).until(60)
    assert (host.looks, host.known.guests, host.watch.next_deadline()) == ([], {}, None)


def test_few_are_asked_at_one_time_and_all_get_their_turn() -> None:
    host = Host(*(f"vm{i}" for i in range(9)))
    host.libvirt_hangs = True
    host.until(1)
    assert len(host.looks) == LOOKS_AT_ONCE
    host.libvirt_hangs = False
    assert set(host.until(60).looks) == set(host.vms)


@pytest.mark.parametrize(("boot", "resets"), [("b", 1), ("an earlier boot", 0)])
def test_the_next_agent_of_a_boot_knows_whom_the_last_one_heard(boot: str, resets: int) -> None:
    host = Host()
    word = GuestWord("silent", (Instant(SECOND // 2),))
    line = PoweredVm(WEB, VmName("web"), DS, Epoch(0), "running", 1, True, guest=word)
    host.known.predecessors_list = PowerOnList(host=ME, boot_id=BootId(boot), sequence=0, isolated=False, vms=(line,))
    host.state = GuestState.SILENT
    host.until(600)
    assert len(host.resets) == resets, "one reset of two was told of"


def test_settings_that_would_take_a_late_answer_for_silence_are_refused() -> None:
    found = problems(Settings(guest_failure_after=Duration(5 * SECOND), guest_io_quiet=Duration(5 * SECOND)))
    assert [sentence.split()[0] for sentence in found] == ["guest_failure_after", "guest_io_quiet"]
    assert "guest_min_uptime" in problems(Settings(guest_min_uptime=Duration(20 * SECOND)))[0]
