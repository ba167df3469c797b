"""Small scenarios that lead straight to where one safety rule matters, with times drawn from a seed.

A random scenario of the whole mixture meets some rules once in a thousand runs. Each ordeal here is about one moment: the
tests of the mutants (`mutants.py`) play it a few times with the rule switched off, and must see it broken; with the rules
in place it must hold, whatever the seed. The moments are short, so storage is made slow where one of them has to be hit.
"""

import random
from collections.abc import Callable
from typing import Any

import msgspec

from outlast.model.ids import DatastoreName, HostName, VmName
from outlast.model.time import MILLISECOND, SECOND, Duration
from outlast.scenario.model import DatastoreSpec, HostSpec, Scenario, Step, VmSpec

Ordeal = Callable[[random.Random], Scenario]
ORDEALS: dict[str, Ordeal] = {}


def ordeal(name: str, seed: int) -> Scenario:
    """The ordeal of that name with the times of that seed. Raises KeyError for a name that is none."""
    return ORDEALS[name](random.Random(f"ordeal {name} {seed}"))


def _ordeal(make: Ordeal) -> Ordeal:
    ORDEALS[make.__name__.strip("_").replace("_", "-")] = make
    return make


class _Story:
    """Collects the steps of an ordeal. Times are milliseconds."""

    def __init__(
        self,
        rng: random.Random,
        story: str,
        *,
        hosts: int = 2,
        vms: tuple[str, ...] = ("host1",),
        stores: tuple[DatastoreSpec, ...] = (),
        first: HostSpec | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        names = [HostName(f"host{i + 1}") for i in range(hosts)]
        self._rng = rng
        self._text = story
        self._hosts = tuple(first if first is not None and i == 0 else HostSpec(name=n) for i, n in enumerate(names))
        self._stores = stores or (DatastoreSpec(name=DatastoreName("ds1")),)
        self._vms = tuple(
            VmSpec(
                name=VmName(f"vm{i + 1}"), datastore=self._stores[0].name, host=HostName(host), start_time=Duration(SECOND)
            )
            for i, host in enumerate(vms)
        )
        self._steps: list[Step] = []
        self._settings = {"isolation_response": "leave-running"} | (settings or {})

    def clone(self) -> None:
        """One VM more, which is off, and whose disk is the first one's."""
        first = self._vms[0]
        more = VmSpec(
            name=VmName("clone1"), datastore=first.datastore, state="unprotected", same_disk_as=first.name, memory_mib=512
        )
        self._vms = (*self._vms, more)

    def at(self, ms: float, verb: str, **keys: Any) -> None:
        """One step."""
        named = {("for" if key == "for_" else key): value for key, value in keys.items()}
        self._steps.append(Step(at=Duration(round(ms * MILLISECOND)), do=verb, keys=named))

    def store(self, ms: float, verb: str, host: str, **keys: Any) -> None:
        """One step at a host's way to the datastore."""
        self.at(ms, f"storage-{verb}", host=host, datastore="ds1", **keys)

    def cut_off(self, ms: float, host: str, storage_ms: float | None = None) -> None:
        """Network and storage of a host are cut, so that it falls silent."""
        self.at(ms, "network-cut", host=host)
        self.store(ms if storage_ms is None else storage_ms, "cut", host)

    def heal_slowly(self, ms: float, host: str) -> None:
        """Its storage is back, and slow: each request takes 400 ms, one after the other; the link is the third or so."""
        self.store(ms - 1, "slow", host, latency=400 * MILLISECOND)
        self.store(ms, "heal", host)
        self.store(ms + 1, "slow", host, latency=400 * MILLISECOND)

    def done(self, end_ms: float) -> Scenario:
        """The scenario, ended so long after its start."""
        return Scenario(
            title=self._text,
            story=self._text,
            seed=self._rng.getrandbits(31),
            duration=Duration(round(end_ms * MILLISECOND)),
            settings=self._settings,
            datastores=self._stores,
            hosts=self._hosts,
            vms=self._vms,
            steps=tuple(sorted(self._steps, key=lambda step: step.at)),
        )


@_ordeal
def _cut_off_and_healed_among_the_steps_of_a_takeover(rng: random.Random) -> Scenario:
    s = _Story(rng, "The owner's storage heals while another host, whose storage is slow, takes its VM over", hosts=2)
    s.cut_off(1000, "host1")
    s.store(rng.uniform(0, 900), "slow", "host2", latency=rng.choice([200, 350, 450]) * MILLISECOND)
    s.store(rng.uniform(8_300, 11_000), "heal", "host1")
    return s.done(20_000)


@_ordeal
def _taken_over_and_healed(rng: random.Random) -> Scenario:
    s = _Story(rng, "A host that was cut off comes back when its VM runs elsewhere", hosts=2)
    s.cut_off(1000, "host1")
    s.store(rng.uniform(12_000, 16_000), "heal", "host1")
    return s.done(22_000)


@_ordeal
def _answers_ping_until_late(rng: random.Random) -> Scenario:
    s = _Story(rng, "A host loses its storage, later its network, and gets its storage back when it is presumed dead")
    silent = rng.uniform(7_500, 9_000)
    s.store(0, "cut", "host1")
    s.at(silent, "network-cut", host="host1")
    s.store(silent + rng.uniform(2_800, 3_800), "heal", "host1")
    return s.done(silent + 10_000)


@_ordeal
def _slow_observer(rng: random.Random) -> Scenario:
    s = _Story(rng, "A host loses its power, and who takes its VM over reads slowly", hosts=2)
    s.store(0, "slow", "host2", latency=rng.choice([300, 450, 600]) * MILLISECOND)
    s.at(rng.uniform(3_000, 4_000), "power-off", host="host1")
    return s.done(22_000)


@_ordeal
def _observer_that_lapses(rng: random.Random) -> Scenario:
    s = _Story(rng, "The storage of both hosts hangs in turn: the observer's own lease lapses within its window", hosts=2)
    s.cut_off(1000, "host1")
    cut = rng.uniform(1_500, 2_500)
    s.store(cut, "cut", "host2")
    s.store(cut + rng.uniform(6_300, 9_000), "heal", "host2")
    return s.done(24_000)


@_ordeal
def _slow_renewals_end(rng: random.Random) -> Scenario:
    s = _Story(rng, "Heartbeat writes take two seconds, and then hang")
    s.store(0, "slow", "host1", latency=2 * SECOND)
    s.store(rng.uniform(6_000, 9_000), "cut", "host1")
    return s.done(18_000)


@_ordeal
def _a_renewal_is_too_late(rng: random.Random) -> Scenario:
    s = _Story(rng, "A heartbeat write takes longer than the lease")
    s.store(rng.uniform(0, 2_000), "slow", "host1", latency=8 * SECOND)
    return s.done(15_000)


@_ordeal
def _a_link_in_flight_at_the_next_cut(rng: random.Random) -> Scenario:
    s = _Story(rng, "A frozen VM is being re-asserted when the storage hangs again, until the new term is over too")
    s.store(0, "cut", "host1")
    s.heal_slowly(9_000, "host1")
    again = 9_000 + rng.uniform(420, 2_000)
    s.store(again, "cut", "host1")
    s.store(again + rng.uniform(7_000, 9_000), "heal", "host1")
    return s.done(again + 15_000)


@_ordeal
def _a_link_that_ends_in_an_error(rng: random.Random) -> Scenario:
    s = _Story(rng, "A frozen VM is being re-asserted when the storage begins to give errors: nobody knows who won")
    s.store(0, "cut", "host1")
    s.heal_slowly(9_000, "host1")
    s.store(9_000 + rng.uniform(420, 2_000), "lost", "host1")
    s.store(16_000, "heal", "host1")
    return s.done(22_000)


@_ordeal
def _a_late_link_meets_a_pruned_name(rng: random.Random) -> Scenario:
    s = _Story(rng, "A link hangs in a cut-off host's kernel while the register grows and is pruned elsewhere")
    s.store(0, "cut", "host1")
    s.heal_slowly(9_000, "host1")
    again = 9_000 + rng.uniform(420, 600)
    s.store(again, "cut", "host1")
    s.at(again, "network-cut", host="host1")
    for i in range(3):
        flap = again + 13_000 + i * 9_000
        s.store(flap, "cut", "host2")
        s.store(flap + 7_000, "heal", "host2")
    s.store(again + 43_000, "heal", "host1")
    return s.done(again + 50_000)


@_ordeal
def _a_start_meets_a_lapse(rng: random.Random) -> Scenario:
    s = _Story(rng, "The storage hangs between the gate's yes and the VM's process, until the lease is over")
    s.at(0, "vm-power-off", vm="vm1")
    s.at(10_000, "vm-start", vm="vm1", host="host1")
    cut, lasts = 10_000 + rng.uniform(6, 24), rng.uniform(7_000, 9_000)
    s.store(cut, "cut", "host1")
    s.store(cut + lasts, "heal", "host1")
    s.store(cut + lasts + 1, "slow", "host1", latency=300 * MILLISECOND)
    return s.done(26_000)


@_ordeal
def _libvirt_hangs_in_a_start(rng: random.Random) -> Scenario:
    s = _Story(
        rng,
        "Libvirt hangs between the gate's yes and the process until nobody waits any more, and then goes on",
        vms=("host2", "host1"),
    )
    s.at(3_000, "vm-crash", vm="vm1")
    s.store(3_015, "slow", "host2", latency=200 * MILLISECOND)
    s.at(3_000 + rng.uniform(1_300, 3_400), "hypervisor-hang", host="host2")
    s.at(3_000 + rng.uniform(18_000, 30_000), "hypervisor-resume", host="host2")
    return s.done(40_000)


@_ordeal
def _started_again_after_its_end(rng: random.Random) -> Scenario:
    s = _Story(rng, "A VM ends, its epoch is renounced, and its operator starts it on the same host again")
    s.at(1000, "vm-power-off", vm="vm1")
    s.store(2000, "slow", "host1", latency=400 * MILLISECOND)
    s.at(rng.uniform(3_000, 6_000), "vm-start", vm="vm1", host="host1")
    return s.done(10_000)


@_ordeal
def _started_elsewhere(rng: random.Random) -> Scenario:
    s = _Story(rng, "An operator starts a VM on the wrong host while its owner runs it")
    s.store(0, "slow", "host2", latency=SECOND)
    s.at(rng.uniform(500, 2_000), "vm-start-elsewhere", vm="vm1", host="host2")
    return s.done(8_000)


@_ordeal
def _a_keeper_dies_while_storage_hangs(rng: random.Random) -> Scenario:
    s = _Story(rng, "The keeper is killed while the storage hangs; when it is back, its lease is about to end")
    s.store(0, "cut", "host1")
    s.at(rng.uniform(1_500, 3_500), "keeper-kill", host="host1")
    s.at(5_900, "agent-stop", host="host1")
    s.at(16_000, "agent-resume", host="host1")
    return s.done(18_000)


@_ordeal
def _a_keeper_dies_and_later_storage_hangs(rng: random.Random) -> Scenario:
    s = _Story(rng, "A keeper that was started again has to freeze what its predecessor saw starting")
    s.at(0, "keeper-kill", host="host1")
    s.store(rng.uniform(4_000, 6_000), "cut", "host1")
    s.at(4_500, "agent-stop", host="host1")
    return s.done(16_000)


@_ordeal
def _a_keeper_stops(rng: random.Random) -> Scenario:
    s = _Story(rng, "The keeper is stopped for longer than its lease, and its agent is well")
    s.at(rng.uniform(0, 2_000), "keeper-stop", host="host1")
    s.at(14_000, "keeper-resume", host="host1")
    return s.done(20_000)


@_ordeal
def _keeper_and_agent_stop_on_a_host_with_a_watchdog(rng: random.Random) -> Scenario:
    first = HostSpec(name=HostName("host1"), watchdog=True)
    s = _Story(rng, "Keeper and agent stop a moment before their lease ends, and a watchdog is left", first=first)
    s.store(1000, "cut", "host1")
    stopped = rng.uniform(5_000, 6_800)
    s.at(stopped, "agent-stop", host="host1")
    s.at(stopped, "keeper-stop", host="host1")
    return s.done(14_000)


@_ordeal
def _nothing_freezes_there(rng: random.Random) -> Scenario:
    first = HostSpec(name=HostName("host1"), enforcement="none")
    s = _Story(rng, "A host whose guests a freeze does not stop falls silent", first=first)
    s.cut_off(rng.uniform(0, 2_000), "host1")
    return s.done(18_000)


@_ordeal
def _writes_held_without_end(rng: random.Random) -> Scenario:
    store = DatastoreSpec(name=DatastoreName("ds1"), in_flight_bound=None, accept_in_flight_risk=False)
    s = _Story(rng, "A host falls silent on a datastore whose risk nobody accepted", stores=(store,))
    s.cut_off(rng.uniform(0, 2_000), "host1")
    return s.done(18_000)


@_ordeal
def _it_answers_ping(rng: random.Random) -> Scenario:
    s = _Story(rng, "A host answers ping, but neither its agent nor its keeper is heard of")
    s.at(1000, "agent-stop", host="host1")
    s.store(rng.uniform(1_000, 2_000), "cut", "host1")
    return s.done(20_000)


@_ordeal
def _it_writes_a_newer_format(rng: random.Random) -> Scenario:
    s = _Story(rng, "A host that was upgraded writes records that the others cannot read, and its network is cut", hosts=3)
    s.at(1000, "record-newer", host="host1")
    s.at(rng.uniform(1_000, 3_000), "network-cut", host="host1")
    return s.done(20_000)


@_ordeal
def _a_clone_writes_into_its_place(rng: random.Random) -> Scenario:
    s = _Story(rng, "Two hosts have one identity: the record of one is overwritten by the other again and again")
    for i in range(6):
        s.at(1000 + 1000 * i + rng.uniform(0, 400), "record-clone", host="host1", datastore="ds1")
    return s.done(9_000)


@_ordeal
def _shut_down_with_a_guest_that_hangs(rng: random.Random) -> Scenario:
    s = _Story(rng, "A host is shut down in order, but one of its guests does not end")
    s.at(1000, "vm-hang", vm="vm1")
    s.at(rng.uniform(1_500, 3_000), "shut-down", host="host1")
    return s.done(60_000)


@_ordeal
def _a_primary_that_was_deposed(rng: random.Random) -> Scenario:
    s = _Story(
        rng,
        "On one side of a partition the primary's storage hangs, and the other side's primary takes the datastore",
        hosts=4,
        vms=("host1", "host2", "host3", "host3", "host3", "host3"),
    )
    sides = [["host4", "host3"], ["host1", "host2"]]
    s.at(0, "network-cut", between=sides)
    s.store(1000, "cut", "host4")
    lasts = rng.uniform(10_000, 15_000)
    for vm in ("vm3", "vm4", "vm5", "vm6"):
        s.at(1000 + lasts - rng.uniform(-1_000, 5_000), "vm-crash", vm=vm)
    s.store(1000 + lasts, "heal", "host4")
    return s.done(1000 + lasts + 12_000)


@_ordeal
def _a_primary_that_stood_still_before_it_acted(rng: random.Random) -> Scenario:
    s = _Story(rng, "The primary's agent is stopped when it has just asked whether it is still responsible", hosts=3)
    s.store(0, "slow", "host3", latency=400 * MILLISECOND)
    s.at(1000, "vm-crash", vm="vm1")
    stopped = 1000 + rng.uniform(0, 3_000)
    s.at(stopped, "agent-stop", host="host3")
    s.at(stopped + 20_000, "agent-resume", host="host3")
    return s.done(stopped + 26_000)


@_ordeal
def _a_vm_ends_while_storage_hangs(rng: random.Random) -> Scenario:
    s = _Story(rng, "A VM is switched off while its storage hangs: its release cannot be written for a while", hosts=2)
    s.store(1000, "cut", "host1")
    s.at(1000 + rng.uniform(100, 4_000), "vm-power-off", vm="vm1")
    s.store(25_000, "heal", "host1")
    return s.done(32_000)


@_ordeal
def _silent_when_our_own_storage_hangs(rng: random.Random) -> Scenario:
    s = _Story(rng, "A host loses its power, and before the window has elapsed the storage hangs for everybody", hosts=3)
    s.at(1000, "power-off", host="host1")
    hangs = 1000 + rng.uniform(4_000, 7_000)
    s.at(hangs, "storage-outage", datastore="ds1")
    s.at(hangs + 20_000, "storage-restore", datastore="ds1")
    return s.done(hangs + 40_000)


def _switched_on_again(rng: random.Random, s: _Story, *, confirmed: bool) -> Scenario:
    """Its first end is proven; it comes back, gets a VM, and is cut off from everything while nothing freezes that VM."""
    s.at(1000, "power-off", host="host1")
    if confirmed:
        s.at(12_000, "operator-confirms", host="host1")
    s.at(25_000, "power-on", host="host1")
    s.at(35_000, "vm-start", vm="vm2", host="host1")
    s.cut_off(50_000 + rng.uniform(0, 5_000), "host1")
    s.at(80_000, "network-heal", host="host1")
    return s.done(85_000)


@_ordeal
def _fenced_and_switched_on_again(rng: random.Random) -> Scenario:
    first = HostSpec(name=HostName("host1"), enforcement="none", fencing=True)
    s = _Story(
        rng, "A host is fenced, comes back, and is cut off when its device is broken", vms=("host1", ""), first=first
    )
    s.at(40_000, "fencing-break", host="host1")
    return _switched_on_again(rng, s, confirmed=False)


@_ordeal
def _confirmed_and_switched_on_again(rng: random.Random) -> Scenario:
    first = HostSpec(name=HostName("host1"), enforcement="none")
    s = _Story(rng, "A host is confirmed to be off, comes back, and is cut off", vms=("host1", ""), first=first)
    return _switched_on_again(rng, s, confirmed=True)


@_ordeal
def _fenced_while_it_runs(rng: random.Random) -> Scenario:
    first = HostSpec(name=HostName("host1"), enforcement="none", fencing=True)
    s = _Story(rng, "A host whose guests a freeze does not stop falls silent, and is fenced", first=first)
    s.cut_off(rng.uniform(0, 2_000), "host1")
    return s.done(24_000)


@_ordeal
def _a_primary_that_stood_still_before_it_fenced(rng: random.Random) -> Scenario:
    first = HostSpec(name=HostName("host1"), enforcement="none", fencing=True)
    s = _Story(rng, "The primary's agent is stopped when it asks whether it may still fence", hosts=3, first=first)
    s.store(0, "slow", "host3", latency=300 * MILLISECOND)
    s.cut_off(1000, "host1")
    stopped = 1000 + rng.uniform(4_200, 5_200)
    s.at(stopped, "agent-stop", host="host3")
    s.at(stopped + 20_000, "agent-resume", host="host3")
    return s.done(stopped + 26_000)


@_ordeal
def _a_proof_waits_for_its_turn(rng: random.Random) -> Scenario:
    first = HostSpec(name=HostName("host1"), enforcement="none")
    s = _Story(
        rng, "A host is confirmed to be off, answers ping while its VM waits for another", vms=("host1", ""), first=first
    )
    s.at(500, "agent-stop", host="host1")
    s.cut_off(1000, "host1")
    s.at(2000, "vm-start", vm="vm2", host="host2")
    s.at(11_000, "start-fails", vm="vm2", times=-1)
    s.at(11_500, "vm-crash", vm="vm2")
    s.at(14_000, "operator-confirms", host="host1")
    s.at(rng.uniform(17_000, 22_000), "network-heal", host="host1")
    story = s.done(34_000)
    waiting, other = story.vms
    vms = (msgspec.structs.replace(waiting, after=(other.name,)), msgspec.structs.replace(other, max_relocations=-1))
    return msgspec.structs.replace(story, vms=vms, settings={**story.settings, "dependency_timeout": 12 * SECOND})


from outlast.sim import claim_ordeals as _claim_ordeals  # noqa: E402, F401 - and so does this
from outlast.sim import guest_ordeals as _guest_ordeals  # noqa: E402, F401 - it registers its own in ORDEALS
from outlast.sim import migration_ordeals as _migration_ordeals  # noqa: E402, F401 - and so does this
from outlast.sim import settings_ordeals as _settings_ordeals  # noqa: E402, F401 - it registers its own in ORDEALS
from outlast.sim import storage_ordeals as _storage_ordeals  # noqa: E402, F401 - and so does this
