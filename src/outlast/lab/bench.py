"""Figures measured in the lab: how long a failover takes, and what Outlast costs on an idle host."""

from __future__ import annotations

import json
import os
import random
import statistics
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from outlast.lab import moving, outlast_view
from outlast.lab.errors import LabError
from outlast.lab.lab import Lab
from outlast.lab.moving import Running
from outlast.lab.stages import STAGES, Failover

_console = Console(stderr=True, highlight=False)


def failover(lab: Lab, runs: int, *, fencing: bool, as_json: bool) -> None:
    """Power losses of a secondary and of the primary, `runs` each; prints min, median and max seconds by stage."""
    samples: dict[str, list[dict[str, float]]] = {"secondary": [], "primary": []}
    with Running(lab, hosts=3, datastores=2, vms=4, fencing=fencing):
        for number in range(1, runs + 1):
            for role, taken in samples.items():
                taken.append(_one(lab, role))
                done = taken[-1]["qemu_process"]
                _console.print(f"run {number} of {runs}, {role}: QEMU process after {done:.2f} s", style="dim")
        problems = [f"{vm}: {p}" for vm in lab.state().vms for p in lab.disk_problems(vm)]
    report = {role: _summary(taken) for role, taken in samples.items()}
    if as_json:
        print(json.dumps(report, indent=1))  # noqa: T201
    else:
        _show(report, runs)
    if problems:
        raise LabError("a guest's disk log shows a second instance: " + "; ".join(problems))
    _console.print("every guest's disk log shows one instance at a time")


def _one(lab: Lab, role: str) -> dict[str, float]:
    primary = outlast_view.primary(lab)
    if role == "primary":
        victim = primary
        _move_one_to(lab, victim)
    else:
        victim = next(name for name in lab.state().hosts if name != primary)
        _move_one_to(lab, victim)
    run = Failover(lab, victim)
    # The lab is ready just after a heartbeat; a power loss comes at any moment between two of them.
    time.sleep(random.random())
    run.begin()
    stages = run.follow()
    lab.power_on(victim)
    outlast_view.wait_ready(lab)
    # The slowest of the host's virtual machines: a host is back when all are.
    return max(stages.values(), key=lambda found: found["guest"])


def _move_one_to(lab: Lab, host: str) -> None:
    """Have something to lose: if nothing runs on the host, move a VM there."""
    if lab.guests(host):
        return
    counts = {name: lab.guests(name) for name in lab.state().hosts}
    donor = max(counts, key=lambda name: len(counts[name]))
    moving.move(lab, counts[donor][-1].name, host)
    time.sleep(2.0)


def _summary(taken: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    report: dict[str, dict[str, float]] = {}
    for stage in STAGES:
        values = [sample[stage] for sample in taken if stage in sample]
        if values:
            named = {"min": min(values), "median": statistics.median(values), "max": max(values)}
            report[stage] = {name: round(value, 2) for name, value in named.items()}
    return report


def _show(report: dict[str, dict[str, dict[str, float]]], runs: int) -> None:
    table = Table(title=f"seconds after a power loss, {runs} runs: min / median / max", title_justify="left")
    table.add_column("stage")
    for role in report:
        table.add_column(role, justify="right")
    for stage in STAGES:
        cells = [report[role].get(stage) for role in report]
        texts = ["-" if c is None else f"{c['min']:.2f} / {c['median']:.2f} / {c['max']:.2f}" for c in cells]
        table.add_row(stage.replace("_", " "), *texts)
    Console(highlight=False).print(table)


def idle(lab: Lab, seconds: int, *, as_json: bool) -> None:
    """CPU seconds a minute and PSS of Outlast's processes on each host of an idle lab with 4 VMs on 2 datastores."""
    with Running(lab, hosts=3, datastores=2, vms=4):
        time.sleep(10.0)
        before = {name: _cost(lab, name) for name in lab.state().hosts}
        time.sleep(seconds)
        after = {name: _cost(lab, name) for name in lab.state().hosts}
    report = {}
    for name, costs in after.items():
        report[name] = {
            part: {
                "cpu_s_per_minute": round((cpu_s - before[name].get(part, (0.0, 0))[0]) * 60 / seconds, 2),
                "pss_mb": round(pss_kib / 1024, 1),
            }
            for part, (cpu_s, pss_kib) in costs.items()
        }
    if as_json:
        print(json.dumps(report, indent=1))  # noqa: T201
        return
    table = Table(title=f"Outlast on an idle host, over {seconds} s", title_justify="left")
    for column in ("host", "part", "CPU s a minute", "PSS MB"):
        table.add_column(column, justify="left" if column in ("host", "part") else "right")
    for name, parts in report.items():
        for part, cost in parts.items():
            table.add_row(name, part, f"{cost['cpu_s_per_minute']:.2f}", f"{cost['pss_mb']:.1f}")
    Console(highlight=False).print(table)


def _cost(lab: Lab, host: str) -> dict[str, tuple[float, int]]:
    """(CPU seconds so far, PSS in KiB) of the agent, the keeper, their I/O helpers, and all together."""
    found: dict[str, tuple[float, int]] = {}
    for entry in Path(f"/proc/{lab.init(host).pid}/root/proc").iterdir():
        if not entry.name.isdigit():
            continue
        part = _part(entry)
        if part is None:
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            rollup = (entry / "smaps_rollup").read_text()
        except OSError:
            continue
        pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        for name in (part, "together"):
            old = found.get(name, (0.0, 0))
            found[name] = (old[0] + cpu_s, old[1] + pss)
    return dict(sorted(found.items(), key=lambda item: item[0] == "together"))


def _part(entry: Path) -> str | None:
    try:
        arguments: list[Any] = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    joined = " ".join(arguments)
    if "outlast.drivers.datastore.helper" in joined:
        return "I/O helpers"
    if "outlast.keeper.process" in joined:
        return "keeper"
    if "outlast agent" in joined or "/outlast agent" in joined:
        return "agent"
    return None
