"""Where everything of a lab lies, and what it is called.

A lab is a directory. Its default is /var/lib/outlast-lab; OUTLAST_LAB names another one, and two labs in two directories
do not meet: the network namespaces of a lab in another directory carry a hash of its path in their names. Below the
directory:

    cache/                  kept between labs: the guest's kernel and initramfs, libvirt's capabilities cache; labs that
                            run side by side can share one (OUTLAST_LAB_CACHE)
    datastores/<ds>/        what is really stored on a datastore (its backing directory)
    hosts/<host>/           what survives a power cycle of a host: etc, lib, log, guest-logs; and its console
    hosts/<host>/mounts/<ds>    the datastore as this host reaches it, through a file system that can be made to fail
    power/                  the power strip's socket, which every host sees
    lab.json, lock          what runs now, for the next command; the lock that commands take in turn

Nothing else is made on the machine, apart from the network namespaces. Every process that belongs to a lab carries
MARKER=<root> in its environment, so that `down` finds it without having to trust lab.json.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_ROOT = Path("/var/lib/outlast-lab")
MARKER = "OUTLAST_LAB_OWNER"
ISOLATION_ADDRESS = "10.77.0.1"
PREFIX_LENGTH = 24
MAX_HOSTS = 64
MAX_DATASTORES = 16
BRIDGE = "br0"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths and names of the lab whose directory is `root`. `shared_cache`: in place of a cache of its own."""

    root: Path
    shared_cache: Path | None = None

    @classmethod
    def default(cls) -> Layout:
        """The lab that OUTLAST_LAB names, or the default one; its cache is where OUTLAST_LAB_CACHE says, if it does."""
        cache = os.environ.get("OUTLAST_LAB_CACHE")
        root = Path(os.environ.get("OUTLAST_LAB") or DEFAULT_ROOT)
        return cls(root.absolute(), Path(cache).absolute() if cache else None)

    @property
    def tag(self) -> str:
        """Prefix of this lab's network namespaces, different for every directory."""
        if self.root == DEFAULT_ROOT:
            return "outlast-lab"
        return "outlast-lab-" + hashlib.sha256(str(self.root).encode()).hexdigest()[:6]

    @property
    def network_namespace(self) -> str:
        return f"{self.tag}-net"

    def host_namespace(self, host: str) -> str:
        return f"{self.tag}-{host}"

    @property
    def state_file(self) -> Path:
        return self.root / "lab.json"

    @property
    def lock_file(self) -> Path:
        return self.root / "lock"

    @property
    def cache(self) -> Path:
        return self.shared_cache or self.root / "cache"

    @property
    def kernel(self) -> Path:
        return self.cache / "guest" / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        return self.cache / "guest" / "initramfs"

    @property
    def hosts(self) -> Path:
        return self.root / "hosts"

    def host(self, host: str) -> Path:
        return self.hosts / host

    def console(self, host: str) -> Path:
        return self.host(host) / "console.log"

    def guest_log(self, host: str, vm: str) -> Path:
        return self.host(host) / "guest-logs" / f"{vm}.log"

    def service_log(self, host: str, service: str) -> Path:
        return self.host(host) / "log" / "outlast" / f"{service}.log"

    @property
    def datastores(self) -> Path:
        return self.root / "datastores"

    def backing(self, datastore: str) -> Path:
        return self.datastores / datastore

    def mount(self, host: str, datastore: str) -> Path:
        return self.host(host) / "mounts" / datastore

    def control_socket(self, host: str, datastore: str) -> Path:
        return self.host(host) / f"{datastore}.sock"

    @property
    def power(self) -> Path:
        """What every host sees of the power strip."""
        return self.root / "power"

    @property
    def power_socket(self) -> Path:
        return self.power / "strip.sock"

    def disk(self, vm: str, datastore: str) -> Path:
        """The VM's disk as it is really stored."""
        return self.backing(datastore) / "disks" / f"{vm}.raw"


def host_address(number: int) -> str:
    """Address of host `number`, which counts from 1."""
    return f"10.77.0.{10 + number}"


def datastore_path(datastore: str) -> Path:
    """Where every host sees a datastore."""
    return Path("/srv") / datastore
