"""The lab does what it says to real processes: it is the ground under every other test in this directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from outlast.lab import storage, teardown
from outlast.lab.errors import LabError
from outlast.lab.lab import Lab
from outlast.lab.network import NetworkFaults, ruleset
from outlast.lab.processes import find_marked, is_alive, send_signal, wait_gone

pytestmark = pytest.mark.lab
needs_faultfs = pytest.mark.skipif(not storage.faults_are_possible(), reason="the file system for faults does not exist")


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> float:
    """Seconds until the condition held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, f"{what}: not within {timeout_s} s"
        time.sleep(0.02)
    return time.monotonic() - began


def start(lab: Lab, vm: str, host: str) -> None:
    done = lab.run(host, ["virsh", "start", vm])
    assert done.returncode == 0, done.stderr


def ping(lab: Lab, source: str, address: str) -> bool:
    script = (
        f"import icmplib, sys; sys.exit(not icmplib.ping('{address}', count=1, timeout=0.3, privileged=False).is_alive)"
    )
    return lab.run(source, [sys.executable, "-c", script]).returncode == 0


def nothing_left(lab: Lab) -> bool:
    return teardown.is_clear(lab.layout) == [] and lab.network.leftovers() == []


def test_a_guest_lives_and_dies_with_its_host(lab: Lab) -> None:
    start(lab, "vm1", "host1")
    wait_for(lambda: any("ready boot=" in line for line in lab.guest_log("host1", "vm1")), "the guest's first line")
    wait_for(lambda: "beat 3" in lab.guest_log("host1", "vm1"), "its beats")
    wait_for(lambda: len(lab.disk_records("vm1")) >= 2, "its records")
    assert [one.name for one in lab.guests("host1")] == ["vm1"]
    qemu = next(pid for pid in inhabitants(lab, "host1") if "qemu-system" in Path(f"/proc/{pid}/comm").read_text())

    began = time.monotonic()
    lab.power_off("host1")
    assert time.monotonic() - began < 2.0
    assert not Path(f"/proc/{qemu}").exists()
    assert lab.guests("host1") == []

    # What it wrote is there, and a restart elsewhere is no second instance.
    before = len(lab.disk_records("vm1"))
    assert lab.vm_start("vm1", "host2").returncode == 0
    wait_for(lambda: len(lab.disk_records("vm1")) >= before + 2, "the records of the restarted guest")
    assert lab.disk_problems("vm1") == []
    assert len({record.boot_id for record in lab.disk_records("vm1")}) == 2


def inhabitants(lab: Lab, host: str) -> list[int]:
    namespace = os.stat(f"/proc/{lab.init(host).pid}/ns/pid").st_ino
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.stat(entry / "ns" / "pid").st_ino == namespace:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@needs_faultfs  # On one plain directory QEMU's own image lock refuses the second instance.
def test_two_instances_show_on_the_disk(lab: Lab) -> None:
    # The lab has no guard of its own: what keeps this from happening is what the lab is for.
    start(lab, "vm1", "host1")
    wait_for(lambda: len(lab.disk_records("vm1")) >= 1, "the first instance")
    assert lab.vm_start("vm1", "host2").returncode == 0
    wait_for(lambda: lab.disk_problems("vm1"), "the evidence of two instances")
    assert sorted(lab.where("vm1")) == ["host1", "host2"]


def test_a_new_boot_has_a_new_boot_id_and_keeps_its_disks(lab: Lab) -> None:
    boot_id = lab.run("host1", ["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    lab.run("host1", ["sh", "-c", "echo kept > /var/lib/outlast/kept; echo lost > /run/lost; echo lost > /dev/shm/lost"])
    lab.power_off("host1")
    lab.power_on("host1")
    assert lab.run("host1", ["cat", "/proc/sys/kernel/random/boot_id"]).stdout != boot_id
    assert lab.run("host1", ["cat", "/var/lib/outlast/kept"]).stdout == "kept\n"
    assert lab.run("host1", ["ls", "/run/lost", "/dev/shm/lost"]).returncode != 0
    assert lab.run("host1", ["hostname"]).stdout == "host1\n"
    assert lab.run("host1", ["test", "-e", "/dev/kvm"]).returncode != 0


def test_services_are_supervised(lab: Lab) -> None:
    start(lab, "vm1", "host1")
    lab.service_stop("host1", "libvirtd")
    wait_for(lambda: lab.service_state("host1", "libvirtd") == "stopped", "the signal to arrive", 3)
    lab.service_resume("host1", "libvirtd")
    wait_for(lambda: lab.service_state("host1", "libvirtd") == "running", "the resumed service")
    lab.service_kill("host1", "libvirtd")
    wait_for(lambda: lab.service_state("host1", "libvirtd") == "dead", "the death", 2)
    assert wait_for(lambda: lab.service_state("host1", "libvirtd") == "running", "its restart", 8) > 4.0
    lab.service_restart("host1", "libvirtd")
    wait_for(lambda: lab.service_state("host1", "libvirtd") == "running", "its restart on purpose", 3)
    assert [one.name for one in lab.guests("host1")] == ["vm1"]


def test_network_faults(lab: Lab) -> None:
    host2 = lab.state().hosts["host2"].address
    assert ping(lab, "host1", host2)
    assert ping(lab, "host1", "10.77.0.1")
    began = time.monotonic()
    lab.network_cut("host2")
    assert time.monotonic() - began < 0.5
    assert not ping(lab, "host1", host2)
    assert not ping(lab, "host2", "10.77.0.1")
    assert ping(lab, "host1", "10.77.0.1")
    lab.network_heal("host2")
    wait_for(lambda: ping(lab, "host1", host2), "the healed network", 5)
    lab.partition([["host1"], ["host2", "host3"]])
    assert not ping(lab, "host1", host2)
    assert ping(lab, "host1", "10.77.0.1")
    assert ping(lab, "host3", host2)
    lab.partition_heal([["host1"], ["host2", "host3"]])
    wait_for(lambda: ping(lab, "host1", host2), "the healed partition", 5)
    lab.isolation_address_cut()
    assert not ping(lab, "host1", "10.77.0.1")
    lab.network_loss("host1", 100)
    assert not ping(lab, "host1", host2)


def test_a_dying_host_says_nothing(lab: Lab) -> None:
    address = lab.state().hosts["host1"].address
    script = f"""
import socket
with socket.create_connection(("{address}", 16509), 5) as connection:
    connection.settimeout(4)
    print("connected", flush=True)
    try:
        print("heard", connection.recv(1))
    except TimeoutError:
        print("silence")
"""
    command = ["nsenter", "--target", str(lab.init("host2").pid), "--net", sys.executable, "-c", script]
    wait_for(lambda: lab.run("host1", ["sh", "-c", "grep -q ':407D ' /proc/net/tcp"]).returncode == 0, "libvirtd on TCP")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdout is not None
        assert peer.stdout.readline() == "connected\n"
        lab.power_off("host1")
        assert peer.stdout.readline() == "silence\n"


def test_an_orderly_shutdown_ends_guests_by_their_power_button(lab: Lab) -> None:
    start(lab, "vm1", "host1")
    wait_for(lambda: "beat 2" in lab.guest_log("host1", "vm1"), "the guest")
    init = lab.init("host1")
    lab.shut_down("host1")
    assert not is_alive(init)
    assert "power button" in lab.guest_log("host1", "vm1")


def test_a_stalled_host_stands_still_and_goes_on(lab: Lab) -> None:
    start(lab, "vm1", "host1")
    wait_for(lambda: "beat 2" in lab.guest_log("host1", "vm1"), "the guest")
    before = len(lab.guest_log("host1", "vm1"))
    lab.host_stall("host1", 3.0)
    assert len(lab.guest_log("host1", "vm1")) - before <= 2
    wait_for(lambda: len(lab.guest_log("host1", "vm1")) > before + 3, "the beats after the stall", 10)
    assert lab.run("host1", ["virsh", "domstate", "vm1"]).stdout.strip() == "running"


@needs_faultfs
def test_storage_that_hangs_fails_and_heals(lab: Lab) -> None:
    start(lab, "vm1", "host1")
    wait_for(lambda: len(lab.disk_records("vm1")) >= 2, "its records")
    lab.storage_cut("host1", "ds1")
    time.sleep(0.5)
    held = len(lab.disk_records("vm1"))
    time.sleep(2.5)
    assert len(lab.disk_records("vm1")) == held
    assert lab.run("host2", ["ls", "/srv/ds1"]).returncode == 0
    lab.storage_heal("host1", "ds1")
    wait_for(lambda: len(lab.disk_records("vm1")) > held, "the healed storage")
    assert lab.disk_problems("vm1") == []
    lab.storage_lost("host1", "ds1")
    assert lab.run("host1", ["ls", "/srv/ds1"]).returncode != 0
    lab.storage_heal("host1", "ds1")


@needs_faultfs
def test_power_is_lost_also_while_storage_hangs(lab: Lab) -> None:
    start(lab, "vm1", "host1")
    wait_for(lambda: len(lab.disk_records("vm1")) >= 2, "its records")
    lab.storage_cut("host1", "ds1")
    time.sleep(2.0)
    held = lab.disk_records("vm1")
    began = time.monotonic()
    lab.power_off("host1")
    assert time.monotonic() - began < 2.0
    assert lab.disk_records("vm1") == held
    lab.power_on("host1")
    assert lab.status()["hosts"]["host1"]["storage_faults"] == {"ds1": "hang"}
    lab.storage_heal("host1", "ds1")
    assert lab.run("host1", ["ls", "/srv/ds1/disks/vm1.raw"]).returncode == 0


@needs_faultfs
def test_a_host_boots_though_its_file_systems_have_died(lab: Lab) -> None:
    """As after a run that somebody killed: the mounts are there still, and nothing behind them answers."""
    lab.power_off("host1")
    for process in lab.state().hosts["host1"].filesystems.values():
        send_signal(process, signal.SIGKILL)
        assert wait_gone([process], 10.0) == []
    lab.power_on("host1")
    assert lab.run("host1", ["ls", "/srv/ds1/disks/vm1.raw"]).returncode == 0


def test_down_leaves_nothing(lab: Lab) -> None:
    start(lab, "vm1", "host1")
    assert not nothing_left(lab)
    lab.down()
    assert nothing_left(lab)
    lab.down()
    with pytest.raises(LabError, match="outlast lab up"):
        lab.status()


def test_down_clears_a_lab_whose_notes_are_lost(lab: Lab) -> None:
    start(lab, "vm1", "host1")
    lab.layout.state_file.unlink()
    with pytest.raises(LabError, match="outlast lab down"):
        lab.up()
    lab.down()
    assert nothing_left(lab)


def test_down_clears_a_half_finished_up(down_lab: Lab) -> None:
    root, cache = map(str, (down_lab.layout.root, down_lab.layout.cache))
    lab = f"Lab(Path({root!r}), Path({cache!r}))"
    script = f"from pathlib import Path; from outlast.lab.lab import Lab; {lab}.up(services=['libvirtd'])"
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL) as making:
        wait_for(lambda: find_marked(down_lab.layout.root), "the first host")
        making.send_signal(signal.SIGKILL)
    down_lab.down()
    assert nothing_left(down_lab)


def test_names_that_do_not_exist_are_refused(lab: Lab) -> None:
    with pytest.raises(LabError, match="no host host9; hosts are host1, host2, host3"):
        lab.power_off("host9")
    with pytest.raises(LabError, match="no VM vm9"):
        lab.vm_crash("vm9")
    with pytest.raises(LabError, match="already"):
        lab.up()
    with pytest.raises(LabError, match="from 1 to"):
        lab.up(hosts=0)


def test_rules_are_the_faults_and_nothing_else() -> None:
    assert "drop" not in ruleset(NetworkFaults())
    text = ruleset(NetworkFaults(cut={"host1"}, one_way={("host2", "host3")}, loss={"host2": 20}))
    assert 'iifname "host1" drop' in text
    assert 'oifname "host1" drop' in text
    assert 'iifname "host2" oifname "host3" drop' in text
    assert 'iifname "host2" numgen random mod 100 < 20 drop' in text
