"""Whether an operator may have a VM moved to a host: what a restart there would be refused for, a move is too.

Asked when he gives the command, of what this host knows then. `--force` asks nobody. What the primary orders of its own
account was planned with room and rules before (`planning/emptying.py`).
"""

from outlast.model.ids import HostId, VmId
from outlast.protocol.domain_snapshot import as_listed, take
from outlast.protocol.host_condition import kept_empty
from outlast.protocol.knowledge import Knowledge
from outlast.protocol.planning.board import Board
from outlast.protocol.planning.problem import Problem


def why_not_there(known: Knowledge, vm: VmId, host: HostId) -> str:
    """Why it should not run on that host, as a sentence without its subject; empty if it may, or nobody can tell."""
    line = known.listed(vm)
    if line is None or host in kept_empty(known):
        return ""  # A host that is kept empty refuses it by itself, and takes no force.
    problem = Problem(take(known, {vm: as_listed(vm, None, line)}, {}))
    # CPU that is only used, and not reserved, is no reason: nobody is hurt for long by a busy host.
    return Board(problem).refusal(problem.vms[vm], problem.number[host], squeezed=True)
