"""What one agent knows at the start of a test: a small domain of its own, and what its keeper reports."""

from __future__ import annotations

from typing import Any

from outlast.model.ids import BootId, HostId, KeeperSession
from outlast.model.keeping import KeeperReport
from outlast.model.records import Enforcement
from outlast.model.settings import Settings
from outlast.protocol.knowledge import AgentConfig

ME, BOOT = HostId("a"), BootId("boot")


def agent_config(**more: Any) -> AgentConfig:
    """The configuration of host a, alone and without a datastore unless told otherwise."""
    facts: dict[str, Any] = {
        "domain": "d",
        "host": ME,
        "hosts": (),
        "datastores": (),
        "settings": Settings(),
        "isolation_addresses": (),
        "boot_id": BOOT,
        "session": "s",
        "first_sequence": 1,
    }
    return AgentConfig(**(facts | more))


def keeper_report(**more: Any) -> KeeperReport:
    """A report of host a's keeper, without leases and VMs unless told otherwise."""
    facts: dict[str, Any] = {
        "host": ME,
        "boot_id": BOOT,
        "session": KeeperSession("k"),
        "enforcement": Enforcement.KEEPER,
        "leases": (),
        "vms": (),
    }
    return KeeperReport(**(facts | more))
