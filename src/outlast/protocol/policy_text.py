"""What is asked for one VM, in sentences for people."""

from outlast.model.policy import WITHOUT_END, VmPolicy


def policy_sentences(policy: VmPolicy, isolation_response: str) -> list[str]:
    """One line each. `isolation_response`: that of the settings, which counts if it has none of its own."""
    lines = [
        f"Its priority is {policy.priority}; it is ready for others by {policy.ready}; "
        f"its isolation response is {policy.isolation_response or isolation_response}."
    ]
    if policy.after:
        lines.append(f"It is started after {', '.join(policy.after)}, if they are down as well.")
    here = "without end" if policy.max_restarts == WITHOUT_END else f"{policy.max_restarts} times"
    hosts = "every other host" if policy.max_relocations == WITHOUT_END else f"{policy.max_relocations} other hosts"
    lines.append(f"If it fails by itself, it is started anew {here} on its host, then on {hosts}.")
    return lines
