"""What happened, in sentences. One template per kind of event; `{host}`, `{vm}` and `{datastore}` are names, not ids.

A kind that has no template here is told by its facts: nothing is ever dropped for want of words.
"""

TEMPLATES: dict[str, str] = {
    "agent-started": "the agent of {host} started (Outlast {version})",
    "agent-stopped": "the agent of {host} ended in good order; its VMs and its keeper go on",
    "verdict": "{host} is {verdict} (was {before}): {because}",
    "host-rebooted": "{host} has rebooted",
    "primary-elected": "{host} is primary, term {term}",
    "primary-lost": "{host} knows of no primary",
    "register-taken": "the agent is responsible for {datastore} (epoch {epoch} of its primary register)",
    "register-lost": "another agent is responsible for {datastore} now",
    "list-unwritten": "the protected list of {datastore} could not be written: {problem}",
    "vm-protected": "{vm} is protected; it runs on {host}, its home is {datastore}",
    "vm-unprotectable": "{vm} cannot be protected: {why}",
    "vm-switched-off": "{vm} was switched off on purpose: it is not restarted",
    "vm-stopped": "{vm} stopped ({reason})",
    "vm-crashed": "{vm} ended without being told to ({reason}){trace}",
    "restart-proof": "{vm} may be taken from {host}: proof {proof}",
    "restart-ordered": "{vm} is to be restarted on {host} (proof {proof})",
    "restart-owned": "{reporter} owns {vm}: epoch {epoch} of its register on {datastore}",
    "restart-started": "{vm} is started on {reporter}",
    "restart-done": "{vm} runs again on {host}",
    "vm-failed": "{vm} has failed: {problem}; nothing more is tried until `outlast vm retry {vm}`, or until it is started",
    "retry-asked": "an operator asks for {vm} to be tried once more",
    "dependency-unheeded": "{vm} does not wait for {dependency}, which is not ready: {why}",
    "restart-failed": "{vm} could not be restarted: {problem}",
    "give-up-asked": "{host} has lost {datastore}: it is asked to give {vm} up (epoch {epoch}), so that it runs elsewhere",
    "give-up-waits": "{vm} is not given up by {host} yet: {why}; it waits for the storage, or until {host} is off",
    "given-up": "{host} has given {vm} up: it runs nothing of epoch {epoch}, nor ever will",
    "fence-asked": "{agent} is told to switch {host} off",
    "fence-confirmed": "{agent} was asked, and says that {host} is off",
    "fence-failed": "{host} could not be fenced ({agent}): {problem}",
    "fence-cancelled": "the fencing of {host} is called off: {why}",
    "fence-void": "{host} shows life: that it was off ({proof}) counts no more",
    "operator-confirmed": "an operator has confirmed that {host} is off; if it is not, its VMs may run twice",
    "isolated": "{host} is isolated: it hears no other host, and no isolation address answers it",
    "isolation-ended": "{host} is not isolated any more",
    "mass-failure": "{hosts}, as {host} sees it: {so}",
    "mass-failure-over": "{host} has no doubt any more about many hosts silent at once: {why}",
    "startup-grace": "the site is starting, and not back yet: {hosts}; what ran there is started elsewhere in {left}",
    "startup-over": "the site has started: {why}",
    "isolation-response": "{vm}: isolation response {response}",
    "datastore-back": "{reporter} reaches {datastore}",
    "datastore-lost": "{reporter} does not reach {datastore}: {problem}",
    "record-undecodable": "the record of {host} on {datastore}: {problem}",
    "keeper-gone": "the keeper of {host} does not answer its agent",
    "hypervisor-up": "libvirt of {host} answers",
    "hypervisor-down": "libvirt of {host} does not answer: {problem}",
    "rule-dropped": "{problem}",
    "capacity-short": "too little is set aside for failures: {problem}",
    "capacity-enough": "enough is set aside for failures again: {policy}",
    "policy-kept": "{vm}: {problem}",
    "policy-problem": "{vm}: {problem}",
    "second-freeze": "the keeper of {host} let the lease on {datastore} pass: its agent froze {vm}",
    "lease-began": "{host} holds its lease on {datastore} ({detail})",
    "lease-lapsed": "the lease of {host} on {datastore} lapsed: {detail}",
    "frozen": "{vm} is frozen on {host}: {detail}",
    "thawed": "{vm} is thawed on {host}: {detail}",
    "killed": "the process of {vm} on {host} is killed: {detail}",
    "exited": "the process of {vm} on {host} has ended",
    "claimed": "{host} has claimed {vm}: {detail}",
    "released": "{host} has released {vm}: {detail}",
    "lost": "{host} has lost {vm}: {detail}",
    "adopted": "the keeper of {host} found {vm} running: {detail}",
    "refused": "{host} refused to start {vm}: {detail}",
    "settings-taken": "{host} uses the fault domain's settings of version {version} (changed by {by})",
    "settings-changed": "{by} changed the fault domain's settings: {changes} (version {version})",
    "settings-superseded": "ALARM: version {version} of the settings was made twice; what {by} changed is lost, and what "
    "{instead} changed counts",
    "settings-refused": "settings of version {version} (changed by {by}) are not used here: {problem}",
    "settings-unreadable": "a settings record on {datastore} is not believed: {problem}",
    "paused": "AUTOMATIC RECOVERY IS PAUSED by {by}: {reason}; nothing is restarted until `outlast resume`",
    "resumed": "{by} has resumed automatic recovery",
    "vm-wanted": "{by} wants {vm} to be {wanted}",
    "vm-stopping": "{vm} is shut down on {host}: {by} wants it stopped",
    "restart-held": "{vm} is not restarted now: {why}",
    "response-held": "the isolation response of {host} is held: {why}",
    "device-seen": "{vm} on {host} has a device that a freeze does not stop: its lease's end is no proof now ({detail})",
    "cloned-host": "ALARM: {host} has a clone on {datastore}: {detail}",
    "start-voided": "the start of {vm} on {host} is void: {detail}",
}

WARNINGS = frozenset(
    {
        "restart-failed",
        "give-up-asked",
        "give-up-waits",
        "vm-failed",
        "dependency-unheeded",
        "fence-asked",
        "fence-failed",
        "fence-void",
        "operator-confirmed",
        "isolated",
        "datastore-lost",
        "record-undecodable",
        "keeper-gone",
        "hypervisor-down",
        "second-freeze",
        "lease-lapsed",
        "frozen",
        "killed",
        "lost",
        "settings-superseded",
        "settings-refused",
        "settings-unreadable",
        "paused",
        "restart-held",
        "response-held",
        "device-seen",
        "cloned-host",
        "start-voided",
        "vm-crashed",
        "vm-unprotectable",
        "list-unwritten",
        "policy-problem",
        "rule-dropped",
        "capacity-short",
    }
)
"""Kinds that an operator should look at."""


class _Names(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"


def sentence(kind: str, names: dict[str, str]) -> str:
    """The sentence for one event; `names` holds reporter, host, vm, datastore and the event's own facts."""
    template = TEMPLATES.get(kind)
    if template is None:
        return f"{kind}: " + ", ".join(f"{key} {value}" for key, value in names.items() if value)
    return template.format_map(_Names(names))
