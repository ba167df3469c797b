"""A guest whose kernel stands still while its process is well: it is reset, and what it showed is kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from looking import events_of, now_ms, processes, wait_for

from outlast.lab import moving, operating, outlast_view
from outlast.lab.lab import Lab

pytestmark = pytest.mark.lab

WATCHED = '<outlast:vm xmlns:outlast="https://outlast.dev/ns/vm/1" guest-monitoring="on"/>'
SCREEN = "<video><model type='vga' vram='4096' heads='1'/></video>"
"""The lab's guests have no screen of their own."""
SOONEST = {"guest_failure_after": "10s", "guest_io_quiet": "10s", "guest_min_uptime": "10s"}


def boots(lab: Lab, host: str, vm: str) -> list[str]:
    """The ids of the boots that the guest's console has told of."""
    text = lab.run(host, ["cat", f"/var/log/outlast-guest/{vm}.log"]).stdout
    return re.findall(rf"outlast-guest {vm} ready boot=(\S+)", text)


def guest_of(lab: Lab, host: str, vm: str) -> str:
    view = outlast_view.status(lab, host)
    return "" if view is None else next((each.guest for each in view.vms if each.name == vm), "")


def give_a_screen(lab: Lab, host: str, vm: str) -> None:
    lab.run(host, ["virsh", "destroy", vm])
    xml = lab.run(host, ["virsh", "dumpxml", "--inactive", vm]).stdout.replace("</devices>", f"{SCREEN}</devices>")
    assert lab.run(host, ["virsh", "define", "/dev/stdin"], stdin=xml).returncode == 0
    wait_for("its release", lambda: lab.vm_start(vm, host).returncode == 0, 20.0)
    moving.wait_writing(lab, [vm])


def test_a_guest_that_hangs_is_reset_and_what_it_showed_is_kept(down_lab: Lab) -> None:
    with moving.Running(down_lab, hosts=2, datastores=1, vms=2, metadata={"vm1": WATCHED}) as lab:
        host = processes(lab)["vm1"][0]
        for name, value in SOONEST.items():
            assert operating.give(lab, "settings", "set", name, value).ok
        give_a_screen(lab, host, "vm1")
        before = processes(lab)
        wait_for("the guest to be heard", lambda: guest_of(lab, host, "vm1") == "answers", 60.0)
        assert guest_of(lab, host, "vm2") == "", "nobody has asked for vm2 to be watched"
        first = boots(lab, host, "vm1")
        epoch = outlast_view.status(lab, host)
        since = now_ms()
        done = lab.run(host, ["virsh", "qemu-agent-command", "vm1", '{"execute": "guest-lab-hang"}'])
        assert done.returncode == 0, done.stderr
        wait_for("the reset", lambda: bool(events_of(lab, "guest-reset", since, vm="vm1")), 90.0)
        wait_for("its next boot", lambda: len(boots(lab, host, "vm1")) == len(first) + 1, 60.0)
        wait_for("its answer", lambda: guest_of(lab, host, "vm1") == "answers", 60.0)
        assert processes(lab) == before, "its process is the same, and the other VM's too"
        after = outlast_view.status(lab, host)
        assert epoch is not None
        assert after is not None
        assert [vm.epoch for vm in after.vms] == [vm.epoch for vm in epoch.vms]
        moving.wait_writing(lab, ["vm1"])
        assert lab.disk_problems("vm1") == []

        kept = events_of(lab, "guest-reset", since, vm="vm1")[0].facts["kept"]
        image, log = (Path(path) for path in re.findall(r"(/\S+\.(?:ppm|png|log))", kept))
        dumped = lab.run(host, ["od", "-An", "-tx1", "-N", "24", str(image)]).stdout
        head = bytes.fromhex(dumped.replace("\n", ""))
        assert image.suffix == ".png", kept
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
        assert width >= 320, (width, height)
        assert height >= 200, (width, height)
        assert "Kernel panic" in lab.run(host, ["cat", str(log)]).stdout
