"""When a VM counts as ready, on the host where it runs."""

from __future__ import annotations

import msgspec

from outlast.model.effects import ProbeGuest
from outlast.model.events import GuestProbed, InventoryChanged
from outlast.model.ids import BootId, DatastoreName, Epoch, HostId, HostName, KeeperSession, VmId, VmName
from outlast.model.inventory import Capacity, DatastoreMember, HostMember, VmDefinition
from outlast.model.keeping import KeeperReport, KeptVm
from outlast.model.policy import Ready, VmPolicy, parse_ready
from outlast.model.records import Enforcement, PoweredVm, PowerOnList
from outlast.model.settings import Settings
from outlast.model.time import Instant, seconds
from outlast.protocol.knowledge import AgentConfig, Knowledge, Outbox
from outlast.protocol.orders import OrderDesk
from outlast.protocol.readiness import PROBES_AT_ONCE, Readiness

ME, DS = HostId("a"), DatastoreName("ds")


class Host:
    """A host with VMs of one policy each."""

    def __init__(self, **ready: str) -> None:
        config = AgentConfig(
            domain="d",
            host=ME,
            hosts=(HostMember(ME, HostName("a"), "192.0.2.1", 1),),
            datastores=(DatastoreMember(DS, "/srv/ds"),),
            settings=Settings(),
            isolation_addresses=(),
            boot_id=BootId("b"),
            session="s",
            first_sequence=1,
        )
        self.known, self.out = Knowledge(config, Instant(0)), Outbox()
        self.readiness = Readiness(self.known, self.out, OrderDesk(self.known, self.out))
        self.phases = dict.fromkeys(ready, "running")
        self.known.hypervisor_up = True
        definitions = tuple(_definition(name, parse_ready(how)) for name, how in ready.items())
        self.known.take_inventory(InventoryChanged(definitions, frozenset(), Capacity()))

    def at(self, second: float) -> set[str]:
        """The VMs that are ready then."""
        self.known.now = Instant(seconds(second))
        kept = tuple(KeptVm(VmId(n), VmName(n), DS, Epoch(0), phase, 1) for n, phase in self.phases.items())
        self.known.keeper = KeeperReport(
            host=ME,
            boot_id=BootId("b"),
            session=KeeperSession("k"),
            enforcement=Enforcement.KEEPER,
            leases=(),
            vms=kept,
        )
        self.readiness.tick()
        return set(self.known.ready)

    def probes(self) -> list[ProbeGuest]:
        """The guests that are asked now."""
        return [effect for effect in self.out.take() if isinstance(effect, ProbeGuest)]


def _definition(name: str, ready: Ready) -> VmDefinition:
    return VmDefinition(
        vm=VmId(name),
        name=VmName(name),
        home=DS,
        datastores=(DS,),
        memory_mib=1,
        protected=True,
        unprotectable="",
        policy=VmPolicy(ready=ready),
        xml="",
    )


def test_powered_on_is_enough_where_nothing_else_is_said() -> None:
    host = Host(web="powered-on")
    host.phases["web"] = "starting"
    assert host.at(1) == set()
    host.phases["web"] = "running"
    assert host.at(2) == {"web"}


def test_a_delay_counts_from_the_start_and_asks_to_be_called_then() -> None:
    host = Host(db="delay:30s")
    assert host.at(10) == set()
    assert host.readiness.next_deadline() == seconds(40)
    assert host.at(39.9) == set()
    assert host.at(40) == {"db"}
    assert host.readiness.next_deadline() is None


def test_a_guest_is_asked_until_it_answers() -> None:
    host = Host(db="guest-heartbeat")
    assert host.at(10) == set()
    (probe,) = host.probes()
    host.readiness.probed(GuestProbed(probe.request, probe.vm, False))
    assert host.at(11) == set()
    assert host.probes() == []
    assert host.readiness.next_deadline() == seconds(12)
    host.at(12)
    (probe,) = host.probes()
    host.readiness.probed(GuestProbed(probe.request, probe.vm, True))
    assert host.at(12.1) == {"db"}
    assert host.probes() == []


def test_an_answer_that_never_comes_is_asked_for_again() -> None:
    host = Host(db="guest-heartbeat")
    host.at(10)
    (lost,) = host.probes()
    host.at(20)
    (again,) = host.probes()
    host.readiness.probed(GuestProbed(lost.request, lost.vm, True))
    assert host.at(20.1) == set(), "an answer to a question that was given up"
    host.readiness.probed(GuestProbed(again.request, again.vm, True))
    assert host.at(20.2) == {"db"}


def test_few_guests_are_asked_at_one_time_and_none_while_libvirt_is_away() -> None:
    host = Host(**{f"vm{i}": "guest-heartbeat" for i in range(9)})
    host.known.hypervisor_up = False
    host.at(1)
    assert host.probes() == []
    host.known.hypervisor_up = True
    host.at(2)
    first = host.probes()
    assert len(first) == PROBES_AT_ONCE
    for probe in first:
        host.readiness.probed(GuestProbed(probe.request, probe.vm, False))
    host.at(2.1)
    assert {probe.vm for probe in host.probes()}.isdisjoint(probe.vm for probe in first), "everybody has a turn"


def test_ready_lasts_through_a_freeze_and_ends_with_the_process() -> None:
    host = Host(db="delay:5s")
    host.at(0)
    assert host.at(5) == {"db"}
    host.phases["db"] = "frozen"
    assert host.at(6) == {"db"}
    host.phases["db"] = "ended"
    assert host.at(7) == set()
    host.phases["db"] = "running"
    assert host.at(8) == set(), "it begins anew"


def test_what_was_ready_for_the_agent_before_is_ready() -> None:
    host = Host(db="delay:30s", web="delay:30s")
    lines = [PoweredVm(VmId(vm), VmName(vm), DS, epoch, "running", 1, True) for vm, epoch in (("db", 0), ("web", 7))]
    host.known.predecessors_list = PowerOnList(host=ME, boot_id=BootId("b"), sequence=1, isolated=False, vms=tuple(lines))
    assert host.at(1) == {"db"}, "web was another instance"


def test_what_libvirt_has_not_told_of_is_not_ready_yet() -> None:
    host = Host(db="powered-on")
    known = host.known.definitions
    host.known.definitions = {}
    assert host.at(1) == set()
    host.known.definitions = {vm: msgspec.structs.replace(each, memory_mib=2) for vm, each in known.items()}
    assert host.at(2) == {"db"}
