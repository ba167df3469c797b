"""A live migration, at the host on which the VM runs: decision 19, and `migration_target.py` for the other end.

    stage     waits for                                              then
    asking    the destination to keep a place for the copy           copying; failed if it refuses, or after ASK_PATIENCE
    copying   libvirt, which copies and then ends the process here   ending, or failed: the VM goes on here
    ending    the keeper to see that the process is gone             handed: released, naming the copy; failed after a while
    handed    the destination to say that the VM runs there          migrated; after HANDED_PATIENCE nobody knows
    over      nothing; kept to answer repeats

The release names the copy only if both are certain here, in this very agent: libvirt has said that the migration succeeded,
and the keeper has seen the process end. An agent that was started anew in between does not know it any more, and releases
without an heir: the VM is then started afresh, which costs it its memory and nothing else.
"""

from collections.abc import Callable

import msgspec

from outlast.model.commands import MoveVm, Outcome
from outlast.model.effects import MigrateVm, Send
from outlast.model.events import VmMigrationEnded, VmMigrationProgress
from outlast.model.ids import DatastoreName, Handover, HostId, RequestId, VmId, VmName
from outlast.model.keeping import KeptVm
from outlast.model.messages import (
    CopyDropped,
    Copying,
    CopyReport,
    CopyWanted,
    CopyWhole,
    MigrateOrder,
    OrderReport,
)
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.move_refusal import why_not_there

ASK_PATIENCE = Duration(10 * SECOND)
END_PATIENCE = Duration(10 * SECOND)
"""How long the end of the process may take after libvirt has called the migration a success."""
HANDED_PATIENCE = Duration(60 * SECOND)
RESEND = Duration(SECOND // 2)
GOES_ON = Duration(3 * SECOND)
"""How often the destination hears that it is still being copied."""
KEPT = 64
MOST_TOLD = 8
"""How many migrations are told of with their progress: it goes into every heartbeat."""
_NOT_TO_BE_SAID = frozenset({"asking", "copying", "handed"})


class _Migration(msgspec.Struct):
    """One migration. `report`: what the one who ordered it is told; `work`: an operator's command that waits for it."""

    handover: Handover
    vm: VmId
    name: VmName
    home: DatastoreName
    destination: HostId
    pid: int
    stage: str
    deadline: Instant
    sender: HostId | None = None
    order: int = 0
    work: "Move | None" = None
    request: RequestId | None = None
    sent_at: Instant = LONG_AGO
    progress: Copying | None = None
    report: str = "migrating"
    detail: str = ""


class Move(msgspec.Struct):
    """An operator's command to move a VM, as `command_desk.Work`: answered when the copying begins, or cannot."""

    outcome: Outcome | None = None
    dropped: bool = False


class Migrations:
    """See the top of this file. `tell` takes what is reported to this host itself, which then has ordered it."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox, *, tell: Callable[[OrderReport], None]) -> None:
        self._known = knowledge
        self._out = outbox
        self._tell = tell
        self._all: dict[VmId, _Migration] = {}
        self._count = 0

    # -- who asks -------------------------------------------------------------------------------------------------

    def ordered(self, sender: HostId, order: MigrateOrder) -> None:
        """An order came; a repeated one is answered with what is known."""
        known = self._all.get(order.vm)
        if known is not None and (known.sender, known.order) == (sender, order.order):
            self._report(known)
            return
        problem = self._begin(order.vm, order.destination, sender=sender, order=order.order)
        if problem:
            self._send_report(sender, OrderReport(order=order.order, vm=order.vm, stage="failed", detail=problem))
        else:
            self._report(self._all[order.vm])

    def take(self, command: MoveVm) -> Move:
        """An operator's command, in which VM and host are ids."""
        work = Move()
        vm, host = VmId(command.vm), HostId(command.host)
        problem = self._why_not(vm, host, self._known.kept_vm(vm))
        if not problem and not command.force and (why := why_not_there(self._known, vm, host)):
            there = self._known.name(host)
            problem = f"{self._known.vm_name(vm)} does not belong on {there}: {why}; --force moves it all the same"
        problem = problem or self._begin(vm, host, work=work)
        if problem:
            work.outcome = Outcome(ok=False, sentences=(problem,))
        return work

    def _begin(
        self, vm: VmId, destination: HostId, *, sender: HostId | None = None, order: int = 0, work: Move | None = None
    ) -> str:
        """Begin a migration. An empty string, or why not."""
        kept = self._known.kept_vm(vm)
        why = self._why_not(vm, destination, kept)
        if why or kept is None:
            return why
        while len(self._all) >= KEPT and (old := self._oldest_over()) is not None:
            del self._all[old]
        self._count += 1
        # Higher than every number that an earlier agent of this host has used.
        handover = Handover(f"{self._known.me}-{self._known.config.first_sequence}-{self._count}")
        deadline = after(self._known.now, ASK_PATIENCE)
        self._all[vm] = _Migration(
            handover,
            vm,
            kept.name,
            kept.home,
            destination,
            kept.pid or 0,
            "asking",
            deadline,
            sender=sender,
            order=order,
            work=work,
        )
        self._out.note("migration-begun", vm=vm, host=destination, relay=True, name=kept.name)
        return ""

    def _why_not(self, vm: VmId, destination: HostId, kept: KeptVm | None) -> str:
        known = self._known
        name = known.vm_name(vm)
        under_way = self._all.get(vm)
        if destination == known.me:
            return f"{name} runs on {known.name(destination)} already"
        if destination not in known.members:
            return f"there is no host {destination}"
        if kept is None or kept.phase != "running" or kept.epoch is None:
            return f"{name} cannot be migrated: it is {kept.phase if kept is not None else 'not running'} on this host"
        if under_way is not None and under_way.stage != "over":
            return f"{name} is being migrated to {known.name(under_way.destination)} already"
        if not known.hypervisor_up:
            return f"{name} cannot be migrated: libvirt on this host does not answer"
        if not known.live(destination):
            return f"{name} cannot be migrated: {known.name(destination)} is {known.verdict(destination)}"
        return ""

    def _oldest_over(self) -> VmId | None:
        return next((vm for vm, each in self._all.items() if each.stage == "over"), None)

    def is_under_way(self, vm: VmId) -> bool:
        """Whether it is being copied away, or that has not been undone yet."""
        known = self._all.get(vm)
        return known is not None and known.stage != "over"

    # -- what the end of its process means --------------------------------------------------------------------------

    def keeps_its_end(self, vm: VmId) -> bool:
        """Whether the end of that VM's process is told by nobody else: if it has migrated is open, or said."""
        migration = self._all.get(vm)
        return migration is not None and migration.stage in _NOT_TO_BE_SAID

    def heir(self, vm: VmId, ended: int | None) -> tuple[HostId, Handover, int] | None:
        """Whose copy may go on, of a VM whose process has ended: the release is to name it. Asked once, and then handed.

        `ended`: the process that ended last. If that is another one, the VM was started here once more since it migrated.
        """
        migration = self._all.get(vm)
        if migration is None or migration.stage != "ending":
            return None
        if ended != migration.pid:
            self._fail(migration, "it was started here once more")
            return None
        self._enter(migration, "handed", HANDED_PATIENCE)
        return migration.destination, migration.handover, migration.pid

    # -- what happens ---------------------------------------------------------------------------------------------

    def reported(self, sender: HostId, report: CopyReport) -> None:
        """The destination says how far it is."""
        migration = self._all.get(report.vm)
        if migration is None or (migration.handover, migration.destination) != (report.handover, sender):
            return
        match migration.stage, report.stage:
            case "asking", "expected":
                migration.request = self._out.request()
                self._enter(migration, "copying", Duration(0))
                self._out.put(MigrateVm(migration.request, migration.vm, migration.destination))
                self._answer(migration, True, f"{migration.name} is being copied to {self._known.name(sender)}")
            case "asking", "refused":
                self._fail(migration, report.detail)
            case "handed", "running":
                self._over(migration, "migrated", "")
            case "handed", "lost":
                self._over(migration, "failed", report.detail)
            case _:
                pass

    def ended(self, event: VmMigrationEnded) -> None:
        """Libvirt says what came of it."""
        migration = self._all.get(event.vm)
        if migration is None or migration.stage != "copying" or migration.request != event.request:
            return
        if event.ok:
            self._enter(migration, "ending", END_PATIENCE)
        else:
            self._fail(migration, event.problem)

    def progressed(self, event: VmMigrationProgress) -> None:
        """Libvirt says how far it is."""
        migration = self._all.get(event.vm)
        if migration is not None and migration.stage == "copying" and migration.request == event.request:
            migration.progress = Copying(
                event.vm, migration.destination, event.total_mib, event.remaining_mib, event.mib_s, event.downtime_ms
            )

    @property
    def copying(self) -> tuple[Copying, ...]:
        """How far those are that are being copied now."""
        told = (each.progress for each in self._all.values() if each.stage == "copying")
        return tuple(each for each in told if each is not None)[:MOST_TOLD]

    @property
    def under_way(self) -> bool:
        """Whether any is not over: its copy has not said that it runs, nor that it does not."""
        return any(each.stage != "over" for each in self._all.values())

    def tick(self) -> None:
        """Say again what was not answered, and give up what took too long."""
        now = self._known.now
        for migration in self._all.values():
            if migration.stage == "asking" and now >= migration.deadline:
                self._fail(migration, f"{self._known.name(migration.destination)} gives no answer")
            elif migration.stage == "ending" and now >= migration.deadline:
                self._fail(migration, "its process has not ended")
            elif migration.stage == "handed" and now >= migration.deadline:
                self._over(migration, "failed", "the destination has not said that it runs there")
            elif migration.stage != "over" and now - migration.sent_at >= _resend(migration):
                migration.sent_at = now
                self._out.put(Send(migration.destination, _question(migration)))

    def next_deadline(self) -> Instant | None:
        """The end of the next wait."""
        due: list[Instant] = []
        for each in self._all.values():
            if each.stage != "over":
                due.append(after(each.sent_at, _resend(each)))
            if each.stage not in ("copying", "over"):
                due.append(each.deadline)
        return min(due) if due else None

    # -- ends -----------------------------------------------------------------------------------------------------

    def _enter(self, migration: _Migration, stage: str, patience: Duration) -> None:
        migration.stage, migration.deadline, migration.sent_at = stage, after(self._known.now, patience), LONG_AGO

    def _fail(self, migration: _Migration, why: str) -> None:
        self._out.put(Send(migration.destination, CopyDropped(handover=migration.handover, vm=migration.vm)))
        self._over(migration, "failed", why)

    def _over(self, migration: _Migration, report: str, why: str) -> None:
        migration.stage, migration.report, migration.detail = "over", report, why
        kind = "vm-migrated" if report == "migrated" else "migration-failed"
        self._out.note(kind, vm=migration.vm, host=migration.destination, relay=True, name=migration.name, why=why)
        self._answer(migration, report == "migrated", f"{migration.name} was not migrated: {why}")
        self._report(migration)

    def _answer(self, migration: _Migration, ok: bool, sentence: str) -> None:
        if migration.work is not None and migration.work.outcome is None:
            migration.work.outcome = Outcome(ok=ok, sentences=(sentence,))

    def _report(self, migration: _Migration) -> None:
        if migration.sender is not None:
            stage, detail = migration.report, migration.detail
            self._send_report(
                migration.sender, OrderReport(order=migration.order, vm=migration.vm, stage=stage, detail=detail)
            )

    def _send_report(self, sender: HostId, report: OrderReport) -> None:
        if sender == self._known.me:
            self._tell(report)
        else:
            self._out.put(Send(sender, report))


def _resend(migration: _Migration) -> Duration:
    return RESEND if migration.stage in ("asking", "handed") else GOES_ON


def _question(migration: _Migration) -> CopyWanted | CopyWhole:
    if migration.stage == "handed":
        return CopyWhole(handover=migration.handover, vm=migration.vm)
    return CopyWanted(handover=migration.handover, vm=migration.vm, name=migration.name, home=migration.home)
