"""The QEMU processes of this host: found without asking anybody who may hang, watched and signalled through pidfds.

At the keeper's start every process of the host is looked at (safety rule 8). Later ones are found by the pid files that
libvirt writes before the guest can run: `/run/libvirt/qemu/NAME.pid`. Each is checked by its `-uuid` argument; the pidfd
is opened before the check, so that a pid used again cannot be taken for it.
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
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


class Qemu(msgspec.Struct, frozen=True):
    """One QEMU process as its command line describes it. `disks` are its file paths, in order."""

    pid: int
    vm: VmId
    name: VmName
    disks: tuple[str, ...]
    stopped: bool
    unfreezable: bool = False


_WORKS_ON = re.compile(r"vfio|vhost-(?:user|vdpa|scsi)")
"""Devices whose I/O goes on while the QEMU process is stopped (safety rule 6)."""


def inspect(pid: int) -> Qemu | None:
    """The QEMU guest with this pid; None if it is none, or gone."""
    try:
        arguments = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
        state = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None
    if "qemu" not in os.path.basename(arguments[0]) or state in "ZX":
        return None
    vm = _after(arguments, "-uuid")
    name = re.match(r"(?:guest=)?([^,]+)", _after(arguments, "-name"))
    if not vm or name is None:
        return None
    devices = [value for option, value in itertools.pairwise(arguments) if option in ("-device", "-netdev", "-chardev")]
    unfreezable = any(_WORKS_ON.search(device) for device in devices)
    return Qemu(pid, VmId(vm), VmName(name[1]), tuple(_disks(arguments)), state in "Tt", unfreezable)


def _after(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1] if option in arguments[:-1] else ""


def _disks(arguments: list[str]) -> Iterator[str]:
    """The files of the guest's own disks, in the order of its devices; not the files behind them (backing chains)."""
    nodes: dict[str, dict[str, Any]] = {}
    for option, value in itertools.pairwise(arguments):
        if option == "-blockdev":
            with contextlib.suppress(ValueError):
                node = json.loads(value)
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
        with contextlib.suppress(ValueError):
            return str(json.loads(device).get("drive", ""))
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
    """Every QEMU guest on this host."""
    found = (inspect(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdigit())
    return [qemu for qemu in found if qemu is not None]


def by_pid_file(name: str) -> Qemu | None:
    """The guest whose pid file libvirt has written, if it has."""
    try:
        pid = int((PID_FILES / f"{name}.pid").read_text())
    except (OSError, ValueError):
        return None
    return inspect(pid)


def pid_file_names() -> list[str]:
    """The names of the guests that have a pid file now."""
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
        now = inspect(self.qemu.pid)
        if now is not None and now.stopped:
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
