"""The small world: two hosts, one datastore, one VM, and everything that can happen to them next.

A host is its power, its keeper, one guest process, one start by libvirt, and what its keeper's I/O helper has under way.
Each write and link goes out, lands and is answered as three separate events, each as late as it likes. What a crashed
keeper's helper had under way may land late. What costs something (a loss, a crash, a power loss, the end of a guest, a
request to start the VM or to take it over) is bounded; lateness is not, and neither is time.

    the same instant    a keeper freezes, and finds the process of a start, within the margin after it should; in ticks:
                        time does not go on before it did. So does the second freezer while there is no keeper.
    a start that passed is launched within the tick (`late_starts`: however late) by the hook's second question, and once
                        launched has its process within the tick (`late_launches`: however late, but a keeper that
                        lives finds it before the guest executes)
    a tick              is for both hosts at once: clocks do not drift apart here

Every table is made as it is needed, from the two tables of real machines (`small_keeper`, `small_observer`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from outlast.model.ids import Epoch, Nonce
from outlast.model.keeper_events import LinkOutcome
from outlast.protocol.ownership import SOON, Phase
from outlast.sim.datastore import Datastore
from outlast.sim.small_keeper import Keepers
from outlast.sim.small_observer import ObserverMemory, Observers, Seen
from outlast.sim.small_parts import (
    ARRIVES,
    ASK,
    ASKED,
    AWAKE,
    BOTH,
    CLOSE,
    CRASH,
    EXECUTES,
    FREE,
    FROZEN,
    GUEST,
    HOME,
    LAUNCHED,
    LEAVES,
    LOSS,
    NEWEST,
    NEXT,
    NONE,
    OLD_EPOCH,
    PASSED,
    PAUSED,
    PLAIN,
    POWER,
    STOPPED,
    THAWED,
    UNUSED,
    VM,
    Bounds,
    Evidence,
    Handled,
    HostMemory,
    HostStep,
    KeeperMemory,
    Rec,
    StoreMemory,
    StoreStep,
    VmMemory,
    record_of,
    small_settings,
)


class SmallWorld:
    """What can happen to a host, to an observer, and between them and the datastore."""

    def __init__(self, bounds: Bounds) -> None:
        settings = small_settings(bounds.lease, bounds.margin)
        self.bounds = bounds
        self.keepers = Keepers(settings)
        self.observers = Observers(settings)

    def first(self) -> tuple[HostMemory, HostMemory, StoreMemory]:
        """The first host owns the VM, and runs it if `running`; both hold fresh leases.

        If it may migrate, then to a host on which it has run in this very term.
        """
        beat, lease = (1, False, 0), self.keepers.lease
        idle = (self.keepers.idle(1), NONE)
        kind = LEAVES if self.bounds.migrates else PLAIN
        runs = (self.keepers.running(1, kind), EXECUTES) if self.bounds.running else idle
        hosts = [
            HostMemory(True, True, keeper, 0, lease, guest != NONE, guest, NONE, None, None, None, None)
            for keeper, guest in (runs, idle)
        ]
        one, other = hosts[0]._replace(kind=kind), hosts[1]._replace(asserted=self.bounds.migrates)
        return one, other, StoreMemory(0, 1, False, (beat, beat), (1, 1))

    # -- one host by itself ---------------------------------------------------------------------------------------

    def host_steps(self, host: HostMemory) -> list[HostStep]:
        """All that can happen on this host without the datastore or the other host."""
        if not host.on:
            return [HostStep("{h} gets its power back", host._replace(on=True), FREE)]
        steps = self._guest_steps(host)
        keeper = host.keeper
        if keeper is None:
            steps.append(HostStep("a new keeper starts on {h}", self.starts(host), FREE))
        elif not keeper.ready:
            steps.append(HostStep("the keeper of {h} finds what runs there", self._looks(host), FREE))
        else:
            steps += self._keeper_steps(host, keeper)
            steps += self._answer_steps(host)
        if keeper is not None:
            steps.append(HostStep("the keeper of {h} is killed", self._without_keeper(host), CRASH))
        lost = self._without_keeper(host)._replace(on=False, numbered=False, session=0, asserted=False)
        lost = lost._replace(published=None, guest=NONE, start=NONE)
        cost = FREE if keeper is not None and keeper.closing and host.guest == NONE else POWER
        steps.append(HostStep("{h} loses its power", lost, cost))
        return [step for step in steps if step.host != host]

    def _guest_steps(self, host: HostMemory) -> list[HostStep]:
        steps: list[HostStep] = []
        if host.start == PASSED and host.keeper is not None and host.keeper.ready:
            what = "libvirt on {h} asks the gate once more, right before the process"
            steps.append(HostStep(what, self.happen(host, "launch"), FREE))
        if host.start == LAUNCHED:
            arrives = host.kind == ARRIVES
            begun = host._replace(guest=PAUSED if arrives else EXECUTES, start=NONE)
            if self.bounds.late_launches and host.keeper is not None and host.keeper.ready:
                begun = self.happen(begun, "appeared", host.kind, False)
            what = "that receives the copy" if arrives else "of the VM, which executes"
            steps.append(HostStep(f"libvirt on {{h}} makes the process {what}", begun, FREE))
        if host.start in (PASSED, LAUNCHED):
            steps.append(HostStep("libvirt on {h} fails to make the process", host._replace(start=NONE), FREE))
        if host.guest != NONE:
            steps.append(HostStep("the VM's process on {h} ends by itself", host._replace(guest=NONE), GUEST))
        if host.guest in AWAKE and host.published is not None and host.published <= 0:
            frozen = host._replace(guest=FROZEN[host.guest])
            steps.append(HostStep("the agent of {h}, the second freezer, stops the VM", frozen, FREE))
        return steps

    def starts(self, host: HostMemory) -> HostMemory:
        """A new keeper begins. What its predecessor published stands until it has looked."""
        return host._replace(keeper=self.keepers.started(host.published))

    def _looks(self, host: HostMemory) -> HostMemory:
        """A new keeper finds what runs, freezes what it must, and only then publishes the lease as it sees it."""
        kind = host.kind if host.guest != NONE else NONE
        found = self.happen(host, "found", kind, host.guest in (STOPPED, BOTH), host.asserted)
        deadline = found.keeper.deadline if found.keeper is not None else None
        return found._replace(published=deadline, asserted=False)

    def _keeper_steps(self, host: HostMemory, keeper: KeeperMemory) -> list[HostStep]:
        happen, vm = self.happen, keeper.vm
        steps = [HostStep("the keeper of {h} is woken, and does what is due", happen(host, "woken"), FREE)]
        if host.guest == NONE and host.start == NONE:
            asked = happen(host._replace(start=ASKED), "gate")
            steps.append(HostStep("somebody starts the VM on {h}, and libvirt asks the gate", asked, ASK))
            if vm is not None and vm.phase in (Phase.ENDED, Phase.GRANTED):
                steps.append(HostStep("the agent of {h} asks for the VM's release", happen(host, "release"), FREE))
        if host.start == ASKED:
            gone = happen(host._replace(start=NONE), "gone")
            steps.append(HostStep("libvirt on {h} waits no longer for the gate", gone, LOSS))
        pid = vm is not None and vm.pid != NONE
        # A start that was launched is given up on libvirt's word alone (`Gatekeeper._launch`).
        patient = host.start == LAUNCHED or (host.guest != NONE and not pid)
        if vm is not None and vm.phase in UNUSED and not patient:
            unused = happen(host, "unused")
            steps.append(HostStep("the keeper of {h} waits no longer for the use of a grant or a launch", unused, FREE))
        if vm is not None and host.guest in THAWED and _runs_by_right(keeper, vm):
            what = "the keeper of {h} thaws what somebody else has stopped"
            steps.append(HostStep(what, host._replace(guest=THAWED[host.guest]), FREE))
        if host.guest != NONE and not pid:
            found = happen(host, "appeared", host.kind, host.guest in THAWED)
            steps.append(HostStep("the keeper of {h} finds the VM's process", found, FREE))
        if host.guest == NONE and pid:
            steps.append(HostStep("the keeper of {h} hears of the process's exit", happen(host, "exited"), FREE))
        if host.guest == NONE and host.start == NONE and vm is not None and vm.phase in SOON:
            steps.append(HostStep("libvirt on {h} tells the keeper that the start ended", happen(host, "ended"), FREE))
        if host.guest != NONE and pid:
            killed = happen(host, "kill")
            steps.append(HostStep("the agent of {h} has the VM killed (isolation response)", killed, GUEST))
        if self.bounds.words and vm is not None and vm.phase is Phase.FROZEN and (vm.epoch or 0) < 0:
            steps.append(HostStep("{h} is told that {p} owns a later epoch", happen(host, "lost"), FREE))
        if not keeper.closing:
            steps.append(HostStep("{h} begins to shut down", happen(host, "close"), CLOSE))
        return steps

    def _answer_steps(self, host: HostMemory) -> list[HostStep]:
        """Answers of the I/O helper, and what becomes of them when they are lost."""
        happen, steps = self.happen, []
        if host.beat is not None:
            free = host._replace(beat=None)
            failed = happen(free, "written", False)
            if host.beat[0] == "landed":
                steps.append(
                    HostStep("the keeper of {h} hears that its heartbeat is written", happen(free, "written", True), 0)
                )
                steps.append(HostStep("{h}'s heartbeat is written, but its keeper hears of an error", failed, LOSS))
            else:
                steps.append(HostStep("{h}'s heartbeat write fails", failed, LOSS))
                late = failed._replace(late_beat=host.beat[1:])
                steps.append(HostStep("{h}'s heartbeat write fails, but may land later", late, LOSS))
        if host.op is None:
            return steps
        free = host._replace(op=None)
        match host.op:
            case ("read", rec):
                steps.append(HostStep("the keeper of {h} has read the register", happen(free, "read", rec), FREE))
                steps.append(HostStep("the keeper of {h} cannot read the register", happen(free, "unread"), LOSS))
            case ("reads",):
                steps.append(HostStep("the keeper of {h} cannot read the register", happen(free, "unread"), LOSS))
            case ("linked", outcome):
                heard = happen(free, "linked", outcome)
                steps.append(HostStep(f"the keeper of {{h}} hears that its link is {outcome}", heard, FREE))
                unknown = happen(free, "linked", LinkOutcome.UNKNOWN)
                steps.append(HostStep(f"{{h}}'s link is {outcome}, but its keeper does not hear of it", unknown, LOSS))
            case ("links", rec):
                unknown = happen(free, "linked", LinkOutcome.UNKNOWN)
                steps.append(HostStep("{h}'s link fails, and its keeper knows nothing", unknown, LOSS))
                if rec.epoch == 1:
                    late = unknown._replace(late_link=rec)
                    steps.append(HostStep("{h}'s link fails, but may land later", late, LOSS))
        return steps

    def take_order(self, host: HostMemory, evidence: Evidence) -> HostMemory | None:
        """An order arrives: the agent asks its keeper to take the VM over."""
        if host.keeper is None or not host.keeper.ready:
            return None
        return self.happen(host, "takeover", evidence)

    def asked_to_give_up(self, host: HostMemory, store: StoreMemory, me: int) -> tuple[HostMemory, bool] | None:
        """Somebody has read the register, and asks this host to give up what it owns. Whether it says that it has."""
        owned = store.owner == me and not store.released
        if not owned or host.keeper is None or not host.keeper.ready:
            return None
        mine = host.numbered and (store.incarnation, store.session) == (store.numbers[me], host.session)
        handled = self.keepers.handle(host.keeper, "give up", mine)
        return self._carry_out(host, handled), ("word",) in handled.effects

    # -- effects --------------------------------------------------------------------------------------------------

    def happen(self, host: HostMemory, *event: Any) -> HostMemory:
        if host.keeper is None:
            return host
        return self._carry_out(host, self.keepers.handle(host.keeper, *event))

    def _carry_out(self, host: HostMemory, handled: Handled) -> HostMemory:
        """Do the effects in their order. A link that nobody waits for any more may land late."""
        beat, op, late_link = host.beat, host.op, host.late_link
        guest, start, published, asserted = host.guest, host.start, host.published, host.asserted
        if op is not None and not handled.kept:
            late_link = _late(op, late_link)
            op = None
        for effect in handled.effects:
            match effect:
                case ("write", incarnation, ended):
                    beat = ("flies", incarnation, ended, host.session if ended else 0)
                case ("read",):
                    late_link, op = _late(op, late_link), ("reads",)
                case ("link", rec):
                    late_link, op = _late(op, late_link), ("links", rec._replace(session=host.session))
                case ("freeze",):
                    guest = FROZEN.get(guest, guest)
                case ("thaw",):
                    guest = THAWED.get(guest, guest)
                case ("kill",):
                    guest = NONE
                case ("publish", deadline, new_term):
                    published, asserted = deadline, asserted and deadline is not None and not new_term
                case ("remember", by_right):
                    asserted = by_right
                case ("gate", allowed):
                    start = NEXT.get(start, start) if allowed else NONE
        after = host._replace(keeper=handled.memory, published=published, asserted=asserted, beat=beat, op=op)
        return after._replace(guest=guest, start=start, late_link=late_link)

    def _without_keeper(self, host: HostMemory) -> HostMemory:
        late_beat = host.beat[1:] if host.beat is not None and host.beat[0] == "flies" else host.late_beat
        ended = (self.bounds.closes > 0 or self.bounds.gives_up) and host.keeper is not None
        return host._replace(
            keeper=None,
            session=host.session + ended,
            asserted=host.asserted and host.keeper is not None and host.keeper.ready,
            start=NONE if host.start == ASKED else host.start,
            beat=None,
            op=None,
            late_beat=late_beat,
            late_link=_late(host.op, host.late_link),
        )

    # -- the datastore --------------------------------------------------------------------------------------------

    def store_steps(self, host: HostMemory, store: StoreMemory, me: int) -> list[StoreStep]:
        """What of this host's requests can land now."""
        steps: list[StoreStep] = []
        if host.beat is not None and host.beat[0] == "flies":
            landed = host._replace(beat=("landed",))
            if 1 - me not in self.bounds.observers:
                # Nobody looks at it: when it lands is of no consequence.
                landed = self.happen(host._replace(beat=None), "written", True)
            steps.append(StoreStep("{h}'s heartbeat lands", landed, _written(store, me, host.beat[1:]), False, True))
        if host.late_beat is not None:
            landed = host._replace(late_beat=None)
            written = _written(store, me, host.late_beat)
            steps.append(StoreStep("a heartbeat of {h} from before lands late", landed, written, False, True))
        if host.op is not None and host.op[0] == "reads":
            rec = self.newest(store, me)._replace(session=0)
            done = host._replace(op=("read", rec))
            if not self.bounds.slow_reads:
                done = self.happen(host._replace(op=None), "read", rec)
            steps.append(StoreStep("the keeper of {h} reads the register", done, store))
        if host.op is not None and host.op[0] == "links":
            outcome, after, rises = self._link(store, host.op[1], me)
            landed = host._replace(op=("linked", outcome))
            steps.append(StoreStep(f"{{h}}'s link lands and is {outcome}", landed, after, rises))
        if host.late_link is not None:
            outcome, after, rises = self._link(store, host.late_link, me)
            landed, what = host._replace(late_link=None), f"a link of {{h}} from before lands late and is {outcome}"
            steps.append(StoreStep(what, landed, after, rises))
        keeper = host.keeper
        if keeper is None or not keeper.ready:
            return steps
        if host.numbered and keeper.incarnation is None:
            told = self.happen(host, "number", store.numbers[me])
            steps.append(StoreStep("the keeper of {h} learns the number of its boot", told, store))
        if not host.numbered:
            numbers = (store.numbers[0] + (me == 0), store.numbers[1] + (me == 1))
            landed = host._replace(numbered=True)
            steps.append(StoreStep("the number of {h}'s boot lands", landed, store._replace(numbers=numbers)))
        return steps

    def newest(self, store: StoreMemory, me: int) -> Rec:
        """The register's newest record, as that host sees it."""
        return Rec(0, store.owner ^ me, store.incarnation, store.released, store.session, store.handed)

    def _link(self, store: StoreMemory, rec: Rec, me: int) -> tuple[LinkOutcome, StoreMemory, bool]:
        """What the simulated datastore, whose links follow `drivers/datastore/registers.py`, makes of it.

        The outcome, what is stored then, and whether the register rose.
        """
        real = Datastore(HOME, "nfs", "device")
        older = record_of(Rec(OLD_EPOCH, 1, 0, False))
        before = {Epoch(epoch): older for epoch in range(NEWEST - 3, NEWEST)} | {NEWEST: record_of(self.newest(store, me))}
        real.registers[VM] = dict(before)
        # Every link has a nonce of its own; what is found under a name is never taken for one's own by chance.
        outcome = real.link(msgspec.structs.replace(record_of(rec), nonce=Nonce("new")))
        register = real.registers[VM]
        if register == before:
            return outcome, store, False
        kept = all(register[epoch] == record for epoch, record in before.items() if epoch in register)
        linked = store._replace(owner=me, incarnation=rec.incarnation, released=rec.released, session=rec.session)
        linked = linked._replace(handed=rec.handed)
        return outcome, linked._replace(sound=store.sound and kept), max(register) > NEWEST

    # -- observers ------------------------------------------------------------------------------------------------

    def observer_steps(self, observer: ObserverMemory) -> list[tuple[str, ObserverMemory]]:
        """What an agent does by itself."""
        handle, steps = self.observers.handle, []
        if observer.found is not None:
            steps.append(("the agent of {h} has the answer about {p}'s record", handle(observer, "sighted")))
        if observer.reading is None and self.bounds.slow_reads:
            steps.append(("the agent of {h} begins to read {p}'s record", self.observers.begin_reading(observer)))
        if observer.register is not None:
            steps += self._register_known(observer)
        if observer.case is not None:
            steps.append(("the agent of {h} looks for proof", handle(observer, "prove")))
        return [step for step in steps if step[1] != observer]

    def _register_known(self, observer: ObserverMemory) -> list[tuple[str, ObserverMemory]]:
        rec = observer.register
        if rec is None:
            return []
        return [
            ("the agent of {h} knows the register's epoch", self.observers.handle(observer, "register")),
            ("the agent of {h} orders the owner in the register to start it anew", self.observers.order_own(observer, rec)),
        ]

    def observer_reads(self, observer: ObserverMemory, store: StoreMemory, me: int) -> list[tuple[str, ObserverMemory]]:
        """What an agent's reads find on the datastore now."""
        steps: list[tuple[str, ObserverMemory]] = []
        slow = self.bounds.slow_reads
        incarnation, ended, session = store.beats[1 - me]
        same = observer.known is not None and observer.known.current
        found = Seen(same, True, incarnation, ended, session, store.numbers[1 - me])
        if not slow:
            read = self.observers.begin_reading(observer)._replace(found=found)
            steps.append(("the agent of {h} reads {p}'s record", self.observers.handle(read, "sighted")))
            steps += self._register_known(observer._replace(register=self.newest(store, me)))
        elif observer.reading is not None and observer.found is None:
            steps.append(("the agent of {h}'s read of {p}'s record is done", observer._replace(found=found)))
        if slow and observer.register is None:
            read = observer._replace(register=self.newest(store, me))
            steps.append(("the agent of {h}'s read of the register is done", read))
        return [step for step in steps if step[1] != observer]

    # -- time -----------------------------------------------------------------------------------------------------

    def may_tick(self, host: HostMemory) -> bool:
        """Whether time may go on: nothing on this host is at the end of its promised latency."""
        if host.start == PASSED and not self.bounds.late_starts:
            return False
        if host.start == LAUNCHED and not self.bounds.late_launches:
            return False
        if host.guest not in AWAKE:
            return True
        keeper, margin = host.keeper, self.bounds.margin
        if keeper is None or not keeper.ready:
            return host.published is None or host.published + margin > 1
        if keeper.vm is None or not keeper.vm.pid:
            return False
        if keeper.deadline is None or keeper.deadline + margin > 1:
            return True
        return not {("freeze",), ("kill",)} & set(self.keepers.handle(keeper, "woken").effects)

    def tick(self, host: HostMemory) -> HostMemory:
        """The same host, one tick later. A lease that ends with nothing to be frozen is judged at once (`lapsed`)."""
        keeper, published = host.keeper, host.published
        later = host._replace(
            keeper=self.keepers.tick(keeper) if keeper is not None else None,
            published=max(published - 1, -self.bounds.margin) if published is not None else None,
        )
        keeper = later.keeper
        if keeper is None or not keeper.ready or keeper.deadline is None or keeper.deadline > 0 or host.guest in AWAKE:
            return later
        return self._carry_out(later, self.keepers.lapsed(keeper))

    def overtaken(self, host: HostMemory) -> HostMemory:
        """The same host, when the register has a newer epoch."""
        op = host.op
        if op is not None and op[0] in ("read", "links"):
            rec = op[1]
            op = (op[0], rec._replace(epoch=max(rec.epoch - 1, OLD_EPOCH)))
        return host._replace(
            keeper=self.keepers.overtaken(host.keeper) if host.keeper is not None else None,
            op=op,
            late_link=None,  # What is linked from an epoch that is not the newest is lost whenever it lands.
        )


def _late(op: tuple[Any, ...] | None, late_link: Rec | None) -> Rec | None:
    return op[1] if op is not None and op[0] == "links" and op[1].epoch == 1 else late_link


def _written(store: StoreMemory, me: int, beat: tuple[Any, ...]) -> StoreMemory:
    beats = (beat, store.beats[1]) if me == 0 else (store.beats[0], beat)
    return store._replace(beats=beats)


def _runs_by_right(keeper: KeeperMemory, vm: VmMemory) -> bool:
    """What a keeper asks before it thaws what it has not frozen itself (`runs_by_right`, and the deadline once more)."""
    return vm.phase is Phase.RUNNING and vm.granted == 0 and keeper.deadline is not None and keeper.deadline > 0
