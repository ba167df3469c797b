"""Every word of the scenario language: the keys of its tables, its verbs with their keys, and its claims.

The language is a contract (docs/scenarios.md): extend these tables, never change what a word means. `reading` refuses
what is not here and names the nearest word that is; `values` turns what stands in a file into a value of its `Kind`.
"""

import enum

import msgspec

from outlast.model.policy import PRIORITIES
from outlast.protocol.verdict import Verdict


class Kind(enum.StrEnum):
    """What a value must be, in the words of the message that refuses another one."""

    TEXT = "a text"
    NAME = "a name"
    BOOL = "true or false"
    INTEGER = "a whole number"
    COUNT = "a whole number above zero"
    TIMES = "a whole number from zero, or -1 for without end"
    PERCENT = "a number from 0 to 100"
    CORES = "a number from zero"
    SIZE = 'a size like "32GiB"'
    DURATION = 'a duration like "10s"'
    SPAN = 'a duration like "10s" or "-10s"'
    BOUND = 'a duration like "1s", or "unknown"'
    CHOICE = "one of its words"
    READY = '"powered-on", "guest-heartbeat" or "delay:30s"'
    TEXTS = "a list of texts"
    LABELS = 'texts by name, like { rack = "r1" }'
    ANYTHING = "a value"
    SETTING = "the name of a setting"
    HOST = "a host"
    VM = "a VM"
    DATASTORE = "a datastore"
    HOSTS = "a list of hosts"
    VMS = "a list of VMs"
    DATASTORES = "a list of datastores"
    GROUPS = 'groups of hosts, like [["host1"], ["host2", "host3"]]'
    PREFERENCES = "a list of hosts, or a preference by host"
    HOSTS_BY_VM = 'hosts by VM, like { web1 = ["host1", "host2"] } or { web1 = "any" }'
    STATE_BY_VM = 'a state by VM, like { web1 = "running" }'
    GUEST_BY_VM = 'how its guest is by VM, like { web1 = "answers" }'
    VERDICT_BY_HOST = 'a verdict by host, like { host1 = "dead" }'
    COUNT_BY_VM = "a number by VM, like { web1 = 1 }, or [least, most]"
    DURATION_BY_VM = 'a duration by VM, like { web1 = "10s" }'


class Key(msgspec.Struct, frozen=True):
    """One key of a table or a verb. `field`: its name in `model`, where that is another. `words`: of a CHOICE."""

    name: str
    kind: Kind
    required: bool = False
    field: str = ""
    words: tuple[str, ...] = ()

    @property
    def attribute(self) -> str:
        """The name of its value in `model`."""
        return self.field or self.name


class Verb(msgspec.Struct, frozen=True):
    """One word of `do`. `what`: what happens, as `telling` tells it.

    `one_of`: exactly one of these keys must be there; none may be, if `may_be_bare`.
    """

    name: str
    what: str
    keys: tuple[Key, ...] = ()
    one_of: tuple[str, ...] = ()
    may_be_bare: bool = False


RESPONSES = ("leave-running", "shut-down", "power-off")
MONITORING = ("off", "on")
GUESTS = ("unwatched", "answers", "silent", "failed")
WANTED = ("running", "stopped", "unprotected")
STATES = ("running", "frozen", "stopped", "starting", "waiting", "failed", "unprotected")
VERDICTS = tuple(str(verdict) for verdict in Verdict)
RULES = ("keep-apart", "keep-together", "run-on", "avoid")
ANY = "any"

SCENARIO = (
    Key("title", Kind.TEXT, required=True),
    Key("story", Kind.TEXT),
    Key("seed", Kind.INTEGER),
    Key("duration", Kind.DURATION, required=True),
)
DATASTORE = (
    Key("name", Kind.NAME, required=True),
    Key("filesystem", Kind.TEXT),
    Key("device", Kind.TEXT),
    Key("in_flight_bound", Kind.BOUND),
    Key("accept_in_flight_risk", Kind.BOOL),
)
HOST = (
    Key("name", Kind.NAME, required=True),
    Key("cpus", Kind.COUNT),
    Key("memory", Kind.SIZE, field="memory_mib"),
    Key("datastores", Kind.DATASTORES),
    Key("power", Kind.CHOICE, words=("on", "off")),
    Key("watchdog", Kind.BOOL),
    Key("fencing", Kind.BOOL),
    Key("enforcement", Kind.CHOICE, words=("watchdog", "keeper", "none")),
    Key("labels", Kind.LABELS),
    Key("networks", Kind.TEXTS),
    Key("cpu_models", Kind.TEXTS),
    Key("spare", Kind.BOOL),
)
VM = (
    Key("name", Kind.NAME, required=True),
    Key("host", Kind.HOST),
    Key("state", Kind.CHOICE, words=WANTED),
    Key("datastore", Kind.DATASTORE),
    Key("cpus", Kind.COUNT),
    Key("memory", Kind.SIZE, field="memory_mib"),
    Key("cpu_usage", Kind.CORES),
    Key("memory_usage", Kind.SIZE, field="memory_usage_mib"),
    Key("priority", Kind.CHOICE, words=PRIORITIES),
    Key("isolation_response", Kind.CHOICE, words=RESPONSES),
    Key("max_restarts", Kind.TIMES),
    Key("max_relocations", Kind.TIMES),
    Key("start_time", Kind.DURATION),
    Key("after", Kind.VMS),
    Key("ready", Kind.READY),
    Key("disks_on", Kind.DATASTORES),
    Key("same_disk_as", Kind.VM),
    Key("networks", Kind.TEXTS),
    Key("cpu_model", Kind.TEXT),
    Key("guest_monitoring", Kind.CHOICE, words=MONITORING),
)
RULE = (
    Key("kind", Kind.CHOICE, required=True, words=RULES),
    Key("vms", Kind.VMS, required=True),
    Key("hosts", Kind.PREFERENCES),
    Key("required", Kind.BOOL),
    Key("failback", Kind.BOOL),
    Key("by", Kind.TEXT),
)
TABLES = {"datastores": DATASTORE, "hosts": HOST, "vms": VM, "rules": RULE}
"""The arrays of tables that say what there is; [[steps]] and [[expect]] say what happens and what must be true."""

_HOST = Key("host", Kind.HOST, required=True)
_VM = Key("vm", Kind.VM, required=True)
_DATASTORE = Key("datastore", Kind.DATASTORE, required=True)
_REACH = (
    Key("host", Kind.HOST),
    Key("between", Kind.GROUPS),
    Key("one_way", Kind.BOOL),
    Key("network", Kind.CHOICE, words=("management", "vm")),
)
_ALL_VERBS = (
    Verb("power-off", "the plug of {host} is pulled", (_HOST,)),
    Verb("power-on", "the plug of {host} is put in again", (_HOST,)),
    Verb("reboot", "{host} loses its power, and has it back after {for}", (_HOST, Key("for", Kind.DURATION))),
    Verb(
        "shut-down",
        "{host} is shut down in order by its operator",
        (_HOST, Key("reboot", Kind.BOOL), Key("for", Kind.DURATION)),
    ),
    Verb("network-cut", "no packets pass: {where}", _REACH, ("host", "between")),
    Verb("network-heal", "packets pass again: {where}", _REACH, ("host", "between"), may_be_bare=True),
    Verb(
        "network-loss",
        "{percent} % of the packets of {host} are lost",
        (_HOST, Key("percent", Kind.PERCENT, required=True)),
    ),
    Verb("isolation-address-cut", "the isolation addresses stop answering"),
    Verb("isolation-address-heal", "the isolation addresses answer again"),
    Verb("storage-cut", "the I/O of {host} on {datastore} hangs", (_HOST, _DATASTORE)),
    Verb("storage-heal", "the I/O of {host} on {datastore} works again", (_HOST, _DATASTORE)),
    Verb("storage-lost", "the I/O of {host} on {datastore} fails at once", (_HOST, _DATASTORE)),
    Verb(
        "storage-slow",
        "the I/O of {host} on {datastore} takes {latency} longer",
        (_HOST, _DATASTORE, Key("latency", Kind.DURATION, required=True)),
    ),
    Verb("storage-outage", "the I/O of every host on {datastore} hangs", (_DATASTORE,)),
    Verb("storage-restore", "the I/O of every host on {datastore} works again", (_DATASTORE,)),
    Verb("record-damage", "the heartbeat record of {host} on {datastore} is damaged", (_HOST, _DATASTORE)),
    Verb("record-clone", "a clone of {host} writes into its place on {datastore}", (_HOST, _DATASTORE)),
    Verb("record-newer", "{host} writes its records in a newer format from now on", (_HOST,)),
    Verb("record-older", "{host} writes its records in a format that all know again", (_HOST,)),
    Verb("agent-kill", "the agent of {host} dies; its service manager starts it again after 2 s", (_HOST,)),
    Verb("agent-stop", "the agent of {host} is stopped", (_HOST,)),
    Verb("agent-resume", "the agent of {host} goes on", (_HOST,)),
    Verb("keeper-kill", "the keeper of {host} dies; its service manager starts it again after 2 s", (_HOST,)),
    Verb("keeper-stop", "the keeper of {host} is stopped", (_HOST,)),
    Verb("keeper-resume", "the keeper of {host} goes on", (_HOST,)),
    Verb("hypervisor-kill", "libvirt of {host} dies, its VMs live on; it is started again after 5 s", (_HOST,)),
    Verb("hypervisor-hang", "libvirt of {host} hangs", (_HOST,)),
    Verb("hypervisor-resume", "libvirt of {host} goes on", (_HOST,)),
    Verb("vm-crash", "the process of {vm} dies", (_VM,)),
    Verb("vm-hang", "the guest of {vm} stops answering", (_VM, Key("io", Kind.BOOL), Key("lasting", Kind.BOOL))),
    Verb("vm-power-off", "{vm} is switched off on purpose", (_VM,)),
    Verb("vm-retry", "an operator asks for {vm} to be tried once more", (_VM,)),
    Verb("vm-start", "an operator starts {vm} on {host}", (_VM, _HOST)),
    Verb("vm-start-elsewhere", "an operator starts {vm} on {host}, where it may not belong", (_VM, _HOST)),
    Verb(
        "start-fails",
        "the next starts of {vm} fail {where} ({times} of them)",
        (_VM, Key("host", Kind.HOST), Key("times", Kind.TIMES)),
    ),
    Verb("migrate", "an operator asks for {vm} to be migrated to {host}", (_VM, _HOST)),
    Verb("maintenance-on", "{host} is to be evacuated and kept empty", (_HOST,)),
    Verb("maintenance-off", "{host} may be used again", (_HOST, Key("bring_back", Kind.BOOL))),
    Verb("set-state", "{vm} is to be {state} from now on", (_VM, Key("state", Kind.CHOICE, required=True, words=WANTED))),
    Verb("pause", "automatic recovery is switched off for the fault domain"),
    Verb("resume", "automatic recovery is switched on again"),
    Verb(
        "set",
        "the setting {setting} is {value} from now on",
        (Key("setting", Kind.SETTING, required=True), Key("value", Kind.ANYTHING, required=True)),
    ),
    Verb("clock-jump", "the wall clock of {host} jumps by {by}", (_HOST, Key("by", Kind.SPAN, required=True))),
    Verb("host-stall", "{host} stands still as a whole for {for}", (_HOST, Key("for", Kind.DURATION, required=True))),
    Verb(
        "fencing-break",
        "the fence device of {host} {how}",
        (_HOST, Key("how", Kind.CHOICE, words=("fails", "hangs"))),
    ),
    Verb("fencing-mend", "the fence device of {host} works again", (_HOST,)),
    Verb("operator-confirms", "an operator confirms that {host} is off", (_HOST,)),
    Verb(
        "health",
        "a hardware monitor says that {host} is {level}",
        (_HOST, Key("level", Kind.CHOICE, required=True, words=("ok", "degraded", "failing"))),
    ),
)
VERBS = {verb.name: verb for verb in _ALL_VERBS}

CLAIMS = {
    claim.name: claim
    for claim in (
        Key("running", Kind.HOSTS_BY_VM),
        Key("not_running", Kind.VMS),
        Key("state", Kind.STATE_BY_VM),
        Key("verdict", Kind.VERDICT_BY_HOST),
        Key("not_dead", Kind.HOSTS),
        Key("restarted", Kind.COUNT_BY_VM),
        Key("resets", Kind.COUNT_BY_VM),
        Key("guest", Kind.GUEST_BY_VM),
        Key("recovered_within", Kind.DURATION_BY_VM),
        Key("frozen_at_most", Kind.DURATION_BY_VM),
        Key("primary", Kind.HOSTS),
        Key("fenced", Kind.HOSTS),
        Key("apart", Kind.VMS),
        Key("together", Kind.VMS),
    )
}
"""What [[expect]] can say, in the order in which it is judged."""
