"""What several files of tests need: a process that looks like a QEMU guest, and no time lost on garbage.

What is imported and collected lives as long as the tests do: to look through it again and again for garbage would take a
good part of the time until the first test, and then a little of every simulated minute.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(20_000, 20, 10)
    gc.enable()


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like a QEMU guest."""
    program = tmp_path / "qemu-system-x86_64"
    program.symlink_to(sys.executable)
    script = "import time; time.sleep(60)"
    arguments = [str(program), "-c", script, "-name", "guest=web,debug-threads=on", "-uuid", "u-1"]
    nodes = [
        # The template behind the first disk comes first, as libvirt puts it, and is no disk of the guest.
        '{"driver":"file","filename":"/srv/ds2/template.qcow2","node-name":"libvirt-3-storage"}',
        '{"node-name":"libvirt-3-format","driver":"qcow2","file":"libvirt-3-storage"}',
        '{"driver":"file","filename":"/srv/ds1/web.qcow2","node-name":"libvirt-2-storage"}',
        '{"node-name":"libvirt-2-format","driver":"qcow2","file":"libvirt-2-storage","backing":"libvirt-3-format"}',
    ]
    for node in nodes:
        arguments += ["-blockdev", node]
    arguments += ["-device", '{"driver":"virtio-blk-pci","drive":"libvirt-2-format","id":"virtio-disk0"}']
    # Nothing that stands there ends whoever reads it.
    arguments += ["-blockdev", "[]", "-blockdev", "[" * 5000, "-blockdev", "7", "-device", "{" * 9]
    arguments += ["-drive", "file=/srv/ds2/b.raw,if=none", "-device", "vfio-pci,host=0000:01:00.0"]
    with subprocess.Popen(arguments) as process:
        yield process
        process.kill()
