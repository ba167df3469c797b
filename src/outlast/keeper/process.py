"""The keeper as a process: one thread, one selector, no waiting for anything but the next thing to happen.

    python -m outlast.keeper.process FD      (FD: a file with the `KeeperConfig` as JSON; see launch.py)

It does what its machine (`protocol/keeping.py`) asks for, in order, and feeds it what happens: answers of the I/O helpers,
exits of QEMU processes, requests, the passing of time. It is small, real-time and locked in memory, and imports little, so
that it can freeze within milliseconds on a host that is on its knees.
"""

import collections
import fcntl
import os
import secrets
import selectors
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from outlast.drivers import clock
from outlast.drivers.host_shutdown import host_goes_down
from outlast.drivers.notify import notify, watchdog_interval_s
from outlast.drivers.stderr import Stderr
from outlast.drivers.watchdog import UNKNOWN_S, Watchdog
from outlast.keeper import processes
from outlast.keeper.clients import Clients
from outlast.keeper.homes import Homes, Memory
from outlast.keeper.lease_file import LeaseFile, read_leases
from outlast.keeper.plugged import Plugged, device_of
from outlast.keeper.storage import KeeperStorage
from outlast.model.ids import KeeperSession, VmId
from outlast.model.keeper_config import KeeperConfig
from outlast.model.keeper_effects import (
    BarClaimant,
    Changed,
    Freeze,
    KeeperEffect,
    Kill,
    LinkClaim,
    LinkRegister,
    LookForProcess,
    PetWatchdog,
    PublishLease,
    ReadClaimant,
    ReadClaims,
    ReadRegister,
    Remember,
    Reply,
    StopWatching,
    Tell,
    Thaw,
    WatchForProcess,
    WriteHeartbeat,
)
from outlast.model.keeper_events import (
    CloseAsked,
    DeviceSeen,
    FoundProcess,
    KeeperEvent,
    ProcessAppeared,
    ProcessesFound,
    ProcessExited,
    ProcessMissing,
    Woken,
)
from outlast.model.keeping import Happened
from outlast.model.records import Enforcement
from outlast.model.time import MILLISECOND, SECOND, Duration, Instant, after
from outlast.protocol.keeping import KeeperMachine
from outlast.protocol.lease import Adopted

LOOK_EVERY = Duration(10 * MILLISECOND)
"""How often the pid file of a start that passed the gate is looked for."""
SAFETY_LOOK_EVERY = SECOND
"""How often all pid files are looked at, for guests that did not pass the gate."""
REPORT_EVERY = Duration(2 * SECOND)
PETS_PER_TIMEOUT = 4
CLOSE_PATIENCE_S = 20.0


class KeeperProcess:
    """See the top of this file."""

    def __init__(self, config: KeeperConfig, selector: selectors.BaseSelector) -> None:
        """Raises OSError if the socket or the lease file cannot be made, or the watchdog not be opened."""
        run = Path(config.run_dir)
        now = clock.now()
        self._stderr = Stderr()
        self._before = read_leases(run / "leases", config.boot_id)
        self._watchdog = Watchdog(config.watchdog_device, config.watchdog_timeout_s) if config.watchdog_device else None
        config = self._with_what_the_watchdog_grants(config)
        self._config = config
        self._selector = selector
        self._events: collections.deque[KeeperEvent] = collections.deque()
        adopted = {name: Adopted(lease.deadline, lease.length) for name, lease in self._before.items()}
        self.machine = KeeperMachine(config, now, adopted)
        names = tuple(d.name for d in config.datastores)
        self._leases = LeaseFile(run / "leases", config.boot_id, config.session, names, self._before)
        self._storage = {d.name: KeeperStorage(config, d, selector, self._events.append) for d in config.datastores}
        self._clients = Clients(str(run / "keeper.sock"), selector, self._events.append)
        self._homes = Homes(run / "homes", names)
        self._processes: dict[VmId, list[processes.WatchedProcess]] = {}
        self._pid_files = processes.PidFiles()
        self._plugged = Plugged()
        self._looked_for: dict[VmId, WatchForProcess] = {}
        self._look_at = now
        self._safety_look_at = now
        self._report_at = now
        self._pet_at = now
        self._changed = False
        self._may_pet = True
        self._doing: dict[type, Callable[..., object]] = {
            WriteHeartbeat: lambda e: self._storage[e.datastore].write_heartbeat(e),
            ReadRegister: lambda e: self._storage[e.datastore].read_register(e),
            LinkRegister: lambda e: self._storage[e.datastore].link_register(e),
            ReadClaims: lambda e: self._storage[e.datastore].read_claims(e),
            LinkClaim: lambda e: self._storage[e.datastore].link_claim(e),
            ReadClaimant: lambda e: self._storage[e.claimant.home].read_claimant(e),
            BarClaimant: lambda e: self._storage[e.claimant.home].bar_claimant(e),
            Freeze: self._freeze,
            Thaw: self._thaw,
            Kill: self._kill,
            WatchForProcess: self._watch_for,
            LookForProcess: self._look_for,
            StopWatching: lambda e: self._looked_for.pop(e.vm, None),
            Reply: lambda e: self._clients.send(e.client, e.reply),
            Tell: lambda e: self._tell(e.happened),
            PublishLease: lambda e: self._leases.publish(e.datastore, e.deadline, e.term, e.length),
            Remember: lambda e: self._homes.remember(e.vm, Memory(e.home, self._config.session, e.term, e.lease)),
            Changed: lambda _: setattr(self, "_changed", True),
            PetWatchdog: lambda _: self._pet(),
        }

    def _with_what_the_watchdog_grants(self, config: KeeperConfig) -> KeeperConfig:
        """A watchdog that fires too late for `lease_margin` is petted, and not counted on (safety rule 6)."""
        if self._watchdog is None or self._watchdog.timeout_s <= config.watchdog_timeout_s:
            return config
        holds = self._watchdog.timeout_s
        fires = "does not tell when it fires" if holds == UNKNOWN_S else f"fires after {holds} s at the earliest"
        self.log(
            f"{config.watchdog_device} {fires}, and {config.watchdog_timeout_s} s are configured: this host's enforcement "
            "level is `keeper`, not `watchdog`"
        )
        return msgspec.structs.replace(config, enforcement=Enforcement.KEEPER)

    # -- the loop -------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Find every QEMU process before the first renewal (safety rule 8)."""
        found: list[FoundProcess] = []
        # What a pid file names comes first: of several that claim one VM, that is the one to speak of.
        for qemu in processes.every_guest():
            process = self._guard(qemu)
            if process is not None:
                found.append(process)
        self._happen(ProcessesFound(tuple(found)))
        for name, place in self.machine.places.items():
            # Only now: what was past its lease is frozen, and a zero says so.
            lease = place.lease
            self._leases.publish(name, lease.deadline or Instant(0), lease.term, lease.granted_for)

    def turn(self) -> None:
        """Wait for the next thing to happen, and see to it."""
        for key, mask in self._selector.select(self._patience_s()):
            key.data(mask)
        now = clock.now()
        for storage in self._storage.values():
            storage.tick()
        self._look_for_processes(now)
        if not self._events:
            self._happen(Woken())
        while self._events:
            self._happen(self._events.popleft())
        if self._changed or now >= self._report_at:
            self._changed = False
            self._report_at = after(now, REPORT_EVERY)
            self._clients.broadcast(self.machine.report())

    def _happen(self, event: KeeperEvent) -> None:
        self.machine.wall_clock_s = clock.wall_ms() // 1000
        for effect in self.machine.handle(event, clock.now()):
            self._do(effect)

    def _do(self, effect: KeeperEffect) -> None:
        self._doing[type(effect)](effect)

    def _patience_s(self) -> float:
        due = [self._safety_look_at, self._report_at]
        due += [t for t in (self.machine.deadline(), *(s.retry_at for s in self._storage.values())) if t is not None]
        if self._looked_for:
            due.append(self._look_at)
        if self._watchdog is not None:
            due.append(self._pet_at)
        if self._events:
            return 0.0
        return max(0.0, (min(due) - clock.now()) / SECOND)

    def close(self) -> bool:
        """The host shuts down: say the last word once no QEMU is left. True when it is said everywhere it can be."""
        self._events.append(CloseAsked())
        deadline = time.monotonic() + CLOSE_PATIENCE_S
        last_word_at: Instant | None = None
        while time.monotonic() < deadline:
            self.turn()
            if self._processes or self._looked_for:
                continue
            last_word_at = last_word_at or clock.now()
            # Two intervals: the write that was under way, and the one that says it.
            if clock.now() >= last_word_at + 2 * self.machine.settings.datastore_heartbeat_interval:
                self._disarm()
                return True
        return False

    # -- processes ------------------------------------------------------------------------------------------------

    def _guard(self, qemu: processes.Qemu) -> FoundProcess | None:
        """Watch a guest whose disks are on our datastores; None for any other, or one that is watched already.

        Several processes may claim one VM (see processes.py). All are watched; the first one speaks for them, and who joins
        it while it is frozen is frozen too.
        """
        memory = self._homes.recall(qemu.vm)
        home = memory.home if memory is not None else self._config.home_of(qemu.disks)
        watched = self._processes.get(qemu.vm, [])
        for other in list(watched):
            if other.has_exited():
                self._exited(other)  # Told before its successor is.
        if home is None or any(other.qemu.pid == qemu.pid for other in watched):
            return None
        try:
            process = processes.WatchedProcess(qemu)
        except OSError:
            return None
        self._selector.register(process.pidfd, selectors.EVENT_READ, lambda _: self._exited(process))
        self._processes.setdefault(qemu.vm, []).append(process)
        if len(self._processes[qemu.vm]) > 1:
            first = processes.inspect(self._processes[qemu.vm][0].qemu.pid)
            if first is not None and first.stopped:
                process.freeze()
            self.log(f"process {qemu.pid} claims to be {qemu.vm} ({qemu.name}) too: it is guarded with the other one")
            return None
        unfreezable = qemu.unfreezable or bool(device_of(qemu))
        by_right, session = self._ran_by_right(memory), memory.session if memory is not None else ""
        return FoundProcess(
            qemu.vm,
            qemu.name,
            home,
            qemu.pid,
            qemu.stopped,
            unfreezable,
            by_right=by_right,
            session=session,
            incoming=qemu.incoming,
        )

    def _ran_by_right(self, memory: Memory | None) -> Duration | None:
        """For how long a lease our predecessor had let it run in the very term that may still be good (safety rule 8)."""
        before = self._before.get(memory.home) if memory is not None else None
        if memory is None or before is None or (memory.session, memory.term) != (before.session, before.term):
            return None
        return memory.lease

    def _exited(self, process: processes.WatchedProcess) -> None:
        """The VM has ended when the last process that claims to be it has."""
        vm = process.qemu.vm
        watched = self._processes.get(vm, [])
        if process not in watched:
            return
        watched.remove(process)
        self._selector.unregister(process.pidfd)
        process.close()
        if not watched:
            del self._processes[vm]
            self._events.append(ProcessExited(vm))

    def _watch_for(self, effect: WatchForProcess) -> None:
        self._looked_for[effect.vm] = effect
        self._look_at = clock.now()

    def _look_for(self, effect: LookForProcess) -> None:
        """Libvirt writes the pid file before the process becomes QEMU, and lets it go on only after that."""
        if not processes.pid_file_names_a_process(effect.name):
            self._events.append(ProcessMissing(effect.vm, effect.epoch, effect.handover))

    def _look_for_processes(self, now: Instant) -> None:
        if self._looked_for and now >= self._look_at:
            self._look_at = after(now, LOOK_EVERY)
            for effect in list(self._looked_for.values()):
                qemu = processes.by_pid_file(effect.name)
                if qemu is not None and qemu.vm == effect.vm:
                    self._appeared(qemu)
        if now >= self._safety_look_at:
            self._safety_look_at = after(now, SAFETY_LOOK_EVERY)
            guarded = {process.qemu.pid for watched in self._processes.values() for process in watched}
            for qemu in self._pid_files.look(guarded):
                self._appeared(qemu)
            self._look_for_devices()
            for vm, watched in self._processes.items():
                if self.machine.runs_by_right(vm) and any(process.is_stopped() for process in watched):
                    self.log(f"the process of {vm} was stopped by somebody else, and runs by right: thawing it")
                    self._thaw(Thaw(vm))

    def _look_for_devices(self) -> None:
        known = self.machine.vms
        freezable = [vm for vm in self._processes if vm in known and not known[vm].unfreezable]
        found = self._plugged.look([process.qemu for vm in freezable for process in self._processes[vm]])
        for vm in freezable:
            for process in self._processes[vm]:
                if process.qemu.pid in found:
                    self._events.append(DeviceSeen(vm, found[process.qemu.pid]))

    def _appeared(self, qemu: processes.Qemu) -> None:
        process = self._guard(qemu)
        if process is not None:
            self._events.append(ProcessAppeared(process))

    def _freeze(self, effect: Freeze) -> None:
        if [process for process in self._processes.get(effect.vm, []) if not process.freeze()]:
            # What cannot be frozen must not outlive its lease: the watchdog is let to fire (safety rule 6).
            self._may_pet = False
            self.log(f"the process of {effect.vm} cannot be frozen; the watchdog is not petted any more")

    def _thaw(self, effect: Thaw) -> None:
        deadline = self.machine.places[self.machine.vms[effect.vm].home].lease.deadline
        if deadline is None or clock.now() >= deadline:
            return  # This process itself may have stood still between the decision and here.
        for process in self._processes.get(effect.vm, []):
            process.thaw()

    def _kill(self, effect: Kill) -> None:
        for process in self._processes.get(effect.vm, []):
            process.kill()

    # -- the rest -------------------------------------------------------------------------------------------------

    def _pet(self) -> None:
        now = clock.now()
        if self._watchdog is not None and self._may_pet and now >= self._pet_at:
            granted_s = min(self._config.watchdog_timeout_s, self._watchdog.timeout_s)
            self._pet_at = after(now, Duration(granted_s * SECOND // PETS_PER_TIMEOUT))
            try:
                self._watchdog.pet()
            except OSError as error:
                self._count_on_no_watchdog(f"{self._config.watchdog_device} takes no keep-alive ({error.strerror})")

    def _disarm(self) -> None:
        if self._watchdog is not None:
            try:
                self._watchdog.disarm()
            except OSError as error:
                self.log(f"{self._config.watchdog_device} cannot be disarmed ({error.strerror}): it may reset this host")

    def _count_on_no_watchdog(self, why: str) -> None:
        """From now on others must not take this host for one that its watchdog resets. It is petted still, if it can be."""
        if self.machine.config.enforcement is Enforcement.WATCHDOG:
            self.machine.config = msgspec.structs.replace(self.machine.config, enforcement=Enforcement.KEEPER)
            self.log(f"{why}: this host's enforcement level is `keeper`, not `watchdog`, until the keeper is restarted")

    def _tell(self, happened: Happened) -> None:
        self._clients.broadcast(happened)
        words = [str(happened.kind)]
        words += [f"{key}={value}" for key, value in (("vm", happened.vm), ("datastore", happened.datastore)) if value]
        if happened.epoch is not None:
            words.append(f"epoch={happened.epoch}")
        self.log(" ".join(words) + (f": {happened.detail}" if happened.detail else ""))

    def log(self, text: str) -> None:
        """One line for people, if anybody reads them."""
        self._stderr.write(f"outlast-keeper: {text}\n")


def _take_lock(run_dir: Path) -> int:
    """There is one keeper: hold its lock for as long as this process lives. Exits with a sentence if there is another."""
    run_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
    descriptor = os.open(run_dir / "keeper.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(f"outlast keeper: another keeper runs on this host (it holds {run_dir}/keeper.lock); nothing was done")
    return descriptor


def main() -> None:
    """Be the keeper that the configuration describes, until SIGTERM."""
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        config = msgspec.json.decode(file.read(), type=KeeperConfig)
    config = msgspec.structs.replace(config, boot_id=clock.boot_id(), session=KeeperSession(secrets.token_hex(8)))
    lock = _take_lock(Path(config.run_dir))
    wakeup, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    selector = selectors.EpollSelector()
    selector.register(wakeup, selectors.EVENT_READ, lambda _: None)
    try:
        keeper = KeeperProcess(config, selector)
    except OSError as error:
        sys.exit(
            f"outlast keeper: {error.filename or config.run_dir}: {error.strerror}; check that it exists and is writable"
        )
    for refusal in processes.lock_into_memory():
        keeper.log(f"not granted: {refusal}")
    keeper.begin()
    notify("READY=1", f"STATUS=Keeping the leases of {config.name}")
    _run(keeper, wakeup)
    if host_goes_down():
        notify("STOPPING=1")
        keeper.close()
    os.close(lock)


def _run(keeper: KeeperProcess, wakeup: int) -> None:
    """Turn until a signal asks to end."""
    interval_s = watchdog_interval_s()
    alive_at = 0.0
    while True:
        keeper.turn()
        if interval_s is not None and time.monotonic() >= alive_at:
            alive_at = time.monotonic() + interval_s
            notify("WATCHDOG=1")
        try:
            if os.read(wakeup, 64):
                return
        except BlockingIOError:
            continue


if __name__ == "__main__":
    main()
