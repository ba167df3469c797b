"""The simulated world and what can be done to it: one method for each verb of the scenario language (docs/scenarios.md).

A verb `x-y` is the method `x_y`, with the verb's keys as its arguments (`for` is `for_`); lengths are nanoseconds. To cut
what is cut, or to heal what is whole, changes nothing. What an operator asks of the fault domain is in `operating.py`.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from outlast.model.events import RetryAsked, StopReason, Woken
from outlast.model.ids import DatastoreName, HostId, VmId
from outlast.model.records import HeartbeatRecord
from outlast.model.settings import Settings
from outlast.model.time import SECOND
from outlast.scenario.model import Scenario, Step
from outlast.sim.guests import LIBVIRTD_RESTARTS
from outlast.sim.host import Host
from outlast.sim.operating import Operating

Groups = Sequence[Iterable[str]]


class World(Operating):
    """See the top of this file."""

    @classmethod
    def of(cls, scenario: Scenario, seed: int | None = None) -> "World":
        """The world of a scenario, at its start. Raises TypeError for a setting that there is none of."""
        settings = msgspec.structs.replace(Settings(), **scenario.settings)
        chosen = scenario.seed if seed is None else seed
        return cls(scenario.hosts, scenario.datastores, scenario.vms, settings=settings, rules=scenario.rules, seed=chosen)

    def do(self, step: Step) -> None:
        """Carry out one step. Raises AttributeError for a verb that this world does not know."""
        keys: dict[str, Any] = {("for_" if key == "for" else key): value for key, value in step.keys.items()}
        getattr(self, step.do.replace("-", "_"))(**keys)

    def _fault(self, host: str, text: str, vm: str = "") -> None:
        self.entry(host, "fault", text, vm)
        self.recovery.disturbed()

    def _network_fault(self, host: str, text: str) -> None:
        self._fault(host, text)
        self.domain.network.changed_at = self.now

    # -- power ----------------------------------------------------------------------------------------------------

    def power_off(self, host: str) -> None:
        """Pull the plug."""
        self._fault(host, "loses its power")
        self.hosts[host].power_off()

    def power_on(self, host: str) -> None:
        """Put it in again."""
        self._fault(host, "gets its power back")
        self.hosts[host].power_on()

    def reboot(self, host: str, for_: int = 30 * SECOND) -> None:
        """Off at once, and on again after a while."""
        self.power_off(host)
        boots = self.hosts[host].boots
        self.scheduler.after(for_, lambda: self.power_on(host) if self.hosts[host].boots == boots else None)

    def shut_down(self, host: str, reboot: bool = False, for_: int = 30 * SECOND) -> None:
        """Its operator shuts it down in order; or has it boot again, a while after its power went."""
        self._fault(host, "is rebooted in order" if reboot else "is shut down in order")
        machine, boots = self.hosts[host], self.hosts[host].boots

        def off() -> None:
            if reboot:
                self.scheduler.after(for_, lambda: self.power_on(host) if machine.boots == boots else None)

        if machine.powered:
            machine.shut_down("reboot" if reboot else "power-off", off)

    def host_stall(self, host: str, for_: int) -> None:
        """The whole host stands still for a while."""
        self._fault(host, f"stands still for {for_ / SECOND:g} s")
        self.hosts[host].stall(for_)

    def clock_jump(self, host: str, by: int) -> None:
        """Its wall clock alone is set."""
        self._fault(host, f"its wall clock jumps by {by / SECOND:g} s")
        self.hosts[host].jump_wall_clock(by)

    # -- network --------------------------------------------------------------------------------------------------

    def network_cut(
        self,
        host: str | None = None,
        between: Groups | None = None,
        one_way: bool = False,
        network: str = "management",
    ) -> None:
        """No packets to and from a host, or between groups; one way: none from it, or from the first to the later ones."""
        self._network_fault(host or "", f"{network} network cut {_named(between)}{'one way' if one_way else ''}".rstrip())
        if network != "management":
            return  # Nothing of ours uses the VMs' network.
        net = self.domain.network
        if host is not None:
            (net.muted if one_way else net.cut).add(HostId(host))
        for a, b in _pairs(between):
            net.blocked.add((a, b))
            if not one_way:
                net.blocked.add((b, a))

    def network_heal(
        self,
        host: str | None = None,
        between: Groups | None = None,
        one_way: bool = False,
        network: str = "management",
    ) -> None:
        """A host's network, or that between groups, is whole again; with neither, all of it."""
        self._network_fault(host or "", f"{network} network heals {_named(between)}".rstrip())
        if network != "management":
            return
        net = self.domain.network
        if host is not None:
            net.cut.discard(HostId(host))
            net.muted.discard(HostId(host))
            net.loss.pop(HostId(host), None)
        elif between is None:
            for everything in (net.cut, net.muted, net.blocked, net.loss):
                everything.clear()
        for a, b in _pairs(between):
            net.blocked.discard((a, b))
            net.blocked.discard((b, a))

    def network_loss(self, host: str, percent: int) -> None:
        """Lose that share of its packets, both ways; 0 ends it."""
        self._network_fault(host, f"loses {percent} % of its packets")
        self.domain.network.loss[HostId(host)] = percent
        if not percent:
            del self.domain.network.loss[HostId(host)]

    def isolation_address_cut(self) -> None:
        """The isolation addresses stop answering."""
        self._fault("", "the isolation addresses stop answering")
        self.domain.network.isolation_address_answers = False

    def isolation_address_heal(self) -> None:
        """They answer again."""
        self._fault("", "the isolation addresses answer again")
        self.domain.network.isolation_address_answers = True

    # -- storage --------------------------------------------------------------------------------------------------

    def _storage(self, host: str, datastore: str, mode: str, text: str) -> None:
        self._fault(host, f"storage {datastore} {text}")
        self.hosts[host].set_storage(DatastoreName(datastore), mode)

    def storage_cut(self, host: str, datastore: str) -> None:
        """All its paths are down: I/O hangs."""
        self._storage(host, datastore, "hang", "hangs")

    def storage_heal(self, host: str, datastore: str) -> None:
        """All is well again, and as fast as before."""
        self._storage(host, datastore, "ok", "is back")
        self.hosts[host].slow_storage(DatastoreName(datastore), 0)

    def storage_lost(self, host: str, datastore: str) -> None:
        """I/O errors at once."""
        self._storage(host, datastore, "fail", "gives I/O errors")

    def storage_slow(self, host: str, datastore: str, latency: int) -> None:
        """Each request takes that much longer."""
        self._fault(host, f"storage {datastore} takes {latency / SECOND:g} s longer")
        self.hosts[host].slow_storage(DatastoreName(datastore), latency)

    def storage_outage(self, datastore: str) -> None:
        """It hangs for every host."""
        for host in self.hosts:
            self.storage_cut(host, datastore)

    def storage_restore(self, datastore: str) -> None:
        """It is back for every host."""
        for host in self.hosts:
            self.storage_heal(host, datastore)

    def record_damage(self, host: str, datastore: str) -> None:
        """The host's heartbeat record there is overwritten with bytes that nobody can read."""
        self._fault(host, f"its heartbeat record on {datastore} is damaged")
        self.domain.stores[DatastoreName(datastore)].damage_heartbeat(HostId(host))

    def record_clone(self, host: str, datastore: str) -> None:
        """A clone of the host, with its identity, writes a heartbeat record into its place."""
        self._fault(host, f"a clone of it writes its heartbeat record on {datastore}")
        store = self.domain.stores[DatastoreName(datastore)]
        sighting = store.sightings.get(HostId(host))
        record: HeartbeatRecord | None = sighting.record if sighting is not None else None
        if record is not None:
            sequence = record.sequence + 1 if record.session == "clone" else 1
            store.put_heartbeat(msgspec.structs.replace(record, session="clone", boot_id="clone", sequence=sequence))

    def record_newer(self, host: str) -> None:
        """From now on it writes its heartbeat records in a format that the others cannot read (a rolling upgrade)."""
        self._fault(host, "writes its heartbeat records in a newer format")
        for store in self.domain.stores.values():
            store.newer_format.add(HostId(host))

    def record_older(self, host: str) -> None:
        """From now on all can read its records again (the upgrade was taken back, or the others were upgraded too)."""
        self._fault(host, "writes its heartbeat records in a format that all know")
        for store in self.domain.stores.values():
            store.newer_format.discard(HostId(host))

    # -- daemons --------------------------------------------------------------------------------------------------

    def _host(self, host: str, text: str) -> Host:
        self._fault(host, text)
        return self.hosts[host]

    def agent_kill(self, host: str) -> None:
        """SIGKILL; it is started again after 2 s."""
        self._host(host, "its agent is killed").agent.kill()

    def agent_stop(self, host: str) -> None:
        """SIGSTOP."""
        self._host(host, "its agent is stopped").agent.stop()

    def agent_resume(self, host: str) -> None:
        """SIGCONT."""
        machine = self._host(host, "its agent goes on")
        machine.when_awake(machine.agent.resume)

    def keeper_kill(self, host: str) -> None:
        """SIGKILL; it is started again after 2 s."""
        self._host(host, "its keeper is killed").keeper.kill()

    def keeper_stop(self, host: str) -> None:
        """SIGSTOP."""
        self._host(host, "its keeper is stopped").keeper.stop()

    def keeper_resume(self, host: str) -> None:
        """SIGCONT."""
        machine = self._host(host, "its keeper goes on")
        machine.when_awake(machine.keeper.resume)

    def hypervisor_kill(self, host: str) -> None:
        """The daemon dies, its VMs live on; it is started again after 5 s."""
        machine = self._host(host, "its libvirtd is killed")
        self._hypervisor_mode(host, "dead")
        boots, generation = machine.boots, machine.hypervisor.generation

        def again() -> None:
            if machine.boots == boots and machine.hypervisor.generation == generation:
                self._hypervisor_mode(host, "up")

        self.scheduler.after(LIBVIRTD_RESTARTS, again)

    def hypervisor_hang(self, host: str) -> None:
        """The daemon stops answering."""
        self._fault(host, "its libvirtd hangs")
        if self.hosts[host].hypervisor.mode == "up":
            self._hypervisor_mode(host, "hung")

    def hypervisor_resume(self, host: str) -> None:
        """It goes on."""
        self._fault(host, "its libvirtd goes on")
        if self.hosts[host].hypervisor.mode == "hung":
            self._hypervisor_mode(host, "up")

    def _hypervisor_mode(self, host: str, mode: str) -> None:
        machine = self.hosts[host]
        machine.hypervisor.set_mode(mode)
        if machine.powered:
            machine.agent.hypervisor_changed()

    # -- fencing --------------------------------------------------------------------------------------------------

    def fencing_break(self, host: str, how: str = "fails") -> None:
        """Its fence device fails at once, or hangs."""
        self._fault(host, f"its fence device {how}")
        if HostId(host) in self.domain.fence_devices:
            self.domain.fence_devices[HostId(host)].mode = how

    def fencing_mend(self, host: str) -> None:
        """Its fence device works again."""
        self.fencing_break(host, "ok")

    def operator_confirms(self, host: str) -> None:
        """An operator tells an agent that works that the host is off: the one that is primary, or any other."""
        self._fault(host, "an operator confirms that it is off")
        for name in sorted(self.hosts):
            machine = self.hosts[name].agent.machine
            if name != host and machine is not None and self.hosts[name].agent.works:
                machine.operator.say(HostId(host), machine.operator.marks(HostId(host)))
                self.hosts[name].agent.happen(Woken())
                return

    # -- virtual machines -----------------------------------------------------------------------------------------

    def vm_start(self, vm: str, host: str) -> list[str]:
        """An operator runs `virsh start`. The list will hold the problem; an empty string if it started."""
        self._fault(host, "an operator starts it", vm)
        return self._start(vm, host)

    def vm_start_elsewhere(self, vm: str, host: str) -> list[str]:
        """The same, on a host that may be the wrong one."""
        return self.vm_start(vm, host)

    def vm_power_off(self, vm: str) -> None:
        """It is switched off on purpose."""
        self._fault("", "it is switched off by an operator", vm)
        self.recovery.wanted.discard(VmId(vm))
        self.switched_off.add(VmId(vm))
        self._end(vm, StopReason.DESTROYED)

    def vm_crash(self, vm: str) -> None:
        """Its process dies."""
        self._fault("", "it crashes", vm)
        if self.processes(vm):
            self.recovery.failed(VmId(vm))
        self._end(vm, StopReason.FAILED)

    def _end(self, vm: str, reason: StopReason) -> None:
        for name in self.processes(vm):
            process = self.hosts[name].hypervisor.processes[VmId(vm)]
            if process.incoming and not process.executed:
                continue  # A copy is not the guest.
            # Nothing ends on a host that stands still, nor writes its last there.
            self.hosts[name].when_awake(functools.partial(self.hosts[name].guests.end, VmId(vm), reason))

    def vm_hang(self, vm: str, io: bool = False, lasting: bool = False) -> None:
        """Its guest stops answering, and shuts down no more; its process goes on.

        `io`: it reads and writes on; `lasting`: it hangs again after each reset.
        """
        self._fault("", "its guest hangs", vm)
        for name in self.processes(vm):
            process = self.hosts[name].hypervisor.processes[VmId(vm)]
            # What stands still does not begin to work again by hanging once more.
            process.hung, process.busy, process.lasting = True, io and process.works, lasting

    def vm_retry(self, vm: str) -> None:
        """An operator asks for it to be tried once more, on any host whose agent works."""
        self._fault("", "an operator asks for it to be tried once more", vm)
        self.recovery.failures.pop(VmId(vm), None)
        host = next((host for host in self.hosts.values() if host.powered and host.agent.works), None)
        if host is not None:
            host.agent.happen(RetryAsked(f"retry {vm} at {self.now}", vm))

    def start_fails(self, vm: str, host: str | None = None, times: int = 1) -> None:
        """Its next starts fail, on that host or everywhere; -1: always; 0: no more."""
        self._fault(host or "", f"its next starts fail ({times})", vm)
        self.failing_starts[vm, host or ""] = times


def _pairs(groups: Groups | None) -> list[tuple[HostId, HostId]]:
    """Every ordered pair of an earlier and a later group's hosts."""
    parts = [list(group) for group in groups or ()]
    return [(HostId(a), HostId(b)) for i, one in enumerate(parts) for other in parts[i + 1 :] for a in one for b in other]


def _named(groups: Groups | None) -> str:
    return " | ".join(" ".join(group) for group in groups or ()) + (" " if groups else "")
