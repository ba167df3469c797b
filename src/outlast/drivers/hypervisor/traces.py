"""What QEMU wrote last before it ended: the end of libvirt's log of a domain, in one line."""

import re
from pathlib import Path

LOGS = Path("/var/log/libvirt/qemu")
_TAIL_BYTES = 4096
_LINES = 4
_MOST = 400
_STAMP = re.compile(r"^\d{4}-\d\d-\d\d[ T][\d:.]+\+\d{4}: ?")


def last_words(name: str, logs: Path = LOGS) -> str:
    """The last lines of the domain's log, the command line of its start left out; empty if there is none."""
    try:
        with (logs / f"{name}.log").open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - _TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except (OSError, ValueError):
        return ""
    after_start = re.split(r"starting up libvirt version.*\n", text)[-1]
    lines = [_STAMP.sub("", line).strip() for line in after_start.splitlines()]
    said = [line for line in lines if line and not line.endswith(("\\", "-privileges")) and line[0] != "-"]
    return " | ".join(said[-_LINES:])[-_MOST:]
