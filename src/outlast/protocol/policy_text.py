"""What is asked for one VM, and how its guest is, in sentences for people."""

from outlast.model.policy import WITHOUT_END, VmPolicy
from outlast.model.records import GuestWord
from outlast.model.settings import Settings
from outlast.model.status import VmStatus
from outlast.model.units import duration_text
from outlast.protocol.knowledge import Knowledge

_LOOK = "look at its console and at what was kept before (`outlast events`), and `virsh reset` it"


def policy_sentences(policy: VmPolicy, settings: Settings) -> list[str]:
    """One line each. What it has not of its own, the settings say."""
    lines = [
        f"Its priority is {policy.priority}; it is ready for others by {policy.ready}; "
        f"its isolation response is {policy.isolation_response or settings.isolation_response}."
    ]
    if policy.after:
        lines.append(f"It is started after {', '.join(policy.after)}, if they are down as well.")
    here = "without end" if policy.max_restarts == WITHOUT_END else _times(policy.max_restarts)
    elsewhere = "one other host" if policy.max_relocations == 1 else f"{policy.max_relocations} other hosts"
    hosts = "every other host" if policy.max_relocations == WITHOUT_END else elsewhere
    lines.append(f"If it fails by itself, it is started anew {here} on its host, then on {hosts}.")
    return lines


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def guest_sentences(status: VmStatus, settings: Settings) -> list[str]:
    """Whether its guest is watched, and how it is."""
    if status.policy is None or (status.policy.guest_monitoring or settings.guest_monitoring) == "off":
        return []
    silent, quiet = duration_text(settings.guest_failure_after), duration_text(settings.guest_io_quiet)
    lines = [
        f"Its guest is watched: it is reset, at most {_times(settings.guest_resets_per_hour)} an hour, if it does not "
        f"answer for {silent} and does nothing for {quiet}, but not within {duration_text(settings.guest_min_uptime)} of "
        "its start, of a reset, or of when it was first watched."
    ]
    said = {
        "": "It has not answered yet, so it is not judged: is the QEMU guest agent installed in it?",
        "answers": "Its guest agent answers.",
        "silent": "Its guest agent does not answer.",
        "failed": f"ITS GUEST HAS FAILED, and is left alone: {_LOOK}.",
    }
    times = f" It was reset {_times(status.guest_resets)} within the last hour." if status.guest_resets else ""
    return [*lines, said[status.guest] + times]


def guest_note(word: GuestWord | None) -> str:
    """The few words about it on a screen of all VMs; empty if it is well or not watched."""
    if word is None or word.state == "answers":
        return ""
    return "its guest does not answer" if word.state == "silent" else f"its guest has failed: {word.why}"


def failed_guests(known: Knowledge) -> list[str]:
    """One sentence for each guest that is left alone, on whichever host."""
    return [
        f"the guest of {line.name} on {known.name(host)} has failed: {line.guest.why}; {_LOOK}"
        for host, line in known.whereabouts().values()
        if line.guest is not None and line.guest.state == "failed"
    ]
