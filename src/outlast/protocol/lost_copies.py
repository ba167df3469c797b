"""Frozen copies of VMs that another host owns by now are killed before their storage can come back (safety rule 4).

A host that has lost a datastore and not its network cannot read who owns the VMs that stand frozen on it. So it says in its
network heartbeats which they are, and the last epoch of each that it owned; and whoever owns a later one answers:

    who                              what                            then
    a host with a frozen VM          names it, and its own epoch     waits, as before
    a host that owns a later epoch   says so: `TakenOver`            says it again with each heartbeat that names the VM
    the frozen one's keeper          compares the epochs             kills, if that epoch is later than its own

A register only grows (the home says which register), and each epoch has one winner. So a later epoch of another host is
final: whoever wants that VM again must link from there, and then owns a later one itself. A word that is repeated, or comes
too late, can only name an epoch that is not later than what a keeper owns by then, or tell the truth once more. All that it
can do is kill what stands frozen; nothing is ever thawed by it.
"""

from outlast.model.effects import AskKeeper, Send
from outlast.model.ids import HostId
from outlast.model.keeping import AskLost
from outlast.model.messages import FrozenVm, TakenOver
from outlast.protocol.knowledge import Knowledge, Outbox

NAMED_AT_ONCE = 8
"""Of more frozen VMs than this, a heartbeat names some, and the next one others: it has to fit into one packet."""
_OWNS = frozenset({"granted", "starting", "void", "running", "frozen"})
"""Keeper phases in which the epoch of a VM is one that its keeper won."""


class LostCopies:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._first = 0

    def named(self) -> tuple[FrozenVm, ...]:
        """What our next heartbeat says of the VMs that stand frozen here."""
        kept = self._known.kept
        frozen = [FrozenVm(vm.vm, vm.home, vm.epoch) for vm in kept if vm.phase == "frozen" and vm.epoch is not None]
        if len(frozen) <= NAMED_AT_ONCE:
            return tuple(frozen)
        self._first = (self._first + NAMED_AT_ONCE) % len(frozen)
        return tuple((frozen[self._first :] + frozen[: self._first])[:NAMED_AT_ONCE])

    def heard(self, sender: HostId, named: tuple[FrozenVm, ...]) -> None:
        """Another host's heartbeat names VMs that stand frozen there."""
        if not named or self._known.keeper is None:
            return
        owned = {(vm.vm, vm.home): vm.epoch for vm in self._known.keeper.vms if vm.phase in _OWNS}
        for frozen in named:
            epoch = owned.get((frozen.vm, frozen.home))
            if epoch is not None and epoch > frozen.epoch:
                self._out.put(Send(sender, TakenOver(vm=frozen.vm, home=frozen.home, epoch=epoch)))

    def told(self, sender: HostId, message: TakenOver) -> None:
        """The owner of a later epoch answers."""
        lost = AskLost(request=self._out.request(), vm=message.vm, home=message.home, owner=sender, epoch=message.epoch)
        self._out.put(AskKeeper(lost))
