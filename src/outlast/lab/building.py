"""How a lab is made: its plan, its files, and the boot of its hosts.

Hosts boot side by side. Only the cables are made one after the other, because a network namespace is entered by the whole
process.
"""

from __future__ import annotations

import os
import secrets
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from outlast.lab import configuration, guest, host, outlast_commands, storage
from outlast.lab.errors import LabError
from outlast.lab.layout import MAX_DATASTORES, MAX_HOSTS, Layout, host_address
from outlast.lab.network import Network
from outlast.lab.processes import Process, is_alive
from outlast.lab.state import HostState, LabState, VmState, save

_PROGRAMS = {
    "libvirtd": "libvirt-daemon-system",
    "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86",
    "nft": "nftables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "pivot_root": "util-linux",
    "cpio": "cpio",
    "hostname": "hostname",
}
_MAX_VMS = 256


def check_machine(hosts: int, datastores: int, vms: int) -> None:
    """Raise LabError unless this machine can hold such a lab."""
    for what, number, least, most in (
        ("hosts", hosts, 1, MAX_HOSTS),
        ("datastores", datastores, 1, MAX_DATASTORES),
        ("vms", vms, 0, _MAX_VMS),
    ):
        if not least <= number <= most:
            raise LabError(f"{number} {what} are not possible: give a number from {least} to {most}")
    if os.geteuid() != 0:
        raise LabError("the lab needs root: run it with sudo")
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        packages = " ".join(sorted({_PROGRAMS[program] for program in missing}))
        raise LabError(f"the lab needs {', '.join(missing)}: apt-get install {packages}")


def plan(hosts: int, datastores: int, vms: int, settings: Mapping[str, Any], metadata: Mapping[str, str]) -> LabState:
    """A lab that does not exist yet: VMs are dealt out to hosts and datastores in turn."""
    state = LabState(settings=dict(settings), datastores=[f"ds{number}" for number in range(1, datastores + 1)])
    names = [f"host{number}" for number in range(1, hosts + 1)]
    state.hosts = new_hosts(names)
    for number in range(1, vms + 1):
        name = f"vm{number}"
        datastore = state.datastores[(number - 1) % datastores]
        host_name, policy = f"host{(number - 1) % hosts + 1}", metadata.get(name, "")
        state.vms[name] = VmState(uuid=guest.vm_uuid(name), datastore=datastore, host=host_name, metadata=policy)
    return state


def new_hosts(names: Sequence[str]) -> dict[str, HostState]:
    """Hosts with addresses in this order. Their ids are in the order of their names, as in the simulated world:

    the host id is what decides an election between equals, and a scenario must have the same primary in both.
    """
    ids = dict(zip(sorted(names), sorted(str(uuid.uuid4()) for _ in names), strict=True))
    return {
        name: HostState(number=number, id=ids[name], address=host_address(number)) for number, name in enumerate(names, 1)
    }


def furnish(layout: Layout, state: LabState, commands: set[str]) -> None:
    """Write everything that the hosts find on their disks and on the datastores."""
    (layout.cache / "libvirt").mkdir(parents=True, exist_ok=True)
    layout.power.mkdir(parents=True, exist_ok=True)
    for datastore in state.datastores:
        layout.backing(datastore).mkdir(parents=True, exist_ok=True)
    for name, vm in state.vms.items():
        if not vm.disk_of:
            guest.make_disk(layout, name, vm.datastore)
    key = secrets.token_hex(32)
    for name in state.hosts:
        configuration.write_host(layout, state, name, key)
    if "datastore init" in commands:
        _each(state.datastores, lambda datastore: outlast_commands.initialise_datastore(layout, datastore))


def boot(layout: Layout, network: Network, state: LabState, names: list[str], *, install_hook: bool) -> None:
    """Give these hosts power, and note their PID 1. Returns when their services are being started."""
    for name in names:
        # What the last boot left of the cable and its namespace.
        network.unplug(name)
        network.forget(name)
        network.connect(name, state.hosts[name].address)
        state.faults.dead.discard(name)
    network.apply(state.faults)
    _each(names, lambda name: _boot_one(layout, state, name, install_hook))
    save(layout, state)


def _boot_one(layout: Layout, state: LabState, name: str, install_hook: bool) -> None:
    own = state.hosts[name]
    storage.attach(layout, name, own, state.datastores)
    storage.regain_power(layout, name, own)
    sources = {datastore: storage.source(layout, name, datastore) for datastore in state.datastores}
    setup = [outlast_commands.outlast("hook", "install")] if install_hook else []
    specification = host.specify(layout, name, outlast_commands.services(state.services), sources, setup)
    specification.going_down = outlast_commands.outlast("host", "going-down") if "agent" in state.services else []
    own.boot_id = specification.boot_id
    own.init = host.power_on(layout, specification, lambda: storage.restore_faults(layout, name, own))


def define_all(layout: Layout, state: LabState) -> None:
    """Define every VM on its host, as soon as libvirt answers there."""

    def one(name: str) -> None:
        init = state.hosts[name].init
        if init is None or not is_alive(init):
            raise LabError(f"{name} died while it booted; see {layout.console(name)}")
        if "libvirtd" not in state.services:
            return
        host.wait_libvirt(name, init)
        define(layout, init, {vm: definition(layout, state, vm) for vm, each in state.vms.items() if each.host == name})

    _each(list(state.hosts), one)


def definition(layout: Layout, state: LabState, vm: str) -> str:
    """The XML with which a VM is defined, on whichever host."""
    each = state.vms[vm]
    return guest.domain_xml(
        layout, vm, each.uuid, each.datastore, metadata=each.metadata, disk_of=each.disk_of, busy=each.busy
    )


def define(layout: Layout, init: Process, definitions: Mapping[str, str]) -> None:
    """Define VMs in a host's libvirt, `definitions` by their names; without any, only wait until libvirt answers."""
    directory = Path(f"/proc/{init.pid}/root/run/lab")
    for name, xml in definitions.items():
        (directory / f"{name}.xml").write_text(xml)
    script = "; ".join(f"define /run/lab/{name}.xml" for name in definitions) or "version"
    done = host.run_in(layout, init, ["virsh", script])
    if done.returncode != 0:
        raise LabError(f"libvirt refused a definition: {done.stderr.strip()}")


def _each(items: list[str], work: Callable[[str], None]) -> None:
    """Do something for several hosts or datastores side by side; the first error is raised when all have ended."""
    with ThreadPoolExecutor(max(1, len(items))) as pool:
        for each in [pool.submit(work, item) for item in items]:
            each.result()
