"""Placement rules, as operators write them: which VMs belong apart or together, and where they may run or should not.

    keep-apart      no two of the VMs on one host; `by` a label: no two on hosts with one value of it (a rack, a site)
    keep-together   all of the VMs on one host
    run-on          the VMs on these hosts alone; a preference by host, higher first, says which of them first
    avoid           the VMs not on these hosts

A required rule is never broken by a placement of ours, so a VM may have to wait for it. A preferred one is kept where that
costs nobody his place. VMs and hosts are named; which rules contradict each other is found by `protocol/planning/rulebook`.
"""

from typing import Literal

import msgspec

from outlast.model.ids import HostName, VmName

RuleKind = Literal["keep-apart", "keep-together", "run-on", "avoid"]
ABOUT_HOSTS = ("run-on", "avoid")
"""Kinds that name hosts; the others are about VMs alone."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rule. `hosts`: a preference by host, higher first (of an `avoid`: higher is worse).

    `failback`: a VM that runs elsewhere goes back to a better host when that one is there again (run-on alone).
    """

    kind: RuleKind
    vms: tuple[VmName, ...]
    hosts: dict[HostName, int] = {}
    required: bool = True
    failback: bool = False
    by: str = ""

    def __str__(self) -> str:
        """The rule in the words of a sentence: required keep-apart of web1 and web2."""
        strength = "required" if self.required else "preferred"
        where = f" ({self.by})" if self.by else ""
        hosts = f": {', '.join(self.hosts)}" if self.hosts else ""
        return f"{strength} {self.kind}{where} of {' and '.join(self.vms)}{hosts}"


def problem(rule: Rule) -> str:
    """What is wrong with a rule by itself, as the rest of a sentence that begins with its kind; empty if nothing is."""
    if rule.kind in ABOUT_HOSTS:
        if not rule.hosts:
            return "must name hosts"
        if not rule.vms:
            return "must name VMs"
    elif rule.hosts:
        return "is about VMs alone: leave hosts out"
    elif len(rule.vms) < 2:
        return "needs two VMs or more"
    if rule.failback and rule.kind != "run-on":
        return "knows no failback: that is for run-on"
    if rule.by and rule.kind != "keep-apart":
        return "knows no label: that is for keep-apart"
    return ""
