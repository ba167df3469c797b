"""The fault domain's settings: changed by the primary, on every datastore and host, the same everywhere in the end."""

from __future__ import annotations

import pytest
from test_sim_failover import domain, never_twice, secondary

from outlast.model.commands import ChangeSettings, Command, Outcome, PauseRecovery, ResumeRecovery
from outlast.model.settings import Pause, Settings, SettingsMark, SettingsRecord, StoredSettings
from outlast.model.time import MILLISECOND, seconds
from outlast.protocol.reporting import Reporter
from outlast.sim.agent_host import AgentHost
from outlast.sim.world import World

LONGER: Command = ChangeSettings({"lease_duration": seconds(12), "datastore_stale_after": seconds(14)})


def asked(world: World, host: str, command: Command, within_s: float = 14.0, number: int = 1) -> Outcome:
    """An operator gives a command on that host, and waits."""
    outcomes: list[Outcome] = []
    world.hosts[host].agent.give_command(number, command, outcomes.append)
    assert world.run_until(lambda: bool(outcomes), within_s) is not None
    return outcomes[0]


def agent(world: World, host: str) -> AgentHost:
    return world.hosts[host].agent


def used(world: World, host: str) -> tuple[int, Settings]:
    machine = world.hosts[host].agent.machine
    assert machine is not None
    return machine.known.mark.version, machine.known.settings


def kept_by_keeper(world: World, host: str) -> Settings:
    machine = world.hosts[host].keeper.machine
    assert machine is not None
    return machine.settings


def test_a_change_reaches_every_agent_keeper_datastore_and_disk() -> None:
    world = domain()
    host, _ = secondary(world)
    outcome = asked(world, host, LONGER, 1.0)
    assert outcome.ok
    assert [(c.name, c.old, c.new) for c in outcome.changes] == [
        ("lease_duration", "6s", "12s"),
        ("datastore_stale_after", "7.5s", "14s"),
    ]
    world.run(2)
    for name in world.hosts:
        version, settings = used(world, name)
        assert (version, settings.lease_duration) == (1, seconds(12))
        assert kept_by_keeper(world, name) == settings
        record = world.hosts[name].record
        assert record is not None
        assert record.by == f"root@{host}"
    for store in world.domain.stores.values():
        stored = store.newest_settings()
        assert stored is not None
        assert stored.record.mark.version == 1
    never_twice(world)


def test_values_that_do_not_fit_together_are_refused_and_nothing_changes() -> None:
    world = domain()
    outcome = asked(world, "host1", ChangeSettings({"lease_duration": seconds(12)}))
    assert not outcome.ok
    assert not outcome.try_again
    assert "datastore_stale_after is 7.5s, but must be at least 13.5s" in outcome.sentences[0]
    assert used(world, "host1") == (0, Settings())


def test_what_is_so_already_is_no_change() -> None:
    world = domain()
    outcome = asked(world, "host1", ChangeSettings({"lease_duration": seconds(6)}))
    assert outcome.ok
    assert "nothing to change" in outcome.sentences[0]
    assert asked(world, "host1", ResumeRecovery(), number=2).sentences == (
        "nothing to change: automatic recovery is not paused",
    )
    assert used(world, "host1")[0] == 0


def test_a_margin_below_what_a_watchdog_needs_is_refused_with_the_hosts_name() -> None:
    world = domain()
    host, _ = secondary(world)
    machine = world.hosts[host]
    machine.watchdog = True
    machine.agent.kill()
    world.run(6)
    outcome = asked(world, "host1", ChangeSettings({"lease_margin": seconds(1.2)}))
    assert not outcome.ok
    assert f"the watchdog of {host} and the reset need 1.5s" in outcome.sentences[0]


def test_a_host_that_was_off_hears_of_it_when_it_is_back() -> None:
    world = domain()
    host, _ = secondary(world)
    world.power_off(host)
    world.run(12)
    assert asked(world, world.primaries()[0], LONGER).ok
    world.power_on(host)
    world.run(6)
    assert used(world, host)[1].lease_duration == seconds(12)
    assert kept_by_keeper(world, host).lease_duration == seconds(12)


def test_a_host_without_a_network_hears_of_it_through_storage() -> None:
    world = domain()
    host, _ = secondary(world)
    world.network_cut(host)
    assert asked(world, world.primaries()[0], LONGER).ok
    world.run(7)
    assert used(world, host)[1].lease_duration == seconds(12)
    never_twice(world)


def test_a_keeper_that_begins_anew_needs_no_agent_for_it() -> None:
    world = domain()
    host, _ = secondary(world)
    assert asked(world, host, LONGER).ok
    world.hosts[host].agent.kill(restart=False)
    world.keeper_kill(host)
    world.run(5)
    assert kept_by_keeper(world, host).lease_duration == seconds(12)
    never_twice(world)


def test_a_change_waits_for_a_primary_and_is_made_once() -> None:
    world = domain()
    host, _ = secondary(world)
    world.agent_kill(world.primaries()[0])
    outcome = asked(world, host, PauseRecovery("work on the switch"))
    assert outcome.ok or outcome.try_again
    if not outcome.ok:
        assert asked(world, host, PauseRecovery("work on the switch"), number=2).ok
    assert used(world, host)[0] == 1


def test_without_any_primary_nothing_is_changed() -> None:
    world = domain(hosts=("host1", "host2"))
    host, _ = secondary(world)
    world.network_cut(host)
    world.run(8)
    outcome = asked(world, host, PauseRecovery())
    assert not outcome.ok
    assert outcome.try_again
    assert "there is no primary" in outcome.sentences[0]


def test_a_change_that_no_datastore_took_is_none() -> None:
    world = domain()
    primary = world.primaries()[0]
    for store in ("ds1", "ds2"):
        world.storage_cut(primary, store)
    outcome = asked(world, primary, PauseRecovery(), 20.0)
    assert not outcome.ok
    assert outcome.try_again
    assert used(world, primary)[0] == 0


def test_a_datastore_that_missed_a_change_gets_it_when_it_is_back() -> None:
    world = domain()
    primary = world.primaries()[0]
    world.storage_cut(primary, "ds2")
    outcome = asked(world, primary, PauseRecovery(), 20.0)
    assert outcome.ok
    assert "not written yet on ds2" in outcome.sentences[1]
    assert world.domain.stores[world.vm_specs[1].datastore].newest_settings() is None
    world.storage_heal(primary, "ds2")
    world.run(15)
    stored = world.domain.stores[world.vm_specs[1].datastore].newest_settings()
    assert stored is not None
    assert stored.record.pause is not None


@pytest.mark.parametrize("ours_wins", [True, False])
def test_of_two_records_of_one_version_the_later_term_counts_everywhere_and_the_loss_is_told(ours_wins: bool) -> None:
    world = domain()
    primary = world.primaries()[0]
    assert asked(world, primary, PauseRecovery("ours")).ok
    world.run(2)
    machine = agent(world, primary).machine
    assert machine is not None
    term = machine.known.mark.term + (-1 if ours_wins else 1)
    other = SettingsRecord(
        mark=SettingsMark(1, term, machine.known.me),
        settings=Settings(),
        pause=Pause("root@elsewhere", 0, "theirs"),
        by="x",
    )
    store = world.domain.stores[world.vm_specs[0].datastore]
    store.settings.write(7, StoredSettings(7, other))
    machine.settings.look(store.name)  # As before each act; of itself it looks seldom where it is responsible.
    world.run(12)
    for name in world.hosts:
        known = agent(world, name).machine
        assert known is not None
        assert known.known.pause is not None
        assert known.known.pause.reason == ("ours" if ours_wins else "theirs")
    assert ("settings-superseded" in world.story()) is not ours_wins
    newest = store.newest_settings()
    assert newest is not None
    assert newest.record.pause is not None
    assert newest.record.pause.reason == ("ours" if ours_wins else "theirs")


def test_settings_that_could_not_work_are_taken_from_nobody() -> None:
    world = domain()
    bad = SettingsRecord(mark=SettingsMark(9), settings=Settings(lease_duration=seconds(1)), by="a newer release")
    store = world.domain.stores[world.vm_specs[0].datastore]
    store.settings.write(0, StoredSettings(0, bad))
    world.run(12)
    assert used(world, "host1")[0] == 0
    assert "settings-refused" in world.story()


def test_status_and_settings_tell_of_a_pause_and_of_who_is_late() -> None:
    world = domain()
    host, _ = secondary(world)
    world.agent_stop(host)
    primary = world.primaries()[0]
    assert asked(world, primary, PauseRecovery("work on the switch")).ok
    machine = agent(world, primary).machine
    assert machine is not None
    reporter = Reporter(machine, world.hosts[primary].clock())
    status, settings = reporter.snapshot("1", {}), reporter.settings()
    assert status.paused is not None
    assert (status.paused.by, status.paused.reason) == (f"root@{primary}", "work on the switch")
    assert any("until `outlast resume`" in problem for problem in status.problems)
    assert settings.version == 1
    assert settings.hosts[host] in (0, None)
    assert settings.settings["datastore_poll_interval"] == "500ms"
    assert settings.file_differs == {}
    assert Settings().datastore_poll_interval == 500 * MILLISECOND


def test_recovery_and_isolation_responses_wait_while_it_is_paused_and_go_on_afterwards() -> None:
    world = domain(response="power-off", hosts=("host1", "host2", "host3", "host4"))
    host, vm = secondary(world)
    isolated = next(h for h in world.hosts if h not in (host, world.primaries()[0]))
    stays = next(spec.name for spec in world.vm_specs if world.where(spec.name) == [isolated])
    world.pause()
    world.run(1)
    world.power_off(host)
    world.network_cut(isolated)
    world.run(40)
    assert world.where(vm) == []
    assert world.where(stays) == [isolated]
    assert "restart-ordered" not in world.story()
    world.resume()
    assert world.run_until(lambda: bool(world.where(vm)) and world.where(stays) not in ([], [isolated]), 20) is not None
    never_twice(world)


def test_a_pause_outlives_the_primary_and_every_hosts_power() -> None:
    world = domain()
    world.pause()
    world.run(2)
    for host in world.hosts:
        world.power_off(host)
    world.run(5)
    for host in world.hosts:
        world.power_on(host)
    world.run(20)
    assert "restart-ordered" not in world.story()
    world.resume()
    world.run(30)
    assert all(len(world.where(spec.name)) == 1 for spec in world.vm_specs)
    never_twice(world)
