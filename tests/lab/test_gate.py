"""What `virsh start` is told: libvirt asks before any start, whoever asked for it."""

from __future__ import annotations

import time

import pytest
from looking import processes, wait_for

from outlast.lab.lab import Lab

pytestmark = pytest.mark.lab

STRANGER = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><os><type machine='pc'>hvm</type></os>
<devices><disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/>
<target dev='vda' bus='virtio'/></disk></devices></domain>"""


def test_a_vm_that_runs_elsewhere_is_refused_with_its_owners_name(domain: Lab) -> None:
    owner, pid = processes(domain)["vm1"]
    other = next(name for name in domain.state().hosts if name != owner)
    done = domain.vm_start("vm1", other)
    assert done.returncode != 0
    assert f"outlast: vm1 is owned by {owner} (epoch" in done.stderr
    assert processes(domain)["vm1"] == (owner, pid)


def test_a_domain_without_shared_disks_passes(domain: Lab) -> None:
    private = domain.layout.host("host1") / "lib" / "outlast" / "private.raw"
    private.write_bytes(bytes(1 << 20))
    definition = domain.layout.host("host1") / "lib" / "outlast" / "private.xml"
    definition.write_text(STRANGER.format(name="private", disk="/var/lib/outlast/private.raw"))
    done = domain.run("host1", ["virsh", "create", "/var/lib/outlast/private.xml"])
    assert done.returncode == 0, done.stderr

    def shown() -> str:
        return domain.run("host1", ["outlast", "status", "-o", "json"]).stdout

    # Its host's libvirt is read again for that, which takes a while on a busy machine.
    wait_for("it to be shown", lambda: '"private"' in shown(), 10.0)
    assert "is not on a datastore of the fault domain: move it to one" in shown()
    assert domain.run("host1", ["virsh", "destroy", "private"]).returncode == 0


def test_without_a_keeper_nothing_protected_starts(domain: Lab) -> None:
    host, _ = processes(domain)["vm1"]
    assert domain.run(host, ["virsh", "destroy", "vm1"]).returncode == 0
    wait_for("vm1 to stop", lambda: not domain.where("vm1"))
    domain.service_stop(host, "keeper")
    began = time.monotonic()
    done = domain.vm_start("vm1", host)
    assert time.monotonic() - began < 15.0
    assert done.returncode != 0
    assert "outlast: vm1 may not start" in done.stderr
    domain.service_resume(host, "keeper")


def test_the_hook_says_whether_it_is_called(domain: Lab) -> None:
    done = domain.run("host1", ["outlast", "hook", "status"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert domain.run("host1", ["outlast", "hook", "remove"]).returncode == 0
    gone = domain.run("host1", ["outlast", "hook", "status"])
    assert gone.returncode == 1
    assert domain.run("host1", ["outlast", "hook", "install"]).returncode == 0
