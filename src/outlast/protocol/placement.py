"""On which host a VM is to run again: a live host that reaches its home datastore and has the most free memory.

A pure decision over a snapshot; every host that was not chosen is named with the reason. Memory that was promised to VMs
whose start is still under way counts as used. (Priorities, rules and capacity planning are not built yet.)
"""

import msgspec

from outlast.model.ids import DatastoreName, HostId, HostName


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One host as the planner sees it. `leases` are the datastores where it can hold a lease."""

    host: HostId
    name: HostName
    live: bool
    isolated: bool
    hypervisor_up: bool
    leases: frozenset[DatastoreName]
    free_memory_mib: int
    promised_memory_mib: int = 0


class Choice(msgspec.Struct, frozen=True):
    """The host chosen, None if none fits, and why each other one was refused."""

    host: HostId | None
    refused: tuple[tuple[HostName, str], ...]


def choose_host(
    home: DatastoreName,
    memory_mib: int,
    candidates: tuple[Candidate, ...],
    avoid: frozenset[HostId] = frozenset(),
    prefer: HostId | None = None,
) -> Choice:
    """The best host. `avoid`: hosts that just failed to start it, used only if no other fits. `prefer` wins if it fits."""
    refused: list[tuple[HostName, str]] = []
    fitting: list[Candidate] = []
    for candidate in candidates:
        reason = _refusal(candidate, home, memory_mib)
        if reason:
            refused.append((candidate.name, reason))
        else:
            fitting.append(candidate)
    if not fitting:
        return Choice(None, tuple(refused))
    best = max(
        fitting,
        key=lambda c: (
            c.host not in avoid,
            c.host == prefer,
            c.free_memory_mib - c.promised_memory_mib,
            c.host,
        ),
    )
    refused += [(c.name, "fits, but another is better") for c in fitting if c is not best]
    return Choice(best.host, tuple(refused))


def _refusal(candidate: Candidate, home: DatastoreName, memory_mib: int) -> str:
    if not candidate.live:
        return "it is not connected"
    if candidate.isolated:
        return "it is isolated"
    if not candidate.hypervisor_up:
        return "its libvirt does not answer"
    if home not in candidate.leases:
        return f"it does not reach {home}, or holds no lease there"
    free = candidate.free_memory_mib - candidate.promised_memory_mib
    if free < memory_mib:
        return f"it has {free} MiB of memory free, and the VM needs {memory_mib} MiB"
    return ""
