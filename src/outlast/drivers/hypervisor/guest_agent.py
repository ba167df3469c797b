"""Asking a VM's QEMU guest agent whether it is there, through libvirt.

A guest agent that does not answer blocks its call until a time-out: these calls have threads of their own, so that a
start never waits behind them.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import libvirt
import libvirt_qemu

ANSWER_TIMEOUT_S = 3
AT_ONCE = 4
_PING = '{"execute": "guest-ping"}'


def pool() -> ThreadPoolExecutor:
    """The threads that ask."""
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="guest-agent")


def answers(connection: Any, vm: str) -> bool:
    """Whether the guest agent answers within `ANSWER_TIMEOUT_S`; blocks as long. A VM without one does not answer."""
    try:
        libvirt_qemu.qemuAgentCommand(connection.lookupByUUIDString(vm), _PING, ANSWER_TIMEOUT_S, 0)
    except libvirt.libvirtError:
        return False
    return True
