"""A datastore that can be made to fail: a FUSE passthrough to a backing directory, with faults on command.

    python -m outlast.lab.faultfs --backing DIR --mount DIR --control SOCKET

One process for each host and datastore, in the foreground. Nothing is cached: direct I/O, no attribute or entry timeouts.
Commands come over a UNIX socket, one JSON line in, one out, and are answered whatever hangs:

    {"do": "hang"}          every request from now on waits, unexecuted, until another command
    {"do": "fail"}          every request ends with EIO at once; those that hang end so too, and are never executed
    {"do": "slow", "ms": 5} what reads or writes data or changes names takes that much longer; what looks names up does not:
                            each path component is looked up anew here, which a client's attribute cache spares it
    {"do": "drop-writes"}   writes are confirmed and lost
    {"do": "full"}          what needs space ends with ENOSPC; overwriting in place and link() of what exists work
    {"do": "read-only"}     what changes anything ends with EROFS
    {"do": "heal"}          all is well again
    {"do": "status"}        the mode, and how many requests were seen and hang

What hung is executed at the heal, except writes: those end with EINTR, which programs answer by writing again. So storage
whose in-flight writes do not outlive a cut (`in_flight_bound`) is modelled: a process that runs repeats its write and
notices nothing, and one that is stopped or killed never does. File locks stay on the host that takes them: if they were
passed on, QEMU's image locks would hide that a virtual machine runs twice.
"""

import argparse
import contextlib
import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODES = ("heal", "hang", "fail", "slow", "drop-writes", "full", "read-only")
_THREADS = 128
_ALLOCATES = {"create", "mkdir", "symlink", "mknod", "extend"}
_CACHED = {"getattr", "access", "open", "readlink", "statfs", "fsync"}
"""What costs a network file system's client no round trip of its own, as a rule; fsync comes after each O_DSYNC write."""
_READS = {"getattr", "open", "read", "readdir", "readlink", "statfs", "access", "release", "flush", "fsync"}


class Faults:
    """What is wrong with the storage now, and who waits for it to end."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._mode = "heal"
        self._delay_s = 0.0
        self._requests = 0
        self._waiting = 0

    def command(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do one command; the answer has "ok", and "problem" if it was not understood."""
        do = order.get("do")
        with self._changed:
            if do in MODES:
                self._mode = str(do)
                self._delay_s = float(order.get("ms", 0)) / 1000 if do == "slow" else 0.0
                self._changed.notify_all()
            elif do != "status":
                return {"ok": False, "problem": f"{do!r} is not a command; commands are {', '.join(MODES)}, status"}
            return {"ok": True, "mode": self._mode, "requests": self._requests, "waiting": self._waiting}

    def pass_through(self, operation: str, *, extends: bool = False) -> bool:
        """Wait or raise as the mode says; False if a write is to be confirmed and lost."""
        with self._changed:
            self._requests += 1
            hung = self._mode == "hang"
            if hung:
                self._waiting += 1
                try:
                    while self._mode == "hang":
                        self._changed.wait()
                finally:
                    self._waiting -= 1
            mode, delay_s = self._mode, self._delay_s
        if mode == "fail":
            raise OSError(errno.EIO, "the storage is lost")
        if hung and operation == "write":
            raise OSError(errno.EINTR, "the write was in flight when the storage hung")
        if delay_s and operation not in _CACHED:
            time.sleep(delay_s)
        if mode == "full" and ("extend" if extends else operation) in _ALLOCATES:
            raise OSError(errno.ENOSPC, "the storage is full")
        if mode == "read-only" and operation not in _READS:
            raise OSError(errno.EROFS, "the storage is read-only")
        return not (mode == "drop-writes" and operation == "write")


class Passthrough:
    """The operations that mfusepy calls; paths begin with "/"."""

    use_ns = True

    def __init__(self, backing: Path, faults: Faults) -> None:
        self._backing = str(backing)
        self._faults = faults

    def _real(self, path: str) -> str:
        return self._backing + path

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """stat(2); also the device, so that datastores tell their storage apart."""
        self._faults.pass_through("getattr")
        found = os.fstat(fh) if fh else os.lstat(self._real(path))
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino", "st_dev", "st_blocks")
        result = {name: int(getattr(found, name)) for name in names}
        for name in ("atime", "mtime", "ctime"):
            result[f"st_{name}"] = int(getattr(found, f"st_{name}_ns"))
        return result

    def access(self, path: str, amode: int) -> int:
        self._faults.pass_through("access")
        if not os.access(self._real(path), amode):
            raise OSError(errno.EACCES, path)
        return 0

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        """Names with their inodes: readers skip an entry whose inode is 0."""
        self._faults.pass_through("readdir")
        own = os.stat(self._real(path)).st_ino
        with os.scandir(self._real(path)) as entries:
            found = [(entry.name, entry.inode()) for entry in entries]
        return [(name, {"st_ino": inode}, 0) for name, inode in [(".", own), ("..", own), *found]]

    def readlink(self, path: str) -> str:
        self._faults.pass_through("readlink")
        return os.readlink(self._real(path))

    def mkdir(self, path: str, mode: int) -> int:
        self._faults.pass_through("mkdir")
        os.mkdir(self._real(path), mode)
        return 0

    def rmdir(self, path: str) -> int:
        self._faults.pass_through("rmdir")
        os.rmdir(self._real(path))
        return 0

    def unlink(self, path: str) -> int:
        self._faults.pass_through("unlink")
        os.unlink(self._real(path))
        return 0

    def symlink(self, target: str, source: str) -> int:
        self._faults.pass_through("symlink")
        os.symlink(source, self._real(target))
        return 0

    def link(self, target: str, source: str) -> int:
        self._faults.pass_through("link")
        os.link(self._real(source), self._real(target))
        return 0

    def rename(self, old: str, new: str) -> int:
        self._faults.pass_through("rename")
        os.rename(self._real(old), self._real(new))
        return 0

    def chmod(self, path: str, mode: int) -> int:
        self._faults.pass_through("chmod")
        os.chmod(self._real(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        self._faults.pass_through("chown")
        os.chown(self._real(path), uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        self._faults.pass_through("utimens")
        os.utime(self._real(path), ns=times if times is not None else (time.time_ns(), time.time_ns()))
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._faults.pass_through("truncate")
        os.truncate(self._real(path), length)
        return 0

    def fallocate(self, path: str, mode: int, offset: int, size: int, fh: int) -> int:
        self._faults.pass_through("create")
        if mode:
            raise OSError(errno.EOPNOTSUPP, path)
        os.posix_fallocate(fh, offset, size)
        return 0

    def create(self, path: str, mode: int, flags: int = 0) -> int:
        exists = os.path.lexists(self._real(path))
        self._faults.pass_through("open" if exists else "create")
        # mfusepy's simple handles do not carry the flags of a create; a second creator is told by O_EXCL in the kernel.
        return os.open(self._real(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)

    def open(self, path: str, flags: int) -> int:
        self._faults.pass_through("open" if flags & os.O_ACCMODE == os.O_RDONLY else "open-for-writing")
        # The kernel sends offsets; appending or truncating would be done twice. O_DIRECT is the client's business.
        wanted = flags & ~(os.O_DIRECT | os.O_APPEND | os.O_TRUNC | os.O_NOFOLLOW)
        return os.open(self._real(path), wanted | os.O_CLOEXEC)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._faults.pass_through("read")
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        if self._faults.pass_through("write", extends=offset + len(data) > os.fstat(fh).st_size):
            return os.pwrite(fh, data, offset)
        return len(data)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        # The page cache of this machine outlives every lab host, so what is written is as durable as it needs to be.
        self._faults.pass_through("fsync")
        return 0

    def flush(self, path: str, fh: int) -> int:
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        self._faults.pass_through("statfs")
        found = os.statvfs(self._backing)
        names = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail", "f_namemax")
        return {name: int(getattr(found, name)) for name in names}


def serve_commands(path: Path, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer commands for ever, in a thread of their own."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener.bind(str(path))
    listener.listen(16)

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError, ValueError):
                connection.settimeout(2.0)
                line = connection.makefile("rb").readline()
                connection.sendall(json.dumps(answer(json.loads(line))).encode() + b"\n")

    threading.Thread(target=serve, name="commands", daemon=True).start()


def control(path: Path, command: dict[str, object], timeout_s: float = 2.0) -> dict[str, Any]:
    """Send one command to a running file system. Raises OSError or ValueError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
        connection.sendall(json.dumps(command).encode() + b"\n")
        answer: dict[str, Any] = json.loads(connection.makefile("rb").readline())
    if not answer.get("ok"):
        raise ValueError(str(answer.get("problem")))
    return answer


def main() -> None:
    """Mount, and serve until SIGTERM (libfuse unmounts) or the unmount; SIGKILL aborts what hangs."""
    parser = argparse.ArgumentParser(description="A FUSE passthrough that fails on command.")
    for name in ("backing", "mount", "control"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        import mfusepy
    except (ImportError, OSError) as error:
        sys.exit(f"the lab's file system needs mfusepy and libfuse3 ({error}): apt-get install fuse3")
    faults = Faults()
    serve_commands(arguments.control, faults.command)

    operations = type("Operations", (Passthrough, mfusepy.Operations), {})(arguments.backing, faults)
    mfusepy.FUSE(
        operations,
        str(arguments.mount),
        foreground=True,
        fsname=str(arguments.backing),
        subtype="outlast-lab",
        allow_other=True,
        direct_io=True,
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
        use_ino=True,
        hard_remove=True,
        max_threads=_THREADS,
        max_idle_threads=8,
    )


if __name__ == "__main__":
    main()
