"""What stops this host's VMs when its lease ends, and when its watchdog is let to fire (safety rule 6).

A freeze is SIGSTOP: it does not stop a device that works on by itself (vfio, vhost-user). On a host without a watchdog such
a guest makes the end of the lease no proof; on one with a watchdog the host is reset when that lease lapses. The watchdog
also fires on a host that is cut off from storage and network at once: what its kernel still holds for the storage must
never get there, and nobody can be told anything anyway.
"""

from collections.abc import Iterable, Mapping

from outlast.model.ids import DatastoreName
from outlast.model.keeper_config import KeeperConfig
from outlast.model.records import Enforcement
from outlast.model.settings import Settings
from outlast.model.time import MILLISECOND, SECOND, Duration
from outlast.protocol.lease import Place
from outlast.protocol.ownership import Ownership, Phase

RESET_TIME = Duration(500 * MILLISECOND)
"""From a watchdog's firing until the host executes nothing any more."""


def watchdog_needs(timeout_s: int) -> Duration:
    """The least `lease_margin` with which that watchdog resets a host before anybody may take its VMs."""
    return Duration(timeout_s * SECOND + RESET_TIME)


def enforcement_level(config: KeeperConfig, settings: Settings, homed: Iterable[Ownership]) -> Enforcement:
    """The level to publish on a datastore on which these VMs are homed. A watchdog that fires too late is none."""
    level = config.enforcement
    if level is Enforcement.WATCHDOG and watchdog_needs(config.watchdog_timeout_s) > settings.lease_margin:
        level = Enforcement.KEEPER
    if level is Enforcement.KEEPER and any(vm.unfreezable for vm in homed):
        return Enforcement.NONE
    return level


def works_on_unnoticed(vm: Ownership, config: KeeperConfig, place: Place) -> bool:
    """Whether a freeze does not stop all of a VM, and observers of our record take the end of our lease there for proof.

    Its device was plugged in a moment ago, and storage hangs since. At the lapse it is killed, and its device with it, as
    soon as the kernel lets go of its process.
    """
    return vm.unfreezable and config.enforcement is Enforcement.KEEPER and place.published is Enforcement.KEEPER


def may_pet(places: Mapping[DatastoreName, Place], vms: Iterable[Ownership], *, isolated: bool) -> bool:
    """Whether the watchdog may be kept from firing. `isolated`: our agent said a moment ago that it hears nobody."""
    no_storage = not any(place.lease.held for place in places.values())
    for vm in vms:
        if vm.unfreezable and vm.pid is not None and not places[vm.home].lease.held:
            return False
        if vm.phase is Phase.FROZEN and no_storage and isolated:
            return False
    return True
