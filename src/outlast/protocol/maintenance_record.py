"""What the settings record says of hosts that are kept empty and of VMs that go back to them: how a command changes it.

    a command                                           then
    drain                                               the host is in maintenance, and the VMs that run there are written
                                                        down; those that were on their way back to it, too
    undrain                                             neither it is, nor does anything go back there any more
    undrain with its VMs back                           it is not, and what was written down goes back (`returning`)
    the primary has seen to it (`EndReturn`)            those VMs are not named any more

A VM goes back to one host: to that whose operator said so last. The record goes to every host in one datagram, so it names
no more than MOST_BROUGHT_BACK VMs that may go back; of the others nothing is written down, and they stay where they are.
"""

from collections.abc import Mapping

import msgspec

from outlast.model.commands import DrainHost, EndReturn, UndrainHost
from outlast.model.ids import HostId, VmId
from outlast.model.messages import CommandRequest
from outlast.model.settings import MOST_BROUGHT_BACK, Maintenance, Returning
from outlast.protocol.knowledge import Knowledge


class HostsKept(msgspec.Struct, frozen=True):
    """What a settings record says of hosts."""

    maintenance: dict[HostId, Maintenance]
    returning: dict[HostId, Returning]


def hosts_kept(known: Knowledge) -> HostsKept:
    """As it is now."""
    record = known.record
    return HostsKept({}, {}) if record is None else HostsKept(record.maintenance, record.returning)


def changed_by(known: Knowledge, kept: HostsKept, request: CommandRequest) -> HostsKept | str:
    """As it is to be; or why there is nothing to change, as the rest of a sentence."""
    match request.command:
        case DrainHost():
            return _drained(known, kept, request, request.command)
        case UndrainHost():
            return _undrained(known, kept, request, request.command)
        case EndReturn(host, vms):
            return HostsKept(kept.maintenance, _without(kept.returning, vms, of=HostId(host)))
        case _:
            return "it is not about hosts"


def _drained(known: Knowledge, kept: HostsKept, request: CommandRequest, command: DrainHost) -> HostsKept | str:
    host = HostId(command.host)
    if host in kept.maintenance:
        return f"{known.name(host)}: {kept.maintenance[host].sentence}"
    there = [vm for vm, (where, line) in known.whereabouts().items() if where == host and line.state != "ending"]
    coming = kept.returning[host].vms if host in kept.returning else ()
    returning = {each: entry for each, entry in kept.returning.items() if each != host}
    named = sum(len(each.vms) for each in kept.maintenance.values()) + sum(len(each.vms) for each in returning.values())
    vms = tuple(sorted({*there, *coming}))[: max(0, MOST_BROUGHT_BACK - named)]
    entry = Maintenance(request.by, request.at_ms, command.reason, vms, command.boot)
    return HostsKept({**kept.maintenance, host: entry}, returning)


def _undrained(known: Knowledge, kept: HostsKept, request: CommandRequest, command: UndrainHost) -> HostsKept | str:
    host = HostId(command.host)
    entry = kept.maintenance.get(host)
    if entry is None and (command.back or host not in kept.returning):
        return f"{known.name(host)} is not in maintenance"
    maintenance = {each: other for each, other in kept.maintenance.items() if each != host}
    returning = {each: other for each, other in kept.returning.items() if each != host}
    if entry is not None and entry.vms and command.back:
        returning = _without(returning, entry.vms) | {host: Returning(request.by, request.at_ms, entry.vms)}
    return HostsKept(maintenance, returning)


def _without(
    returning: Mapping[HostId, Returning], vms: tuple[VmId, ...], of: HostId | None = None
) -> dict[HostId, Returning]:
    """Without these VMs, on whatever list they stand, or on that of one host alone; nobody's list is empty."""
    gone = frozenset(vms)
    left = {
        host: msgspec.structs.replace(entry, vms=tuple(vm for vm in entry.vms if vm not in gone))
        if of in (None, host)
        else entry
        for host, entry in returning.items()
    }
    return {host: entry for host, entry in left.items() if entry.vms}
