"""What an operator wants for one virtual machine, beyond its being protected: how it is to come back, and when.

It is written into the VM's definition (one element in libvirt's <metadata>, `drivers/hypervisor/domains.py`), stands on
its host's power-on list and on its home datastore's protected list, and so is known to whoever is primary.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import msgspec

from outlast.model.ids import VmName
from outlast.model.settings import GuestMonitoring, IsolationResponse
from outlast.model.time import Duration
from outlast.model.units import duration_text, parse_duration

Priority = Literal["highest", "high", "medium", "low", "lowest", "disabled"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""The most important first. `disabled`: guarded like any other, but never restarted automatically."""

WITHOUT_END = -1


class Ready(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a VM is ready for those that wait for it: once it runs, `delay` later, or once its guest agent answers."""

    how: Literal["powered-on", "guest-heartbeat", "delay"] = "powered-on"
    delay: Duration = Duration(0)

    def __str__(self) -> str:
        return f"delay:{duration_text(self.delay)}" if self.how == "delay" else self.how


class VmPolicy(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One VM's policy. `isolation_response` and `guest_monitoring` None: the fault domain's.

    `after`: the VMs that must be ready before this one is started anew. `max_restarts`: how often it is tried anew on the
    host on which it failed; `max_relocations`: on how many other hosts after that, until it counts as failed. Both may be
    `WITHOUT_END`.
    """

    priority: Priority = "medium"
    after: tuple[VmName, ...] = ()
    ready: Ready = Ready()
    max_restarts: int = 1
    max_relocations: int = 1
    isolation_response: IsolationResponse | None = None
    guest_monitoring: GuestMonitoring | None = None


NO_WISH = VmPolicy()
"""What holds for a VM of which nothing was said."""


def rank(priority: Priority) -> int:
    """The smaller, the more important."""
    return PRIORITIES.index(priority)


def parse_ready(text: str) -> Ready:
    """From "powered-on", "guest-heartbeat" or "delay:30s". Raises ValueError."""
    if text == "powered-on":
        return Ready()
    if text == "guest-heartbeat":
        return Ready("guest-heartbeat")
    how, _, length = text.partition(":")
    if how != "delay":
        raise ValueError(f'{text!r} is not "powered-on", "guest-heartbeat" or "delay:30s"')
    return Ready("delay", parse_duration(length))


def cycle_in(after: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Names that wait for each other in a ring, each for the next and the last for the first; empty if there is none."""
    done: set[str] = set()
    for start in sorted(after):
        path: list[str] = []
        branches = [iter((start,))]
        while branches:
            name = next(branches[-1], None)
            if name is None:
                branches.pop()
                if path:
                    done.add(path.pop())
            elif name in path:
                return tuple(path[path.index(name) :])
            elif name not in done:
                path.append(name)
                branches.append(iter(after.get(name, ())))
    return ()
