"""Whether a VM may be newly started somewhere, so that the domain keeps what it has set aside for failures.

    host-failures   whichever N hosts are lost, every VM runs again: exact, for memory, CPU, reach and rules
    percent         so much of all memory and of all CPU of the hosts that can be used stays free
    spare-hosts     nothing is started on the hosts that are kept spare

Whatever the policy is, a VM is not started where a required rule forbids it, or where its host would have no room for it.
Restarts by recovery are no business of this: what runs already, or is to run again, has its place.
"""

from collections.abc import Iterator

import msgspec

from outlast.model.ids import HostId
from outlast.model.planning import UNLIMITED, Outlook, PlanVm, Snapshot
from outlast.model.settings import AdmissionMode, AdmissionPolicy, Settings
from outlast.protocol.planning.board import Board
from outlast.protocol.planning.problem import Problem
from outlast.protocol.planning.worst import Survival, survival


class Policy(msgspec.Struct, frozen=True):
    """What is set aside for failures."""

    kind: AdmissionPolicy
    host_failures: int
    percent: int

    def __str__(self) -> str:
        """In the words of a sentence."""
        match self.kind:
            case "host-failures":
                return f"room for the VMs of any {_hosts(self.host_failures)} that {_is(self.host_failures)} lost"
            case "percent":
                return f"{self.percent} % of memory and CPU"
            case _:
                return "the spare hosts"


def policy_of(settings: Settings) -> Policy:
    """The policy in the settings."""
    return Policy(settings.admission_policy, settings.admission_host_failures, settings.admission_percent)


def admit(snapshot: Snapshot, vm: PlanVm, host: HostId, policy: Policy) -> Iterator[str]:
    """Why a VM may not be started on a host, as a clause; empty if it may. Step by step: the last answer counts."""
    problem = Problem(snapshot)
    board, i = Board(problem), problem.number[host]
    refusal = board.refusal(vm, i)
    if refusal:
        yield refusal
        return
    with_it = _with(snapshot, vm, host)
    if policy.kind == "host-failures":
        for found in survival(Problem(with_it), policy.host_failures):
            yield failures_problem(with_it, found, policy) if found.done else ""
        return
    spare = problem.hosts[i].spare
    if policy.kind == "spare-hosts":
        yield f"{problem.hosts[i].name} is kept spare for failures" if spare else ""
        return
    yield percent_problem(with_it, policy)


def _with(snapshot: Snapshot, vm: PlanVm, host: HostId) -> Snapshot:
    """The domain once the VM runs there."""
    needs = vm.needs
    hosts = tuple(
        each
        if each.id != host
        else msgspec.structs.replace(
            each,
            free_memory_mib=each.free_memory_mib - needs.memory_mib,
            free_cpu=each.free_cpu - needs.cpu,
            free_reserved_cpu=each.free_reserved_cpu - needs.reserved_cpu,
        )
        for each in snapshot.hosts
    )
    others = tuple(each for each in snapshot.vms if each.vm != vm.vm)
    return msgspec.structs.replace(snapshot, hosts=hosts, vms=(*others, msgspec.structs.replace(vm, host=host)))


def failures_problem(snapshot: Snapshot, found: Survival, policy: Policy) -> str:
    """Why the domain would not survive what it should; empty if it would."""
    if found.survives >= policy.host_failures or found.vm is None:
        return ""
    return f"the domain would not survive the loss of {_hosts(policy.host_failures)}: {survival_text(snapshot, found)}"


def survival_text(snapshot: Snapshot, found: Survival) -> str:
    """What a loss of one host more than is survived would mean, as a sentence without its end."""
    names = {host.id: host.name for host in snapshot.hosts}
    vm = next((vm.name for vm in snapshot.vms if vm.vm == found.vm), None)
    if vm is None:
        return ""
    when = f"without {' and '.join(names[host] for host in found.hosts)}" if found.hosts else "even now"
    return f"{when}, {vm} has no place: {found.why}"


def outlook(snapshot: Snapshot, found: Survival, policy: Policy, mode: AdmissionMode) -> Outlook:
    """What people are told of the domain as it is."""
    short = ""
    if mode != "off":
        match policy.kind:
            case "host-failures":
                short = failures_problem(snapshot, found, policy)
            case "percent":
                short = percent_problem(snapshot, policy)
            case _:
                short = spare_problem(snapshot)
    return Outlook(found.survives, found.done, survival_text(snapshot, found), found.proven, short)


def percent_problem(snapshot: Snapshot, policy: Policy) -> str:
    """Why less is free than should be; empty if enough is."""
    usable = [host for host in snapshot.hosts if not host.unusable and not host.kept_empty]
    memory, free_memory = sum(h.memory_mib for h in usable), sum(h.free_memory_mib for h in usable)
    counted = [host for host in usable if host.cpu < UNLIMITED]
    cpu, free_cpu = sum(h.cpu for h in counted), sum(h.free_cpu for h in counted)
    for what, free, whole in (("memory", free_memory, memory), ("CPU", free_cpu, cpu)):
        if free * 100 < whole * policy.percent:
            left = max(0, free) * 100 // max(1, whole)
            return f"{left} % of the hosts' {what} is free then, and {policy.percent} % is set aside for failures"
    return ""


def spare_problem(snapshot: Snapshot) -> str:
    """Which spare hosts are in use; empty if none is."""
    spare = {host.id: host.name for host in snapshot.hosts if host.spare}
    used = sorted({spare[vm.host] for vm in snapshot.vms if vm.host in spare})
    return f"{' and '.join(used)} should be spare, and VMs run there" if used else ""


def _hosts(count: int) -> str:
    return "one host" if count == 1 else f"{count} hosts"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
