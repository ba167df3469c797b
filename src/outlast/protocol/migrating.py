"""Both ends of the live migrations that this host takes part in: `migration` (from here), `migration_target` (to here)."""

from outlast.model.events import KeeperAnswered, VmMigrationEnded, VmResumed
from outlast.model.ids import HostId
from outlast.model.messages import CopyDropped, CopyReport, CopyWanted, CopyWhole, MigrateOrder, OrderReport
from outlast.model.time import Instant
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.migration import Migrations
from outlast.protocol.migration_target import Arrivals

Said = MigrateOrder | CopyWanted | CopyWhole | CopyDropped | CopyReport


class Migrating:
    """See the top of this file. `own_reports`: on migrations that this host has ordered of itself."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self.own_reports: list[OrderReport] = []
        self.leaving = Migrations(knowledge, outbox, tell=self.own_reports.append)
        self.arriving = Arrivals(knowledge, outbox, self.leaving)

    def received(self, sender: HostId, message: Said) -> None:
        """Another host says something about a migration."""
        match message:
            case MigrateOrder():
                self.leaving.ordered(sender, message)
            case CopyReport():
                self.leaving.reported(sender, message)
            case CopyWanted():
                self.arriving.wanted(sender, message)
            case CopyWhole():
                self.arriving.whole(sender, message)
            case CopyDropped():
                self.arriving.dropped(sender, message)

    def happened(self, event: VmMigrationEnded | VmResumed | KeeperAnswered) -> None:
        """Libvirt or the keeper answers."""
        match event:
            case VmMigrationEnded():
                self.leaving.ended(event)
            case VmResumed():
                self.arriving.resumed(event)
            case KeeperAnswered():
                self.arriving.keeper_answered(event)

    def tick(self) -> None:
        """Go on with what is due."""
        self.leaving.tick()
        self.arriving.tick()

    def next_deadline(self) -> Instant | None:
        """The end of the next wait."""
        due = (self.leaving.next_deadline(), self.arriving.next_deadline())
        return min((t for t in due if t is not None), default=None)
