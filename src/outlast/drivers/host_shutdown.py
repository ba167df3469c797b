"""Whether this host itself is going down, and not just a service or a guest on it; and whether it will boot again.

systemd-user-sessions writes /run/nologin when a shutdown begins, before anything that is ordered behind it is stopped.
While a host boots the file exists too, and says otherwise. Whether it is a reboot, systemd says alone: of a shutdown under
way, the job that starts one of its targets waits for all that is stopped before.
"""

import subprocess
from pathlib import Path
from typing import Literal

_NOLOGIN = Path("/run/nologin")
_ANSWERS_WITHIN_S = 5.0
_REBOOTS = frozenset({"reboot.target", "kexec.target", "soft-reboot.target"})
_ENDS = frozenset({"poweroff.target", "halt.target"})


def host_goes_down() -> bool:
    """True from the beginning of a shutdown on."""
    try:
        return "going down" in _NOLOGIN.read_text()
    except OSError:
        return False


def how_it_goes_down() -> Literal["reboot", "power-off", ""]:
    """As systemd says; empty if this host is not going down, or if nobody can tell."""
    argv = ["systemctl", "list-jobs", "--plain", "--no-legend"]
    try:
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=_ANSWERS_WITHIN_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return of_jobs(done.stdout)


def of_jobs(listed: str) -> Literal["reboot", "power-off", ""]:
    """The same, from what `systemctl list-jobs` wrote: a job's number, its unit, what is done to it, how far it is."""
    jobs = [line.split() for line in listed.splitlines()]
    begun = {job[1] for job in jobs if len(job) >= 3 and job[2] == "start"}
    if begun & _REBOOTS:
        return "reboot"
    return "power-off" if begun & _ENDS else ""
