"""One VM's way back: what stays of an order when it begins anew."""

from __future__ import annotations

from outlast.model.ids import DatastoreName, HostId, RequestId, VmId, VmName
from outlast.model.records import ProtectedVm
from outlast.model.time import Instant
from outlast.protocol.restart import Restart, Stage

ENTRY = ProtectedVm(vm=VmId("u-1"), name=VmName("web"), memory_mib=512, last_host=HostId("a"))


def test_a_way_that_begins_anew_leads_nowhere_yet() -> None:
    """Its target had started it, and was isolated before any list showed it (random world 20262399)."""
    case = Restart(ENTRY, DatastoreName("ds1"), Instant(0))
    case.target = HostId("b")
    case.read(RequestId(1), Instant(5))
    assert (case.stage, case.target) == (Stage.READING, None)
