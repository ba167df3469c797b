"""The QEMU processes of this host: found without asking anybody who may hang, watched and signalled through pidfds.

Two ways lead to a guest. libvirt's pid files, `/run/libvirt/qemu/NAME.pid`, are written by root before the guest can run:
whatever they name is a guest if its command line has a `-uuid` and a `-name`, whatever its program is called and whoever it
runs as. And at the keeper's start every process of the host is looked at (safety rule 8), for guests without a pid file.
There anybody could claim anything: only a program that is called after QEMU or KVM counts, and only if all its user ids are
root's, ours, or those of the users that distributions have libvirt run QEMU as. When several processes still claim one VM,
all of them are guarded: they are frozen and killed together, and the VM has ended when the last of them has (process.py).
So a second claim can keep a VM from being released, which is a pause, but it can never hide the process that runs it.

The pidfd is opened before the check of the uuid, so that a pid used again cannot be taken for it. A command line lies in
its process's memory, and reading it waits for that process's lock, which may hang with its storage: so it is read last, and
a process that is not ours is not read again and again.
"""

import contextlib
import itertools
import json
import os
import re
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from outlast.model.ids import VmId, VmName

PID_FILES = Path("/run/libvirt/qemu")
LOOKS_BEFORE_FOREIGN = 3
"""A process may still be about to become QEMU: its pid file is there before it is."""
_PROC = Path("/proc")
_PASSWD = Path("/etc/passwd")
_CGROUPS = Path("/sys/fs/cgroup")
_PROGRAM = re.compile(r"qemu|kvm")
_QEMU_USERS = ("libvirt-qemu", "qemu")
_UUID = re.compile(r"[0-9A-Za-z-]{1,64}")
"""It becomes a file's name."""
_WORKS_ON = re.compile(r"vfio|vhost-(?:user|vdpa|scsi)")
"""Devices, and drivers of block nodes, whose I/O goes on while the QEMU process is stopped (safety rule 6)."""


class Qemu(msgspec.Struct, frozen=True):
    """One QEMU process as its command line describes it. `disks` are its file paths, in order.

    `incoming`: it was begun to wait for a migration (a saved memory is given as a file, and not deferred).
    """

    pid: int
    vm: VmId
    name: VmName
    disks: tuple[str, ...]
    stopped: bool
    unfreezable: bool = False
    incoming: bool = False


def inspect(pid: int) -> Qemu | None:
    """The QEMU guest with this pid; None if it is none, or gone."""
    try:
        state = _stat(pid)[0]
        arguments = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    vm = _after(arguments, "-uuid")
    name = re.match(r"(?:guest=)?([^,]+)", _after(arguments, "-name"))
    if state in "ZX" or not _UUID.fullmatch(vm) or name is None:
        return None
    options = list(itertools.pairwise(arguments))
    works_on = [value for option, value in options if option in ("-device", "-netdev", "-chardev")]
    works_on += [_driver_of(value) for option, value in options if option == "-blockdev"]
    unfreezable = any(_WORKS_ON.search(each) for each in works_on)
    incoming = _after(arguments, "-incoming") == "defer"
    return Qemu(pid, VmId(vm), VmName(name[1]), tuple(_disks(arguments)), state in "Tt", unfreezable, incoming)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on: what stands before it, a program's own name, may be anything."""
    return (_PROC / str(pid) / "stat").read_bytes().decode(errors="replace").rpartition(")")[2].split()


def _after(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1] if option in arguments[:-1] else ""


def _object(text: str) -> dict[str, Any]:
    """A JSON object; an empty one for anything else, since a command line may hold anything."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
        return found if isinstance(found, dict) else {}
    return {}


def _driver_of(blockdev: str) -> str:
    if blockdev.startswith("{"):
        return str(_object(blockdev).get("driver", ""))
    match = re.search(r"(?:^|,)driver=([^,]+)", blockdev)
    return match[1] if match is not None else ""


def _disks(arguments: list[str]) -> Iterator[str]:
    """The files of the guest's own disks, in the order of its devices; not the files behind them (backing chains)."""
    nodes: dict[str, dict[str, Any]] = {}
    for option, value in itertools.pairwise(arguments):
        if option == "-blockdev":
            node = _object(value)
            nodes[str(node.get("node-name"))] = node
        elif option == "-device":
            path = _file_of(nodes, _drive_of(value))
            if path is not None:
                yield path
        elif option == "-drive":
            match = re.search(r"(?:^|,)file=([^,]+)", value)
            if match is not None:
                yield match[1]


def _drive_of(device: str) -> str:
    if device.startswith("{"):
        return str(_object(device).get("drive", ""))
    match = re.search(r"(?:^|,)drive=([^,]+)", device)
    return match[1] if match is not None else ""


def _file_of(nodes: dict[str, dict[str, Any]], name: str) -> str | None:
    """Follow a block node down to its file: format, throttling and encryption stand on top of it."""
    for _ in range(16):
        node = nodes.get(name)
        if node is None:
            return None
        path = node.get("filename")
        if isinstance(path, str):
            return path
        name = str(node.get("file", ""))
    return None


def all_guests() -> list[Qemu]:
    """Every QEMU guest on this host that its program and its users make credible; see the top of this file."""
    users = _qemu_users()
    pids = [int(entry) for entry in os.listdir(_PROC) if entry.isdigit()]
    found = (inspect(pid) for pid in pids if _is_credible(pid, users))
    return [qemu for qemu in found if qemu is not None]


def every_guest() -> list[Qemu]:
    """Both ways together, each process once; what a pid file names comes first."""
    found = {qemu.pid: qemu for qemu in PidFiles().look(set())}
    for qemu in all_guests():
        found.setdefault(qemu.pid, qemu)
    return list(found.values())


def _is_credible(pid: int, users: set[int]) -> bool:
    try:
        comm = (_PROC / str(pid) / "comm").read_bytes().decode(errors="replace")
        if not _PROGRAM.search(comm) and not _PROGRAM.search(os.path.basename(_program(pid))):
            return False
        status = (_PROC / str(pid) / "status").read_bytes().decode(errors="replace")
    except OSError:
        return False
    # All four (real, effective, saved, file system): a program that is root by its mode can be started by anybody.
    ids = re.search(r"^Uid:\s+(.*)$", status, re.MULTILINE)
    return ids is not None and {int(each) for each in ids[1].split()} <= users


def _program(pid: int) -> str:
    try:
        return os.readlink(_PROC / str(pid) / "exe")
    except OSError:
        return ""


def _qemu_users() -> set[int]:
    """From the file itself: the name service may ask somebody who hangs."""
    users = {0, os.geteuid()}
    with contextlib.suppress(OSError):
        for line in _PASSWD.read_bytes().decode(errors="replace").splitlines():
            name, *rest = line.split(":")
            if name in _QEMU_USERS and len(rest) > 1 and rest[1].isdigit():
                users.add(int(rest[1]))
    return users


def by_pid_file(name: str) -> Qemu | None:
    """The guest whose pid file libvirt has written, if it has."""
    pid = _pid_in(name)
    return inspect(pid) if pid is not None else None


def pid_file_names_a_process(name: str) -> bool:
    """Whether the pid file names any process that lives: a guest, or what may be about to become it."""
    pid = _pid_in(name)
    try:
        return pid is not None and _stat(pid)[0] not in "ZX"
    except (OSError, IndexError):
        return False


def _pid_in(name: str) -> int | None:
    try:
        return int((PID_FILES / f"{name}.pid").read_text())
    except (OSError, ValueError):
        return None


class PidFiles:
    """Looks at all pid files again and again, and at what is not ours only as often as it takes to be sure of that."""

    def __init__(self) -> None:
        self._not_ours: dict[str, tuple[tuple[int, str, str], int]] = {}

    def look(self, guarded: set[int]) -> list[Qemu]:
        """The guests in pid files whose pid is not `guarded` and not known to be foreign."""
        found: list[Qemu] = []
        names = _pid_file_names()
        self._not_ours = {name: seen for name, seen in self._not_ours.items() if name in names}
        for name in names:
            pid = _pid_in(name)
            if pid is None or pid in guarded:
                continue
            # A pid that is used again starts at another time, and one that becomes QEMU changes its program.
            try:
                key = (pid, _stat(pid)[19], _program(pid))
            except (OSError, IndexError):
                continue
            before, looks = self._not_ours.get(name, (key, 0))
            looks = looks if before == key else 0
            if looks >= LOOKS_BEFORE_FOREIGN:
                continue
            self._not_ours[name] = (key, looks + 1)
            qemu = inspect(pid)
            if qemu is not None:
                found.append(qemu)
        return found


def _pid_file_names() -> list[str]:
    try:
        return [name.removesuffix(".pid") for name in os.listdir(PID_FILES) if name.endswith(".pid")]
    except OSError:
        return []


class WatchedProcess:
    """One guest's process: frozen, thawed and killed through its pidfd, whose readiness is its exit."""

    def __init__(self, qemu: Qemu) -> None:
        """Raises ProcessLookupError if it is gone, or not the guest that was seen."""
        self.pidfd = os.pidfd_open(qemu.pid)
        self.qemu = qemu
        self._freezer: Path | None = None
        again = inspect(qemu.pid)
        if again is None or again.vm != qemu.vm:
            os.close(self.pidfd)
            raise ProcessLookupError(qemu.pid)
        self._freezer = _freezer_of(qemu.pid)

    def freeze(self) -> bool:
        """SIGSTOP, then the cgroup's freezer where there is one. False if it could not be stopped and still runs."""
        stopped = self._signal(signal.SIGSTOP)
        self._write_freezer("1")
        return stopped

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._write_freezer("0")
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; it needs no thaw first. A frozen cgroup is thawed after it, so that the process can die."""
        self._signal(signal.SIGKILL)
        self._write_freezer("0")

    def is_stopped(self) -> bool:
        """Whether it is stopped now, whoever did it."""
        with contextlib.suppress(OSError, IndexError):
            if _stat(self.qemu.pid)[0] in "Tt":
                return True
        with contextlib.suppress(OSError):
            return self._freezer is not None and self._freezer.read_text().strip() == "1"
        return False

    def close(self) -> None:
        """Watch it no longer."""
        os.close(self.pidfd)

    def has_exited(self) -> bool:
        """Whether its pidfd reports the exit now."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def _signal(self, number: signal.Signals) -> bool:
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return True

    def _write_freezer(self, value: str) -> None:
        if self._freezer is not None:
            with contextlib.suppress(OSError):
                self._freezer.write_text(value)


def _freezer_of(pid: int) -> Path | None:
    """The freezer of the machine's scope that holds this process: cgroup v2, as systemd-machined makes it."""
    try:
        lines = (_PROC / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::/machine.slice/"):
            parts = line.removeprefix("0::/").split("/")
            freezer = _CGROUPS.joinpath(*parts[:2], "cgroup.freeze")
            return freezer if freezer.exists() else None
    return None


def lock_into_memory() -> list[str]:
    """Make this process real-time and keep it in memory; what the system refuses, as sentences."""
    import ctypes

    refused: list[str] = []
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(10))
    except OSError as error:
        refused.append(f"real-time scheduling: {error.strerror}")
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(1) != 0:  # MCL_CURRENT: what it allocates later is little, and locking it too costs megabytes
        refused.append(f"locking memory: {os.strerror(ctypes.get_errno())}")
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-1000")
    return refused
