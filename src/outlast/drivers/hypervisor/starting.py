"""A domain is defined and started, also right after a copy of it has ended that had come by a migration.

The keeper has a VM started afresh as soon as that process is gone. libvirt notices a moment later, and meanwhile calls the
domain on (paused, for its memory has not come), or refuses it, because it is being removed. Neither tells of the start that
is asked for: it is asked again until libvirt has cleared the copy away.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import libvirt

from outlast.drivers.hypervisor import migration
from outlast.drivers.hypervisor.faults import NOT_CLEARED

CLEARED_WITHIN_S, LOOKS_EVERY_S = 5.0, 0.05
_BEING_REMOVED = "is already being removed"


async def start(begin: Callable[[], Awaitable[bool]]) -> None:
    """Begin until it has begun. Raises what `begin` raises, and libvirt.libvirtError when it takes too long."""
    patience = CLEARED_WITHIN_S
    while not await begin():
        if patience <= 0:
            raise libvirt.libvirtError(f"libvirt {NOT_CLEARED} that has ended; restart libvirtd")
        patience -= LOOKS_EVERY_S
        await asyncio.sleep(LOOKS_EVERY_S)


def begin(connection: Any, xml: str) -> bool:
    """Define and start; one that runs already is a success. False: libvirt still holds a copy of it, that has ended.

    Raises libvirt.libvirtError.
    """
    try:
        # Always defined anew: what this host has may be older than what the VM last ran with elsewhere.
        domain = connection.defineXML(xml)
    except libvirt.libvirtError as error:
        if _BEING_REMOVED in str(error):
            return False
        raise
    if domain.isActive():
        return not migration.is_left_paused(domain)
    # Memory that was saved here once is older than what the VM did since, and the gate lets none be restored.
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_FORCE_BOOT)
    return True
