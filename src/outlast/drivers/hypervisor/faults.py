"""Why libvirt could not start a VM: the fault of its host, or its own. Only its own counts against what its policy allows.

libvirt's codes tell some of it; what QEMU refuses comes as one code for everything, and its words are looked at. What is
not known here is the VM's own: a VM that fails everywhere must not be tried as if each host were to blame.
"""

from typing import Any

import libvirt

_HOST_CODES = frozenset(
    {
        libvirt.VIR_ERR_HOOK_SCRIPT_FAILED,  # Our own gate: no lease, or another owner.
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_INVALID_CONN,
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_SYSTEM_ERROR,
        libvirt.VIR_ERR_OPERATION_TIMEOUT,
        libvirt.VIR_ERR_NO_MEMORY,
        libvirt.VIR_ERR_NO_NETWORK,
        libvirt.VIR_ERR_NO_STORAGE_POOL,
        libvirt.VIR_ERR_RESOURCE_BUSY,
    }
)
NOT_CLEARED = "has not cleared away a copy of it"
_HOST_WORDS = (
    NOT_CLEARED,
    'failed to get "write" lock',
    'failed to get shared "write" lock',
    "is another process using the image",
    "failed to acquire lock",
    "cannot access storage file",
    "could not open",
    "input/output error",
    "stale file handle",
    "cannot allocate memory",
    "cannot set up guest memory",
    "no space left on device",
)


def is_host_fault(error: Any) -> bool:
    """Whether a failed start tells of the host and not of the VM."""
    words = str(error.get_error_message() or error).lower()
    return error.get_error_code() in _HOST_CODES or any(each in words for each in _HOST_WORDS)
