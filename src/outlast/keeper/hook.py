"""libvirt's hook, the gate of safety rule 7: asks the keeper before any start, whoever asked for it.

libvirt runs it as `hooks/qemu.d/outlast NAME OPERATION SUB-OPERATION EXTRA` with the domain's XML on standard input. A
non-zero exit refuses the operation, and what stands on standard error is shown to whoever asked. It uses the standard
library alone and is started with -I -S, because libvirt waits for it; it must never call back into libvirt.

    prepare begin          asks; refuses with the keeper's sentence
    start begin            asks again, a moment before the process: libvirt may have hung for long in between
    release end            tells the keeper that libvirt has let go of the domain
    migrate begin          asks whether a copy is expected: who migrates by `outlast vm migrate` has it expected first
    restore begin          refused for domains with a disk on a datastore: a saved image's epoch is not followed yet
    anything else          passes

It fails closed: when the keeper cannot be asked, a domain with a disk on a datastore of the fault domain may not start.
Any other domain passes without asking anybody. Where the datastores are stands in /etc/outlast/hook.json, written by
`outlast hook install`. Links on the way to a disk are followed one by one, up to a datastore's root: what lies there or
below is compared as text alone, since touching dead storage would hang.
"""

import json
import os
import posixpath
import re
import socket
import sys
import time
from typing import Any
from xml.etree import ElementTree

SETTINGS = "/etc/outlast/hook.json"
NAMESPACE = "https://outlast.dev/ns/vm/1"
ANSWER_TIMEOUT_S = 10.0
TOLD_TIMEOUT_S = 2.0
"""For what is only told: the keeper sees the end of a process itself."""
CONNECT_PATIENCE_S = 3.0
MOST_STEPS = 400
"""Of following links: as many as a path may have parts, and 40 links on the way."""
MOUNTS = "/proc/self/mountinfo"
POOLS = ("/etc/libvirt/storage", "/run/libvirt/storage")
"""Where libvirt keeps the definitions of storage pools, and those that it runs without one."""
ASKED = {("prepare", "begin"), ("start", "begin"), ("release", "end"), ("restore", "begin"), ("migrate", "begin")}


class RefusedError(Exception):
    """The sentence for whoever asked."""


def load_settings(path: str = SETTINGS) -> dict[str, Any]:
    """{"datastores": [paths], "socket": path, "run_dir": path}. Raises RefusedError: without it nothing can be judged."""
    try:
        with open(path) as file:
            settings = json.load(file)
        return {"datastores": [str(d) for d in settings["datastores"]], "socket": str(settings["socket"]),
                "run_dir": str(settings["run_dir"])}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"{path} cannot be read ({error}): run `outlast hook install`") from None


def guarded_disks(domain: ElementTree.Element, datastores: list[str], *, written: bool = False) -> list[str]:
    """The domain's disks that lie on a datastore, in order, as the datastores' own paths. Raises RefusedError.

    `written`: only those that it means to write to alone. What is shared, others write to by their operator's wish.
    """
    mounted = _mount_points()
    roots = {root: root for root in map(posixpath.normpath, datastores)}
    roots |= {_real_root(root, mounted): root for root in list(roots)}
    found: list[str] = []
    for disk in domain.findall("devices/disk"):
        source = disk.find("source")
        others_too = disk.find("readonly") is not None or disk.find("shareable") is not None
        if source is None or (written and others_too):
            continue
        path = source.get("file") or source.get("dev") or source.get("dir")
        if source.get("pool") and source.get("volume"):
            path = _volume_path(str(source.get("pool")), str(source.get("volume")))
        if not path:
            continue
        for candidate in (posixpath.normpath(path), resolved(path, set(roots))):
            inside = next((root for root in roots if candidate.startswith(root + "/")), None)
            if inside is not None:
                found.append(roots[inside] + candidate.removeprefix(inside))
                break
    return found


def resolved(path: str, stops: set[str]) -> str:
    """The path with its links followed, as far as the first directory in `stops`, which is not touched itself."""
    done, rest = "", path.split("/")
    for _ in range(MOST_STEPS):
        if not rest:
            break
        name, *rest = rest
        here = f"{done}/{name}"
        if name in ("", "."):
            continue
        if name == "..":
            done = posixpath.dirname(done).rstrip("/")
        elif here in stops:
            whole = posixpath.normpath(posixpath.join(here, *rest))
            if whole == here or whole.startswith(here + "/"):
                return whole
            done, rest = "", whole.split("/")  # It leads out of there again.
        else:
            try:
                target = os.readlink(here)
            except OSError:
                done = here  # No link, or nothing at all: then nothing is behind it.
                continue
            done = "" if target.startswith("/") else done
            rest = [*target.split("/"), *rest]
    return posixpath.join(done or "/", *rest)


def _real_root(root: str, mounted: set[str]) -> str:
    """Where a datastore's root really is. Storage may hang where it is mounted, so a mount point is not touched."""
    for _ in range(MOST_STEPS):
        parent, name = posixpath.split(root)
        root = posixpath.join(resolved(parent, set()), name)
        if root in mounted:
            break
        try:
            root = posixpath.normpath(posixpath.join(posixpath.dirname(root), os.readlink(root)))
        except OSError:
            break
    return root


def _mount_points() -> set[str]:
    try:
        with open(MOUNTS, errors="surrogateescape") as file:
            places = [line.split(" ")[4] for line in file]
    except (OSError, IndexError) as error:
        raise RefusedError(f"{MOUNTS} cannot be read ({error}), so nobody can tell which storage may hang") from None
    return {re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), place) for place in places}


def _volume_path(pool: str, volume: str) -> str:
    """The file of a volume in one of libvirt's storage pools; empty if that pool is no directory. Raises RefusedError."""
    why = "there is no such pool"
    for directory in POOLS:
        try:
            with open(f"{directory}/{posixpath.basename(pool)}.xml", "rb") as file:
                target = ElementTree.fromstring(file.read()).findtext(".//target/path", "")  # noqa: S314 - libvirt wrote it
            return posixpath.join(target, volume) if target else ""
        except FileNotFoundError:
            continue
        except (OSError, ElementTree.ParseError) as error:
            why = str(error)
    raise RefusedError(
        f"its volume {volume} in the storage pool {pool} cannot be found ({why}), so nobody can tell whether it lies on a "
        "datastore; define the pool (virsh pool-define), or name the file itself in the definition"
    )


def protected(domain: ElementTree.Element) -> bool:
    """What the domain's metadata says; protected unless it says no."""
    element = domain.find(f"metadata/{{{NAMESPACE}}}vm")
    return element is None or element.get("protected") != "no"


def unfreezable(domain: ElementTree.Element) -> bool:
    """Whether it has a device that works on while its process is stopped (safety rule 6): vfio, vhost-user, vdpa."""
    devices = domain.find("devices")
    if devices is None:
        return False
    kinds = {(each.tag, each.get("type", "")) for each in devices}
    outside = {("interface", kind) for kind in ("hostdev", "vhostuser", "vdpa")}
    outside |= {("disk", kind) for kind in ("vhostuser", "vhostvdpa")}
    drivers = {driver.get("type", "") for driver in devices.iterfind("filesystem/driver")}
    return devices.find("hostdev") is not None or bool(kinds & outside) or "virtiofs" in drivers


def ask(path: str, request: dict[str, Any], patience_s: float) -> dict[str, Any]:
    """The keeper's reply. Raises OSError or ValueError when it cannot be had in time."""
    deadline = time.monotonic() + patience_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience_s)
        _connect(connection, path)
        connection.sendall(json.dumps(request).encode() + b"\n")
        received = b""
        while time.monotonic() < deadline:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            data = connection.recv(1 << 16)
            if not data:
                raise ConnectionResetError("the keeper ended the connection")
            *lines, received = (received + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if message.get("type") == "reply":
                    return dict(message)
    raise TimeoutError("no answer in time")


def _connect(connection: socket.socket, path: str) -> None:
    """Connect; a keeper that is just being restarted is waited for."""
    deadline = time.monotonic() + CONNECT_PATIENCE_S
    while True:
        try:
            connection.connect(path)
            return
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.1)


def judge(operation: str, name: str, xml: str, settings: dict[str, Any]) -> None:
    """Raises RefusedError if the operation may not go on."""
    try:
        domain = ElementTree.fromstring(xml)  # noqa: S314 - it comes from libvirt, which has parsed it
    except ElementTree.ParseError as error:
        raise RefusedError(f"libvirt gave a definition of {name} that cannot be read ({error})") from None
    try:
        disks = guarded_disks(domain, settings["datastores"])
    except RefusedError as refusal:
        raise RefusedError(f"{name} may not start: {refusal}") from None
    if not disks:
        return
    if operation == "restore":
        raise RefusedError(
            f"{name} may not be restored here: Outlast does not follow its ownership through that yet; "
            f"drop its saved memory (`virsh managedsave-remove {name}`) and start it anew"
        )
    uuid = domain.findtext("uuid", "")
    kind = {"release": "ended", "start": "launch", "migrate": "incoming"}.get(operation, "gate")
    request: dict[str, Any] = {"type": kind, "request": 1, "vm": uuid}
    if kind == "gate":
        request |= {"name": name, "disks": disks, "protected": protected(domain), "unfreezable": unfreezable(domain)}
        request["writes"] = guarded_disks(domain, settings["datastores"], written=True)
    try:
        reply = ask(settings["socket"], request, TOLD_TIMEOUT_S if operation == "release" else ANSWER_TIMEOUT_S)
    except (OSError, ValueError) as error:
        if operation == "release":
            return  # The keeper sees the exit itself.
        raise RefusedError(
            f"{name} may not start: the keeper of this host cannot be asked ({error}), and without it nobody could stop "
            f"the VM if this host lost its storage; see `systemctl status outlast-keeper`"
        ) from None
    if not reply.get("allowed"):
        raise RefusedError(str(reply.get("sentence") or "the keeper refused"))


def main(arguments: list[str]) -> int:
    """The exit code for libvirt."""
    name, operation, sub = (*arguments, "", "", "")[:3]
    if (operation, sub) not in ASKED:
        return 0
    xml = sys.stdin.read()
    try:
        settings = load_settings()
        _leave_mark(settings["run_dir"], operation, name)
        judge(operation, name, xml, settings)
    except RefusedError as refusal:
        sys.stderr.write(f"outlast: {refusal}\n")
        return 0 if operation == "release" else 1
    return 0


def _leave_mark(run_dir: str, operation: str, name: str) -> None:
    """For `outlast hook status`: that libvirt really calls us, and when it last did."""
    try:
        os.makedirs(run_dir, exist_ok=True)
        with open(f"{run_dir}/hook-called", "w") as file:
            json.dump({"operation": operation, "name": name, "at": int(time.time())}, file)
    except OSError:
        pass  # A mark that cannot be left is no reason to refuse a start.


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
