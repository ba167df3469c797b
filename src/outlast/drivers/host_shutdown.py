"""Whether this host itself is going down, and not just a service or a guest on it.

systemd-user-sessions writes /run/nologin when a shutdown begins, before anything that is ordered behind it is stopped.
While a host boots the file exists too, and says otherwise.
"""

from pathlib import Path

_NOLOGIN = Path("/run/nologin")


def host_goes_down() -> bool:
    """True from the beginning of a shutdown on."""
    try:
        return "going down" in _NOLOGIN.read_text()
    except OSError:
        return False
