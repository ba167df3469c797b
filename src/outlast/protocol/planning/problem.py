"""A snapshot made ready for deciding fast: hosts have numbers, each VM knows the hosts that may ever take it.

VMs with the same needs of reach, and the same rules about hosts, share one set of candidates, so that a thousand VMs cost
a few looks at every host. Whatever depends on who is where, or on room, is the `board`'s.
"""

import functools

import msgspec

from outlast.model.ids import HostId, VmId, VmName
from outlast.model.planning import PlanHost, PlanVm, Snapshot
from outlast.model.rules import Rule
from outlast.protocol.planning.rulebook import place_of


class Apart:
    """A keep-apart rule. `places`: by host, what two of its VMs must not share; `hosts`: the hosts of each such place."""

    def __init__(self, rule: Rule, hosts: tuple[PlanHost, ...]) -> None:
        self.rule = rule
        self.places = tuple(place_of(rule, host.name, host.labels) for host in hosts)
        self.hosts: dict[str, list[int]] = {}
        for i, place in enumerate(self.places):
            self.hosts.setdefault(place, []).append(i)


class Taste(msgspec.Struct, frozen=True):
    """What rules about hosts say of one VM. `limit`: the only hosts that required ones leave, None if there are none.

    `wrong`: by host, how many preferred rules it would break there; `liked`: how much rules prefer the host. Hosts about
    which there is nothing to say are absent.
    """

    limit: frozenset[int] | None
    wrong: dict[int, int]
    liked: dict[int, int]


_NO_TASTE = Taste(None, {}, {})


class Problem:
    """See the top of this file. Hosts are numbered in the order of the snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.hosts = snapshot.hosts
        self.number: dict[HostId, int] = {host.id: i for i, host in enumerate(self.hosts)}
        self.vms: dict[VmId, PlanVm] = {vm.vm: vm for vm in snapshot.vms}
        self.apart = tuple(Apart(rule, self.hosts) for rule in snapshot.rules if rule.kind == "keep-apart")
        self.together = tuple(rule for rule in snapshot.rules if rule.kind == "keep-together")
        self.apart_of = _by_name([each.rule for each in self.apart])
        self.together_of = _by_name(list(self.together))
        self._rules_about_hosts: dict[VmName, list[Rule]] = {}
        for rule in snapshot.rules:
            if rule.hosts:
                for name in rule.vms:
                    self._rules_about_hosts.setdefault(name, []).append(rule)
        self.ruled = frozenset(self.apart_of) | frozenset(self.together_of) | frozenset(self._rules_about_hosts)
        """The VMs that any rule names."""
        self.labelled: dict[tuple[str, str], list[int]] = {}
        """The hosts that have a label with a value."""
        for i, host in enumerate(self.hosts):
            for label in host.labels.items():
                self.labelled.setdefault(label, []).append(i)
        self._reaching: dict[tuple[object, ...], frozenset[int]] = {}
        self._candidates: dict[tuple[object, ...], frozenset[int]] = {}
        self._candidates_of: dict[VmId, tuple[PlanVm, frozenset[int]]] = {}
        self._tastes: dict[VmName, Taste] = {}

    def reach(self, vm: PlanVm) -> tuple[object, ...]:
        """What all VMs that reach the same hosts have in common."""
        return vm.needs.datastores, vm.needs.networks, vm.needs.cpu_model, vm.only

    def reaching(self, vm: PlanVm) -> frozenset[int]:
        """The hosts that may take a VM if rules allow it and they have room."""
        kind = self.reach(vm)
        found = self._reaching.get(kind)
        if found is None:
            found = frozenset(i for i in range(len(self.hosts)) if not self.unreachable(vm, i))
            self._reaching[kind] = found
        return found

    def candidates(self, vm: PlanVm) -> frozenset[int]:
        """The hosts that may take a VM if they have room and the other VMs allow it."""
        known = self._candidates_of.get(vm.vm)
        if known is not None and known[0] is vm:
            return known[1]
        limit = self.taste(vm).limit
        found = self.reaching(vm) if limit is None else self._limited(vm, limit)
        self._candidates_of[vm.vm] = vm, found
        return found

    def _limited(self, vm: PlanVm, limit: frozenset[int]) -> frozenset[int]:
        key = (vm.name, self.reach(vm))
        found = self._candidates.get(key)
        if found is None:
            found = self._candidates[key] = self.reaching(vm) & limit
        return found

    def unreachable(self, vm: PlanVm, i: int) -> str:
        """Why a host cannot take a VM, rules and room apart; empty if it may."""
        host, needs = self.hosts[i], vm.needs
        if host.unusable:
            return host.unusable
        if host.kept_empty and vm.only != host.id:
            return host.kept_empty
        if vm.only is not None and vm.only != host.id:
            return "only its owner may start it now"
        missing = [name for name in needs.datastores if name not in host.leases]
        if missing:
            return f"it does not reach {' and '.join(missing)}, or holds no lease there"
        if host.networks is not None and not host.networks.issuperset(needs.networks):
            absent = [name for name in needs.networks if name not in host.networks]
            return f"it has no network {' and '.join(absent)}"
        if needs.cpu_model and host.cpu_models and needs.cpu_model not in host.cpu_models:
            return f"its CPU cannot be a {needs.cpu_model}"
        return ""

    def never(self, vm: PlanVm, i: int) -> str:
        """Why a host cannot take a VM whatever else is placed where; empty if it may."""
        rules = self._rules_about_hosts.get(vm.name, [])
        forbidden = (f"the rule '{rule}' forbids it" for rule in rules if _forbids(rule, self.hosts[i]))
        return self.unreachable(vm, i) or next(forbidden, "")

    def taste(self, vm: PlanVm) -> Taste:
        """What rules about hosts say of a VM."""
        rules = self._rules_about_hosts.get(vm.name)
        if rules is None:
            return _NO_TASTE
        found = self._tastes.get(vm.name)
        if found is None:
            found = self._tastes[vm.name] = self._taste(rules)
        return found

    def _taste(self, rules: list[Rule]) -> Taste:
        limit: frozenset[int] | None = None
        if any(rule.required for rule in rules):
            limit = frozenset(i for i, host in enumerate(self.hosts) if not any(_forbids(rule, host) for rule in rules))
        tastes = [_taste_of(rules, host) for host in self.hosts]
        wrong = {i: broken for i, (broken, _) in enumerate(tastes) if broken}
        liked = {i: liked for i, (_, liked) in enumerate(tastes) if liked}
        return Taste(limit, wrong, liked)

    @functools.cached_property
    def bundles(self) -> dict[VmName, frozenset[VmName]]:
        """The VMs that required rules keep together with each VM, itself among them; VMs without such a rule are absent."""
        found: dict[VmName, frozenset[VmName]] = {}
        for rule in self.together:
            if rule.required:
                whole = frozenset(rule.vms).union(*(found.get(name, frozenset()) for name in rule.vms))
                found |= dict.fromkeys(whole, whole)
        return found


def _by_name(rules: list[Rule]) -> dict[VmName, tuple[int, ...]]:
    """The numbers of the rules that name each VM."""
    found: dict[VmName, tuple[int, ...]] = {}
    for i, rule in enumerate(rules):
        for name in rule.vms:
            found[name] = (*found.get(name, ()), i)
    return found


def _forbids(rule: Rule, host: PlanHost) -> bool:
    return rule.required and (host.name in rule.hosts) is not (rule.kind == "run-on")


def _taste_of(rules: list[Rule], host: PlanHost) -> tuple[int, int]:
    broken = preference = 0
    for rule in rules:
        listed = host.name in rule.hosts
        if not rule.required and listed is not (rule.kind == "run-on"):
            broken += 1
        if listed:
            preference += rule.hosts[host.name] if rule.kind == "run-on" else -rule.hosts[host.name]
    return broken, preference
