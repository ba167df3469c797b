"""Each verb of the scenario language, done to a lab.

To do what is done already changes nothing, as in the simulated world.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from outlast.lab import operating
from outlast.lab.errors import LabError
from outlast.lab.lab import Lab
from outlast.lab.outlast_commands import outlast
from outlast.model.time import MILLISECOND, Duration, in_seconds
from outlast.scenario.model import Scenario, Step
from outlast.scenario.telling import REBOOT_AFTER, datastores_of

Keys = dict[str, Any]


def expanded(scenario: Scenario) -> list[Step]:
    """The steps as a lab does them, in the order of the file: a reboot is two of them."""
    steps: list[Step] = []
    for step in scenario.steps:
        steps.append(step)
        if step.do == "reboot":
            back = Duration(step.at + step.keys.get("for", REBOOT_AFTER))
            if back <= scenario.duration:
                steps.append(Step(at=back, do="power-on", keys={"host": step.keys["host"]}, line=step.line))
    return steps


def do(lab: Lab, scenario: Scenario, step: Step) -> None:
    """One step, now; nothing if its host has no power for it. Raises LabError."""
    if step.do in _NEEDS_POWER and not lab.is_on(step.keys["host"]):
        return
    if "datastore" not in step.keys:
        VERBS[step.do](lab, step.keys)
        return
    for name in datastores_of(scenario, step):
        VERBS[step.do](lab, step.keys | {"datastore": name})


def _power_on(lab: Lab, keys: Keys) -> None:
    if not lab.is_on(keys["host"]):
        lab.power_on(keys["host"])


def _shut_down(lab: Lab, keys: Keys) -> None:
    reboots = bool(keys.get("reboot", False))
    lab.shut_down(keys["host"], reboots=reboots)
    if reboots:
        time.sleep(in_seconds(keys.get("for", REBOOT_AFTER)))
        _power_on(lab, keys)


def _network_cut(lab: Lab, keys: Keys) -> None:
    one_way = bool(keys.get("one_way", False))
    if "host" in keys:
        lab.network_cut(keys["host"], one_way=one_way)
    else:
        lab.partition(keys["between"], one_way=one_way)


def _network_heal(lab: Lab, keys: Keys) -> None:
    if "host" in keys:
        lab.network_heal(keys["host"])
    elif "between" not in keys:
        for host in lab.state().hosts:
            lab.network_heal(host)
    else:
        lab.partition_heal(keys["between"], one_way=False)


def _of_host(work: Callable[[Lab, str, str], None]) -> Callable[[Lab, Keys], None]:
    return lambda lab, keys: work(lab, keys["host"], keys["datastore"])


def _of_all(work: Callable[[Lab, str, str], None]) -> Callable[[Lab, Keys], None]:
    def each(lab: Lab, keys: Keys) -> None:
        for host in lab.state().hosts:
            work(lab, host, keys["datastore"])

    return each


def _service(work: Callable[[Lab, str, str], None], service: str) -> Callable[[Lab, Keys], None]:
    def on_host(lab: Lab, keys: Keys) -> None:
        if lab.service_state(keys["host"], service) != "dead":
            work(lab, keys["host"], service)

    return on_host


def _vm_crash(lab: Lab, keys: Keys) -> None:
    if lab.where(keys["vm"]):
        lab.vm_crash(keys["vm"])


def _vm_power_off(lab: Lab, keys: Keys) -> None:
    for host in lab.where(keys["vm"]):
        done = lab.run(host, ["virsh", "destroy", keys["vm"]])
        if done.returncode != 0:
            raise LabError(f"{keys['vm']} was not switched off on {host}: {done.stderr.strip()}")


def _vm_retry(lab: Lab, keys: Keys) -> None:
    for host in lab.state().hosts:
        if lab.is_on(host) and lab.service_state(host, "agent") == "running":
            done = lab.run(host, outlast("vm", "retry", keys["vm"]))
            if done.returncode != 0:
                raise LabError(f"{keys['vm']} was not tried once more: {done.stderr.strip()}")
            return


def _vm_hang(lab: Lab, keys: Keys) -> None:
    command = f'{{"execute": "guest-lab-{"mute" if keys.get("io") else "hang"}"}}'
    for host in lab.where(keys["vm"]):
        done = lab.run(host, ["virsh", "qemu-agent-command", keys["vm"], command])
        if done.returncode != 0:
            raise LabError(f"the guest of {keys['vm']} was not made to hang on {host}: {done.stderr.strip()}")


def _storage_slow(lab: Lab, keys: Keys) -> None:
    lab.storage_slow(keys["host"], keys["datastore"], keys["latency"] // MILLISECOND)


def _set_state(lab: Lab, keys: Keys) -> None:
    operating.want(lab, keys["vm"], keys["state"])


VERBS: dict[str, Callable[[Lab, Keys], object]] = {
    "power-off": lambda lab, keys: lab.power_off(keys["host"]),
    "power-on": _power_on,
    "reboot": lambda lab, keys: lab.power_off(keys["host"]),
    "shut-down": _shut_down,
    "network-cut": _network_cut,
    "network-heal": _network_heal,
    "network-loss": lambda lab, keys: lab.network_loss(keys["host"], keys["percent"]),
    "isolation-address-cut": lambda lab, _: lab.isolation_address_cut(),
    "isolation-address-heal": lambda lab, _: lab.isolation_address_heal(),
    "storage-cut": _of_host(Lab.storage_cut),
    "storage-heal": _of_host(Lab.storage_heal),
    "storage-lost": _of_host(Lab.storage_lost),
    "storage-slow": _storage_slow,
    "storage-outage": _of_all(Lab.storage_cut),
    "storage-restore": _of_all(Lab.storage_heal),
    "agent-kill": _service(Lab.service_kill, "agent"),
    "agent-stop": _service(Lab.service_stop, "agent"),
    "agent-resume": _service(Lab.service_resume, "agent"),
    "keeper-kill": _service(Lab.service_kill, "keeper"),
    "keeper-stop": _service(Lab.service_stop, "keeper"),
    "keeper-resume": _service(Lab.service_resume, "keeper"),
    "hypervisor-kill": _service(Lab.service_kill, "libvirtd"),
    "hypervisor-hang": _service(Lab.service_stop, "libvirtd"),
    "hypervisor-resume": _service(Lab.service_resume, "libvirtd"),
    "fencing-break": lambda lab, keys: lab.outlet(keys["host"], keys.get("how", "fails")),
    "fencing-mend": lambda lab, keys: lab.outlet(keys["host"], "works"),
    "vm-crash": _vm_crash,
    "vm-hang": _vm_hang,
    "vm-power-off": _vm_power_off,
    # An operator who is refused is told so, and that is all that happens.
    "vm-start": lambda lab, keys: lab.vm_start(keys["vm"], keys["host"]),
    "vm-start-elsewhere": lambda lab, keys: lab.vm_start(keys["vm"], keys["host"]),
    "pause": lambda lab, _: operating.give(lab, "pause", "--reason", "the scenario says so"),
    "resume": lambda lab, _: operating.give(lab, "resume"),
    "maintenance-on": lambda lab, keys: operating.give(
        lab, "host", "drain", keys["host"], "--reason", "the scenario says so"
    ),
    "maintenance-off": lambda lab, keys: operating.give(
        lab, "host", "undrain", keys["host"], *(["--return"] if keys.get("bring_back") else [])
    ),
    "health": lambda lab, keys: operating.give(lab, "host", "health", keys["host"], keys["level"], on=keys["host"]),
    "set-state": _set_state,
    "migrate": lambda lab, keys: operating.migrate(lab, keys["vm"], keys["host"]),
    "set": lambda lab, keys: operating.give(lab, "settings", "set", keys["setting"], str(keys["value"])),
    "vm-retry": _vm_retry,
    "host-stall": lambda lab, keys: lab.host_stall(keys["host"], in_seconds(keys["for"])),
}
_NEEDS_POWER = frozenset(
    {"power-off", "reboot", "shut-down", "host-stall", "vm-start", "vm-start-elsewhere"}
    | {f"{daemon}-{act}" for daemon in ("agent", "keeper", "hypervisor") for act in ("kill", "stop", "hang", "resume")}
)
LASTING = frozenset(
    {"host-stall", "shut-down", "vm-start", "vm-start-elsewhere", "vm-power-off", "power-on"}
    | {"pause", "resume", "maintenance-on", "maintenance-off", "health", "set", "set-state", "migrate", "vm-retry"}
)
"""Verbs that return only after a while: others must not wait for them."""
