"""What must be true at every moment, judged by what is true in the world and not by what anybody believes.

    single-instance          no VM executes on two hosts at once (a stopped process does not execute)
    owner-runs               whatever executes is executed by the owner in its register, within its lease; what begins to
                             execute does so on an epoch whose link was issued in the present term
    no-stale-write           no write of an older process reaches the storage after a newer process's first
    epochs-rise              a register never goes back, and no two records ever hold one epoch
    one-responsible-primary  who orders a restart or fences holds the `primary` register of the home, or did a moment ago
    pause-holds              nobody orders a restart, fences or resets a guest for a VM on whose datastore stands a pause
    wishes-hold              nobody orders a restart of a VM that an operator has set aside
    no-needless-kill         no VM is killed on a host that may run it, or will; which is not so where its home is lost to
                             that host, and not to all others
    one-writer-a-disk        no two VMs that have one disk execute at once, on whatever hosts
    no-needless-reset        no guest is reset that answers, or would if it were let, or that reads and writes
    no-stale-copy            no copy goes on that is not whole, or whose guest has executed elsewhere since it was
    proof-holds              takeovers and last words are what rule 5 asks for (`proofs.py`)

Each is looked at when something changes that it is about: a process begins, goes on or ends; a link or a guest's write
lands; a lease's deadline passes. (`all-recovered` is in `recovery_watch.py`.)

A host on which nothing worked that could have frozen a VM (keeper and agent both dead or stopped, or the whole host stood
still) is *unguarded*: design.md names it as not promised. What runs twice there is a hazard, with its length.
"""

from collections.abc import Callable

import msgspec

from outlast.model.effects import Note
from outlast.model.ids import PRIMARY_REGISTER, DatastoreName, HostId, VmId
from outlast.model.keeping import AskTakeover
from outlast.model.records import Enforcement, RegisterRecord, RegisterState
from outlast.model.time import MILLISECOND, SECOND
from outlast.sim.datastore import Datastore
from outlast.sim.domain import Domain
from outlast.sim.host import Host
from outlast.sim.hypervisor import Process
from outlast.sim.proofs import problem_with
from outlast.sim.scheduler import Scheduler

KEEPER_REACTS = 50 * MILLISECOND
AGENT_REACTS = 850 * MILLISECOND
"""The second freezer: its grace, its interval, and a little."""
HOLDS_AGAIN = 3 * SECOND
"""How long after its storage is well a host may be without its lease."""
PRIMARY_ACTS_LATE = 5 * SECOND
"""How old the read of a `primary` register may be on which an order rests: its patience, and a client's cache."""


class Violation(msgspec.Struct, frozen=True):
    """Something that must never be was. `at`: true time, nanoseconds."""

    at: int
    invariant: str
    detail: str


class Hazard(msgspec.Struct, frozen=True):
    """What is not promised, and happened. `at` and `length`: nanoseconds."""

    at: int
    kind: str
    length: int
    detail: str


class ViolatedError(Exception):
    """Raised at the first violation, where that is all that is asked for."""


class Invariants:
    """Collects violations and hazards. `entry` writes a line of the timeline. `stop_at_first`: raise ViolatedError then."""

    def __init__(
        self, scheduler: Scheduler, domain: Domain, hosts: dict[HostId, Host], entry: Callable[[str, str, str], None]
    ) -> None:
        self.violations: list[Violation] = []
        self.hazards: list[Hazard] = []
        self.stop_at_first = False
        self._scheduler = scheduler
        self._domain = domain
        self._hosts = hosts
        self._entry = entry
        self._executing: dict[VmId, dict[HostId, int]] = {}
        self._highest: dict[tuple[str, str], RegisterRecord] = {}
        self._loose: set[tuple[HostId, VmId]] = set()
        self._loose_instances: set[int] = set()
        self._double_since: dict[VmId, int] = {}
        self._writers: dict[VmId, int] = {}
        self._stale_writers: set[int] = set()
        self._deadline_looks: set[tuple[HostId, DatastoreName]] = set()
        self._primary_until: dict[tuple[DatastoreName, HostId], int] = {}

    @property
    def now(self) -> int:
        """True time."""
        return self._scheduler.now

    def executing(self, vm: VmId) -> frozenset[HostId]:
        """The hosts on which a VM executes now."""
        return frozenset(self._executing.get(vm, ()))

    def violated(self, invariant: str, detail: str) -> None:
        """Something must never be, and is."""
        self.violations.append(Violation(self.now, invariant, detail))
        self._entry("", "violation", f"{invariant}: {detail}")
        if self.stop_at_first:
            raise ViolatedError

    # -- processes ------------------------------------------------------------------------------------------------

    def process_changed(self, host: Host, vm: VmId) -> None:
        """A process of `vm` on `host` began, stopped, went on or ended."""
        hosts = self._executing.setdefault(vm, {})
        process = host.hypervisor.processes.get(vm)
        if process is None or not host.executes(vm):
            if hosts.pop(host.id, None) is not None:
                self._stops(host, vm)
            return
        if host.id in hosts:
            return
        hosts[host.id] = process.instance
        if not process.executed:
            process.executed = True
            self._goes_on(process)
        self._outdates_copies(process)
        self._begins(host, process)
        if len(hosts) > 1:
            self._doubled(vm)
        self._shares_its_disk(vm)

    def _goes_on(self, process: Process) -> None:
        """It executes for the first time."""
        if process.stale or (process.incoming and not process.whole):
            fault = "is older than what its guest did since" if process.stale else "has not all of its memory"
            self.violated("no-stale-copy", f"a copy of {process.vm} goes on that {fault}")

    def _outdates_copies(self, process: Process) -> None:
        """Every copy that waits is the memory of a moment that is over."""
        for host in self._hosts.values():
            other = host.hypervisor.processes.get(process.vm)
            if other is not None and other is not process and other.whole and not other.executed:
                other.stale = True

    def _stops(self, host: Host, vm: VmId) -> None:
        self._loose.discard((host.id, vm))
        since = self._double_since.get(vm)
        if since is not None and len(self._executing[vm]) < 2:
            del self._double_since[vm]
            detail = f"{vm} executed twice, on {host.id} while nothing guarded it"
            self.hazards.append(Hazard(since, "double-run", self.now - since, detail))

    def _begins(self, host: Host, process: Process) -> None:
        vm, home = process.vm, process.home
        problem = self._may_not_execute(host, process)
        if not problem:
            return
        keeper_works = host.keeper.works and not host.stalled
        if not keeper_works or self.now in (host.keeper.works_since, host.awake_since):
            # Nobody could prevent it; whoever comes back has to stop it in time, or else the watchdog has to.
            if not host.watchdog:
                self._loosen(host, process)
            self._look_later(host, home, KEEPER_REACTS)
            return
        self.violated("owner-runs", f"{vm} begins to execute on {host.id}, but {problem}")

    def _may_not_execute(self, host: Host, process: Process) -> str:
        register = self._domain.stores[process.home].last(process.vm)
        if register is None or register.owner != host.id or register.state is not RegisterState.OWNED:
            owner = "nobody" if register is None else f"{register.owner} ({register.state}, epoch {register.epoch})"
            return f"its register says {owner}"
        if host.enforcement is Enforcement.NONE:
            return ""  # Nothing freezes there, and nobody takes the end of its lease for proof.
        if not host.truth.holds(process.home, host.clock()):
            return f"the lease on {process.home} is over"
        if not host.truth.grants(process.home, register.nonce, host.clock()):
            return f"epoch {register.epoch} was not linked in the present term"
        return ""

    def _doubled(self, vm: VmId) -> None:
        hosts = sorted(self._executing[vm])
        if any((host, vm) in self._loose for host in hosts):
            self._double_since.setdefault(vm, self.now)
            self._entry("", "hazard", f"{vm} executes on {' and '.join(hosts)}: one of them is unguarded")
        else:
            self.violated("single-instance", f"{vm} executes on {' and '.join(hosts)}")

    def _shares_its_disk(self, vm: VmId) -> None:
        """Two VMs with one disk execute; where nothing guards one of them, that is no more promised than running twice."""
        for other in self._domain.on_same_disk(vm):
            both = [(host, each) for each in (vm, other) for host in sorted(self._executing.get(each, ()))]
            if {each for _, each in both} == {vm, other} and not any(where in self._loose for where in both):
                self.violated("one-writer-a-disk", f"{vm} and {other} execute at once, and have one disk")

    def _loosen(self, host: Host, process: Process) -> None:
        if (host.id, process.vm) not in self._loose:
            self._loose.add((host.id, process.vm))
            self._loose_instances.add(process.instance)
            self._entry(host.id, "unguarded", f"{process.vm} executes outside its lease, and nothing is there to freeze it")

    # -- leases ---------------------------------------------------------------------------------------------------

    def lease_extended(self, host: Host, datastore: DatastoreName) -> None:
        """A lease is good for longer: look when it ends, and after a lapse, whether what runs was re-asserted."""
        if host.truth.term(datastore) > 1 and host.truth.began[datastore] == host.clock():
            boots = host.boots
            self._scheduler.after(KEEPER_REACTS, lambda: self._term_began(host, datastore, boots))
        if (host.id, datastore) not in self._deadline_looks:
            self._look_later(host, datastore, host.until_clock(host.truth.deadlines[datastore]) + KEEPER_REACTS)

    def _look_later(self, host: Host, datastore: DatastoreName, delay: int) -> None:
        key, boots = (host.id, datastore), host.boots
        if key in self._deadline_looks:
            return
        self._deadline_looks.add(key)

        def look() -> None:
            self._deadline_looks.discard(key)
            if host.powered and host.boots == boots:
                self._deadline_passed(host, datastore)

        self._scheduler.after(delay, look)

    def _term_began(self, host: Host, datastore: DatastoreName, boots: int) -> None:
        if not host.powered or host.boots != boots or host.stalled:
            return
        for vm in sorted(host.hypervisor.processes):
            process = host.hypervisor.processes[vm]
            if process.home != datastore or not host.executes(vm) or (host.id, vm) in self._loose:
                continue
            problem = self._may_not_execute(host, process)
            if problem:
                self.violated("owner-runs", f"{vm} executes on {host.id} in a new term, but {problem}")

    def _deadline_passed(self, host: Host, datastore: DatastoreName) -> None:
        deadline = host.truth.deadlines.get(datastore)
        if deadline is not None and host.clock() < deadline:
            self._look_later(host, datastore, host.until_clock(deadline) + KEEPER_REACTS)
            return
        if host.enforcement is Enforcement.NONE:
            return
        over_since = self.now - (host.clock() - deadline) if deadline is not None else 0
        again = False
        for vm in sorted(host.hypervisor.processes):
            process = host.hypervisor.processes[vm]
            if process.home == datastore and host.executes(vm) and self._overruns(host, process, over_since):
                again = True
        if again:
            margin_ends = over_since + max(self._domain.margins)
            until_then = margin_ends - self.now if host.watchdog else KEEPER_REACTS
            self._look_later(host, datastore, min(KEEPER_REACTS, until_then))

    def _overruns(self, host: Host, process: Process, over_since: int) -> bool:
        """A VM executes although its lease is over. True if somebody may still be about to stop it, or nobody can.

        Where a watchdog is, it always can, within `lease_margin`: nobody takes the VM before that (rule 6).
        """
        awake = max(over_since, host.awake_since)
        keeper = host.keeper.works and not host.stalled
        if keeper and max(awake, host.keeper.works_since) + KEEPER_REACTS <= self.now:
            self.violated("owner-runs", f"{process.vm} executes on {host.id}, and the lease on {process.home} is over")
            return False
        agent = host.agent.works and not host.stalled
        if agent and not keeper and max(awake, host.agent.works_since) + AGENT_REACTS <= self.now:
            self.violated("owner-runs", f"{process.vm} executes on {host.id} past its lease; its agent did not freeze it")
            return False
        if host.watchdog and over_since + max(self._domain.margins) <= self.now:
            past = "longer than lease_margin past its lease, in spite of a watchdog"
            self.violated("owner-runs", f"{process.vm} executes on {host.id} {past}")
            return False
        if not keeper and not agent and not host.watchdog:
            self._loosen(host, process)
        return True

    # -- registers ------------------------------------------------------------------------------------------------

    def linked(self, store: Datastore, record: RegisterRecord) -> None:
        """A new epoch exists."""
        key = (store.name, record.subject)
        before = self._highest.get(key)
        if record.epoch != (before.epoch + 1 if before is not None else 0):
            came = f"after epoch {before.epoch}" if before is not None else "first"
            self.violated("epochs-rise", f"{record.subject}: epoch {record.epoch} of {record.owner} came {came}")
        self._highest[key] = record
        if record.subject == PRIMARY_REGISTER:
            if before is not None and before.state is RegisterState.OWNED:
                self._primary_until[store.name, before.owner] = self.now
            return
        vm = VmId(record.subject)
        others = sorted(self._executing.get(vm, ()))
        if record.state is RegisterState.OWNED:
            others = [host for host in others if host != record.owner]
        others = [host for host in others if (host, vm) not in self._loose]
        if others:
            made = f"{record.owner} creates epoch {record.epoch} ({record.state}, {record.reason})"
            self.violated("owner-runs", f"{vm} executes on {', '.join(others)} while {made}")

    def noted(self, host: HostId, note: Note) -> None:
        """An agent says what it does: a restart is ordered, and a host is fenced, by who is responsible for the home."""
        if note.kind == "fence-asked" and note.datastore is not None:
            home, what = note.datastore, f"has {note.host} fenced"
            self._not_paused(self._domain.stores[home], f"{host} {what}")
            if note.host == host:
                self.violated("one-responsible-primary", f"{host} fences itself")
        elif note.kind == "give-up-asked" and note.vm is not None:
            home, what = self._domain.homes[note.vm], f"asks {note.host} to give {note.vm} up"
            self._not_paused(self._domain.stores[home], f"{host} {what}")
        elif note.kind == "guest-hangs" and note.vm is not None:
            self._not_paused(self._domain.stores[self._domain.homes[note.vm]], f"{host} resets the guest of {note.vm}")
            return
        elif note.kind == "restart-ordered" and note.vm is not None:
            home, what = self._domain.homes[note.vm], f"orders a restart of {note.vm}"
            self._wanted_by_operators(self._domain.stores[home], host, note.vm)
        else:
            return
        last = self._domain.stores[home].last(PRIMARY_REGISTER)
        if last is not None and last.owner == host and last.state is RegisterState.OWNED:
            return
        until = self._primary_until.get((home, host))
        if until is None or self.now - until > PRIMARY_ACTS_LATE:
            holder = "nobody" if last is None else f"{last.owner} ({last.state}, epoch {last.epoch})"
            self.violated("one-responsible-primary", f"{host} {what}; {home} is held by {holder}")

    def _wanted_by_operators(self, store: Datastore, host: HostId, vm: VmId) -> None:
        """A restart is ordered: nobody has paused recovery for long, but for what he asks himself, nor set the VM aside."""
        content = store.newest_protected()
        vms = content.vms if content is not None else ()
        asked = any(entry.vm == vm and (entry.asked is not None or entry.attempts.asked) for entry in vms)
        aside = store.aside_since.get(vm)
        if not asked:
            self._not_paused(store, f"{host} orders a restart of {vm}")
        if aside is not None and self.now - aside > PRIMARY_ACTS_LATE:
            self.violated("wishes-hold", f"{host} orders a restart of {vm}, which an operator has set aside")

    def _not_paused(self, store: Datastore, what: str) -> None:
        everywhere = [found for each in self._domain.stores.values() if (found := each.newest_settings()) is not None]
        newest = max((found.record.mark for found in everywhere), default=None)
        here = store.newest_settings()
        if here is None or here.record.mark != newest:
            return  # What stands here is overruled elsewhere, and who acts may have read it there.
        if store.paused_since is not None and self.now - store.paused_since > PRIMARY_ACTS_LATE:
            self.violated("pause-holds", f"{what}, and {store.name} says that recovery is paused")

    def takes_over(self, host: Host, ask: AskTakeover) -> None:
        """An agent asks its keeper to take a VM."""
        problem = problem_with(ask, host, self._domain)
        if problem:
            self.violated("proof-holds", f"{host.id} takes {ask.vm} on the proof {ask.proof.kind}, but {problem}")

    def last_word(self, host: Host) -> None:
        """A keeper writes the proof `clean_shutdown`."""
        left = sorted(host.hypervisor.processes)
        if left:
            self.violated("proof-holds", f"the keeper of {host.id} says its last word, and {', '.join(left)} is left")

    # -- kills and writes -----------------------------------------------------------------------------------------

    def killed(self, host: Host, vm: VmId) -> None:
        """A keeper kills a VM's process."""
        process = host.hypervisor.processes.get(vm)
        if process is None or not process.executed or process.ending is not None:
            return
        definition = self._domain.definitions[vm]
        own = definition.policy.isolation_response
        responses = {own} if own else {settings.isolation_response for settings in self._domain.ever_used}
        store = self._domain.stores[process.home]
        register, boots = store.last(vm), store.incarnations.get(host.id, [])
        ours = register is not None and register.owner == host.id and register.state is RegisterState.OWNED
        if vm in store.ever_aside:
            return  # An operator wanted it off.
        if self._is_lost_to(host, process.home):
            return
        if ours and register is not None and register.incarnation == len(boots) and responses == {"leave-running"}:
            self.violated("no-needless-kill", f"{vm} is killed on {host.id}, which owns it (epoch {register.epoch})")

    def guest_reset(self, host: Host, process: Process) -> None:
        """Called before it is: what hung must still hang, and do nothing."""
        self._entry(host.id, "guest-was-reset", process.vm)
        if process.works:
            what = "reads and writes" if process.hung else "is well"
            self.violated("no-needless-reset", f"the guest of {process.vm} is reset on {host.id}, though it {what}")

    def _is_lost_to(self, host: Host, home: DatastoreName) -> bool:
        """Whether a host holds no lease there, although its keeper works, and somebody else does who may go on with it."""
        quiet_for = self.now - host.storage_changed_at.get(home, 0)
        if host.storage_mode(home) == "ok" and not host.storage_delay(home) and quiet_for >= HOLDS_AGAIN:
            return False
        others = (other for other in self._hosts.values() if other is not host and other.powered)
        elsewhere = any(other.truth.holds(home, other.clock()) for other in others)
        return elsewhere and not host.truth.holds(home, host.clock())

    def wrote(self, vm: VmId, instance: int) -> None:
        """A guest's write lands."""
        newest = self._writers.get(vm, -1)
        if instance >= newest:
            self._writers[vm] = instance
            return
        if instance in self._stale_writers:
            return
        self._stale_writers.add(instance)
        detail = f"a write of an earlier process of {vm} reached {self._domain.homes[vm]} after a later one's first"
        if instance in self._loose_instances or self._domain.risk_accepted(self._domain.homes[vm]):
            self.hazards.append(Hazard(self.now, "stale-write", 0, detail))
            self._entry("", "hazard", detail)
        else:
            self.violated("no-stale-write", detail)

    def finish(self) -> None:
        """The run is over: what still runs twice is a hazard until now."""
        for vm, since in sorted(self._double_since.items()):
            detail = f"{vm} executes twice at the end, on a host that nothing guards"
            self.hazards.append(Hazard(since, "double-run", self.now - since, detail))
        self._double_since.clear()
