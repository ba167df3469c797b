"""The last policy of each VM that this host has seen, in a file of its own."""

import contextlib
from pathlib import Path

import msgspec

from outlast.drivers.hypervisor import domains
from outlast.model.ids import VmId


class PolicyMemory:
    """The last policy of each VM, so that a redefinition without our metadata never silently unprotects one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._policies: dict[VmId, domains.Policy] = {}
        with contextlib.suppress(OSError, msgspec.DecodeError):
            self._policies = msgspec.json.decode(path.read_bytes(), type=dict[VmId, domains.Policy])

    def take(self, vm: VmId, found: domains.PolicyFound) -> tuple[domains.Policy, bool]:
        """The policy that holds, and whether it is one that was kept although the definition has lost it."""
        if found.policy is None:
            kept = self._policies.get(vm)
            return (kept, True) if kept is not None else (domains.Policy(), False)
        if self._policies.get(vm) != found.policy:
            self._policies[vm] = found.policy
            self._save()
        return found.policy, False

    def _save(self) -> None:
        # Losing this file loses a memory of what definitions say themselves, so a full disk is no reason to stop.
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_suffix(".new")
            temporary.write_bytes(msgspec.json.encode(self._policies))
            temporary.replace(self._path)
