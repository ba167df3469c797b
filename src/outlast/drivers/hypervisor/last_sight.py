"""What a guest that hangs shows, kept before it is reset: its screen as an image, and the end of its console's log.

    <state directory>/guests/<VM>-<UTC time>.png|ppm   as QEMU draws it, if it has a screen
    <state directory>/guests/<VM>-<UTC time>.log       if a serial port or console of it is written to a file

Old ones make room: at most `MOST_FILES` files of together `MOST_BYTES`. Whatever fails is told in words, and holds up
nothing: a full disk, a guest without a screen, a log that is gone.
"""

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

from outlast.drivers.hypervisor.domains import parse

MOST_FILES = 40
MOST_BYTES = 256 << 20
LARGEST_IMAGE = 32 << 20
TAIL = 64 << 10
_SUFFIXES = {"image/png": "png", "image/x-portable-pixmap": "ppm"}


def keep(connection: Any, vm: str, directory: Path) -> str:
    """Keep what there is, and say where, or why not. Blocks for as long as libvirt or the disk takes."""
    try:
        domain = connection.lookupByUUIDString(vm)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_room(directory)
        name = re.sub(r"[^\w.-]", "_", domain.name())
        base = directory / f"{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        return "; ".join((_screen(connection, domain, base), _console(domain, base)))
    except libvirt.libvirtError as error:
        return f"what it showed was not kept: {error.get_error_message() or error}"
    except (OSError, ElementTree.ParseError) as error:
        return f"what it showed was not kept: {error}"


def _make_room(directory: Path) -> None:
    """For one image and one tail more."""
    files = sorted((path for path in directory.iterdir() if path.is_file()), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in files)
    while files and (len(files) > MOST_FILES - 2 or total > MOST_BYTES - LARGEST_IMAGE - TAIL):
        oldest = files.pop(0)
        total -= oldest.stat().st_size
        oldest.unlink()


def _screen(connection: Any, domain: Any, base: Path) -> str:
    try:
        stream = connection.newStream(0)
        kind = domain.screenshot(stream, 0, 0)
        content = bytearray()

        def take(_stream: Any, data: bytes, _opaque: Any) -> int:
            content.extend(data)
            # libvirt's binding ends the stream for any number below zero.
            return len(data) if len(content) <= LARGEST_IMAGE else -1

        stream.recvAll(take, None)
        stream.finish()
    except libvirt.libvirtError as error:
        return f"it has no screen that can be kept ({error.get_error_message() or error})"
    return _write(base.with_name(f"{base.name}.{_SUFFIXES.get(kind, 'img')}"), bytes(content), "its screen")


def _console(domain: Any, base: Path) -> str:
    for path in _logs(parse(domain.XMLDesc(0))):
        with contextlib.suppress(OSError):
            return _write(base.with_name(f"{base.name}.log"), _tail(path), "its console")
    return "no console of it is written to a file"


def _logs(domain: ElementTree.Element) -> Iterator[str]:
    for device in (*domain.findall("devices/serial"), *domain.findall("devices/console")):
        log, source = device.find("log"), device.find("source")
        if log is not None and (path := log.get("file")):
            yield path
        if device.get("type") == "file" and source is not None and (path := source.get("path")):
            yield path


def _tail(path: str) -> bytes:
    """The end of a file. Raises OSError; what is no file (a pipe) is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(f"{path} is not a file")
        file.seek(max(0, about.st_size - TAIL))
        return file.read(TAIL)


def _write(path: Path, content: bytes, what: str) -> str:
    try:
        path.write_bytes(content)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        return f"{what} was not kept: {error.strerror}"
    return f"{what}: {path}"
