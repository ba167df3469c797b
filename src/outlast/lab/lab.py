"""A lab: real hosts, storage and virtual machines on one machine, and everything that can befall them.

`Lab` is what the command line, the scenario runner and the tests use. Each call reads lab.json, does its work and writes
it back, under a lock, so that separate programs can work on one lab. Faults are stated, not counted: cutting what is cut
changes nothing, and each fault holds over the power cycles of its host until it is healed.

`down` removes all that a lab ever started, also when `up` was cut short or lab.json is lost: processes by their marker,
mounts below the lab's directory, network namespaces by their names. Only the cache stays.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from outlast.lab import building, disklog, guest, host, outlast_commands, power_strip, storage, teardown
from outlast.lab.errors import LabError
from outlast.lab.layout import Layout
from outlast.lab.network import Network
from outlast.lab.processes import Process, is_alive, send_signal, wait_gone
from outlast.lab.stall import stall
from outlast.lab.state import HostState, LabState, VmState, load, locked, save

_SHUT_DOWN_TIMEOUT_S = 120.0


class Lab:
    """The lab in a directory, whether it is up or not. Every call raises LabError with the remedy."""

    def __init__(self, root: Path | None = None, cache: Path | None = None) -> None:
        self.layout = Layout(root.absolute(), cache) if root is not None else Layout.default()
        self.network = Network(self.layout)

    # ---- the lab as a whole

    def up(
        self,
        hosts: int = 3,
        datastores: int = 2,
        vms: int = 4,
        *,
        settings: Mapping[str, Any] | None = None,
        services: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        fencing: bool = False,
    ) -> list[str]:
        """Make and boot a lab. Its VMs are defined, but not started: vm1 on host1 and ds1, vm2 on host2 and ds2, and so on.

        `settings` go to Outlast's configuration; `services` are a host's services, by default all that exist; `metadata` is
        the XML inside <metadata> of a VM, by its name; with `fencing` every host has a fence device. Returns what had to
        be left out, as sentences.
        """
        building.check_machine(hosts, datastores, vms)
        state = building.plan(hosts, datastores, vms, settings or {}, metadata or {})
        state.outlets = dict.fromkeys(state.hosts, "works") if fencing else {}
        return self.build(state, services)

    def build(self, state: LabState, services: Sequence[str] | None = None) -> list[str]:
        """Make and boot the lab of a plan; `services` and what is returned as for `up`."""
        building.check_machine(len(state.hosts), len(state.datastores), len(state.vms))
        with locked(self.layout):
            if load(self.layout) is not None or self.network.leftovers():
                raise LabError(f"there is a lab in {self.layout.root} already: end it with `outlast lab down`")
            guest.build(self.layout)
            commands = outlast_commands.available(self.layout)
            state.notes = outlast_commands.missing_notes(commands)
            if not storage.faults_are_possible():
                state.notes.append("the file system for faults does not exist: storage cannot be cut")
            usable = ["libvirtd", *(name for name in ("keeper", "agent") if name in commands)]
            state.services = list(usable if services is None else services)
            outlast_commands.services(state.services)
            save(self.layout, state)
            building.furnish(self.layout, state, commands)
            self.network.create()
            if state.outlets:
                power_strip.start(self.layout)
            # Without a keeper to ask, the hook would refuse every start.
            hook = "hook install" in commands and "keeper" in state.services
            building.boot(self.layout, self.network, state, list(state.hosts), install_hook=hook)
            building.define_all(self.layout, state)
            return state.notes

    def down(self) -> None:
        """Remove the lab and all its leftovers, except the cache. Harmless when there is none."""
        if os.geteuid() != 0:
            raise LabError("the lab needs root: run it with sudo")
        if not self.layout.root.exists() and not self.network.leftovers():
            return
        with locked(self.layout):
            teardown.end_processes(self.layout)
            teardown.unmount(self.layout.root)
            self.network.remove_all()
            teardown.remove_files(self.layout)

    def state(self) -> LabState:
        """The lab as it was saved last. Raises LabError if there is none."""
        state = load(self.layout)
        if state is None:
            raise LabError("there is no lab: make one with `outlast lab up`")
        return state

    def status(self) -> dict[str, Any]:
        """What runs now: hosts, services, guests, faults, disks. Asks no service, so that nothing can hang."""
        state = self.state()
        hosts: dict[str, Any] = {}
        running: dict[str, list[str]] = {name: [] for name in state.vms}
        for name, each in state.hosts.items():
            found = self.guests(name)
            for one in found:
                running.setdefault(one.name, []).append(name)
            hosts[name] = {
                "power": "on" if is_alive(each.init) else "off",
                "address": each.address,
                "pid": each.init.pid if each.init is not None and is_alive(each.init) else None,
                "boot_id": each.boot_id,
                "services": {service: self.service_state(name, service) for service in state.services},
                "guests": {one.name: "frozen" if one.stopped else "running" for one in found},
                "outlet": state.outlets.get(name),
                "storage_faults": {datastore: order["do"] for datastore, order in each.storage_faults.items()},
            }
        vms: dict[str, Any] = {}
        for name, vm in state.vms.items():
            disk = self._disk(name, vm)
            records, problems = disklog.parse(disk.read_bytes()) if disk.exists() else ([], [f"{disk} does not exist"])
            vms[name] = {
                "uuid": vm.uuid,
                "datastore": vm.datastore,
                "defined_on": vm.host,
                "running_on": running[name],
                "boots": len({record.boot_id for record in records}),
                "records": len(records),
                "problems": problems + disklog.judge(records),
            }
        faults = {
            "cut": sorted(state.faults.cut),
            "muted": sorted(state.faults.muted),
            "one_way": sorted(state.faults.one_way),
            "loss": state.faults.loss,
            "isolation_address_cut": state.faults.isolation_address_cut,
        }
        return {"root": str(self.layout.root), "hosts": hosts, "vms": vms, "network_faults": faults, "notes": state.notes}

    def heal(self) -> None:
        """End every fault: cables, storage, services that were stopped, fence devices, power."""
        state = self.state()
        for name in state.outlets:
            self.outlet(name, "works")
        self.isolation_address_heal()
        for name in state.hosts:
            self.network_heal(name)
            for datastore in list(state.hosts[name].storage_faults):
                self.storage_heal(name, datastore)
            if not self.is_on(name):
                self.power_on(name)
            for service in state.services:
                if self.service_state(name, service) == "stopped":
                    self.service_resume(name, service)

    # ---- power

    def power_off(self, name: str) -> None:
        """Pull the plug of a host: everything in it dies at once, and none of its packets or writes arrives any more."""
        with self._changing() as state:
            own = self._host(state, name)
            if not is_alive(own.init) or own.init is None:
                raise LabError(f"{name} is off already")
            state.faults.dead.add(name)
            self.network.apply(state.faults)
            killed = host.kill(own.init)
            own.init = None
            storage.lose_power(self.layout, name, own)
            host.wait_dead(name, killed)

    def power_on(self, name: str) -> None:
        """Boot a host that is off. Its services start as at every boot."""
        with self._changing() as state:
            if is_alive(self._host(state, name).init):
                raise LabError(f"{name} is on already")
            building.boot(self.layout, self.network, state, [name], install_hook=False)

    def shut_down(self, name: str, *, reboots: bool = False) -> None:
        """Shut a host down in order: its guests, then its services; then its power goes off.

        `reboots`: it is told that it will boot again, which is for the caller to do. Other commands work meanwhile.
        """
        init = self.init(name)
        # Sent from outside, so that it reaches PID 1 in spite of its namespace.
        send_signal(init, signal.SIGUSR2 if reboots else signal.SIGPWR)
        if wait_gone([init], _SHUT_DOWN_TIMEOUT_S):
            raise LabError(f"{name} did not shut down within {_SHUT_DOWN_TIMEOUT_S:g} s; `power-off` pulls its plug")
        with self._changing() as state:
            if state.hosts[name].init == init:
                state.faults.dead.add(name)
                self.network.apply(state.faults)
                state.hosts[name].init = None

    def host_stall(self, name: str, seconds: float) -> None:
        """Let nothing run on a host for so long, then let it go on. Other commands work meanwhile."""
        init = self.init(name)
        with self._changing() as state:
            state.faults.dead.add(name)
            self.network.apply(state.faults)
        try:
            stall(init, seconds)
        finally:
            with self._changing() as state:
                if is_alive(state.hosts[name].init):
                    state.faults.dead.discard(name)
                    self.network.apply(state.faults)

    def fence(self, name: str) -> None:
        """What the power strip does when a fence agent tells it to: nothing to a host that is off already."""
        if self.is_on(name):
            self.power_off(name)
            with self._changing() as state:
                state.fenced.append(name)

    def outlet(self, name: str, how: str) -> None:
        """How a host's fence device does its work from now on: works, fails, hangs or lies."""
        with self._changing() as state:
            self._host(state, name)
            if name not in state.outlets:
                raise LabError(f"{name} has no fence device: make the lab with `outlast lab up --fencing`")
            if how not in power_strip.OUTLETS:
                raise LabError(f"a fence device that {how} is not known; it {', '.join(power_strip.OUTLETS)}")
            state.outlets[name] = how

    # ---- network

    def network_cut(self, name: str, *, one_way: bool = False) -> None:
        """Nothing reaches the host, and it reaches nothing. One way: what it sends is lost, but it hears."""
        with self._changing() as state:
            self._host(state, name)
            (state.faults.muted if one_way else state.faults.cut).add(name)
            self.network.apply(state.faults)

    def network_heal(self, name: str) -> None:
        """End every fault of this host's network, also partitions as far as they concern it."""
        with self._changing() as state:
            self._host(state, name)
            state.faults.cut.discard(name)
            state.faults.muted.discard(name)
            state.faults.loss.pop(name, None)
            state.faults.one_way = {pair for pair in state.faults.one_way if name not in pair}
            self.network.apply(state.faults)

    def partition(self, groups: Sequence[Sequence[str]], *, one_way: bool = False) -> None:
        """Let no packet pass between groups of hosts. One way: none from an earlier group to a later one."""
        with self._changing() as state:
            state.faults.one_way |= self._pairs(state, groups, one_way)
            self.network.apply(state.faults)

    def partition_heal(self, groups: Sequence[Sequence[str]], *, one_way: bool = False) -> None:
        """Undo `partition` with the same groups."""
        with self._changing() as state:
            state.faults.one_way -= self._pairs(state, groups, one_way)
            self.network.apply(state.faults)

    def network_loss(self, name: str, percent: int) -> None:
        """Lose this share of the host's packets at random, in each direction. 0 ends it."""
        if not 0 <= percent <= 100:
            raise LabError(f"a loss of {percent} % is not possible: give a number from 0 to 100")
        with self._changing() as state:
            self._host(state, name)
            state.faults.loss.pop(name, None)
            if percent:
                state.faults.loss[name] = percent
            self.network.apply(state.faults)

    def isolation_address_cut(self) -> None:
        """The isolation address answers no ping."""
        self._isolation_address(cut=True)

    def isolation_address_heal(self) -> None:
        self._isolation_address(cut=False)

    def _isolation_address(self, *, cut: bool) -> None:
        with self._changing() as state:
            state.faults.isolation_address_cut = cut
            self.network.apply(state.faults)

    def _pairs(self, state: LabState, groups: Sequence[Sequence[str]], one_way: bool) -> set[tuple[str, str]]:
        pairs: set[tuple[str, str]] = set()
        for index, group in enumerate(groups):
            for source in group:
                self._host(state, source)
                for target in (name for other in groups[index + 1 :] for name in other):
                    pairs.add((source, target))
                    if not one_way:
                        pairs.add((target, source))
        return pairs

    # ---- storage

    def storage_cut(self, name: str, datastore: str) -> None:
        """The host's I/O on this datastore hangs until it is healed."""
        self._storage(name, datastore, {"do": "hang"})

    def storage_lost(self, name: str, datastore: str) -> None:
        """The host's I/O on this datastore fails at once."""
        self._storage(name, datastore, {"do": "fail"})

    def storage_slow(self, name: str, datastore: str, milliseconds: int) -> None:
        """Each read, write and change of a name by the host on this datastore takes so much longer."""
        self._storage(name, datastore, {"do": "slow", "ms": milliseconds})

    def storage_full(self, name: str, datastore: str) -> None:
        """Whatever needs space on this datastore fails for the host; what overwrites in place does not."""
        self._storage(name, datastore, {"do": "full"})

    def storage_heal(self, name: str, datastore: str) -> None:
        self._storage(name, datastore, {"do": "heal"})

    def _storage(self, name: str, datastore: str, order: dict[str, Any]) -> None:
        with self._changing() as state:
            own = self._host(state, name)
            if datastore not in state.datastores:
                raise LabError(f"there is no datastore {datastore}; datastores are {', '.join(state.datastores)}")
            # Asked first: a host that is off keeps its datastores shut until it boots.
            storage.command(self.layout, name, datastore, order if is_alive(own.init) else {"do": "status"})
            if order["do"] == "heal":
                own.storage_faults.pop(datastore, None)
            else:
                own.storage_faults[datastore] = order

    # ---- services

    def service_kill(self, name: str, service: str) -> None:
        """SIGKILL; the host's service manager starts it again after its delay."""
        self.service_signal(name, service, signal.SIGKILL)

    def service_stop(self, name: str, service: str) -> None:
        """SIGSTOP: it hangs."""
        self.service_signal(name, service, signal.SIGSTOP)

    def service_resume(self, name: str, service: str) -> None:
        self.service_signal(name, service, signal.SIGCONT)

    def service_restart(self, name: str, service: str) -> None:
        """SIGTERM, and the host's service manager starts it again at once."""
        init = self._running(name, self._host(self.state(), name))
        Path(f"/proc/{init.pid}/root/run/lab/{service}.restart").touch()
        self.service_signal(name, service, signal.SIGTERM)

    def service_signal(self, name: str, service: str, number: signal.Signals) -> None:
        init = self._running(name, self._host(self.state(), name))
        pid = host.service_pid(init, service)
        if pid is None:
            raise LabError(f"{service} does not run on {name}; `outlast lab status` shows its services")
        host.signal_inside(self.layout, init, pid, number)

    def service_state(self, name: str, service: str) -> str:
        """running, stopped (by SIGSTOP) or dead."""
        init = self._host(self.state(), name).init
        pid = host.service_pid(init, service) if init is not None and is_alive(init) else None
        letter = host.process_state(init, pid) if init is not None and pid is not None else ""
        return "stopped" if letter in {"T", "t"} else "dead" if letter in {"", "Z", "X"} else "running"

    # ---- virtual machines

    def guests(self, name: str) -> list[host.Guest]:
        """The QEMU processes of a host; none if it is off."""
        init = self._host(self.state(), name).init
        return host.guests(init) if init is not None and is_alive(init) else []

    def where(self, vm: str) -> dict[str, host.Guest]:
        """The hosts on which a VM has a process, frozen or not."""
        return {name: one for name in self.state().hosts for one in self.guests(name) if one.name == vm}

    def vm_start(self, vm: str, name: str) -> subprocess.CompletedProcess[str]:
        """What an operator's `virsh start` on this host says; the VM is defined there if it is not yet."""
        state = self.state()
        self._vm(state, vm)
        init = self._running(name, self._host(state, name))
        if host.run_in(self.layout, init, ["virsh", "dominfo", vm]).returncode != 0:
            building.define(self.layout, init, {vm: building.definition(self.layout, state, vm)})
        return host.run_in(self.layout, init, ["virsh", "start", vm])

    def vm_crash(self, vm: str) -> None:
        """SIGKILL its QEMU process, wherever it runs."""
        self._vm_signal(vm, signal.SIGKILL)

    def _vm_signal(self, vm: str, number: signal.Signals) -> None:
        state = self.state()
        self._vm(state, vm)
        found = self.where(vm)
        if not found:
            raise LabError(f"{vm} runs on no host")
        for name, one in found.items():
            host.signal_inside(self.layout, self._running(name, state.hosts[name]), one.pid, number)

    def guest_log(self, name: str, vm: str) -> list[str]:
        """What a VM printed on its serial port while it ran on this host."""
        path = self.layout.guest_log(name, vm)
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def disk_records(self, vm: str) -> list[disklog.Record]:
        return disklog.read_log(self._disk(vm, self._vm(self.state(), vm)))

    def disk_problems(self, vm: str) -> list[str]:
        """What its disk says against its having run once at a time; empty if nothing."""
        return disklog.check(self._disk(vm, self._vm(self.state(), vm)))

    def _disk(self, name: str, vm: VmState) -> Path:
        return self.layout.disk(vm.disk_of or name, vm.datastore)

    # ---- commands

    def run(
        self, name: str, argv: list[str], *, stdin: str | None = None, timeout_s: float | None = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside a host, and wait for it."""
        return host.run_in(self.layout, self.init(name), argv, stdin=stdin, timeout_s=timeout_s)

    def is_on(self, name: str) -> bool:
        """Whether a host has power."""
        return is_alive(self._host(self.state(), name).init)

    def stands_still(self, name: str) -> bool:
        """Whether a host stalls now: PID 1 is stopped with all the rest."""
        init = self._host(self.state(), name).init
        return init is not None and host.process_state(init, 1) in {"T", "t"}

    def init(self, name: str) -> Process:
        """PID 1 of a host that is on."""
        return self._running(name, self._host(self.state(), name))

    # ---- inside

    @contextlib.contextmanager
    def _changing(self) -> Iterator[LabState]:
        """The lab's state, under the lock; what was changed is saved even when the change ended in an error."""
        with locked(self.layout):
            state = self.state()
            try:
                yield state
            finally:
                save(self.layout, state)

    def _host(self, state: LabState, name: str) -> HostState:
        if name not in state.hosts:
            raise LabError(f"there is no host {name}; hosts are {', '.join(state.hosts)}")
        return state.hosts[name]

    def _vm(self, state: LabState, name: str) -> VmState:
        if name not in state.vms:
            raise LabError(f"there is no VM {name}; VMs are {', '.join(state.vms) or 'none'}")
        return state.vms[name]

    def _running(self, name: str, own: HostState) -> Process:
        if own.init is None or not is_alive(own.init):
            raise LabError(f"{name} is off: `outlast lab power-on {name}` boots it")
        return own.init
