"""`all-recovered`: once nothing is wrong any more and there is room, every wanted VM runs again, within a bound.

A VM is wanted from the moment it has run for a while, until somebody switches it off on purpose. Faults have ceased when
every host that has power is well in all its parts, and the network, the isolation addresses and all paths to storage are
whole. A host without power is no fault that lasts: it is dead, and its VMs have to run elsewhere, unless only a person can
say so (`awaiting_proof`). There is room for a VM if any host could take it without anybody else being moved: memory, CPU,
reach, and the rules that are required.

Three graces are part of the bound for those VMs alone that they are about (`_grace_of`), and for those that wait for them.

A VM of priority `disabled` need not come back. Nor need one that has failed, if it really failed as often by itself as its
policy allows. One that waits for others has their time as well as its own.
"""

from typing import TYPE_CHECKING

from outlast.model.ids import VmId
from outlast.model.policy import WITHOUT_END, parse_ready
from outlast.model.records import Enforcement, RegisterRecord, RegisterState
from outlast.model.settings import Settings
from outlast.model.time import SECOND
from outlast.protocol.planning.board import Board
from outlast.protocol.planning.problem import Problem
from outlast.sim.datastore import Datastore
from outlast.sim.host import BOOT_TIME
from outlast.sim.physics import DAEMON_STARTS
from outlast.sim.truth_snapshot import truth_snapshot

if TYPE_CHECKING:
    from outlast.sim.ground import Ground

RECOVERY_BOUND = 60 * SECOND
LOOKS = 2 * SECOND
STARTS_WITHIN = BOOT_TIME + DAEMON_STARTS[1] + SECOND
"""From the power of a host until its agent has heard everybody who could be heard."""


def recovery_bound(settings: Settings) -> int:
    """A minute with the default settings; with others longer or shorter, by as much as the waits that they ask for."""
    return RECOVERY_BOUND + _waits(settings) - _waits(Settings())


def _waits(settings: Settings) -> int:
    """A host is judged, a primary elected, and two leases run out: a primary's register's, then a VM's."""
    return settings.unreachable_after + settings.ping_timeout + settings.election_timeout + 2 * settings.window


class RecoveryWatch:
    """See the top of this file. It looks every two seconds, and whenever it is told that something happened."""

    def __init__(self, world: "Ground") -> None:
        self._world = world
        self.wanted: set[VmId] = set()
        self.awaiting_proof: set[VmId] = set()
        self.failures: dict[VmId, int] = {}
        """How often a VM crashed or did not start by itself, since it was last asked to be tried anew."""
        self._calm_since: int | None = None
        self._at_rest_since: int | None = None
        self._blamed: set[VmId] = set()

    def begin(self) -> None:
        """Look from now on."""
        self._world.scheduler.after(LOOKS, self._look)

    def disturbed(self) -> None:
        """Something was done to the world: whatever has to recover gets its time anew."""
        self._calm_since = self._at_rest_since = None

    def rested_for(self, time: int) -> bool:
        """Whether for that long nothing has been wrong and every wanted VM has run: no more is to be seen here."""
        since = self._at_rest_since
        return since is not None and self._world.scheduler.now - since >= time

    def _bound(self) -> int:
        """For the settings that ask for the longest waits, of all that any host ever had."""
        return max(recovery_bound(settings) for settings in self._world.domain.ever_used)

    def failed(self, vm: VmId) -> None:
        """A VM crashed, or a start of it failed by itself."""
        self.failures[vm] = self.failures.get(vm, 0) + 1

    def _look(self) -> None:
        now = self._world.scheduler.now
        calm = self.calm()
        if not calm or not all(len(self._world.invariants.executing(vm)) == 1 for vm in self.wanted):
            self._at_rest_since = None
        elif self._at_rest_since is None:
            self._at_rest_since = now
        if not calm:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= self._bound():
            self._judge(now - self._calm_since)
        self._world.scheduler.after(LOOKS, self._look)

    def calm(self) -> bool:
        """Whether nothing is wrong now."""
        world = self._world
        if not world.domain.network.whole or not world.domain.network.isolation_address_answers:
            return False
        if world.paused:
            return False
        if any(world.failing_starts.values()):
            return False
        for name in world.hosts:
            host = world.hosts[name]
            if host.resetting or host.goes_down or not host.storage_is_well:
                return False
            if host.powered and (host.stalled or not (host.keeper.works and host.agent.works and host.hypervisor.answers)):
                return False
        return True

    def _judge(self, calm_for: int) -> None:
        self._judge_who_is_to_be_off()
        waiting = [vm for vm in sorted(self.wanted) if len(self._world.invariants.executing(vm)) != 1]
        # Who had it started, and who set it aside, crossed each other.
        waiting = [vm for vm in waiting if vm not in self._store(vm).aside_since]
        self.awaiting_proof = {vm for vm in waiting if self._waits_for_proof(vm)}
        for vm in waiting:
            if vm in self._blamed or vm in self.awaiting_proof or self._need_not_run(vm) or calm_for < self._bound_of(vm):
                continue
            if self._has_room(vm):
                self._blamed.add(vm)
                where = ", ".join(sorted(self._world.invariants.executing(vm))) or "no host"
                last = self._last(vm)
                says = "nothing" if last is None else f"{last.owner}, {last.state}, {last.reason}, epoch {last.epoch}"
                detail = f"{vm} runs on {where}, long after everything was well; its register says: {says}"
                self._world.invariants.violated("all-recovered", detail)

    def _store(self, vm: VmId) -> Datastore:
        return self._world.domain.stores[self._world.domain.homes[vm]]

    def _judge_who_is_to_be_off(self) -> None:
        """What an operator wants stopped is off, unless its guest hangs, or somebody has started it by hand since."""
        for store in self._world.domain.stores.values():
            content = store.newest_protected()
            for aside in content.aside if content is not None else ():
                vm, last = aside.entry.vm, store.last(aside.entry.vm)
                runs = self._world.invariants.executing(vm)
                hangs = any(self._world.hosts[host].hypervisor.processes[vm].hung for host in runs)
                by_hand = aside.epoch is not None and last is not None and last.epoch > aside.epoch
                if aside.wanted == "stopped" and runs and not hangs and not by_hand and vm not in self._blamed:
                    self._blamed.add(vm)
                    detail = f"{vm} runs on {', '.join(sorted(runs))}, and is to be stopped"
                    self._world.invariants.violated("wishes-hold", detail)

    def _need_not_run(self, vm: VmId) -> bool:
        return self._world.spec(vm).priority == "disabled" or self._has_failed(vm) or self._another_has_its_disk(vm)

    def _another_has_its_disk(self, vm: VmId) -> bool:
        """Another VM with the same disk may run, as far as can be read: whoever had it first has to wait."""
        domain = self._world.domain
        others = [domain.stores[domain.homes[other]].last(other) for other in domain.on_same_disk(vm)]
        return any(last is not None and last.state is RegisterState.OWNED for last in others)

    def _has_failed(self, vm: VmId) -> bool:
        """Whether it is given up, and rightly so."""
        content = self._world.domain.stores[self._world.domain.homes[vm]].newest_protected()
        entry = next((entry for entry in content.vms if entry.vm == vm), None) if content is not None else None
        policy = self._world.spec(vm)
        if entry is None or not entry.attempts.failed or WITHOUT_END in (policy.max_restarts, policy.max_relocations):
            return False
        return self.failures.get(vm, 0) >= (policy.max_restarts + 1) * (policy.max_relocations + 1)

    def _bound_of(self, vm: str, asking: frozenset[str] = frozenset()) -> int:
        """How long it may take until it runs: longer, if it has to wait for others first."""
        spec, most = self._world.spec(vm), 0
        timeout = max(settings.dependency_timeout for settings in self._world.domain.ever_used)
        for name in spec.after:
            if name not in asking:
                waits = timeout + parse_ready(self._world.spec(name).ready).delay
                most = max(most, waits + self._bound_of(name, asking | {vm}) - self._bound())
        return self._bound() + max(most, self._grace_of(vm))

    def _grace_of(self, vm: str) -> int:
        """For how long more Outlast may leave a VM to its owner: as long as that has no power, and for a reason only.

        Either most of the others have none, so that whoever is left may doubt itself; or nobody who is left has been up
        since before it lost its power, so that for all they know the site is starting; or it has said that it keeps the VM
        over a planned reboot, and has ended in good order.
        """
        hosts, ever_used = self._world.hosts, self._world.domain.ever_used
        last = self._last(VmId(vm))
        owner = hosts.get(last.owner) if last is not None else None
        if owner is None or owner.powered:
            return 0
        dark = sum(not host.powered for host in hosts.values())
        many = dark >= 2 and 2 * dark > len(hosts) - 1
        hears_since = [host.booted_at + STARTS_WITHIN for host in hosts.values() if host.powered]
        cold = all(since > owner.off_since for since in hears_since)
        keeps = any(
            (content := store.power_on_lists().get(owner.id)) is not None and content.departs == "freeze"
            for store in self._world.domain.stores.values()
        )
        return max(
            max(settings.mass_failure_grace for settings in ever_used) if many else 0,
            max(settings.startup_grace for settings in ever_used) if cold else 0,
            max(settings.freeze_timeout for settings in ever_used) if keeps else 0,
        )

    def _waits_for_proof(self, vm: VmId) -> bool:
        """Its owner has no power, and nothing that can be read says that it will not go on."""
        domain, last = self._world.domain, self._last(vm)
        home = domain.homes[vm]
        if last is None or last.owner not in self._world.hosts:
            return False
        owner = self._world.hosts[last.owner]
        if owner.powered:
            return False
        sighting = domain.stores[home].sightings.get(last.owner)
        device = domain.fence_devices.get(last.owner)
        if device is not None and device.works and not domain.reach:
            return False
        readable = sighting is not None and sighting.record is not None
        return not readable or owner.enforcement is Enforcement.NONE or not domain.expiry_allowed(home)

    def _last(self, vm: VmId) -> RegisterRecord | None:
        return self._world.domain.stores[self._world.domain.homes[vm]].last(vm)

    def _has_room(self, vm: VmId) -> bool:
        """Whether any host could take it as everything stands now: room, reach and required rules.

        What waits for a proof may run where it ran, for all that anybody can know.
        """
        nobody_knows = {each: last.owner for each in self.awaiting_proof if (last := self._last(each)) is not None}
        problem = Problem(truth_snapshot(self._world, frozenset(self.wanted), nobody_knows))
        board, waiting = Board(problem), problem.vms[vm]
        return any(not board.refusal(waiting, i) for i in range(len(problem.hosts)))
