"""Which machine this is, as far as a copy of its disk cannot tell: what tells a reboot from a clone (safety rule 9).

The addresses of its network cards and its board's serial number stay the same over reboots, and are another machine's own.
Interfaces that come and go with guests do not count. An empty answer means: unknown.
"""

import contextlib
import hashlib
from pathlib import Path

_NET = Path("/sys/class/net")
_BOARD = Path("/sys/class/dmi/id/product_uuid")
_PERMANENT, _SET = "0", "3"
"""addr_assign_type (Documentation/ABI/testing/sysfs-class-net): burnt in, or set by an administrator; not random."""
_OF_GUESTS = ("vnet", "virbr", "tap", "lo")


def fingerprint(net: Path = _NET, board: Path = _BOARD) -> str:
    """The same for every boot of one machine; empty if nothing that would tell it from its clone can be read."""
    parts: list[str] = []
    with contextlib.suppress(OSError):
        parts.append(board.read_text().strip())
    with contextlib.suppress(OSError):
        for interface in sorted(net.iterdir()):
            with contextlib.suppress(OSError):
                lasting = (interface / "addr_assign_type").read_text().strip() in (_PERMANENT, _SET)
                if lasting and not interface.name.startswith(_OF_GUESTS):
                    parts.append((interface / "address").read_text().strip())
    return hashlib.blake2b(" ".join(parts).encode(), digest_size=16).hexdigest() if parts else ""
