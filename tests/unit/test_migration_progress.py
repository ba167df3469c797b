"""How far a live migration is: what libvirt says, what its host tells of it, and what is shown."""

from __future__ import annotations

from typing import Any

import libvirt
import msgspec
import pytest
from agent_values import keeper_report
from test_own_host import DS, NAME, OTHER, VM, Agent

from outlast.drivers.hypervisor import migration
from outlast.model.effects import MigrateVm, Send
from outlast.model.events import VmMigrationEnded, VmMigrationProgress
from outlast.model.ids import Epoch, HostName, RequestId
from outlast.model.inventory import HostMember
from outlast.model.keeping import KeptVm
from outlast.model.messages import CopyReport, CopyWanted, MigrateOrder
from outlast.model.status import MigrationStatus


class Domain:
    def __init__(self, **stats: int) -> None:
        self.stats = stats

    def lookupByUUIDString(self, _: str) -> Domain:
        return self

    def jobStats(self) -> dict[str, Any]:
        return self.stats


def test_libvirts_words_become_values() -> None:
    running = {"type": libvirt.VIR_DOMAIN_JOB_UNBOUNDED, "data_total": 2000 << 20, "data_remaining": 500 << 20}
    assert migration.progress(Domain(**running, memory_bps=110 << 20, downtime=60), VM) == migration.Progress(
        2000, 500, 110, 60
    )
    assert migration.progress(Domain(**running), VM) == migration.Progress(2000, 500, 0, 0)
    assert migration.progress(Domain(type=libvirt.VIR_DOMAIN_JOB_NONE), VM) is None
    assert migration.progress(Domain(type=libvirt.VIR_DOMAIN_JOB_UNBOUNDED), VM) is None, "it has only just begun"


def test_its_host_tells_of_it_for_as_long_as_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent()
    agent.known.members[OTHER] = HostMember(OTHER, HostName("beta"), "192.0.2.2", 1)
    monkeypatch.setattr(agent.known, "live", lambda _: True)
    agent.known.keeper = keeper_report(vms=(KeptVm(VM, NAME, DS, Epoch(1), "running", 42),))
    agent.migrations.ordered(OTHER, MigrateOrder(order=1, vm=VM, destination=OTHER))
    agent.migrations.tick()
    sent = [effect.message for effect in agent.out.take() if isinstance(effect, Send)]
    (wanted,) = [message for message in sent if isinstance(message, CopyWanted)]
    agent.migrations.reported(OTHER, CopyReport(handover=wanted.handover, vm=VM, stage="expected"))
    (begun,) = [effect for effect in agent.out.take() if isinstance(effect, MigrateVm)]
    assert agent.migrations.copying == ()
    assert agent.migrations.under_way
    told = VmMigrationProgress(begun.request, VM, 2000, 500, 110, 60)
    agent.migrations.progressed(msgspec.structs.replace(told, request=RequestId(99)))
    assert agent.migrations.copying == (), "that is of another one"
    agent.migrations.progressed(told)
    (copying,) = agent.migrations.copying
    assert (copying.vm, copying.to, copying.remaining_mib) == (VM, OTHER, 500)
    agent.migrations.ended(VmMigrationEnded(begun.request, VM, True))
    assert agent.migrations.copying == ()
    assert agent.migrations.under_way, "its copy has not said that it runs"


@pytest.mark.parametrize(
    ("total", "left", "sentence"),
    [
        (2000, 500, "on its way to beta: 75 %, 500 of 2000 MiB left at 110 MiB/s, then a pause of about 60 ms"),
        (0, 0, "on its way to beta: 0 %, 0 of 0 MiB left at 110 MiB/s, then a pause of about 60 ms"),
    ],
)
def test_what_people_read(total: int, left: int, sentence: str) -> None:
    status = MigrationStatus(to="beta", total_mib=total, remaining_mib=left, mib_s=110, downtime_ms=60)
    assert status.sentence == sentence
