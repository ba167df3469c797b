"""From `outlast keeper --config FILE` to the small process that keeps: the settings parser stays behind.

The configuration goes through an anonymous file in memory, so that the keeper holds neither the parser nor the cluster key.
The process id stays the same, as a service manager expects.
"""

import os
import sys

import msgspec

from outlast.model.keeper_config import KeeperConfig


def become_keeper(config: KeeperConfig) -> None:
    """Replace this process by the keeper. Does not return."""
    descriptor = os.memfd_create("outlast-keeper", 0)
    os.write(descriptor, msgspec.json.encode(config))
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.execv(sys.executable, [sys.executable, "-m", "outlast.keeper.process", str(descriptor)])  # noqa: S606
