"""The fault domain's settings as this host has kept them: what its agent and its keeper begin with, before they hear of
any.

The agent writes the file whenever it takes a newer record; the keeper reads it when it starts, and needs no agent for
that. A host that was off meanwhile has an older one, which is as safe (`protocol/lease_length.py`), and hears of the
newer one soon.
"""

import contextlib
import os
from pathlib import Path

import msgspec

from outlast.model.settings import SettingsRecord, problems


def _path(state_dir: str) -> Path:
    return Path(state_dir) / "settings.json"


def load(state_dir: str) -> SettingsRecord | None:
    """What this host has kept; None if nothing, or nothing that can be used: then its settings file counts."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        record = msgspec.json.decode(_path(state_dir).read_bytes(), type=SettingsRecord)
        if not problems(record.settings):
            return record
    return None


def save(state_dir: str, record: SettingsRecord) -> None:
    """Keep it. Raises OSError."""
    path = _path(state_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
