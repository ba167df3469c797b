"""What the fault domain consists of: hosts, datastores, virtual machines, as configured and as found."""

import msgspec

from outlast.model.ids import DatastoreName, HostId, HostName, VmId, VmName
from outlast.model.policy import VmPolicy
from outlast.model.time import Duration


class HostMember(msgspec.Struct, frozen=True):
    """One host of the fault domain, from the settings file. `port` is its UDP port for heartbeats.

    `labels` say where it stands (rack, site), so that VMs can be spread over them; `spare`: it is kept for failures.
    """

    id: HostId
    name: HostName
    address: str
    port: int
    labels: dict[str, str] = {}
    spare: bool = False


class DatastoreMember(msgspec.Struct, frozen=True):
    """One datastore, from the settings file. `in_flight_bound` None: nobody knows how long the kernel holds writes."""

    name: DatastoreName
    path: str
    in_flight_bound: Duration | None = None
    accept_in_flight_risk: bool = True


class DatastoreReach(msgspec.Struct, frozen=True):
    """What one host found out about one datastore: `device` names the storage device behind it."""

    datastore: DatastoreName
    reachable: bool
    filesystem: str = ""
    device: str = ""
    free_bytes: int = 0
    problem: str = ""


class FenceLevel(msgspec.Struct, frozen=True):
    """One way of switching a host off. `agent` is what people call it; `timeout` bounds each of its commands."""

    agent: str
    timeout: Duration


class Capacity(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a host can give to virtual machines.

    `memory_mib` and `cpus` are all that it has, `reserved_*` what it keeps for itself (a core has a hundred parts), and
    `free_memory_mib` what it measures as available now. `networks`: those that guests can be connected to, None if it does
    not say; `cpu_models`: the named CPU models that its guests can have, empty if it does not say.
    """

    memory_mib: int = 0
    free_memory_mib: int = 0
    cpus: int = 0
    reserved_memory_mib: int = 0
    reserved_cpu: int = 0
    networks: tuple[str, ...] | None = None
    cpu_models: tuple[str, ...] = ()


class Needs(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a virtual machine needs of the host that it runs on.

    `memory_mib` and `cpu` (hundredths of a core) are the larger of what is reserved for it and what it was seen to use;
    `reserved_cpu` is what is reserved alone. `datastores` hold its disks, its home among them; `cpu_model` is the named CPU
    model that its guest was promised.
    """

    memory_mib: int = 0
    cpu: int = 0
    reserved_cpu: int = 0
    datastores: tuple[DatastoreName, ...] = ()
    networks: tuple[str, ...] = ()
    cpu_model: str = ""


class VmDefinition(msgspec.Struct, frozen=True):
    """One virtual machine as libvirt on some host knows it.

    `home` is the datastore that holds its first disk, None when a disk is on none of ours: such a VM cannot be
    protected, and `unprotectable` says why in a sentence. `xml` is what any host needs to define it. `writes`: the
    paths, on datastores, of the disks that it alone may write to.
    """

    vm: VmId
    name: VmName
    home: DatastoreName | None
    datastores: tuple[DatastoreName, ...]
    memory_mib: int
    protected: bool
    unprotectable: str
    policy: VmPolicy
    xml: str
    needs: Needs = Needs()
    writes: tuple[str, ...] = ()
