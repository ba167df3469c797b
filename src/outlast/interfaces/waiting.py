"""Commands that wait for what they began, and show how far it is: `drain --wait`, `migrate --wait`.

On a terminal one line changes; elsewhere there is a new line when something is new. Whoever stops waiting stops nothing.

    exit code    0: done; 3: it is not, and will not be as things are; 4: the time is over; 130: interrupted
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import rich_click as click
from rich.console import Console

from outlast.interfaces.local_agent import ask
from outlast.model.errors import OutlastError
from outlast.model.status import DomainStatus, HostStatus, VmStatus
from outlast.model.time import in_seconds
from outlast.model.units import parse_duration
from outlast.runtime.control import ControlRequest

NOT_DONE, TOO_LATE, INTERRUPTED = 3, 4, 130
LOOKS_EVERY_S = 1.0
SETTLED_FOR_S = 5.0
"""How long all that is left must have been said to stay before it is taken for true."""
ARRIVES_WITHIN_S = 10.0
"""How long a VM that migrates no more may take to stand on its new host's list."""


class _NotDoneError(OutlastError):
    """The waiting is over, and what was waited for has not come."""

    def __init__(self, exit_code: int, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.exit_code = exit_code


def _seconds(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else in_seconds(parse_duration(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


WAIT = click.option("--wait", is_flag=True, help="Return when it is done, and show how far it is until then.")
TIMEOUT = click.option(
    "--timeout", "timeout_s", callback=_seconds, metavar="TIME", help='How long to wait, like "10m"; default: without end.'
)


def wait_until_empty(path: Path, name: str, timeout_s: float | None) -> None:
    """Wait until no VM runs on a drained host. Raises OutlastError with its exit code if that does not come."""
    settled_since: float | None = None
    with _waiting(f"the drain goes on: `outlast host undrain {name}` ends it", timeout_s) as look:
        for now, tell in look:
            status = _status(path)
            host = next((each for each in status.hosts if name in (each.name, each.id)), None)
            if host is None or not host.kept_empty:
                raise _NotDoneError(NOT_DONE, f"{name} is not kept empty any more: somebody has ended its maintenance")
            if not host.vms and not host.emptying:
                tell(f"{host.name} is empty")
                return
            tell(_left(status, host))
            settled_since = (settled_since or now) if host.emptying_settled else None
            if settled_since is not None and now - settled_since >= SETTLED_FOR_S:
                text = f"{host.name} is not empty, and what is left stays as things are: {host.emptying}"
                raise _NotDoneError(
                    NOT_DONE, text, f"`outlast host drain {host.name} --dry-run` names them all; the drain goes on"
                )


def _left(status: DomainStatus, host: HostStatus) -> str:
    moving = [f"{vm.name} {vm.migration.sentence}" for vm in status.vms if vm.host == host.name and vm.migration]
    return f"{host.name}: {host.vms} VM{'s' * (host.vms != 1)} left" + "".join(
        f"; {each}" for each in moving or filter(None, [host.emptying])
    )


def wait_for_migration(path: Path, name: str, to: str, timeout_s: float | None) -> None:
    """Wait until a VM runs on that host. Raises OutlastError with its exit code if it does not come there."""
    moved_at = time.monotonic()
    with _waiting("the migration goes on", timeout_s) as look:
        for now, tell in look:
            status = _status(path)
            found = next((vm for vm in status.vms if name in (vm.name, vm.uuid)), None)
            target = next((host.name for host in status.hosts if to in (host.name, host.id)), to)
            if found is not None and found.host == target and found.state == "running":
                tell(f"{found.name} runs on {target}")
                return
            if found is not None and found.migration is not None:
                moved_at = now
                tell(f"{found.name} {found.migration.sentence}")
            elif now - moved_at >= ARRIVES_WITHIN_S:
                raise _NotDoneError(
                    NOT_DONE, f"{name} did not arrive on {target}: {_stands(found)}", "see `outlast events`"
                )


def _stands(found: VmStatus | None) -> str:
    return f"it is {found.state} on {found.host}" if found is not None else "nothing is known of it"


def _status(path: Path) -> DomainStatus:
    reply = ask(path, ControlRequest("status"))
    if reply.status is None:
        raise OutlastError("the agent gave no status", "restart it after an upgrade")
    return reply.status


Look = Generator[tuple[float, Callable[[str], None]]]


@contextmanager
def _waiting(goes_on: str, timeout_s: float | None) -> Generator[Look]:
    """Looks, a second apart: when each is, and what shows a line. It ends by whoever looks, by time, or by Ctrl-C."""
    console = Console(highlight=False)
    line = console.status("") if console.is_terminal else None
    said, began = [""], time.monotonic()

    def tell(text: str) -> None:
        if line is not None:
            line.update(text)
        elif text != said[-1]:
            console.print(text, soft_wrap=True, markup=False)
        said[-1] = text

    def looks() -> Look:
        while True:
            yield time.monotonic(), tell
            if timeout_s is not None and time.monotonic() - began >= timeout_s:
                raise _NotDoneError(TOO_LATE, f"not done within {timeout_s:g} s: {said[-1]}", goes_on)
            time.sleep(LOOKS_EVERY_S)

    try:
        if line is not None:
            line.start()
        yield looks()
    except KeyboardInterrupt:
        raise _NotDoneError(INTERRUPTED, "nobody waits any more", goes_on) from None
    finally:
        if line is not None:
            line.stop()
    if line is not None:
        console.print(said[-1], soft_wrap=True, markup=False)
