"""libvirt's live migration: managed by this agent, which talks to both libvirts, and never resumed by libvirt itself.

Both connections are this process's own. If it dies, both libvirts notice and call the migration off; if one of them hangs,
the keepalive of its connection ends the call. No post-copy, and no storage: a copy is whole before the source's process
ends, and the disks are shared. libvirt's protocol of version 3 is asked for, since the one before resumes the copy itself
(`migrate3` with typed parameters exists in no other).
"""

import contextlib
from typing import Any
from xml.etree import ElementTree

import libvirt
import msgspec

from outlast.drivers.hypervisor import domains
from outlast.model.ids import VmId
from outlast.model.inventory import DatastoreMember

_FLAGS = (
    libvirt.VIR_MIGRATE_LIVE
    | libvirt.VIR_MIGRATE_PAUSED
    | libvirt.VIR_MIGRATE_PERSIST_DEST
    | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
)
KEEPALIVE_S, KEEPALIVES = 2, 3
_UNCACHED = frozenset({"none", "directsync"})
"""Modes in which no host keeps a part of the disk to itself (`driver cache=` of a disk)."""


class Target(msgspec.Struct, frozen=True):
    """Where to: the host's address, its libvirt's URI, and the datastores that are shared with it."""

    address: str
    uri: str
    datastores: tuple[DatastoreMember, ...]


def migrate(connection: Any, vm: VmId, to: Target) -> None:
    """Copy a running domain to another host, where it stays paused.

    Returns when the copy is whole and libvirt has ended the process here. Takes as long as memory takes. Raises
    libvirt.libvirtError: then it goes on here, unless libvirt could not see to that.
    """
    domain = connection.lookupByUUIDString(vm)
    flags = _FLAGS
    if is_safe(domains.parse(domain.XMLDesc()), to.datastores):
        flags |= libvirt.VIR_MIGRATE_UNSAFE
    target = libvirt.open(to.uri)
    try:
        target.setKeepAlive(KEEPALIVE_S, KEEPALIVES)
        numeric = f"[{to.address}]" if ":" in to.address else to.address
        domain.migrate3(target, {libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{numeric}"}, flags)
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            target.close()


class Progress(msgspec.Struct, frozen=True):
    """How far libvirt is with a copy: MiB in all, MiB left, MiB a second, and the pause that it expects, in ms."""

    total_mib: int
    remaining_mib: int
    mib_s: int
    downtime_ms: int


def progress(connection: Any, vm: VmId) -> Progress | None:
    """Of the migration of that VM away from here; None if libvirt knows of none. Raises libvirt.libvirtError."""
    stats = connection.lookupByUUIDString(vm).jobStats()
    if stats.get("type", 0) == libvirt.VIR_DOMAIN_JOB_NONE or not stats.get("data_total"):
        return None
    total, left, pace = (stats.get(key, 0) >> 20 for key in ("data_total", "data_remaining", "memory_bps"))
    return Progress(total, left, pace, stats.get("downtime", 0))


def is_safe(domain: ElementTree.Element, datastores: tuple[DatastoreMember, ...]) -> bool:
    """Whether the disks are whole on every host, though libvirt, which knows shared storage by names, may not know it.

    Every disk lies on a datastore, which is shared by definition, and is read past the hosts' caches. Of any other disk
    libvirt itself is to judge.
    """
    writable = [disk for disk in domain.findall("devices/disk") if disk.find("readonly") is None]
    cached = [disk for disk in writable if (d := disk.find("driver")) is None or d.get("cache", "") not in _UNCACHED]
    placed = [domains.home_of(disk.path, datastores) for disk in domains.disk_sources(domain)]
    return not cached and all(placed)


def resume(connection: Any, vm: VmId) -> None:
    """Let a guest go on that is paused; one that executes already is a success. Raises libvirt.libvirtError."""
    domain = connection.lookupByUUIDString(vm)
    if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
        domain.resume()


def is_left_paused(domain: Any) -> bool:
    """Whether its guest stands still because of a migration: one under way, or one that has failed and left it so."""
    state, reason = domain.state()
    return bool(state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_MIGRATION)
