"""A datastore as one host reaches it: a file system between the host and the backing directory, which can be made to fail.

The file system (faultfs.py) is one process for each host and datastore. It runs outside the host, so that it survives the
host's loss of power as a storage network would, and is mounted outside, from where the host's root gets a bind mount
before it boots. A fault holds over the host's power cycles until it is healed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

from outlast.lab import mounts
from outlast.lab.errors import LabError
from outlast.lab.host import launch
from outlast.lab.layout import Layout
from outlast.lab.processes import Process, identify, is_alive
from outlast.lab.state import HostState

_FAULTFS = "outlast.lab.faultfs"
_MOUNT_TIMEOUT_S = 10.0


def faults_are_possible() -> bool:
    """Whether the file system that can be made to fail is there; without it hosts see the backing directories."""
    return importlib.util.find_spec(_FAULTFS) is not None


def source(layout: Layout, host: str, datastore: str) -> Path:
    """The directory outside that a host sees as its datastore."""
    return layout.mount(host, datastore) if faults_are_possible() else layout.backing(datastore)


def attach(layout: Layout, name: str, host: HostState, datastores: list[str]) -> None:
    """Start the file systems of a host that do not run. Raises LabError."""
    if not faults_are_possible():
        return
    started = {each: _start(layout, name, each) for each in datastores if not is_alive(host.filesystems.get(each))}
    deadline = time.monotonic() + _MOUNT_TIMEOUT_S
    for datastore, process in started.items():
        mount = layout.mount(name, datastore)
        while not (mounts.is_mounted(mount) and _answers(layout, name, datastore)):
            if not is_alive(process) or time.monotonic() > deadline:
                log = layout.host(name) / f"{datastore}.log"
                raise LabError(f"the file system of {datastore} for {name} did not start; {log} tells why")
            time.sleep(0.01)
        host.filesystems[datastore] = process


def _answers(layout: Layout, host: str, datastore: str) -> bool:
    """Whether a file system takes commands yet: its socket is there before anyone listens to it."""
    try:
        command(layout, host, datastore, {"do": "status"})
    except LabError:
        return False
    return True


def _start(layout: Layout, host: str, datastore: str) -> Process:
    mount = layout.mount(host, datastore)
    if mounts.is_mounted(mount):
        # Its process is gone, so that nothing behind the mount answers any more.
        mounts.unmount(mount)
    mount.mkdir(parents=True, exist_ok=True)
    control = layout.control_socket(host, datastore)
    control.unlink(missing_ok=True)
    backing = layout.backing(datastore)
    argv = [sys.executable, "-m", _FAULTFS, "--backing", str(backing), "--mount", str(mount), "--control", str(control)]
    with (layout.host(host) / f"{datastore}.log").open("ab") as log:
        child = launch(layout, argv, log)
    process = identify(child.pid)
    if process is None:
        raise LabError(f"the file system of {datastore} for {host} ended at once; {log.name} tells why")
    return process


def command(layout: Layout, host: str, datastore: str, order: dict[str, Any]) -> dict[str, Any]:
    """Send one command to a file system: hang, fail, slow, heal, status. Raises LabError."""
    if not faults_are_possible():
        raise LabError("storage faults need the lab's file system (outlast.lab.faultfs), which this installation lacks")
    module = importlib.import_module(_FAULTFS)
    try:
        answer: dict[str, Any] = module.control(layout.control_socket(host, datastore), order)
    except (OSError, ValueError) as error:
        raise LabError(
            f"the file system of {datastore} for {host} does not answer: {error}; is the host part of a lab that is up?"
        ) from error
    return answer


def lose_power(layout: Layout, name: str, host: HostState) -> None:
    """Drop what a dead host still had under way, so that its processes can end and none of its writes arrives late."""
    for datastore, process in host.filesystems.items():
        if is_alive(process):
            command(layout, name, datastore, {"do": "fail"})


def regain_power(layout: Layout, name: str, host: HostState) -> None:
    """Open a host's datastores for its boot. The faults that were asked for come back with `restore_faults`."""
    for datastore, process in host.filesystems.items():
        if is_alive(process):
            command(layout, name, datastore, {"do": "heal"})


def restore_faults(layout: Layout, name: str, host: HostState) -> None:
    """Make the faults hold again that were asked for before the host lost its power."""
    for datastore, order in host.storage_faults.items():
        command(layout, name, datastore, order)
