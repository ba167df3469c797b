"""What a domain's XML means: which VMs can be protected, which cannot and why, and what their policy is."""

import pytest

from outlast.drivers.hypervisor.domains import Policy, define, find_policy, parse, policy_element
from outlast.drivers.hypervisor.needs import NAMESPACE
from outlast.model.ids import DatastoreName, VmName
from outlast.model.inventory import DatastoreMember
from outlast.model.policy import Ready, VmPolicy
from outlast.model.time import SECOND, Duration

STORES = (DatastoreMember(DatastoreName("ds1"), "/srv/ds1"), DatastoreMember(DatastoreName("ds2"), "/srv/ds2/"))


def xml(*disks: str, memory: str = "<memory unit='KiB'>2097152</memory>", policy: str = "") -> str:
    metadata = f"<metadata><o:vm xmlns:o='{NAMESPACE}' {policy}/></metadata>" if policy else ""
    return f"<domain><name>web</name><uuid>u-1</uuid>{metadata}{memory}<devices>{''.join(disks)}</devices></domain>"


def disk(path: str) -> str:
    return f"<disk type='file'><source file='{path}'/><target dev='vda'/></disk>"


def test_the_first_disks_datastore_is_home() -> None:
    found = define(xml(disk("/srv/ds2/a.raw"), disk("/srv/ds1/b.raw"), disk("/srv/ds2/c.raw")), Policy(), STORES)
    assert (found.vm, found.name, found.home) == ("u-1", "web", "ds2")
    assert found.datastores == ("ds2", "ds1")
    assert found.protected
    assert found.unprotectable == ""
    assert found.memory_mib == 2048


@pytest.mark.parametrize(
    ("disks", "words"),
    [
        ((), "it has no disk on a datastore of the fault domain"),
        ((disk("/var/lib/libvirt/images/a.raw"),), "its disk /var/lib/libvirt/images/a.raw is not on a datastore"),
        ((disk("/srv/ds1/a.raw"), disk("/root/b.raw")), "its disk /root/b.raw is not on a datastore"),
        ((disk("/srv/ds1/../x/a.raw"),), "its disk /srv/x/a.raw is not on a datastore"),
        (("<disk type='network'><source protocol='rbd'/><target dev='vdb'/></disk>",), "its disk vdb is of type network"),
        (("<disk type='block'><source dev='/dev/sda'/><target dev='sda'/></disk>",), "its disk sda is of type block"),
    ],
)
def test_what_cannot_be_protected_says_why(disks: tuple[str, ...], words: str) -> None:
    found = define(xml(*disks), Policy(), STORES)
    assert words in found.unprotectable
    assert not found.protected


def test_an_empty_drive_is_no_disk() -> None:
    drive = "<disk type='file' device='cdrom'><target dev='sda'/></disk>"
    assert define(xml(disk("/srv/ds1/a.raw"), drive), Policy(), STORES).protected


@pytest.mark.parametrize(
    ("memory", "mib"),
    [
        ("<memory unit='GiB'>3</memory>", 3072),
        ("<memory>1048576</memory>", 1024),
        ("<memory unit='b'>1048576</memory>", 1),
        ("<memory/>", 0),
        ("", 0),
    ],
)
def test_memory_has_units(memory: str, mib: int) -> None:
    assert define(xml(disk("/srv/ds1/a.raw"), memory=memory), Policy(), STORES).memory_mib == mib


@pytest.mark.parametrize(
    ("policy", "expected", "words"),
    [
        ("", None, ""),
        ("protected='yes'", Policy(), ""),
        ("protected='no'", Policy(protected=False), ""),
        ("isolation-response='power-off'", Policy(how=VmPolicy(isolation_response="power-off")), ""),
        ("priority='disabled'", Policy(how=VmPolicy(priority="disabled")), ""),
        ("after='db1, db 2,,db1'", Policy(how=VmPolicy(after=(VmName("db1"), VmName("db 2")))), ""),
        ("ready='delay:90s'", Policy(how=VmPolicy(ready=Ready("delay", Duration(90 * SECOND)))), ""),
        ("max-restarts='-1' max-relocations='0'", Policy(how=VmPolicy(max_restarts=-1, max_relocations=0)), ""),
        ("priority='urgent'", Policy(), "priority is 'urgent', and must be one of highest, high, medium, low, lowest"),
        ("after='web'", Policy(), "after names the VM itself"),
        ("ready='soon'", Policy(), "ready: 'soon' is not"),
        ("max-restarts='many'", Policy(), "max-restarts is 'many', and must be a number from 0, or -1 for without end"),
        ("protected='maybe'", Policy(), "protected is 'maybe', and must be yes or no: it counts as yes"),
        ("guest-monitoring='yes'", Policy(), "guest-monitoring is 'yes', and must be one of off, on: it is not used"),
        ("isolation-response='run'", Policy(), "isolation-response is 'run', and must be one of leave-running, shut-down"),
    ],
)
def test_policy(policy: str, expected: Policy | None, words: str) -> None:
    found = find_policy(parse(xml(policy=policy)))
    assert found.policy == expected
    assert words in found.problem


def test_what_is_written_is_read_back() -> None:
    how = VmPolicy(
        priority="high",
        after=(VmName("db1"), VmName("db2")),
        ready=Ready("guest-heartbeat"),
        max_restarts=0,
        max_relocations=-1,
        isolation_response="shut-down",
        guest_monitoring="on",
    )
    policy = Policy(protected=False, how=how)
    element = policy_element(policy).replace("<vm ", f"<o:vm xmlns:o='{NAMESPACE}' ")
    found = find_policy(parse(f"<domain><name>web</name><metadata>{element}</metadata></domain>"))
    assert (found.policy, found.problem) == (policy, "")


def test_an_unprotected_vm_is_not_unprotectable() -> None:
    found = define(xml(disk("/srv/ds1/a.raw")), Policy(protected=False), STORES)
    assert not found.protected
    assert found.unprotectable == ""
