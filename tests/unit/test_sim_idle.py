"""A part of the agent whose deadline has passed must not be asked again and again: that would be a loop at full speed."""

import pytest
from agent_values import ME, agent_config, keeper_report

from outlast.model.effects import LinkPrimary, ReadProtectedList, ReadRegisters
from outlast.model.events import PrimaryLinked, ProtectedListRead, RegistersRead
from outlast.model.ids import (
    PRIMARY_REGISTER,
    DatastoreName,
    ElectionTerm,
    HostName,
    Incarnation,
    LeaseTerm,
)
from outlast.model.inventory import DatastoreMember, HostMember
from outlast.model.keeper_events import LinkOutcome
from outlast.model.keeping import LeaseReport
from outlast.model.messages import Rank
from outlast.model.time import SECOND, Duration, Instant
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.responsibility import Responsibility, Standing
from outlast.sim.ordeals import ordeal
from outlast.sim.random_runs import play
from outlast.sim.random_scenarios import generate


@pytest.mark.parametrize("name", ["nothing-freezes-there", "a-late-link-meets-a-pruned-name", "it-writes-a-newer-format"])
def test_an_agent_that_hears_nobody_does_not_spin(name: str) -> None:
    """Found by the simulator: with its only peer dead, an agent woke a thousand times a second for ever."""
    outcome = play(ordeal(name, 1))
    seconds = (outcome.began + outcome.scenario.duration) / 1e9
    assert outcome.events / seconds / len(outcome.scenario.hosts) < 60


@pytest.mark.parametrize("name", ["a-vm-ends-while-storage-hangs", "silent-when-our-own-storage-hangs"])
def test_hung_storage_keeps_nobody_busy(name: str) -> None:
    """Found by the simulator: an agent asked for a release again and again that its keeper could not write, as fast as it
    was answered; and one that waited for the read which proves a death asked for it a thousand times a second."""
    outcome = play(ordeal(name, 1))
    seconds = (outcome.began + outcome.scenario.duration) / 1e9
    assert outcome.events / seconds / len(outcome.scenario.hosts) < 60


def test_random_scenarios_are_not_busy() -> None:
    outcome = play(generate(1))
    seconds = (outcome.began + outcome.scenario.duration) / 1e9
    assert outcome.events / seconds / len(outcome.scenario.hosts) < 120


def test_a_list_that_storage_refuses_is_not_written_in_a_loop() -> None:
    """Found by the profile of random runs: lost storage refuses at once, and a primary wrote its protected list again a
    thousand times a second for as long as that lasted."""
    seconds, refused, register = 10, 0, None
    here = DatastoreName("ds1")
    member, store = HostMember(ME, HostName("a"), "192.0.2.1", 7710), DatastoreMember(here, "/srv", Duration(SECOND), True)
    outbox, known = Outbox(), Knowledge(agent_config(hosts=(member,), datastores=(store,)), Instant(SECOND))
    lease = LeaseReport(here, True, LeaseTerm(1), 1000 * SECOND, Incarnation(1))
    known.keeper = keeper_report(leases=(lease,))
    responsibility = Responsibility(known, outbox)
    for turn in range(seconds * 100):
        known.now = Instant(SECOND + turn * SECOND // 100)
        responsibility.tick(Standing(True, known.me, Rank(True, 1, 1, known.me), ElectionTerm(1)))
        for effect in outbox.take():
            match effect:
                case ReadRegisters(request):
                    responsibility.registers_read(RegistersRead(request, here, True, {PRIMARY_REGISTER: register}))
                case LinkPrimary(request, _, record):
                    register = record
                    responsibility.linked(PrimaryLinked(request, here, LinkOutcome.WON))
                case ReadProtectedList(request):
                    refused += 1
                    responsibility.list_read(ProtectedListRead(request, here, False, None, "lost"))
    assert 1 < refused <= seconds
