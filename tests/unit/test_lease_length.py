"""A lease whose length changes: shorter at once, longer only when every VM's epoch says so (`protocol/lease_length.py`)."""

from __future__ import annotations

import msgspec
from test_keeping import CONFIG, DS, ME, VM, Keeper, owned, process

from outlast.model.keeper_effects import (
    Freeze,
    KeeperEffect,
    LinkRegister,
    PublishLease,
    Remember,
    WriteHeartbeat,
)
from outlast.model.keeper_events import LinkOutcome, Woken
from outlast.model.keeping import UseSettings
from outlast.model.records import Enforcement
from outlast.model.settings import Settings, SettingsMark
from outlast.model.time import Duration, Instant, seconds
from outlast.protocol.lease import Adopted, Lease

SHORT, USUAL, LONG = (Settings(lease_duration=seconds(s)) for s in (4, 6, 12))


def uses(keeper: Keeper, settings: Settings, version: int) -> None:
    keeper.asks(UseSettings(settings, SettingsMark(version)))


def record(effect: KeeperEffect) -> tuple[Duration, Duration]:
    assert isinstance(effect, WriteHeartbeat)
    return effect.record.lease, effect.record.window


def window(effect: KeeperEffect) -> Duration:
    assert isinstance(effect, LinkRegister)
    return effect.record.window


def deadline(keeper: Keeper) -> Instant | None:
    return keeper.machine.places[DS].lease.deadline


def beats(keeper: Keeper) -> tuple[Duration, Duration]:
    """What the next heartbeat says."""
    keeper.now += 1.0
    keeper.does(Woken())
    said = record(keeper.one(WriteHeartbeat))
    keeper.renews()
    return said


def test_a_shorter_lease_ends_sooner_at_once() -> None:
    keeper = Keeper().running()
    before = deadline(keeper)
    assert before is not None
    uses(keeper, SHORT, 1)
    assert deadline(keeper) == before - seconds(2)
    published = keeper.one(PublishLease)
    assert isinstance(published, PublishLease)
    assert (published.deadline, published.length) == (before - seconds(2), seconds(4))
    assert window(keeper.one(LinkRegister)) == seconds(5.5)
    assert not keeper.has(Freeze)


def test_a_lease_that_is_over_by_becoming_shorter_freezes_before_anything_is_named() -> None:
    keeper = Keeper().running()
    keeper.now += 5
    uses(keeper, SHORT, 1)
    assert [type(effect) for effect in keeper.effects[:2]] == [Freeze, PublishLease]
    assert not keeper.has(LinkRegister)


def test_a_write_that_is_under_way_grants_no_more_than_the_shorter_lease() -> None:
    keeper = Keeper().running()
    keeper.now += 1
    keeper.does(Woken())
    began = keeper.now
    keeper.now += 0.1
    uses(keeper, SHORT, 1)
    keeper.renews()
    assert deadline(keeper) == seconds(began + 4)


def test_a_longer_lease_waits_for_an_epoch_that_names_it() -> None:
    keeper = Keeper().running()
    uses(keeper, LONG, 1)
    assert window(keeper.one(LinkRegister)) == LONG.window
    link = keeper.one(LinkRegister)
    assert beats(keeper) == (seconds(6), USUAL.window), "nobody may believe yet that this lease is longer"
    keeper.effects = [link]
    keeper.links()
    assert beats(keeper) == (seconds(12), LONG.window)
    assert not keeper.has(Freeze)


def test_without_a_vm_a_longer_lease_is_taken_at_once() -> None:
    keeper = Keeper().guarded()
    uses(keeper, LONG, 1)
    assert beats(keeper) == (seconds(12), LONG.window)


def test_what_a_write_was_begun_for_is_all_that_it_grants() -> None:
    keeper = Keeper().guarded()
    keeper.now += 1
    keeper.does(Woken())
    uses(keeper, LONG, 1)
    keeper.renews()
    assert deadline(keeper) == seconds(keeper.now + 6)


def test_a_link_for_a_short_lease_whose_end_nobody_knows_binds_until_the_next_one_is_won() -> None:
    keeper = Keeper().running()
    uses(keeper, LONG, 1)
    keeper.links()
    uses(keeper, SHORT, 2)
    remembered = keeper.one(Remember)
    assert isinstance(remembered, Remember)
    assert remembered.lease == seconds(4), "its successor must know as well"
    keeper.links(LinkOutcome.UNKNOWN)
    uses(keeper, LONG, 3)
    assert beats(keeper)[0] == seconds(4)


def test_settings_that_are_older_than_ours_are_not_used() -> None:
    keeper = Keeper().guarded()
    uses(keeper, LONG, 2)
    uses(keeper, SHORT, 1)
    assert keeper.machine.settings == LONG
    assert keeper.machine.report().settings == SettingsMark(2)


def test_a_keeper_that_starts_is_bound_by_what_it_finds_running() -> None:
    config = msgspec.structs.replace(CONFIG, settings=LONG)
    keeper = Keeper(msgspec.structs.replace(process(), by_right=seconds(6)), adopted_s=105.0, config=config)
    assert keeper.machine.vms[VM].phase == "running"
    first = keeper.effects
    assert record(keeper.one(WriteHeartbeat))[0] == seconds(6)
    keeper.renews()
    keeper.effects = first
    keeper.reads(owned(ME, 3))
    keeper.links()
    assert beats(keeper)[0] == seconds(12)


def test_an_adopted_deadline_is_counted_from_the_write_on_which_it_rests() -> None:
    now = Instant(seconds(100))
    lease = Lease(SHORT, now, Adopted(Instant(seconds(103)), seconds(6)))
    assert lease.deadline == seconds(101)
    assert Lease(SHORT, now, Adopted(Instant(seconds(101.5)), seconds(6))).deadline != seconds(101.5)


def test_a_watchdog_that_fires_later_than_the_new_margin_is_none() -> None:
    config = msgspec.structs.replace(CONFIG, watchdog_device="/dev/watchdog", enforcement=Enforcement.WATCHDOG)
    keeper = Keeper(config=config).guarded()

    def level() -> Enforcement:
        keeper.now += 1
        keeper.does(Woken())
        written = keeper.one(WriteHeartbeat)
        assert isinstance(written, WriteHeartbeat)
        keeper.renews()
        return written.record.enforcement

    assert level() is Enforcement.WATCHDOG
    uses(keeper, Settings(lease_margin=seconds(1.2)), 1)
    assert level() is Enforcement.KEEPER
