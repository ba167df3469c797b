"""What a lab guest wrote to its disk, and whether two instances ever wrote at once.

A guest appends one 512-byte record a second: `outlast <boot id> <counter>`, padded with spaces, ended with a newline. It
looks for the first free record when it boots, counts from 1, and never writes over a record that is not free. A disk is
therefore evidence:

- boot ids that alternate (A A B A) show that A wrote after B had started: two instances at once;
- a gap in the counters of one boot shows that a record of it was lost or written over by another instance;
- a free record before a used one shows a write that was confirmed and lost.

A restart that was right leaves A A A B B B, each counted 1, 2, 3 and so on.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

RECORD_SIZE = 512
_RECORD = re.compile(rb"outlast ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) ([1-9][0-9]{0,17}) *\n")
_FREE = bytes(RECORD_SIZE)


class Record(NamedTuple):
    """One write of a guest: which boot of it wrote, and that boot's how-manieth write it was (from 1)."""

    boot_id: str
    counter: int


def parse(data: bytes) -> tuple[list[Record], list[str]]:
    """Read a disk's bytes: its records in the order of the disk, and what cannot be read as one or lies behind a hole."""
    records: list[Record] = []
    problems: list[str] = []
    hole: int | None = None
    for number, start in enumerate(range(0, len(data), RECORD_SIZE)):
        raw = data[start : start + RECORD_SIZE]
        if raw == _FREE[: len(raw)]:
            hole = number if hole is None else hole
            continue
        match = _RECORD.fullmatch(raw)
        if match is None:
            problems.append(f"record {number} is torn or not of a guest: {raw[:48]!r}")
            continue
        if hole is not None:
            problems.append(f"record {hole} is free although record {number} is used: a confirmed write was lost")
            hole = None
        records.append(Record(match[1].decode(), int(match[2])))
    return records, problems


def judge(records: list[Record]) -> list[str]:
    """Problems of a sequence of records, in the order of the disk; an empty list if never two instances wrote at once."""
    problems: list[str] = []
    last: dict[str, int] = {}
    previous: str | None = None
    for number, (boot_id, counter) in enumerate(records):
        if boot_id not in last:
            if counter != 1:
                problems.append(
                    f"boot {boot_id} begins with counter {counter} at record {number}: its first records were written over"
                )
        else:
            if boot_id != previous:
                problems.append(
                    f"boot {boot_id} wrote counter {counter} after boot {previous} had begun: two instances at once"
                )
            if counter != last[boot_id] + 1:
                problems.append(f"boot {boot_id} goes from counter {last[boot_id]} to {counter} at record {number}")
        last[boot_id] = counter
        previous = boot_id
    return problems


def read_log(path: Path) -> list[Record]:
    """The records of a disk (a raw file), in the order of the disk. Raises OSError if it cannot be read."""
    return parse(path.read_bytes())[0]


def check(path: Path) -> list[str]:
    """Everything that is wrong with a disk; empty if nothing is. Raises OSError if it cannot be read."""
    records, problems = parse(path.read_bytes())
    return problems + judge(records)
