"""Where things lie on a datastore, below `.outlast/<fault domain>/` (design.md section 3)."""

from outlast.model.ids import PRIMARY_REGISTER, DiskId, HostId, VmId

PROTECTED = "protected"
SETTINGS = "settings"


def heartbeat(host: HostId) -> str:
    """One block, rewritten in place by the host's keeper alone."""
    return f"hosts/{host}/heartbeat"


def incarnations(host: HostId) -> str:
    """The register of a host's boots."""
    return f"hosts/{host}/incarnation"


def power_on(host: HostId) -> str:
    """A slotted file, written by the host's agent."""
    return f"hosts/{host}/power-on"


def definition(vm: VmId) -> str:
    """A slotted file: the VM's domain XML."""
    return f"vms/{vm}/domain"


def register(subject: str) -> str:
    """A VM's ownership register, or the datastore's own (`primary`)."""
    return PRIMARY_REGISTER if subject == PRIMARY_REGISTER else f"vms/{subject}/owner"


def claims(disk: DiskId) -> str:
    """The register of whose a disk is."""
    return f"disks/{disk}"
