"""Which placement rules hold: a rule that contradicts stronger ones is dropped, and both are named.

Required rules are stronger than preferred ones, and of two equal ones the later is: whoever writes a rule means it. The
rules are taken in that order, and each is kept if all that are kept can still be obeyed at once, by what is written alone:

    keep-together     makes one group of VMs, and of groups that share a VM
    run-on, avoid     leave each group the hosts that all of its rules allow; none is a contradiction
    keep-apart        wants its VMs in different groups, and a host (or a label's value) of its own for each

Room is no part of it, nor how several keep-apart rules together use up hosts: that is for the planner to find.
"""

from collections.abc import Sequence

import msgspec

from outlast.model.ids import HostName, VmName
from outlast.model.inventory import HostMember
from outlast.model.rules import Rule


class Dropped(msgspec.Struct, frozen=True):
    """A rule that does not hold, the rules that it contradicts (fewest that do), and how."""

    rule: Rule
    against: tuple[Rule, ...]
    how: str

    def __str__(self) -> str:
        """The whole of it as a sentence."""
        others = "; ".join(str(rule) for rule in self.against)
        return f"the rule '{self.rule}' is dropped: {self.how}" + (f" (it contradicts '{others}')" if others else "")


class RuleBook(msgspec.Struct, frozen=True):
    """`rules` hold, in the order in which they were written."""

    rules: tuple[Rule, ...] = ()
    dropped: tuple[Dropped, ...] = ()


def resolve(rules: Sequence[Rule], hosts: Sequence[HostMember]) -> RuleBook:
    """Keep every rule that does not contradict stronger ones."""
    order = sorted(range(len(rules)), key=lambda i: (not rules[i].required, -i))
    kept: list[int] = []
    dropped: list[tuple[int, Dropped]] = []
    for i in order:
        how = contradiction([rules[k] for k in kept] + [rules[i]], hosts)
        if not how:
            kept.append(i)
            continue
        against = _fewest([rules[k] for k in sorted(kept)], rules[i], hosts)
        how = contradiction([*against, rules[i]], hosts)
        dropped.append((i, Dropped(rules[i], tuple(against), how)))
    return RuleBook(tuple(rules[i] for i in sorted(kept)), tuple(each for _, each in sorted(dropped, key=lambda d: d[0])))


def _fewest(kept: list[Rule], rule: Rule, hosts: Sequence[HostMember]) -> list[Rule]:
    """The kept rules without which there would be no contradiction: none of them can be left out."""
    against = list(kept)
    for each in kept:
        without = [other for other in against if other is not each]
        if contradiction([*without, rule], hosts):
            against = without
    return against


def contradiction(rules: Sequence[Rule], hosts: Sequence[HostMember]) -> str:
    """How these rules contradict each other on these hosts; empty if they do not."""
    group = _groups(rules)
    allowed = _allowed(rules, group, frozenset(host.name for host in hosts))
    for vms, left in allowed.items():
        if not left:
            return f"no host is left for {' and '.join(sorted(vms))}"
    labels = {host.name: host.labels for host in hosts}
    for rule in rules:
        if rule.kind == "keep-apart":
            how = _cannot_be_apart(rule, group, allowed, labels)
            if how:
                return how
    return ""


def _groups(rules: Sequence[Rule]) -> dict[VmName, frozenset[VmName]]:
    """The VMs that have to run on one host with each VM, itself among them."""
    group: dict[VmName, frozenset[VmName]] = {vm: frozenset((vm,)) for rule in rules for vm in rule.vms}
    for rule in rules:
        if rule.kind == "keep-together":
            whole = frozenset[VmName]().union(*(group[vm] for vm in rule.vms))
            group |= dict.fromkeys(whole, whole)
    return group


def _allowed(
    rules: Sequence[Rule], group: dict[VmName, frozenset[VmName]], every: frozenset[HostName]
) -> dict[frozenset[VmName], frozenset[HostName]]:
    allowed = dict.fromkeys(group.values(), every)
    for rule in rules:
        for vm in rule.vms:
            if rule.kind == "run-on":
                allowed[group[vm]] &= frozenset(rule.hosts)
            elif rule.kind == "avoid":
                allowed[group[vm]] -= frozenset(rule.hosts)
    return allowed


def _cannot_be_apart(
    rule: Rule,
    group: dict[VmName, frozenset[VmName]],
    allowed: dict[frozenset[VmName], frozenset[HostName]],
    labels: dict[HostName, dict[str, str]],
) -> str:
    for i, vm in enumerate(rule.vms):
        for other in rule.vms[:i]:
            if group[other] == group[vm]:
                return f"{other} and {vm} cannot be apart and together"
    places = [frozenset(place_of(rule, host, labels[host]) for host in allowed[group[vm]]) for vm in rule.vms]
    if _matched(places) < len(places):
        what = f"values of the label {rule.by}" if rule.by else "hosts"
        return f"{' and '.join(rule.vms)} would need {len(rule.vms)} {what} of their own, and there are too few"
    return ""


def place_of(rule: Rule, host: HostName, labels: dict[str, str]) -> str:
    """What two VMs of a keep-apart rule must not share: the host, or its value of the label; without one, the host."""
    return f"{rule.by}={labels[rule.by]}" if rule.by and rule.by in labels else f"host {host}"


def _matched(places: list[frozenset[str]]) -> int:
    """How many of these can have a place of their own at once (augmenting paths)."""
    taken: dict[str, int] = {}

    def seat(i: int, seen: set[str]) -> bool:
        for place in sorted(places[i] - seen):
            seen.add(place)
            if place not in taken or seat(taken[place], seen):
                taken[place] = i
                return True
        return False

    return sum(seat(i, set()) for i in range(len(places)))
