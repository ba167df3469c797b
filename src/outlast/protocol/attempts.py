"""How often a VM that fails is tried anew, on which host, how slowly, and when it is given up.

A failure is the VM's own if its process crashed, or if libvirt could not start it; it is counted from its register, which
says so epoch by epoch, so that no failure counts twice, whoever is primary. What was the fault of a host (no lease, an
image lock that was refused, a libvirt that hung) only slows the next attempt down.

    the VM itself failed, and                                     then
    fewer than max_restarts times on this host so far             it is tried again on this host
    else on fewer than max_relocations hosts after the first one  it is tried on another host
    else                                                          it has failed: nothing more until somebody asks for it

All of it is forgotten once it has run for `stable_after`, and when an operator starts it or asks for it to be tried again.
A wanted VM for which nothing can be done just now (no host, no proof, no storage) never counts as failed: it waits.
"""

import msgspec

from outlast.model.ids import HostId
from outlast.model.policy import WITHOUT_END, VmPolicy
from outlast.model.records import Attempts, PoweredVm, Reason, RegisterRecord, RegisterState
from outlast.model.time import SECOND, Duration, backed_off

PAUSE_FIRST = Duration(SECOND)
PAUSE_LAST = Duration(60 * SECOND)
_OWN = (Reason.CRASHED, Reason.START_FAILED)
_COUNTED = (*_OWN, Reason.HOST_FAULT)


def pause(times: int) -> Duration:
    """The wait after so many vain attempts in a row: none, then 1 s, doubling to 60 s."""
    return Duration(0) if times <= 0 else backed_off(PAUSE_FIRST, PAUSE_LAST, times - 1)


def is_new_failure(attempts: Attempts, last: RegisterRecord) -> bool:
    """Whether the register tells of a failure that was not counted yet."""
    newer = attempts.counted is None or last.epoch > attempts.counted
    return last.state is RegisterState.RELEASED and last.reason in _COUNTED and newer


def after_failure(attempts: Attempts, policy: VmPolicy, last: RegisterRecord) -> Attempts:
    """With the failure counted that the register tells of (see the table at the top)."""
    tries = attempts.tries + (last.reason is not Reason.CRASHED)
    counted = msgspec.structs.replace(attempts, tries=tries, counted=last.epoch)
    if last.reason not in _OWN:
        return counted
    if policy.max_restarts == WITHOUT_END or attempts.restarts < policy.max_restarts:
        return msgspec.structs.replace(counted, restarts=attempts.restarts + 1)
    if policy.max_relocations == WITHOUT_END or attempts.relocations < policy.max_relocations:
        # Every host had its turn when this one has it for the second time: a new round.
        hosts = (last.owner,) if last.owner in attempts.hosts else (*attempts.hosts, last.owner)
        return msgspec.structs.replace(counted, restarts=0, relocations=attempts.relocations + 1, hosts=hosts)
    return msgspec.structs.replace(counted, failed=True)


def pause_after_failure(attempts: Attempts) -> Duration:
    """How long to wait before a counted failure is followed by the next attempt: the first one follows at once."""
    return max(pause(attempts.tries - 1), pause(attempts.restarts + attempts.relocations - 1))


def same_host_again(attempts: Attempts, last: RegisterRecord) -> HostId | None:
    """The host on which a VM that failed is to be tried once more, if it is."""
    return last.owner if last.reason in _OWN and attempts.restarts > 0 else None


def in_vain(attempts: Attempts, problem: str) -> Attempts:
    """One more attempt that did not bring it up; `problem` says why."""
    return msgspec.structs.replace(attempts, tries=attempts.tries + 1, problem=problem)


def runs_again(attempts: Attempts, line: PoweredVm) -> Attempts:
    """What is left to remember of a VM that stands on a living host's list.

    One that was given up was started by somebody: it begins anew. One that was ordered and is ready has come up.
    """
    if line.state != "running" or line.epoch is None:
        return attempts
    if attempts.failed and (attempts.counted is None or line.epoch > attempts.counted):
        return stable(attempts)
    if attempts.ordered is not None and line.epoch > attempts.ordered and line.ready:
        return came_up(attempts)
    return attempts


def came_up(attempts: Attempts) -> Attempts:
    """It is ready; how often it failed by itself is remembered until it is stable."""
    return msgspec.structs.replace(attempts, tries=0, ordered=None, asked=False)


def stable(attempts: Attempts) -> Attempts:
    """It has run well for long enough: everything is forgotten, but what was counted is not counted again."""
    return Attempts(counted=attempts.counted)


def asked_again(attempts: Attempts) -> Attempts:
    """An operator wants it to be tried again, whatever happened before and whatever its priority."""
    return Attempts(counted=attempts.counted, asked=True)


def is_asked_for(attempts: Attempts) -> bool:
    """Whether the next attempt is the very one that an operator asked for: nothing has failed since."""
    return attempts.asked and not (attempts.tries or attempts.restarts or attempts.relocations)
