"""Which VMs isolation has told to end, for the agent that comes after this one (`protocol/isolation_response.py`).

A small file in /run, which does not outlive the boot; it names the boot all the same, since its times are that boot's.
"""

import contextlib
from pathlib import Path

import msgspec

from outlast.model.ids import BootId, VmId
from outlast.model.time import Instant


class _Content(msgspec.Struct, frozen=True):
    boot_id: BootId
    told: dict[VmId, Instant]


class ToldFile:
    """The file of one boot."""

    def __init__(self, path: Path, boot_id: BootId) -> None:
        self._path = path
        self._boot_id = boot_id

    def read(self) -> dict[VmId, Instant]:
        """What was written last in this boot; empty if nothing was."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            content = msgspec.json.decode(self._path.read_bytes(), type=_Content)
            return content.told if content.boot_id == self._boot_id else {}
        return {}

    def write(self, told: dict[VmId, Instant]) -> None:
        """Replace it whole. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(_Content(self._boot_id, told)))
        temporary.replace(self._path)
