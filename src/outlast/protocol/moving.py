"""VMs that run and are to go on elsewhere: whoever wants that says so here, and the host on which a VM runs is told.

It is the primary's. Why a VM is to move, and where to, is for those who ask (`maintenance`); how a host hands one over is
for that host. A move that fails leaves the VM where it was, running: so nothing is urgent here, and nothing is forced.

    stage       waits for                                       then
    ordered     its host to say that it has begun               migrating; failed if it gives no answer
    migrating   its host to say how it ended, however long      arrived, or failed
    arrived     its place on another host's list                nothing more; failed if it stands where it stood

The order is repeated all the time, and each repeat answered, so a lost answer or a new agent there loses nothing. A VM
whose move failed rests, each time twice as long, and another host is preferred the next time. A host whose end is suspected
is recovery's: what was under way from there is forgotten. So is everything when somebody else becomes primary; hosts
refuse a second move of one VM, so that its successor can only be late.

No more than `moves_at_once_per_host` are under way from one host, or to one: a migration takes all the network there is.
Who is not wanted elsewhere any more is not told to come back: what has begun ends as it ends.
"""

from collections.abc import Collection, Sequence

import msgspec

from outlast.model.effects import Send
from outlast.model.ids import HostId, VmId
from outlast.model.messages import MigrateOrder, OrderReport
from outlast.model.planning import PlanVm
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.planning.emptying import Leaving

RESEND = Duration(SECOND // 2)
FOLLOW = Duration(3 * SECOND)
"""How often an order is repeated, before it is answered and while it is carried out."""
PATIENCE = Duration(15 * SECOND)
"""How long a host may give no answer at all."""
ARRIVES = Duration(10 * SECOND)
"""From the word that a VM has migrated until it must stand on its new host's list."""
FIRST_REST = Duration(30 * SECOND)
LONGEST_REST = Duration(600 * SECOND)


class _Move(msgspec.Struct):
    leaving: Leaving
    order: int
    heard_at: Instant
    stage: str = "ordered"
    sent_at: Instant = LONG_AGO


class Rest(msgspec.Struct):
    """A VM whose move failed: why, how often, on which hosts, and until when it is left alone."""

    why: str
    times: int
    hosts: frozenset[HostId]
    until: Instant


class Mover:
    """See the top of this file. `own_orders`: those of this turn that this host has to carry out itself."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._moves: dict[VmId, _Move] = {}
        self.rests: dict[VmId, Rest] = {}
        self.own_orders: dict[VmId, MigrateOrder] = {}

    @property
    def moving(self) -> dict[VmId, PlanVm]:
        """Every VM that is on its way, on the host that it goes to."""
        return {vm: move.leaving.vm for vm, move in self._moves.items()}

    def leaving(self, origin: HostId) -> list[VmId]:
        """Who is on its way from that host, whether or not its process is there still."""
        return [vm for vm, move in self._moves.items() if move.leaving.origin == origin]

    def stop(self) -> None:
        """This agent is not primary (any more)."""
        self._moves.clear()
        self.rests.clear()
        self.own_orders.clear()

    def tick(self, wanted: Sequence[Leaving], about: Collection[VmId]) -> None:
        """Follow what is under way, and begin what is wanted, in that order, as far as hosts have a place for it.

        `about`: all VMs that anybody wants elsewhere, whether or not there is a place for them now; others rest no more.
        """
        self.own_orders.clear()
        for vm, move in list(self._moves.items()):
            self._follow(vm, move)
        self.rests = {vm: rest for vm, rest in self.rests.items() if vm in about}
        for leaving in wanted:
            if self._may_begin(leaving):
                self._begin(leaving)

    # -- what is under way ----------------------------------------------------------------------------------------

    def _follow(self, vm: VmId, move: _Move) -> None:
        known, now = self._known, self._known.now
        origin, to = move.leaving.origin, move.leaving.vm.host
        if origin != known.me and not known.live(origin):
            del self._moves[vm]
        elif move.stage == "arrived":
            if known.lister(vm) not in (None, origin):
                del self._moves[vm]
            elif now - move.heard_at >= ARRIVES:
                self._fail(vm, move, f"{known.name(to)} does not list it, though it is said to have arrived there")
        elif now - move.heard_at >= PATIENCE:
            self._fail(vm, move, f"{known.name(origin)} gives no answer")
        elif now - move.sent_at >= _every(move) and to is not None:
            move.sent_at = now
            order = MigrateOrder(order=move.order, vm=vm, destination=to)
            if origin == known.me:
                self.own_orders[vm] = order
            else:
                self._out.put(Send(origin, order))

    def reported(self, sender: HostId, report: OrderReport) -> None:
        """A host says how far it is; what is about anything else is not for us."""
        move = self._moves.get(report.vm)
        if move is None or (move.order, move.leaving.origin) != (report.order, sender) or move.stage == "arrived":
            return
        move.heard_at = self._known.now
        match report.stage:
            case "migrating":
                move.stage = "migrating"
            case "migrated":
                move.stage = "arrived"
            case "failed":
                self._fail(report.vm, move, report.detail)
            case _:
                pass

    def _fail(self, vm: VmId, move: _Move, why: str) -> None:
        to = move.leaving.vm.host
        before = self.rests.get(vm)
        times, hosts = (before.times, before.hosts) if before is not None else (0, frozenset[HostId]())
        length = min(LONGEST_REST, Duration(FIRST_REST << min(times, 16)))
        failed_on = hosts | {to} if to is not None else hosts
        self.rests[vm] = Rest(why, times + 1, failed_on, after(self._known.now, length))
        del self._moves[vm]
        self._out.note("move-failed", vm=vm, host=to, relay=True, why=why)

    # -- what is wanted -------------------------------------------------------------------------------------------

    def _may_begin(self, leaving: Leaving) -> bool:
        vm, rest = leaving.vm.vm, self.rests.get(leaving.vm.vm)
        if vm in self._moves or (rest is not None and self._known.now < rest.until):
            return False
        ends = [host for move in self._moves.values() if move.stage != "arrived" for host in _ends(move.leaving)]
        most = self._known.settings.moves_at_once_per_host
        return all(ends.count(host) < most for host in _ends(leaving))

    def _begin(self, leaving: Leaving) -> None:
        vm, to = leaving.vm.vm, leaving.vm.host
        move = _Move(leaving, self._out.order(), self._known.now)
        self._moves[vm] = move
        origin = self._known.name(leaving.origin)
        self._out.note("move-ordered", vm=vm, host=to, relay=True, origin=origin, why=leaving.why)
        self._follow(vm, move)

    def next_deadline(self) -> Instant | None:
        """When something is to be repeated, given up, or tried again."""
        due = [rest.until for rest in self.rests.values() if rest.until > self._known.now]
        for move in self._moves.values():
            if move.stage == "arrived":
                due.append(after(move.heard_at, ARRIVES))
            else:
                due += [after(move.heard_at, PATIENCE), after(move.sent_at, _every(move))]
        return min(due) if due else None


def _every(move: _Move) -> Duration:
    return RESEND if move.stage == "ordered" else FOLLOW


def _ends(leaving: Leaving) -> tuple[HostId | None, ...]:
    return leaving.origin, leaving.vm.host
