"""The small world in which the VM may migrate, once, from the first host to the second (decision 19).

    stage     what is so                                                             then
    none      nobody has asked                                                       asking
    asking    the source's agent asks for a place for the copy                       promised, over
    promised  the destination's keeper expects the copy                              copying, over
    copying   a process there receives the memory, or is about to                    whole, over
    whole     the source's guest stands still, and the copy has all of its memory    gone, over
    gone      the source's process has ended, whoever ended it                       handed, over
    handed    the source's agent has asked for the release that names the copy       over, when the copy is gone
    over      it has failed, or whoever carried it on has forgotten it

Each step may come as late as it likes, or never, between all that happens in the small world anyway. What the agents say is
as wrong as it can be where nothing but an agent's memory keeps it right: a question is asked again, the destination's
agent gives the copy up whenever it likes, either agent has libvirt let a guest go on whenever its keeper says that the VM
runs, libvirt lets the source go on though its copy is whole. What only libvirt and QEMU can do is theirs: memory is sent
while both processes are awake, and libvirt never lets a copy go on by itself.

The destination has run the VM before, in the very term that it holds at first: what its keeper has written down about that
must not speak for the copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from outlast.protocol.ownership import Phase
from outlast.sim.small_parts import (
    ARRIVES,
    ASKED,
    BOTH,
    EXECUTES,
    LAUNCHED,
    NONE,
    PAUSED,
    PLAIN,
    STOPPED,
    Bounds,
    HostMemory,
    KeeperMemory,
)
from outlast.sim.small_search import BITS, MASK, NAMES, SHIFT, Parts, Search
from outlast.sim.small_world import SmallWorld

NEVER, ASKING, PROMISED, COPYING, WHOLE, GONE, HANDED, OVER = range(8)
MIGRATION = SHIFT[6]
LET_GO = {PAUSED: EXECUTES, BOTH: STOPPED}
"""What becomes of a guest that libvirt is told to let go on. A stopped process hears of it when it goes on itself."""
_ABOUT = (1 << 2 * BITS) - 1 | MASK << MIGRATION


class Migration(NamedTuple):
    """How far it is. `whole`: there is a copy, and it has everything; `stale`: its guest has executed elsewhere since."""

    stage: int = NEVER
    whole: bool = False
    stale: bool = False


class Scene(NamedTuple):
    """What the steps of a migration are about."""

    migration: Migration
    source: HostMemory
    target: HostMemory


Step = tuple[str, int, Scene]
"""What happens in words, to which host, and what is so then."""


class SmallMigration:
    """What can happen to a migration."""

    def __init__(self, world: SmallWorld) -> None:
        self._world = world

    def steps(self, scene: Scene) -> list[Step]:
        """All that can happen next."""
        return [*self._at_source(scene), *self._at_target(scene), *self._between(scene)]

    def _at_source(self, scene: Scene) -> Iterator[Step]:
        (stage, *_), source, _ = scene
        running = _phase(source) is Phase.RUNNING
        if stage == NEVER and running:
            yield "the agent of {h} begins to migrate the VM to {p}", 0, _entering(scene, ASKING)
        if ASKING <= stage <= COPYING:
            yield "the migration fails", 0, _entering(scene, OVER)
        if stage == WHOLE:
            failed = _entering(scene, OVER)
            yield "the migration fails, and libvirt on {h} leaves the VM paused", 0, failed
            if source.guest in LET_GO:
                goes_on = failed._replace(source=source._replace(guest=LET_GO[source.guest]))
                yield "the migration fails, and libvirt on {h} lets the VM go on", 0, goes_on
            ended = source._replace(guest=NONE)
            yield "libvirt on {h} ends the VM's process, which has migrated", 0, scene._replace(source=ended)
        if stage == GONE:
            yield "the agent of {h} forgets that the VM has migrated", 0, _entering(scene, OVER)
        if self.may_hand_over(stage) and _ready(source) is not None:
            released = self._world.happen(source, "hand over")
            asked = _entering(scene, HANDED)._replace(source=released)
            yield "the agent of {h} asks for the release that names the copy on {p}", 0, asked
        if stage >= HANDED and running and source.guest in LET_GO:
            goes_on = scene._replace(source=source._replace(guest=LET_GO[source.guest]))
            yield "the agent of {h} has libvirt let the VM go on, which stands still", 0, goes_on

    def may_hand_over(self, stage: int) -> bool:
        """Whether the source's agent may ask for the release that names the copy."""
        return stage == GONE

    def has_migrated(self, stage: int) -> bool:
        """Whether the end of the source's process means that it has migrated, as far as its agent knows."""
        return stage == WHOLE

    def _at_target(self, scene: Scene) -> Iterator[Step]:
        (stage, *_), _, target = scene
        happen, keeper = self._world.happen, _ready(target)
        idle = target.guest == NONE and target.start == NONE
        if keeper is not None and ASKING <= stage <= COPYING:
            yield from self._asked_for_place(scene)
        if keeper is not None and stage == PROMISED and idle:
            begun = happen(target._replace(start=ASKED, kind=ARRIVES), "receive")
            what = "libvirt on {h} is to receive the VM, and asks the gate"
            yield what, 1, _entering(scene, COPYING)._replace(target=begun)
        if keeper is not None and stage == HANDED:
            frozen = scene._replace(target=happen(target, "inherit"))
            yield "the keeper of {h} is told that the copy is whole and its source gone", 1, frozen
        if target.kind == ARRIVES and target.guest in LET_GO and _phase(target) is Phase.RUNNING:
            goes_on = scene._replace(target=target._replace(guest=LET_GO[target.guest]))
            yield "the agent of {h} has libvirt let the copy go on", 1, goes_on
        if stage == OVER and target.kind == ARRIVES and target.guest != NONE:
            ended = scene._replace(target=target._replace(guest=NONE))
            yield "libvirt on {h} ends the copy", 1, ended
        yield from self._given_up(scene)

    def _asked_for_place(self, scene: Scene) -> Iterator[Step]:
        """The agent of the destination asks its keeper, again if it is a new one; its answer may get lost."""
        keeper = scene.target.keeper
        if keeper is None:
            return
        handled = self._world.keepers.handle(keeper, "expect")
        asked = scene._replace(target=self._world.happen(scene.target, "expect"))
        yield "the keeper of {h} is asked for a place for a copy", 1, asked
        if scene.migration.stage == ASKING:
            allowed = ("place", True) in handled.effects
            stage, word = (PROMISED, "promises") if allowed else (OVER, "refuses")
            yield f"the keeper of {{h}} {word} a place for a copy", 1, _entering(asked, stage)

    def _given_up(self, scene: Scene) -> Iterator[Step]:
        """Patience ends, the keeper's or an agent's. A copy that was launched is not given up by time."""
        stage, target, phase = scene.migration.stage, scene.target, _phase(scene.target)
        happen = self._world.happen
        sent = target.start == LAUNCHED or target.guest != NONE
        if phase in (Phase.EXPECTED, Phase.HEIR) or (phase is Phase.ARRIVING and not sent):
            unsent = scene._replace(target=happen(target, "unsent"))
            yield "the keeper of {h} waits no longer for the migration", 1, unsent
        expected = stage == OVER and phase in (Phase.EXPECTED, Phase.ARRIVING)
        if expected or phase in (Phase.COPY, Phase.HEIR):
            dropped = scene._replace(target=happen(target, "drop"))
            yield "the keeper of {h} is told that the migration has come to nothing", 1, dropped

    def _between(self, scene: Scene) -> Iterator[Step]:
        (stage, *_), source, target = scene
        flows = source.guest == EXECUTES and target.guest == PAUSED and target.kind == ARRIVES
        if stage == COPYING and flows:
            whole = Scene(Migration(WHOLE, True, False), source._replace(guest=PAUSED), target)
            yield "the VM stands still on {h}, and its copy on {p} is whole", 0, whole

    # -- what follows by itself -------------------------------------------------------------------------------------

    def settled(self, scene: Scene) -> Scene:
        """The same, after what is so by the definition of a stage, and without what cannot matter any more."""
        migration, source, target = scene
        source, target = _without_kind(source), _without_kind(target)
        copied = target.kind == ARRIVES
        if migration.whole and copied and target.guest == EXECUTES and not migration.stale:
            # It goes on, and from here on it is a process like any other. Whether it may, is judged as of any other.
            target, copied = _as_plain(target), False
        migration = self._reached(migration, source, target, copied=copied)
        if migration.stage >= HANDED:
            source = _as_plain(source)  # Nobody asks any more which of its processes has migrated.
        whole = migration.whole and copied
        stale = whole and (migration.stale or source.guest == EXECUTES)
        return Scene(Migration(migration.stage, whole, stale), source, target)

    def _reached(self, migration: Migration, source: HostMemory, target: HostMemory, *, copied: bool) -> Migration:
        """The stage that follows from what is there. Whoever carries it on is gone with the source's power."""
        stage, ended = migration.stage, source.guest == NONE
        if not source.on and ASKING <= stage <= GONE:
            stage = OVER
        elif ended and self.has_migrated(stage):
            stage = GONE
        elif (stage == COPYING and not copied) or (ended and ASKING <= stage <= COPYING):
            stage = OVER
        elif stage == HANDED:
            stage = HANDED if copied or _has_handover(target.keeper) else OVER
        return migration._replace(stage=stage)


def _without_kind(host: HostMemory) -> HostMemory:
    gone = host.kind != PLAIN and host.guest == NONE and host.start == NONE
    return host._replace(kind=PLAIN) if gone else host


def _as_plain(host: HostMemory) -> HostMemory:
    keeper = host.keeper
    if keeper is not None and keeper.vm is not None:
        vm = keeper.vm._replace(pid=PLAIN if keeper.vm.pid else NONE, ended=False)
        keeper = keeper._replace(vm=vm._replace(handover=vm.handover and not vm.pid))
    return host._replace(kind=PLAIN, keeper=keeper)


def _entering(scene: Scene, stage: int) -> Scene:
    return scene._replace(migration=scene.migration._replace(stage=stage))


def _ready(host: HostMemory) -> KeeperMemory | None:
    return host.keeper if host.keeper is not None and host.keeper.ready else None


def _phase(host: HostMemory) -> Phase | None:
    keeper = _ready(host)
    return keeper.vm.phase if keeper is not None and keeper.vm is not None else None


def _knows_that_its_lease_is_over(host: HostMemory) -> bool:
    keeper = _ready(host)
    return keeper is not None and keeper.deadline is None and keeper.vm is not None and keeper.vm.pid != NONE


def _has_handover(keeper: KeeperMemory | None) -> bool:
    return keeper is not None and keeper.vm is not None and keeper.vm.handover


class MigrationSearch(Search):
    """A search in which the migration is a part of its own."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(bounds)
        self._migrations = Parts()
        self._migrating = SmallMigration(self.world)
        self._settled: dict[int, int] = {}
        self._following: dict[int, tuple[tuple[int, str, int], ...]] = {}

    def first(self) -> int:
        """The state that everything begins with."""
        return super().first() | self._migrations[Migration()] << MIGRATION

    def judge(self, key: int) -> str:
        """The invariant that a state breaks, or an empty string."""
        broken = super().judge(key)
        if broken:
            return broken
        migration, *hosts = self._scene(key & _ABOUT)
        for me, host in enumerate(hosts):
            if host.guest == EXECUTES and _knows_that_its_lease_is_over(host):
                return f"present-term: the VM executes on {NAMES[me]}, whose keeper knows that its lease is over"
        if hosts[1].kind != ARRIVES or hosts[1].guest != EXECUTES:
            return ""
        fault = "its guest has executed elsewhere since it was whole" if migration.stale else "it is not whole"
        return f"no-stale-copy: the copy on {NAMES[1]} goes on, and {fault}"

    def steps(self, key: int) -> Iterator[tuple[int, str, int]]:
        """Each state that can follow, what happened in words, and to which host."""
        settled = self._settled
        for follows, label, me in super().steps(key):
            about = follows & _ABOUT
            after = settled.get(about)
            yield follows - about + (self._settle(about) if after is None else after), label, me
        about = key & _ABOUT
        found = self._following.get(about)
        if found is None:
            found = self._following[about] = tuple(
                (self._settle(self._number(scene)), label, me)
                for label, me, scene in self._migrating.steps(self._scene(about))
            )
        for then, label, me in found:
            yield key - about + then, label, me

    def _settle(self, about: int) -> int:
        found = self._settled.get(about)
        if found is None:
            found = self._settled[about] = self._number(self._migrating.settled(self._scene(about)))
        return found

    def _scene(self, about: int) -> Scene:
        source, target = self.hosts.all[about & MASK], self.hosts.all[about >> BITS & MASK]
        return Scene(self._migrations.all[about >> MIGRATION], source, target)

    def _number(self, scene: Scene) -> int:
        hosts = self.hosts[scene.source] | self.hosts[scene.target] << BITS
        return hosts | self._migrations[scene.migration] << MIGRATION
