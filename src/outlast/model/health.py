"""How well a host's hardware is, as whoever watches it says (a BMC, SMART, a machine-check log): kept by its own agent."""

from typing import Literal

import msgspec

HealthLevel = Literal["ok", "degraded", "failing"]
"""`degraded`: it works, but something spare is gone. `failing`: it is about to fail."""


class Health(msgspec.Struct, frozen=True):
    """What was said last of a host. `since_ms`: when its level began to be this one, by that host's wall clock."""

    level: HealthLevel = "ok"
    reason: str = ""
    by: str = ""
    since_ms: int = 0

    @property
    def sentence(self) -> str:
        """As the end of a sentence that begins with the host."""
        return f"its hardware is {self.level}" + (f": {self.reason}" if self.reason else "")
