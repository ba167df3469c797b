"""What an operator asks of the fault domain, asked in a lab: Outlast's own commands, on a host that is on.

As in the simulated world: one command after the other, and one that nobody could carry out is given again for a while. A
refusal is an outcome like any other.
"""

from __future__ import annotations

import threading
import time

import msgspec

from outlast.lab import outlast_view
from outlast.lab.errors import LabError
from outlast.lab.lab import Lab
from outlast.lab.outlast_commands import outlast
from outlast.model.commands import Outcome

GIVES_UP_S = 90.0
TRIES_AGAIN_AFTER_S = 2.0
_one_at_a_time = threading.Lock()


def give(lab: Lab, *arguments: str, on: str = "") -> Outcome:
    """Give a command, on the host `on` if it has power. Raises LabError if it was never carried out nor refused."""
    with _one_at_a_time:
        deadline = time.monotonic() + GIVES_UP_S
        while True:
            said = _try(lab, arguments, on)
            if isinstance(said, Outcome) and not said.try_again:
                return said
            if time.monotonic() > deadline:
                why = "; ".join(said.sentences) if isinstance(said, Outcome) else said
                raise LabError(f"outlast {' '.join(arguments)} was not carried out: {why}")
            time.sleep(TRIES_AGAIN_AFTER_S)


def want(lab: Lab, vm: str, wanted: str) -> Outcome:
    """What an operator wants of a VM, said on the host that has its definition. Raises LabError."""
    verb = {"running": "start", "stopped": "stop", "unprotected": "unprotect"}[wanted]
    return give(lab, "vm", verb, vm, on=lab.state().vms[vm].host)


def migrate(lab: Lab, vm: str, host: str) -> Outcome:
    """A running VM is to go on on that host. Raises LabError."""
    return give(lab, "vm", "migrate", vm, host)


def _try(lab: Lab, arguments: tuple[str, ...], on: str) -> Outcome | str:
    powered = [name for name in lab.state().hosts if lab.is_on(name)]
    views = {name: outlast_view.status(lab, name) for name in powered}
    answering = [name for name, view in views.items() if view is not None]
    if not answering:
        return "no agent answers on any host"
    primary = next((view.primary for view in views.values() if view is not None and view.primary in answering), "")
    host = on if on in answering else primary or answering[0]
    done = lab.run(host, outlast(*arguments, "-o", "json"))
    try:
        return msgspec.json.decode(done.stdout, type=Outcome)
    except msgspec.DecodeError:
        return done.stderr.strip() or done.stdout.strip()
