"""One lab host: how it gets power, loses it, and runs commands.

A host is a PID namespace, with mount, UTS, IPC and network namespaces of its own, and init.py as its PID 1. To kill that
process from outside is to pull the plug: the kernel kills everything in the namespace at once. What the dying kernel
would still send is dropped before (`NetworkFaults.dead`), and what the host had under way at its datastores is dropped
too.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from outlast.lab import fence_agent
from outlast.lab.errors import LabError
from outlast.lab.layout import MARKER, Layout, datastore_path
from outlast.lab.network import NAMESPACE_DIRECTORY
from outlast.lab.processes import Process, child_of, identify, is_alive, send_signal, wait_gone

BOOT_TIMEOUT_S = 20.0
DEATH_TIMEOUT_S = 10.0
LIBVIRT_SOCKET = Path("/run/libvirt/libvirt-sock")


class Service(msgspec.Struct, frozen=True):
    """A service of a host: its name, its command, and after how many seconds it is started again when it has died."""

    name: str
    argv: list[str]
    restart_after_s: float


class Specification(msgspec.Struct):
    """What init.py makes a host of.

    `binds`: pairs of a path outside and the path inside the host. `setup`: commands that run before the services start.
    `going_down`: the one that is asked before an orderly shutdown begins.
    """

    hostname: str
    root: str
    boot_id: str
    binds: list[tuple[str, str]]
    services: list[Service]
    setup: list[list[str]] = []
    going_down: list[str] = []


def environment(layout: Layout) -> dict[str, str]:
    """The environment of everything that belongs to a lab: little, and never what the caller's happens to hold."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "dumb"),
        "PYTHONPYCACHEPREFIX": str(layout.cache / "pycache"),
        MARKER: str(layout.root),
    }


def specify(
    layout: Layout, host: str, services: list[Service], datastores: dict[str, Path], setup: list[list[str]]
) -> Specification:
    """Describe a host's next boot. `datastores`: name -> the directory outside that the host sees as /srv/<name>."""
    base = layout.host(host)
    binds = [
        (base / "etc", Path("/etc")),
        (base / "lib" / "libvirt", Path("/var/lib/libvirt")),
        (base / "lib" / "outlast", Path("/var/lib/outlast")),
        (base / "log", Path("/var/log")),
        (base / "guest-logs", Path("/var/log/outlast-guest")),
        (layout.cache / "libvirt", Path("/var/cache/libvirt")),
        (layout.cache, layout.cache),
        (layout.power, Path(fence_agent.SOCKET).parent),
        *((path, path) for path in _program_mounts()),
        *((source, datastore_path(name)) for name, source in datastores.items()),
    ]
    return Specification(
        hostname=host,
        root=str(base / "root"),
        boot_id=str(uuid.uuid4()),
        binds=[(str(source), str(target)) for source, target in binds],
        services=services,
        setup=setup,
    )


def _program_mounts() -> list[Path]:
    """Where this Python and this package lie, if a bind mount of the machine's top directories does not show it."""
    found: list[Path] = []
    for directory in (Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2]):
        place = directory.resolve()
        while not os.path.ismount(place) and place.parent != place:
            place = place.parent
        if len(place.parts) > 2 and place not in found:
            found.append(place)
        elif directory.resolve().parts[1] in {"tmp", "var", "srv", "mnt", "run"} and directory.resolve() not in found:
            found.append(directory.resolve())
    return found


def launch(layout: Layout, argv: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a process that belongs to the lab and outlives this program; what it says goes to `log`."""
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(layout), cwd="/", start_new_session=True
    )


def power_on(layout: Layout, specification: Specification, before_services: Callable[[], None]) -> Process:
    """Boot a host whose network namespace is ready; its PID 1, once its services are being started. Raises LabError.

    `before_services` is called when the host's root stands and none of its services runs.
    """
    host = specification.hostname
    file = layout.host(host) / "boot.json"
    file.write_bytes(msgspec.json.encode(specification))
    argv = ["nsenter", f"--net={NAMESPACE_DIRECTORY / layout.host_namespace(host)}"]
    argv += ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--propagation", "private"]
    argv += [sys.executable, "-m", "outlast.lab.init", str(file)]
    with layout.console(host).open("ab") as console:
        launcher = launch(layout, argv, console)
    init = child_of(launcher.pid)
    try:
        if init is None:
            raise _boot_failure(layout, host)
        _wait_for_file(layout, host, init, "built")
        before_services()
        Path(f"/proc/{init.pid}/root/run/lab/go").touch()
        _wait_for_file(layout, host, init, "booted")
    except BaseException:
        if init is not None:
            send_signal(init, signal.SIGKILL)
        raise
    return init


def _wait_for_file(layout: Layout, host: str, init: Process, name: str) -> None:
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    while not Path(f"/proc/{init.pid}/root/run/lab/{name}").exists():
        if not is_alive(init) or time.monotonic() > deadline:
            raise _boot_failure(layout, host)
        time.sleep(0.005)


def _boot_failure(layout: Layout, host: str) -> LabError:
    lines = layout.console(host).read_text(errors="replace").splitlines()[-3:]
    return LabError(f"{host} did not boot: {' | '.join(lines) or 'it said nothing'}; see {layout.console(host)}")


def kill(init: Process) -> list[Process]:
    """Take a host's power, without waiting. Give what it returns to `wait_dead`."""
    launcher = _parent(init)
    send_signal(init, signal.SIGKILL)
    return [init] if launcher is None else [init, launcher]


def wait_dead(host: str, killed: list[Process]) -> None:
    """Wait until nothing of a killed host runs; its PID 1 is the last to go. Raises LabError if something does not end."""
    if wait_gone(killed, DEATH_TIMEOUT_S):
        raise LabError(f"{host} still has a process that cannot end, in I/O that does not return; heal or fail its storage")


def _parent(process: Process) -> Process | None:
    try:
        return identify(int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1]))
    except OSError:
        return None


def enter(init: Process) -> list[str]:
    """The beginning of a command line that runs the rest inside a host."""
    return ["nsenter", "--target", str(init.pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]


def run_in(
    layout: Layout, init: Process, argv: list[str], *, stdin: str | None = None, timeout_s: float | None = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run a command inside a host and wait for it. Raises LabError if the host is off or the time is over."""
    if not is_alive(init):
        raise LabError("the host is off: `outlast lab power-on` it first")
    try:
        return subprocess.run(
            [*enter(init), *argv],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment(layout),
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(argv)} did not end within {timeout_s:g} s") from None


def service_pid(init: Process, service: str) -> int | None:
    """A service's process id inside its host, None if it does not run."""
    try:
        return int(Path(f"/proc/{init.pid}/root/run/lab/{service}.pid").read_text())
    except (OSError, ValueError):
        return None


def process_state(init: Process, pid: int) -> str:
    """The kernel's letter for the state of a process that is known by its id inside the host; empty if there is none."""
    try:
        return Path(f"/proc/{init.pid}/root/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


class Guest(NamedTuple):
    """A QEMU process: its VM, its id inside the host, and whether it is stopped (frozen).

    `incoming`: it was begun to receive a migration; `waits`: and its processors have done nothing yet.
    """

    name: str
    uuid: str
    pid: int
    stopped: bool
    incoming: bool = False
    waits: bool = False


AT_REST_NS = 20_000_000
"""What the threads of a guest's processors use until it executes for the first time."""


def _used_by_processors(process: Path) -> int:
    """Nanoseconds that the threads of a guest's processors have executed."""
    used = 0
    for thread in (process / "task").iterdir():
        try:
            if (thread / "comm").read_text().startswith("CPU "):
                used += int((thread / "schedstat").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            continue
    return used


def guests(init: Process) -> list[Guest]:
    """The QEMU processes of a host, read from its /proc: it asks nobody who may hang. Sorted by name."""
    found = []
    try:
        entries = list(Path(f"/proc/{init.pid}/root/proc").iterdir())
    except OSError:
        return []
    for entry in entries:
        if not entry.name.isdigit():
            continue
        try:
            if not (entry / "comm").read_text().startswith("qemu-system"):
                continue
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        name = re.match(r"guest=([^,]+)", _after(arguments, "-name"))
        state = process_state(init, int(entry.name))
        # libvirt also runs QEMU to ask what it can do; that one has no guest.
        if name is not None and state not in {"", "Z", "X"}:
            incoming = _after(arguments, "-incoming") == "defer"
            waits = incoming and _used_by_processors(entry) < AT_REST_NS
            found.append(Guest(name[1], _after(arguments, "-uuid"), int(entry.name), state in {"T", "t"}, incoming, waits))
    return sorted(found)


def _after(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1] if option in arguments[:-1] else ""


def signal_inside(layout: Layout, init: Process, pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that is known by its id inside the host."""
    done = run_in(layout, init, ["kill", f"-{number.value}", str(pid)])
    if done.returncode != 0:
        raise LabError(f"signal {number.name} was not sent: {done.stderr.strip()}")


def wait_libvirt(host: str, init: Process, timeout_s: float = 60.0) -> None:
    """Wait until a host's libvirtd listens. Raises LabError."""
    path = Path(f"/proc/{init.pid}/root{LIBVIRT_SOCKET}")
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        if not is_alive(init) or time.monotonic() > deadline:
            raise LabError(f"libvirtd of {host} did not start; see its /var/log/outlast/libvirtd.log")
        time.sleep(0.02)
