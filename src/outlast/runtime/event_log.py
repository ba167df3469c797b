"""The event log of one host: JSON lines in a file of the state directory, with what other hosts told as well.

It is read by `outlast events` straight from the file, so that it can be read when no agent runs. At 4 MiB the file is put
aside as `events.1.jsonl` and begun anew. A log that cannot be written (a full disk) never stops the agent; it says so once
on its standard error.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

_LIMIT_BYTES = 4 << 20


class LoggedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line. `at_ms`: wall clock of the reporter, milliseconds since 1970. Names, not ids; empty: not about any."""

    at_ms: int
    reporter: str
    kind: str
    host: str = ""
    vm: str = ""
    datastore: str = ""
    text: str
    facts: dict[str, str] = {}


class EventLog:
    """Appends to the log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._complained = False
        self._encode = msgspec.json.Encoder().encode

    def append(self, event: LoggedEvent) -> None:
        """Write one line; never raises."""
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("ab", buffering=0)
            self._file.write(self._encode(event) + b"\n")
            if self._file.tell() > _LIMIT_BYTES:
                self._file.close()
                self._file = None
                self._path.replace(old_path(self._path))
            self._complained = False
        except OSError as error:
            self._file = None
            if not self._complained:
                self._complained = True
                with contextlib.suppress(OSError):
                    print(f"outlast: the event log {self._path} cannot be written: {error.strerror}", file=sys.stderr)  # noqa: T201


def old_path(path: Path) -> Path:
    """Where the log before the present one lies."""
    return path.with_name("events.1.jsonl")


def read(path: Path) -> Iterator[LoggedEvent]:
    """Every event that is still there, oldest first. Lines that are not whole are skipped. Raises OSError."""
    decode = msgspec.json.Decoder(LoggedEvent).decode
    for each in (old_path(path), path):
        if not each.exists():
            continue
        with each.open("rb") as file:
            for line in file:
                try:
                    yield decode(line)
                except msgspec.DecodeError:
                    continue
