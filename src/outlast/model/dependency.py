"""How a VM that others wait for is doing (`after` in a policy), as recovery sees it and a plan foretells it."""

import enum

import msgspec

from outlast.model.time import Duration


class Standing(enum.StrEnum):
    """How a VM that others wait for is doing."""

    READY = "ready"
    COMING = "coming"
    """It is down, or not ready yet, and somebody is at it: the wait for it counts."""
    QUEUED = "queued"
    """Its own turn has not come: the wait for it stands still."""
    NEVER = "never"
    """Nobody will start it: it is not waited for."""


class Dependency(msgspec.Struct, frozen=True, omit_defaults=True):
    """A VM that somebody waits for. `allowance`: how much longer its own readiness may take. `why`: of NEVER."""

    standing: Standing
    allowance: Duration = Duration(0)
    why: str = ""
