"""Asking a VM's QEMU guest agent whether it is there, and looking at the guest from outside if it is not.

A guest agent that does not answer blocks its call until a time-out: these calls have threads of their own, so that a
start never waits behind them.
"""

from typing import Any
from xml.etree import ElementTree

import libvirt
import libvirt_qemu

from outlast.drivers.hypervisor.domains import parse
from outlast.model.events import GuestState

ANSWER_TIMEOUT_S = 3
CHANNEL = "org.qemu.guest_agent.0"
_PING = '{"execute": "guest-ping"}'
_NO_ANSWER = frozenset(
    {
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
        libvirt.VIR_ERR_AGENT_UNSYNCED,
        # Newer than 9.0, which calls that unresponsive too.
        getattr(libvirt, "VIR_ERR_AGENT_COMMAND_TIMEOUT", libvirt.VIR_ERR_AGENT_UNRESPONSIVE),
    }
)
"""What libvirt says if the guest is to blame. Everything else (a lock, a broken connection) says nothing of the guest."""
_STATS = libvirt.VIR_DOMAIN_STATS_BLOCK | libvirt.VIR_DOMAIN_STATS_INTERFACE
_COUNTED = {"block": (".rd.reqs", ".wr.reqs", ".fl.reqs"), "net": (".tx.pkts",)}
_Found = tuple[GuestState, int]
_UNKNOWN: _Found = (GuestState.UNKNOWN, 0)


def answers(connection: Any, vm: str) -> bool:
    """Whether the guest agent answers within `ANSWER_TIMEOUT_S`; blocks as long. A VM without one does not answer."""
    try:
        libvirt_qemu.qemuAgentCommand(connection.lookupByUUIDString(vm), _PING, ANSWER_TIMEOUT_S, 0)
    except libvirt.libvirtError:
        return False
    return True


def look(connection: Any, vm: str) -> _Found:
    """How a guest is (`GuestState`), and what it has done so far if it does not answer. Blocks likewise."""
    try:
        domain = connection.lookupByUUIDString(vm)
        if domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
            return _UNKNOWN
        try:
            libvirt_qemu.qemuAgentCommand(domain, _PING, ANSWER_TIMEOUT_S, 0)
        except libvirt.libvirtError as error:
            return _from_outside(connection, domain) if error.get_error_code() in _NO_ANSWER else _UNKNOWN
    except (libvirt.libvirtError, ElementTree.ParseError):
        return _UNKNOWN
    return GuestState.ANSWERS, 0


def _from_outside(connection: Any, domain: Any) -> _Found:
    """What stands in its definition while it runs says whether the guest has its agent's channel open."""
    channels = parse(domain.XMLDesc(0)).findall("devices/channel/target")
    states = [target.get("state", "connected") for target in channels if target.get("name") == CHANNEL]
    state = GuestState.SILENT if "connected" in states else GuestState.CLOSED
    # Without waiting: a counter that is missing is one that changed, and the guest is not taken for one that stands still.
    found = connection.domainListGetStats([domain], _STATS, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
    return state, sum(_done(stats) for _, stats in found)


def _done(stats: dict[str, Any]) -> int:
    """Requests of its disks, and packets that it sent."""
    return sum(
        value
        for key, value in stats.items()
        if key.endswith(_COUNTED.get(key.partition(".")[0], ())) and isinstance(value, int)
    )
