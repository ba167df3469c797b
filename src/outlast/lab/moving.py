"""Virtual machines brought to where a demonstration, a measurement or a test needs them, as an operator would."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from outlast.lab import building, outlast_view
from outlast.lab.errors import LabError
from outlast.lab.lab import Lab


def start_all(lab: Lab) -> None:
    """Start every VM on the host where it is defined, and wait until each guest writes. Raises LabError."""
    start_on(lab, {name: vm.host for name, vm in lab.state().vms.items()})


def start_on(lab: Lab, places: Mapping[str, str]) -> None:
    """Start VMs side by side, each on its host, and wait until each guest writes. Raises LabError."""

    def start(name: str, host: str) -> None:
        done = lab.vm_start(name, host)
        if done.returncode != 0:
            raise LabError(f"{name} did not start on {host}: {done.stderr.strip()}")

    with ThreadPoolExecutor(max(1, len(places))) as pool:
        list(pool.map(start, places, places.values()))
    wait_writing(lab, list(places))


def wait_writing(lab: Lab, vms: list[str]) -> None:
    """Wait until each of these guests has written at least two more records to its disk."""
    before = {vm: len(lab.disk_records(vm)) for vm in vms}

    def all_write() -> bool:
        return all(len(lab.disk_records(vm)) >= before[vm] + 2 for vm in vms)

    outlast_view.wait_until(f"{', '.join(vms)} to write their logs", all_write, 240.0)


def move(lab: Lab, vm: str, host: str) -> None:
    """Have a VM run on this host: destroyed where it runs, and started here once its owner has released it."""
    for name in lab.where(vm):
        if name == host:
            return
        lab.run(name, ["virsh", "destroy", vm])
    outlast_view.wait_until(f"{vm} to be stopped", lambda: not lab.where(vm), 10.0)
    said = ""

    def starts() -> bool:
        nonlocal said
        done = lab.vm_start(vm, host)
        said = done.stderr.strip()
        return done.returncode == 0

    try:
        outlast_view.wait_until(f"{vm} to start on {host}", starts, 20.0, step_s=0.5)
    except LabError as error:
        raise LabError(f"{error}; it said: {said}") from None
    wait_writing(lab, [vm])


class Running:
    """A lab for the time of a `with`: made, guarded by Outlast, its VMs running; gone afterwards, whatever happens."""

    def __init__(
        self,
        lab: Lab,
        hosts: int,
        datastores: int,
        vms: int,
        *,
        settings: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        fencing: bool = False,
        all_on: str = "",
        busy: bool = False,
    ) -> None:
        """`all_on`: the host where all VMs start, in place of one host after the other. `busy`: guests that always work."""
        self._lab = lab
        self._plan = building.plan(hosts, datastores, vms, settings or {}, metadata or {})
        self._plan.outlets = dict.fromkeys(self._plan.hosts, "works") if fencing else {}
        for vm in self._plan.vms.values():
            vm.host, vm.busy = all_on or vm.host, busy

    def __enter__(self) -> Lab:
        self._lab.build(self._plan)
        try:
            outlast_view.wait_ready(self._lab)
            start_all(self._lab)
        except BaseException:
            self._lab.down()
            raise
        return self._lab

    def __exit__(self, *_: object) -> None:
        self._lab.down()
