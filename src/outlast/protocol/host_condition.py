"""Which hosts are kept empty, and which are used only where no other will do: by an operator's word, or their own hardware.

    what                                            then
    in maintenance (`outlast host drain`)           kept empty until an operator says otherwise; in the settings record, so
                                                    it outlives reboots and primaries
    its hardware is failing                         kept empty as long as its host says so; but never more than a quarter of
                                                    the hosts (at least one) at a time, those that have been so for longest
    its hardware is failing, beyond that quarter    a last resort
    its hardware is degraded                        a last resort
    it failed again and again (`flapping`)          a last resort
    it goes down in good order (`departure`)        gets no VMs: whatever was started there now would end at once

A quarter, because what is wrong with more hosts than that at once is their sensors, and a sensor must not empty a site.
Those that began first are kept empty: else each further one would move the VMs of the others about.

What a silent host said last of its hardware counts on: it may be silent because of that, and it would only open the quarter
for another one to be emptied. An agent that has never heard it takes it for well, and would not use it either.
"""

from outlast.model.health import Health
from outlast.model.ids import HostId
from outlast.model.settings import Maintenance
from outlast.model.time import SECOND
from outlast.protocol.flapping import WHY
from outlast.protocol.knowledge import Knowledge

MOST_NAMED = 3
"""How many VMs one sentence names."""


def health_of(known: Knowledge, host: HostId) -> Health:
    """What that host said last of its own hardware."""
    if host == known.me:
        return known.health
    seen = known.beats.get(host)
    return seen.beat.health if seen is not None else Health()


def in_maintenance(known: Knowledge) -> dict[HostId, Maintenance]:
    """The hosts that an operator keeps empty."""
    return known.record.maintenance if known.record is not None else {}


def emptied_for_health(known: Knowledge) -> dict[HostId, Health]:
    """The hosts that are kept empty because their hardware fails."""
    failing = {host: health for host in known.members if (health := health_of(known, host)).level == "failing"}
    longest = sorted(failing, key=lambda host: (failing[host].since_ms, host))
    return {host: failing[host] for host in longest[: max(1, len(known.members) // 4)]}


def going_down(known: Knowledge) -> list[HostId]:
    """The hosts that have said in this boot that they go down, this one among them."""
    said = [host for host, content in known.power_on.items() if content.departs and host in known.members]
    return [host for host in said if known.boot_of(host) in (None, known.power_on[host].boot_id)]


def to_be_emptied(known: Knowledge) -> list[HostId]:
    """Those whose VMs are to be moved away. A pause holds what a monitor asks for, and nothing that an operator does."""
    kept = in_maintenance(known) if known.pause is not None else {**emptied_for_health(known), **in_maintenance(known)}
    return sorted(host for host in kept if host in known.members)


def kept_empty(known: Knowledge) -> dict[HostId, str]:
    """Every host that gets no VMs at all, and why, as the end of a sentence that begins with the host."""
    kept = dict.fromkeys(going_down(known), "it is going down")
    kept |= {host: health.sentence for host, health in emptied_for_health(known).items()}
    return kept | {host: each.sentence for host, each in in_maintenance(known).items() if host in known.members}


def last_resort(known: Knowledge) -> dict[HostId, str]:
    """Every host that is used only where no other will do, and why."""
    unwell = {host: health for host in known.members if (health := health_of(known, host)).level != "ok"}
    return {host: health.sentence for host, health in unwell.items()} | dict.fromkeys(known.avoided(), WHY)


def condition_problems(known: Knowledge) -> list[str]:
    """What is out of order about hosts that work, a sentence each."""
    kept, name, found = kept_empty(known), known.name, list[str]()
    for host, why in kept.items():
        found.append(f"{name(host)} {_until(known, host)}: {why}")
    for host, entry in known.record.returning.items() if known.record is not None else ():
        names = ", ".join(known.vm_name(vm) for vm in entry.vms[:MOST_NAMED])
        more = f" and {len(entry.vms) - MOST_NAMED} more" if len(entry.vms) > MOST_NAMED else ""
        found.append(f"on their way back to {name(host)}, as {entry.by} wants: {names}{more}")
    for host in known.members:
        health = health_of(known, host)
        if health.level == "failing" and host not in kept:
            found.append(
                f"{name(host)} is not kept empty, for too many hosts fail at once to believe it, but gets no new VMs "
                f"if others can take them: {health.sentence}"
            )
        elif health.level == "degraded":
            found.append(f"{name(host)} gets no new VMs if others can take them: {health.sentence}")
    for host, left in known.avoided().items():
        minutes = -(-left // (60 * SECOND))
        found.append(f"{name(host)} gets no new VMs if others can take them, for {minutes} min: {WHY}")
    if kept and all(host in kept for host in known.members):
        found.append("every host is kept empty: no VM would be restarted anywhere")
    return found


def _until(known: Knowledge, host: HostId) -> str:
    """What a host that gets no VMs is, and until when."""
    entry, undrain = in_maintenance(known).get(host), f"`outlast host undrain {known.name(host)}`"
    if entry is not None:
        return f"is kept empty until {'it has booted again, or ' if entry.boot else ''}{undrain}"
    if host in emptied_for_health(known):
        return "is kept empty until its hardware is well again"
    return "gets no VMs until it has booted again"
