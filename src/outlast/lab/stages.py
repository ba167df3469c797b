"""The way from a power loss to the guest's first line on another host, stage by stage, from what really happened.

    unreachable     the agent that recovers the VM hears no heartbeat any more
    presumed_dead   no ping is answered either, and the record on storage shows no life
    proof           the window has elapsed, and the last read found the record unchanged
    ownership       the other host's keeper won the next epoch of the VM's register
    qemu_process    the kernel started the QEMU process there (its start time, not when anybody noticed it)
    guest           the guest printed its first line

The first four are from the event logs, the others from the kernel and the guest. All hosts of a lab share one clock.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from outlast.lab import outlast_view
from outlast.lab.errors import LabError
from outlast.lab.lab import Lab
from outlast.runtime.event_log import LoggedEvent

STAGES = ("unreachable", "presumed_dead", "proof", "ownership", "qemu_process", "guest")


class Failover:
    """One power loss under observation: `begin` pulls the plug, `look` may be called until `complete`."""

    def __init__(self, lab: Lab, victim: str) -> None:
        self._lab = lab
        self.victim = victim
        self.vms = [guest.name for guest in lab.guests(victim)]
        if not self.vms:
            raise LabError(f"no virtual machine runs on {victim}: there is nothing to recover")
        self._lines = {vm: {h: len(lab.guest_log(h, vm)) for h in lab.state().hosts} for vm in self.vms}
        self._began_ms = 0
        self._first_line: dict[str, float] = {}
        self.hosts: dict[str, str] = {}

    def begin(self) -> None:
        """Pull the plug."""
        self._began_ms = time.time_ns() // 1_000_000
        self._lab.power_off(self.victim)

    def look(self) -> dict[str, dict[str, float]]:
        """What is known by now: seconds since the power loss by stage, for each VM."""
        events = outlast_view.events(self._lab, self._began_ms)
        return {vm: self._stages_of(vm, events) for vm in self.vms}

    @staticmethod
    def complete(stages: dict[str, dict[str, float]]) -> bool:
        """Whether every VM has come to its last stage."""
        return all(set(STAGES) <= set(found) for found in stages.values())

    def watch_guests(self) -> None:
        """Note when a guest's first line appears; call it often."""
        for vm in self.vms:
            if vm in self._first_line:
                continue
            for host, before in self._lines[vm].items():
                if host != self.victim and len(self._lab.guest_log(host, vm)) > before:
                    self._first_line[vm] = time.time()
                    self.hosts[vm] = host

    def _seconds(self, at_ms: float) -> float:
        return (at_ms - self._began_ms) / 1000

    def _stages_of(self, vm: str, events: list[LoggedEvent]) -> dict[str, float]:
        found: dict[str, float] = {}
        proof = next((e for e in events if e.kind == "restart-proof" and e.vm == vm), None)
        judge = proof.reporter if proof is not None else None
        for event in events:
            if event.kind == "verdict" and event.host == self.victim and judge in (None, event.reporter):
                stage = event.facts["verdict"].replace("-", "_")
                if stage in STAGES:
                    found.setdefault(stage, self._seconds(event.at_ms))
            if event.kind == "claimed" and event.vm == vm and event.reporter != self.victim:
                found.setdefault("ownership", self._seconds(event.at_ms))
                self.hosts.setdefault(vm, event.reporter)
        if proof is not None:
            found["proof"] = self._seconds(proof.at_ms)
        started = self._process_start(vm)
        if started is not None:
            found["qemu_process"] = self._seconds(started * 1000)
        if vm in self._first_line:
            found["guest"] = self._seconds(self._first_line[vm] * 1000)
        return found

    def _process_start(self, vm: str) -> float | None:
        """When the kernel started the VM's present process, in seconds since 1970."""
        for host, guest in self._lab.where(vm).items():
            if host != self.victim:
                path = Path(f"/proc/{self._lab.init(host).pid}/root/proc/{guest.pid}/stat")
                try:
                    ticks = int(path.read_text().rpartition(")")[2].split()[19])
                except OSError:
                    return None
                booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
                return booted + ticks / os.sysconf("SC_CLK_TCK")
        return None

    def follow(self, timeout_s: float = 60.0) -> dict[str, dict[str, float]]:
        """Look until every VM's guest is back. Raises LabError when that takes too long."""
        deadline = time.monotonic() + timeout_s
        looked_at = 0.0
        while time.monotonic() < deadline:
            self.watch_guests()
            if len(self._first_line) == len(self.vms) and time.monotonic() - looked_at > 0.5:
                looked_at = time.monotonic()
                stages = self.look()
                if self.complete(stages):
                    return stages
            time.sleep(0.02)
        raise LabError(f"after {timeout_s:g} s not every virtual machine of {self.victim} is back: {self.look()}")
