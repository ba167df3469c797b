"""Whose fault a failed start is, and what QEMU wrote last."""

from __future__ import annotations

from pathlib import Path

import libvirt
import pytest

from outlast.drivers.hypervisor.faults import is_host_fault
from outlast.drivers.hypervisor.traces import last_words


class _Error:
    def __init__(self, code: int, words: str) -> None:
        self._code, self._words = code, words

    def get_error_code(self) -> int:
        return self._code

    def get_error_message(self) -> str:
        return self._words


@pytest.mark.parametrize(
    ("code", "words", "host"),
    [
        (libvirt.VIR_ERR_HOOK_SCRIPT_FAILED, "Hook script execution failed: web may not start: no lease", True),
        (libvirt.VIR_ERR_INTERNAL_ERROR, 'qemu unexpectedly closed the monitor: Failed to get "write" lock', True),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "Is another process using the image [/srv/ds1/web.raw]?", True),
        (libvirt.VIR_ERR_OPERATION_FAILED, "Cannot access storage file '/srv/ds1/web.raw'", True),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "cannot set up guest memory 'pc.ram': Cannot allocate memory", True),
        (libvirt.VIR_ERR_INTERNAL_ERROR, "process exited while connecting to monitor: unsupported machine type", False),
        (libvirt.VIR_ERR_CONFIG_UNSUPPORTED, "unsupported configuration: CPU model", False),
    ],
)
def test_whose_fault_it_is(code: int, words: str, host: bool) -> None:
    assert is_host_fault(_Error(code, words)) is host


def test_what_qemu_wrote_last(tmp_path: Path) -> None:
    (tmp_path / "web.log").write_text(
        "2026-01-01 10:00:00.000+0000: starting up libvirt version: 9.0.0\nan older story\n"
        "2026-01-02 10:00:00.123+0000: starting up libvirt version: 9.0.0, qemu version: 7.2\n"
        "LC_ALL=C \\\n/usr/bin/qemu-system-x86_64 \\\n-name guest=web,debug-threads=on \\\n-S\n"
        "qemu: terminating on signal 6\n2026-01-02 10:00:07.001+0000: shutting down, reason=crashed\n"
    )
    assert last_words("web", tmp_path) == "qemu: terminating on signal 6 | shutting down, reason=crashed"


def test_no_log_is_no_words(tmp_path: Path) -> None:
    assert last_words("web", tmp_path) == ""
    (tmp_path / "web.log").write_bytes(b"\xff" * 9000)
    assert len(last_words("web", tmp_path)) <= 400
