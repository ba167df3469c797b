"""PID 1 of a lab host: makes the host's private world, starts its services, and reaps what nobody waits for.

Run by host.py inside fresh PID, mount, UTS, IPC and network namespaces: `python -m outlast.lab.init SPECIFICATION`, a
JSON file with the keys of host.py's `Specification`. It uses the standard library alone, to be small and quick.

First it builds a root of its own in memory: the machine's programs by bind mounts, the host's private directories over
them, its own /dev (without /dev/kvm, which may exist and not work), /run, /proc, /sys and boot id. Then it leaves the
machine's root for good, so that no other mount of the machine is pinned by this host, and none of another host is seen.

Then it is a service manager in miniature. A service that ends is started again after its delay, or at once if somebody
asked for a restart (a file /run/lab/SERVICE.restart exists), or not at all (SERVICE.hold). One that is stopped by SIGSTOP
just stays stopped. /run/lab/SERVICE.pid holds its process id inside the host. SIGPWR means an orderly shutdown: guests,
then services in reverse order. SIGKILL, from outside, is the loss of power.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_RUN = Path("/run/lab")
_LOGS = Path("/var/log/outlast")
_DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
# Of the machine's root, what the host has for itself or does without.
_OWN_DIRECTORIES = {"proc", "sys", "dev", "run", "srv", "tmp", "etc", "var", "mnt", "media", "lost+found", "boot"}
_OPEN_FILES = 4096
_GUESTS_SHUTDOWN_S = 15.0
_SERVICE_SHUTDOWN_S = 10.0
_SETUP_S = 20.0
_GOING_DOWN_S = 60.0
"""How long Outlast may hold a shutdown up."""
_WATCHED = {signal.SIGCHLD, signal.SIGPWR, signal.SIGUSR2}
_GOES_DOWN: dict[int, str] = {signal.SIGPWR: "--power-off", signal.SIGUSR2: "--reboot"}


def _say(line: str) -> None:
    """Write a line on the host's console."""
    os.write(1, f"{line}\n".encode())


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", "--no-mtab", *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"mount {' '.join(arguments)}: {done.stderr.strip()}")


def build_root(specification: dict[str, Any]) -> None:
    """Make the host's root and move into it."""
    root = Path(specification["root"])
    _mount("-t", "tmpfs", "-o", "mode=755,size=64m", "root", str(root))
    for entry in sorted(Path("/").iterdir()):
        if entry.is_symlink():
            (root / entry.name).symlink_to(entry.readlink())
        elif entry.is_dir() and entry.name not in _OWN_DIRECTORIES:
            (root / entry.name).mkdir()
            _mount("--bind", str(entry), str(root / entry.name))
    for name in ("proc", "sys", "dev", "run", "srv", "mnt", "etc", "var/lib", "var/log", "var/cache"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (root / name).mkdir()
        (root / name).chmod(0o1777)
    (root / "var/run").symlink_to("/run")
    _mount("-t", "proc", "proc", str(root / "proc"))
    _mount("-t", "sysfs", "sysfs", str(root / "sys"))
    _mount("-t", "tmpfs", "-o", "mode=755,size=256m", "run", str(root / "run"))
    _make_devices(root / "dev")
    for source, target in specification["binds"]:
        place = root / target.lstrip("/")
        if Path(source).is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch(exist_ok=True)
        _mount("--bind", source, str(place))
    boot_id = root / "run" / "boot_id"
    boot_id.write_text(specification["boot_id"] + "\n")
    _mount("--bind", str(boot_id), str(root / "proc/sys/kernel/random/boot_id"))
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "mnt"], check=True)
    os.chdir("/")
    subprocess.run(["umount", "--no-mtab", "--lazy", "/mnt"], check=True)


def _make_devices(directory: Path) -> None:
    _mount("-t", "tmpfs", "-o", "mode=755,size=1m", "dev", str(directory))
    for name, minor in _DEVICES.items():
        os.mknod(directory / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        (directory / name).chmod(0o666)
    os.mknod(directory / "tty", 0o666 | stat.S_IFCHR, os.makedev(5, 0))
    (directory / "pts").mkdir()
    _mount("-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620", "devpts", str(directory / "pts"))
    (directory / "ptmx").symlink_to("pts/ptmx")
    (directory / "shm").mkdir()
    _mount("-t", "tmpfs", "-o", "mode=1777", "shm", str(directory / "shm"))
    for name, target in {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}.items():
        (directory / name).symlink_to(target)


def configure_kernel(hostname: str) -> None:
    """Set the host's name, and what its network namespace needs."""
    subprocess.run(["hostname", hostname], check=True)
    for key, value in {"net/ipv4/ping_group_range": "0 2147483647", "net/ipv6/conf/all/disable_ipv6": "1"}.items():
        with contextlib.suppress(OSError):
            Path("/proc/sys", key).write_text(value)


class Service:
    """One service: how it is started, and what became of it."""

    def __init__(self, specification: dict[str, Any]) -> None:
        self.name: str = specification["name"]
        self.argv: list[str] = specification["argv"]
        self.restart_after_s: float = specification["restart_after_s"]
        self.pid: int | None = None
        self.start_at: float | None = time.monotonic()

    def start(self) -> None:
        """Start it as a child of this process, in a session of its own, its output in its log."""
        self.start_at = None
        log = os.open(_LOGS / f"{self.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        files = [(os.POSIX_SPAWN_DUP2, nothing, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        try:
            self.pid = os.posix_spawnp(
                self.argv[0],
                self.argv,
                dict(os.environ),
                file_actions=files,
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE],
            )
            (_RUN / f"{self.name}.pid").write_text(f"{self.pid}\n")
        except OSError as error:
            _say(f"{self.name} could not be started: {error}")
            self.start_at = time.monotonic() + max(1.0, self.restart_after_s)
        finally:
            os.close(log)
            os.close(nothing)

    def ended(self, status: int) -> None:
        """Note its end, and when it is to be started again."""
        code = os.waitstatus_to_exitcode(status)
        _say(f"{self.name} (pid {self.pid}) ended: {code if code >= 0 else signal.Signals(-code).name}")
        self.pid = None
        (_RUN / f"{self.name}.pid").unlink(missing_ok=True)
        asked = _RUN / f"{self.name}.restart"
        self.start_at = time.monotonic() + (0.0 if asked.exists() else self.restart_after_s)
        asked.unlink(missing_ok=True)

    def is_due(self) -> bool:
        return self.start_at is not None and self.start_at <= time.monotonic() and not (_RUN / f"{self.name}.hold").exists()


class Supervisor:
    """The turn of PID 1: start what is due, wait for a signal, reap."""

    def __init__(self, services: list[Service], going_down: list[str]) -> None:
        self._services = services
        self._going_down = going_down

    def run(self) -> None:
        (_RUN / "booted").touch()
        while True:
            for service in self._services:
                if service.is_due():
                    service.start()
            how = _GOES_DOWN.get(self._wait(self._patience()))
            if how is not None:
                self._shut_down(how)
                return

    def _patience(self) -> float:
        times = [service.start_at for service in self._services if service.start_at is not None]
        # A service on hold is looked at once in a while; nothing tells when its file is removed.
        return min(max(min(times) - time.monotonic(), 0.1), 60.0) if times else 60.0

    def _wait(self, timeout_s: float) -> int:
        """Wait for a signal, and reap every child that has ended. The signal's number, 0 for none."""
        signalled = signal.sigtimedwait(_WATCHED, timeout_s)
        by_pid = {service.pid: service for service in self._services if service.pid is not None}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid in by_pid:
                by_pid[pid].ended(status)
        return signalled.si_signo if signalled is not None else 0

    def _ask(self, how: str) -> None:
        """What outlast-shutdown.service does. PID 1 reaps meanwhile: a guest that has migrated ends."""
        deadline = time.monotonic() + _GOING_DOWN_S
        asked = subprocess.Popen([*self._going_down, how])
        while asked.poll() is None and time.monotonic() < deadline:
            self._wait(0.1)

    def _shut_down(self, how: str) -> None:
        """Ask Outlast, switch the guests off in order, then end the services, the last started first."""
        _say(f"orderly shutdown ({how.lstrip('-')})")
        if self._going_down:
            self._ask(how)
        # What systemd does at this moment, and how a program can see that its host goes down.
        Path("/run/nologin").write_text("System is going down.\n")
        for service in self._services:
            (_RUN / f"{service.name}.hold").touch()
        deadline = time.monotonic() + _GUESTS_SHUTDOWN_S
        with contextlib.suppress(subprocess.TimeoutExpired):
            script = "for vm in $(virsh list --name); do virsh shutdown $vm; done"
            subprocess.run(["sh", "-c", script], check=False, timeout=10)
        while time.monotonic() < deadline and _guests_run():
            self._wait(0.1)
        for service in reversed(self._services):
            if service.pid is None:
                continue
            os.kill(service.pid, signal.SIGTERM)
            deadline = time.monotonic() + _SERVICE_SHUTDOWN_S
            while service.pid is not None and time.monotonic() < deadline:
                self._wait(0.05)


def _guests_run() -> bool:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "comm").read_text().startswith("qemu-system"):
                    return True
    return False


def _wait_for_power() -> None:
    """Tell that the root is built, and wait until the services may start.

    Storage that hangs would hang the bind mounts too, so its faults are put back only now; the services never see it
    well.
    """
    (_RUN / "built").touch()
    while not (_RUN / "go").exists():
        time.sleep(0.005)


def main() -> None:
    """Become the host that the specification describes. Returns when it was shut down in order."""
    specification = json.loads(Path(sys.argv[1]).read_text())
    # Blocked for good, and only waited for: no handler runs at a bad time. SIGTERM and SIGINT cannot reach PID 1 by
    # default.
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    build_root(specification)
    configure_kernel(specification["hostname"])
    _RUN.mkdir()
    _LOGS.mkdir(parents=True, exist_ok=True)
    _wait_for_power()
    for command in specification["setup"]:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(command, check=False, timeout=_SETUP_S)
    Supervisor([Service(each) for each in specification["services"]], specification["going_down"]).run()


if __name__ == "__main__":
    main()
