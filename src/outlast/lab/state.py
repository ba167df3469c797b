"""What a lab is made of and what runs of it now: lab.json, so that one command finds what another one made.

The file is replaced as a whole, under a lock that commands take in turn. It may be missing or behind the truth after a
crash; `down` does not depend on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import Any

import msgspec

from outlast.lab.errors import LabError
from outlast.lab.layout import Layout
from outlast.lab.network import NetworkFaults
from outlast.lab.processes import Process


class HostState(msgspec.Struct):
    """One host. `init` is its PID 1 as the machine numbers it, None while the host is off."""

    number: int
    id: str
    address: str
    boot_id: str = ""
    init: Process | None = None
    filesystems: dict[str, Process] = msgspec.field(
        default_factory=dict
    )  # datastore -> the process that shows it to this host
    storage_faults: dict[str, dict[str, Any]] = msgspec.field(
        default_factory=dict
    )  # datastore -> command that made the fault


class VmState(msgspec.Struct):
    """One virtual machine: the datastore of its disk, the host where it was defined, the XML inside its <metadata>.

    `disk_of`: the VM whose disk it has, if that is not its own; `busy`: whether its guest works all the time (guest.py).
    """

    uuid: str
    datastore: str
    host: str
    metadata: str = ""
    disk_of: str = ""
    busy: bool = False


class LabState(msgspec.Struct):
    """The whole lab."""

    hosts: dict[str, HostState] = msgspec.field(default_factory=dict)
    datastores: list[str] = msgspec.field(default_factory=list)
    vms: dict[str, VmState] = msgspec.field(default_factory=dict)
    faults: NetworkFaults = msgspec.field(default_factory=NetworkFaults)
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    services: list[str] = msgspec.field(default_factory=list)
    # datastore -> keys of its own in Outlast's configuration; the lab's usual ones for one that is not here
    datastore_options: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    # host -> how the outlet that its power comes from does its work (power_strip.py); no fence device without one
    outlets: dict[str, str] = msgspec.field(default_factory=dict)
    fenced: list[str] = msgspec.field(default_factory=list)  # the hosts that fence devices switched off, in order
    notes: list[str] = msgspec.field(default_factory=list)  # what `up` had to leave out, as sentences


def load(layout: Layout) -> LabState | None:
    """The lab as it was saved last, None if there is none. Raises LabError if the file cannot be read as one."""
    try:
        return msgspec.json.decode(layout.state_file.read_bytes(), type=LabState)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise LabError(
            f"{layout.state_file} cannot be read: {error}; `outlast lab down` clears the lab without it"
        ) from error


def save(layout: Layout, state: LabState) -> None:
    part = layout.state_file.with_suffix(".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=1))
    part.rename(layout.state_file)


@contextlib.contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Hold the lab's lock; other commands wait for it."""
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(layout.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LabError(
            f"the lab's directory {layout.root} cannot be used: {error}; run as root, or name another one in OUTLAST_LAB"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
