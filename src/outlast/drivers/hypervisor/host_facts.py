"""What this host has for virtual machines: memory that is available, networks, CPU models.

What cannot be found out counts as unknown, and an unknown fact keeps no VM from a host: libvirt has the last word anyway.
"""

import contextlib
import os
from typing import Any
from xml.etree import ElementTree

MEMINFO = "/proc/meminfo"
NETWORK_DEVICES = "/sys/class/net"
_FOR_GUESTS = ("vnet", "tap", "veth", "macvtap")
"""Devices that come and go with guests, and that no guest hangs on."""


def memory_mib() -> tuple[int, int] | None:
    """All that there is, and what the kernel could give to new processes; None if it cannot be read.

    Caches count as free, which they are when somebody needs them. Both are of one source: libvirt adds up what NUMA nodes
    have, which in some virtual machines and containers is another number.
    """
    with contextlib.suppress(OSError, ValueError, LookupError), open(MEMINFO) as file:
        found = {name: int(rest.split()[0]) >> 10 for name, _, rest in (line.partition(":") for line in file)}
        return found["MemTotal"], found["MemAvailable"]
    return None


def networks(connection: Any) -> tuple[str, ...] | None:
    """Libvirt's active networks, and this host's bridges and devices; None if they cannot be listed."""
    try:
        devices = [name for name in os.listdir(NETWORK_DEVICES) if not name.startswith(_FOR_GUESTS) and name != "lo"]
    except OSError:
        return None
    bridges = {name for name in devices if os.path.isdir(f"{NETWORK_DEVICES}/{name}/bridge")}
    found = [f"{'bridge' if name in bridges else 'device'}:{name}" for name in devices]
    return tuple(sorted([*found, *(f"network:{name}" for name in connection.listNetworks())]))


def cpu_models(connection: Any) -> tuple[str, ...]:
    """The named models that a KVM guest can have here. Raises libvirtError; may take long when QEMU is asked anew."""
    capabilities = ElementTree.fromstring(connection.getDomainCapabilities(None, None, None, "kvm"))  # noqa: S314
    models = capabilities.findall("cpu/mode[@name='custom']/model")
    return tuple(sorted(model.text for model in models if model.text and model.get("usable") == "yes"))
