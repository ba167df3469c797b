"""What is mounted, by the kernel's own list.

`os.path.ismount` asks the file system itself, and one whose process has died answers that it is none.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple


class Mount(NamedTuple):
    path: Path
    minor: int
    """Of its device; of a FUSE file system, the number of its connection."""


def below(root: Path) -> list[Mount]:
    """Everything mounted below a directory, the last mounted first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        path = Path(fields[4].encode().decode("unicode_escape"))
        if path.is_relative_to(root) and path != root:
            found.append(Mount(path, int(fields[2].partition(":")[2])))
    return found[::-1]


def is_mounted(path: Path) -> bool:
    """Whether something is mounted there, dead or alive."""
    return any(mount.path == path for mount in below(path.parent))


def unmount(path: Path) -> None:
    """Unmount it, also if it is dead or somebody uses it; nothing is said if nothing is mounted there."""
    subprocess.run(["umount", "--lazy", str(path)], check=False, capture_output=True)
