"""The ways in which a disk could be written to twice beside a plain second start: each is refused, with the owner's name.

Another uuid on the same disk, another name, disks that were moved to another datastore, a machine's saved memory, and a
snapshot that somebody reverts to on the wrong host.
"""

from __future__ import annotations

import shutil
import subprocess
from xml.etree import ElementTree

import pytest
from looking import processes, wait_for

from outlast.lab import building, guest, outlast_view
from outlast.lab.lab import Lab

pytestmark = pytest.mark.lab
OTHER_UUID = "5f3cbb6e-0f2f-4b0c-9a55-3d6f5d0b7c11"


def definition(lab: Lab, vm: str, **changes: str) -> ElementTree.Element:
    """A VM's definition, with the texts of the named elements changed."""
    domain = ElementTree.fromstring(building.definition(lab.layout, lab.state(), vm))
    for tag, text in changes.items():
        element = domain.find(tag)
        assert element is not None
        element.text = text
    return domain


def put(lab: Lab, host: str, domain: ElementTree.Element) -> str:
    """Where a host finds that definition."""
    name = domain.findtext("name")
    (lab.layout.host(host) / "lib" / "outlast" / f"{name}.xml").write_bytes(ElementTree.tostring(domain))
    return f"/var/lib/outlast/{name}.xml"


def virsh(lab: Lab, host: str, *words: str) -> subprocess.CompletedProcess[str]:
    return lab.run(host, ["virsh", *words])


def stopped(lab: Lab, vm: str, host: str) -> None:
    assert virsh(lab, host, "destroy", vm).returncode == 0
    wait_for(f"{vm} to stop", lambda: not lab.where(vm))


def test_another_uuid_on_a_disk_is_refused_until_its_vm_has_ended(domain: Lab) -> None:
    owner, pid = processes(domain)["vm1"]
    other = next(name for name in domain.state().hosts if name != owner)
    stranger = definition(domain, "vm1", name="stranger", uuid=OTHER_UUID)
    stranger.set("type", "qemu")
    for host in (other, owner):
        done = virsh(domain, host, "create", put(domain, host, stranger))
        assert done.returncode != 0
        assert "stranger may not start: its disk disks/vm1.raw on ds1 is used by vm1" in done.stderr
        assert f"which {owner} owns (epoch" in done.stderr
    assert processes(domain)["vm1"] == (owner, pid)

    stopped(domain, "vm1", owner)
    # What was switched off may be worked on, as libguestfs does it, and its VM waits.
    wait_for(
        "the stranger to start", lambda: virsh(domain, other, "create", "/var/lib/outlast/stranger.xml").returncode == 0
    )
    done = domain.vm_start("vm1", owner)
    assert done.returncode != 0
    assert f"is used by stranger, which {other} owns" in done.stderr
    assert virsh(domain, other, "destroy", "stranger").returncode == 0
    wait_for("vm1 to start again", lambda: domain.vm_start("vm1", owner).returncode == 0)
    outlast_view.wait_ready(domain)


def test_a_disk_that_is_plugged_in_is_claimed_too(domain: Lab) -> None:
    owner, _ = processes(domain)["vm1"]
    other = next(name for name in domain.state().hosts if name != owner)
    extra = domain.layout.disk("extra", "ds1")
    extra.write_bytes(bytes(1 << 20))
    claims = next(domain.layout.backing("ds1").glob(".outlast/*/disks"))
    before = set(claims.iterdir())
    plug = ("vm1", "/srv/ds1/disks/extra.raw", "vdb")
    assert virsh(domain, owner, "attach-disk", *plug, "--subdriver", "raw").returncode == 0
    wait_for("it to be claimed", lambda: bool(set(claims.iterdir()) - before))
    stranger = definition(domain, "vm1", name="stranger", uuid=OTHER_UUID)
    source = stranger.find("devices/disk/source")
    assert source is not None
    source.set("file", "/srv/ds1/disks/extra.raw")
    done = virsh(domain, other, "create", put(domain, other, stranger))
    assert done.returncode != 0
    assert "its disk disks/extra.raw on ds1 is used by vm1" in done.stderr
    assert virsh(domain, owner, "detach-disk", "vm1", "vdb").returncode == 0


def test_another_name_or_datastore_does_not_hide_a_vm(domain: Lab) -> None:
    owner, pid = processes(domain)["vm1"]
    other = next(name for name in domain.state().hosts if name != owner)
    virsh(domain, other, "undefine", "vm1")
    renamed = definition(domain, "vm1", name="renamed")
    done = virsh(domain, other, "create", put(domain, other, renamed))
    assert done.returncode != 0
    assert f"renamed is owned by {owner} (epoch" in done.stderr

    moved = definition(domain, "vm1")
    source = moved.find("devices/disk/source")
    assert source is not None
    shutil.copy(domain.layout.disk("vm1", "ds1"), domain.layout.disk("vm1-copy", "ds2"))
    source.set("file", "/srv/ds2/disks/vm1-copy.raw")
    done = virsh(domain, other, "create", put(domain, other, moved))
    assert done.returncode != 0
    assert f"vm1 is owned by {owner} (epoch" in done.stderr
    assert processes(domain)["vm1"] == (owner, pid)


def test_saved_memory_is_not_restored(domain: Lab) -> None:
    owner, _ = processes(domain)["vm1"]
    assert virsh(domain, owner, "managedsave", "vm1").returncode == 0
    wait_for("vm1 to stop", lambda: not domain.where("vm1"))
    done = virsh(domain, owner, "start", "vm1")
    assert done.returncode != 0
    assert "virsh managedsave-remove vm1" in done.stderr
    # A start that Outlast itself makes drops what was saved there; elsewhere it knows nothing of it.
    assert domain.run(owner, ["outlast", "vm", "start", "vm1"]).returncode == 0
    wait_for("vm1 to start", lambda: bool(domain.where("vm1")))
    if owner not in domain.where("vm1"):
        done = virsh(domain, owner, "managedsave-remove", "vm1")
        assert done.returncode == 0, done.stderr
    outlast_view.wait_ready(domain)


def test_a_snapshot_is_not_reverted_to_where_a_vm_does_not_run(domain: Lab) -> None:
    owner, _ = processes(domain)["vm1"]
    other = next(name for name in domain.state().hosts if name != owner)
    layered = definition(domain, "vm1", name="layered", uuid=guest.vm_uuid("layered"))
    source, driver = layered.find("devices/disk/source"), layered.find("devices/disk/driver")
    assert source is not None
    assert driver is not None
    image = domain.layout.disk("layered", "ds1").with_suffix(".qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "8M"], check=True)
    source.set("file", "/srv/ds1/disks/layered.qcow2")
    driver.set("type", "qcow2")
    for host in (owner, other):
        assert virsh(domain, host, "define", put(domain, host, layered)).returncode == 0
    assert virsh(domain, owner, "start", "layered").returncode == 0
    assert virsh(domain, owner, "snapshot-create-as", "layered", "before").returncode == 0
    assert virsh(domain, owner, "destroy", "layered").returncode == 0
    wait_for("it to start elsewhere", lambda: virsh(domain, other, "start", "layered").returncode == 0)
    try:
        done = virsh(domain, owner, "snapshot-revert", "layered", "before")
        assert done.returncode != 0
        assert f"layered is owned by {other} (epoch" in done.stderr
    finally:
        virsh(domain, other, "destroy", "layered")
        for host in (owner, other):
            virsh(domain, host, "undefine", "--snapshots-metadata", "layered")
