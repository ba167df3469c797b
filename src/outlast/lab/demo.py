"""The demonstration: real hosts lose power, network and storage, and a stranger sees from the output what happens.

Every line is from what really happened: event logs of the hosts, processes in the kernel, guests' own output, guests'
disks. Whatever goes otherwise than it says fails the demonstration.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from outlast.interfaces.status_cli import screen
from outlast.lab import moving, outlast_view
from outlast.lab.errors import LabError
from outlast.lab.lab import Lab
from outlast.lab.stages import STAGES, Failover
from outlast.runtime.event_log import LoggedEvent

_console = Console(highlight=False)
_TOLD = {
    "verdict",
    "restart-proof",
    "restart-ordered",
    "claimed",
    "restart-done",
    "isolated",
    "isolation-ended",
    "lease-lapsed",
    "lease-began",
    "frozen",
    "thawed",
    "killed",
    "lost",
    "primary-elected",
    "register-taken",
}


def run(lab: Lab) -> int:
    """The whole story; the exit code. The lab is gone afterwards, whatever happens."""
    began = time.monotonic()
    try:
        story = _Story(lab)
        story.set_up()
        story.power_loss()
        story.isolation()
        story.storage_outage()
        story.end()
    except LabError as error:
        _console.print(f"\n[red]The demonstration failed: {error}[/red]", markup=True)
        return 1
    except KeyboardInterrupt:
        _console.print("\ninterrupted")
        return 130
    finally:
        _console.print("cleaning up")
        lab.down()
    _console.print(f"the demonstration took {time.monotonic() - began:.0f} s; nothing of it is left")
    return 0


class _Story:
    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._told_ms = 0
        self._began_ms = 0
        self._results: list[tuple[str, str]] = []

    def _say(self, text: str) -> None:
        _console.print(text, soft_wrap=True, markup=False)

    def _act(self, title: str) -> None:
        _console.rule(f"[bold]{title}[/bold]", align="left")

    def _begin(self) -> None:
        self._began_ms = self._told_ms = time.time_ns() // 1_000_000

    def _tell_events(self, about: Callable[[LoggedEvent], bool]) -> None:
        """Print what has happened since we last looked, with its time since the act began."""
        for event in outlast_view.events(self._lab, self._told_ms + 1):
            self._told_ms = max(self._told_ms, event.at_ms)
            if event.kind in _TOLD and about(event):
                seconds = (event.at_ms - self._began_ms) / 1000
                self._say(f"  {seconds:6.2f} s  {event.reporter:<6} {event.text}")

    def _watch(self, what: str, done: Callable[[], bool], about: Callable[[LoggedEvent], bool], timeout_s: float) -> None:
        """Tell events until something is true. Raises LabError when it takes too long."""

        def looked() -> bool:
            self._tell_events(about)
            return done()

        outlast_view.wait_until(what, looked, timeout_s, 0.25)
        self._tell_events(about)

    def _show_status(self, host: str) -> None:
        view = outlast_view.status(self._lab, host)
        if view is not None:
            self._say(f"\n$ outlast status     (on {host})")
            _console.print(screen(view))
            self._say("")

    def _judge(self, host: str) -> Callable[[LoggedEvent], bool]:
        """Events of the primary's judgement, and of what hosts did themselves; not everybody's opinion."""
        primary = outlast_view.primary(self._lab)
        return lambda e: e.kind != "verdict" or (e.reporter == primary and e.host == host)

    # -- acts -----------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        self._act("Three hosts, two datastores, four virtual machines")
        self._say("Each host is a namespace of its own with libvirt, QEMU, an Outlast agent and keeper. The datastores are")
        self._say("directories that all three reach. The guests boot Linux, beat every second, and write to their disks.")
        began = time.monotonic()
        self._lab.up(hosts=3, datastores=2, vms=4)
        outlast_view.wait_ready(self._lab)
        self._say(f"the hosts are up and guarded after {time.monotonic() - began:.1f} s")
        for name, vm in self._lab.state().vms.items():
            self._say(f"  virsh start {name}     (on {vm.host})")
        moving.start_all(self._lab)
        self._show_status(outlast_view.primary(self._lab))

    def power_loss(self) -> None:
        primary = outlast_view.primary(self._lab)
        victim = next(h for h in self._lab.state().hosts if h != primary and self._lab.guests(h))
        self._act(f"{victim} loses its power")
        failover = Failover(self._lab, victim)
        self._say(f"Everything on {victim} is killed at once: QEMU, agent, keeper. {', '.join(failover.vms)} ran there.")
        self._begin()
        failover.begin()
        about = self._judge(victim)

        def back() -> bool:
            failover.watch_guests()
            return failover.complete(failover.look())

        self._watch(f"the virtual machines of {victim} to be back", back, about, 60.0)
        for vm, found in failover.look().items():
            self._say(f"\n  {vm} is back on {failover.hosts[vm]}; seconds since the power loss:")
            for stage in STAGES:
                self._say(f"    {found[stage]:6.2f}  {stage.replace('_', ' ')}")
            self._results.append((f"{victim} lost its power", f"{vm} ran again after {found['qemu_process']:.1f} s"))
        self._show_status(primary)
        self._say(f"{victim} gets its power back, and joins again with nothing to run.")
        self._lab.power_on(victim)
        outlast_view.wait_ready(self._lab)

    def _victim(self) -> tuple[str, dict[str, int]]:
        """A secondary on which something runs, and the processes there."""
        primary = outlast_view.primary(self._lab)
        victim = next(h for h in self._lab.state().hosts if h != primary and self._lab.guests(h))
        return victim, {guest.name: guest.pid for guest in self._lab.guests(victim)}

    def isolation(self) -> None:
        victim, before = self._victim()
        self._act(f"{victim} is cut off from the network")
        self._say(f"Its storage is well, so its record there goes on changing: it lives, and {', '.join(before)} must not")
        self._say("be started anywhere else. (The isolation response here is leave-running.)")
        about = self._judge(victim)
        self._begin()
        self._lab.network_cut(victim)
        primary = outlast_view.primary_seen_without(self._lab, victim)

        def seen() -> bool:
            view = outlast_view.status(self._lab, primary)
            return view is not None and any(h.name == victim and h.verdict == "isolated" for h in view.hosts)

        self._watch(f"{victim} to be judged isolated", seen, about, 30.0)
        time.sleep(3.0)
        self._must_be_untouched(victim, before)
        self._show_status(primary)
        self._lab.network_heal(victim)
        self._watch("the hosts to be whole again", lambda: outlast_view.is_ready(self._lab), about, 30.0)
        self._results.append((f"{victim} was cut off", f"{', '.join(before)}: nothing restarted, the same processes run"))

    def storage_outage(self) -> None:
        victim, before = self._victim()
        self._act(f"{victim} loses its storage for ten seconds")
        self._say(
            "All its I/O hangs. It cannot renew its leases, so its keeper freezes what runs there before anybody else"
        )
        self._say("could take it; when the storage is back it proves that it still owns them, and thaws them.")
        about = self._judge(victim)
        self._begin()
        for datastore in self._lab.state().datastores:
            self._lab.storage_cut(victim, datastore)
        cut_at = time.monotonic()
        self._watch("the virtual machines to be frozen", lambda: self._all(victim, stopped=True), about, 10.0)
        frozen_s = time.monotonic() - cut_at
        while time.monotonic() < cut_at + 10.0:
            time.sleep(0.1)
        for datastore in self._lab.state().datastores:
            self._lab.storage_heal(victim, datastore)
        self._say(f"  {time.monotonic() - cut_at:6.2f} s  -      the storage is back")
        healed_at = time.monotonic()
        self._watch("the virtual machines to be thawed", lambda: self._all(victim, stopped=False), about, 20.0)
        thawed_s = time.monotonic() - healed_at
        self._must_be_untouched(victim, before)
        self._results.append(
            (
                f"{victim} lost its storage for 10 s",
                f"frozen after {frozen_s:.1f} s, thawed {thawed_s:.1f} s after the heal",
            )
        )

    def _all(self, victim: str, *, stopped: bool) -> bool:
        return all(guest.stopped is stopped for guest in self._lab.guests(victim))

    def _must_be_untouched(self, victim: str, before: dict[str, int]) -> None:
        for vm, pid in before.items():
            where = self._lab.where(vm)
            if set(where) != {victim} or where[victim].pid != pid:
                raise LabError(f"{vm} should still be process {pid} on {victim}, and is {where}")

    def end(self) -> None:
        self._act("What the guests' disks say")
        time.sleep(2.0)
        for vm in self._lab.state().vms:
            problems = self._lab.disk_problems(vm)
            if problems:
                raise LabError(f"{vm}: {'; '.join(problems)}")
            records = self._lab.disk_records(vm)
            boots = len({record.boot_id for record in records})
            self._say(
                f"  {vm}: {len(records)} records of {boots} boot{'s' if boots > 1 else ''}, never two instances at once"
            )
        table = Table(title="\nwhat happened", title_justify="left", show_header=False)
        for what, result in self._results:
            table.add_row(what, result)
        _console.print(table)
