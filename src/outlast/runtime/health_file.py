"""What was said of this host's hardware, for every later agent of it, also after a reboot (`protocol/health_desk.py`)."""

import contextlib
from pathlib import Path

import msgspec

from outlast.model.health import Health


class HealthFile:
    """One small file in the state directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Health:
        """What was written last; that all is well, if nothing was."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(self._path.read_bytes(), type=Health)
        return Health()

    def write(self, health: Health) -> None:
        """Replace it whole. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(health))
        temporary.replace(self._path)
