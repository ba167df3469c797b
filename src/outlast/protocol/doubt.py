"""Many hosts silent at once: is it them, the network between, or me? And who is not back yet after a cold start?

Two things that a single silence cannot be mistaken for. Both hold back only what would be done about the silent; neither
makes anything proof or takes it away: that rests on the register and on rule 5 alone, so being wrong here costs time.

**Mass failure.** Two or more of the others, and over half of them, fell silent within `AT_ONCE`: that is first evidence
against this host or the network. While it is, the isolation addresses are asked as an isolated host asks them.

    what is known of my own reach                    a lease's end is acted upon      their hosts are fenced
    an isolation address answers, and every own      as soon as it is proof           once their records have stood still
      lease is held: it is not me                                                     for a whole window
    anything else                                    not before `mass_failure_grace`  then too, and not before the grace
                                                       since the first silence          is over

Only `lease_expired` is held back: it is the one proof that a cable can bring about. A boot, an owner's word, a last word, a
fence device or an operator say that the VM is off, whoever else is silent. The grace is counted from the first silence of
those that fell silent together, so who falls silent later never prolongs it. Heartbeats come at their own times: who has
missed one counts, though nobody would call it unreachable yet. And when a switch is back, so are its hosts, one after the
other: those that are left wait for the rest of the grace, however few they are by then.

**Cold start.** An agent that starts knows nothing of hosts that have not come back, and they may be minutes away. What they
ran is left to them until each has shown life, or until `startup_grace` after the first agent's start; nor are they fenced.
The site is starting for an agent unless it has reason to think otherwise:

    what it learns                                                  then the site is starting
    every other host has shown life since                           no more
    another agent says for how long the site is starting still      for no longer than that
    an earlier agent of this boot left a list                       no more: a daemon was restarted, not the site; to
                                                                    others it says nothing of it, as it may be both

An agent that runs for longer than the grace says zero, and so does one that has heard everybody: a failover in a domain
that runs never meets this grace. A host that has booted is back, and what it ran needs no grace: it is started at once. In
a site that starts it is best started there, or all of the site would end on whoever is first; so a host that has just come
back has `COMES_UP` until its agent, its libvirt and its lease are well.
"""

import msgspec

from outlast.model.ids import DatastoreName, HostId
from outlast.model.messages import Heartbeat
from outlast.model.records import ProofKind
from outlast.model.time import MILLISECOND, SECOND, Duration, Instant, after, in_seconds
from outlast.protocol.domain_snapshot import why_unusable
from outlast.protocol.host_condition import kept_empty
from outlast.protocol.isolation import Isolation
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.peers import Peers
from outlast.protocol.planned_reboot import PlannedReboots
from outlast.protocol.verdict import Verdict

AT_ONCE = Duration(10 * SECOND)
"""Silences that began within this time of each other may have one cause, and that may be ours."""
COMES_UP = Duration(10 * SECOND)
"""From a host's first sign of life in a site that starts until VMs can be started on it."""
_FROM_EARLIER_BOOTS = frozenset({ProofKind.LEASE_EXPIRED, ProofKind.CLEAN_SHUTDOWN, ProofKind.RENOUNCED})
"""What a site that lost its power, or was shut down in good order, leaves behind for its next start."""


class MassFailure(msgspec.Struct, frozen=True):
    """Hosts that fell silent at once, of so many others; `until`: when the grace since the first silence is over."""

    hosts: tuple[HostId, ...]
    others: int
    until: Instant


class Doubt:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox, peers: Peers, isolation: Isolation) -> None:
        self._known = knowledge
        self._out = outbox
        self._peers = peers
        self._isolation = isolation
        self.planned = PlannedReboots(knowledge, outbox)
        """Who keeps its VMs over a planned reboot: that is known, and no doubt, and holds restarts back likewise."""
        self._starting_at_most: Instant | None = None
        """Until when at most hosts that have not come back are waited for, by what was learnt since."""
        self.asks = False
        """Whether the isolation addresses are to be asked: so many have missed a heartbeat."""
        self._came: dict[HostId, Instant] = {}
        """When each host showed life for the first time, of those that did while the site was starting."""
        self._cannot_tell = False
        """Whether this agent was restarted, and so knows nothing of how long the site has been running."""
        self._newest: MassFailure | None = None
        """The mass failure whose grace is not over, as of the last look."""
        self._seen: dict[HostId, tuple[Instant, MassFailure]] = {}
        """For each silent host, since when it is, and the mass failure that it was one of."""
        self._told_of: MassFailure | None = None
        self._told_of_start = False

    # -- what recovery and fencing ask ----------------------------------------------------------------------------

    def why_held(self, owner: HostId, proof: ProofKind, home: DatastoreName, *, booted: bool = False) -> str:
        """Why a VM of this owner is not started elsewhere yet although there is proof; empty if it may be.

        `booted`: its owner has, since it made the epoch that the proof is about.
        """
        if proof in _FROM_EARLIER_BOOTS and self._is_awaited(owner):
            begin = self._begin(self.starting_until)
            return f"held: the site is starting, and {self._known.name(owner)} is not back; {begin}"
        left = self._comes_up_within(owner, home) if booted else 0
        if left > 0:
            so = f"has just come back, and is given {-(-left // SECOND)} s to take it itself"
            return f"held: {self._known.name(owner)} {so}"
        mass = self.mass_failure(owner)
        if proof is not ProofKind.LEASE_EXPIRED or mass is None or self._is_over(mass):
            return ""
        return f"held: {self._text(mass)}; {self._begin(mass.until)}"

    def why_not_fenced(self, host: HostId) -> str:
        """Why a silent host is not to be switched off yet; empty if doubt is no reason."""
        if self._is_awaited(host):
            return f"the site is starting, and it may be about to come back, for {self._left(self.starting_until)}"
        mass = self.mass_failure(host)
        if mass is None or (self._is_over(mass) and self._stood_still(host)):
            return ""
        return f"{self._text(mass)}, which may be this host's fault"

    def mass_failure(self, host: HostId) -> MassFailure | None:
        """The hosts that fell silent together with this one, if they are or were many in this silence of its."""
        if host == self._known.me:
            return None
        began = self._peers.silent_since(host)
        hosts = tuple(
            peer
            for peer in self._known.peers
            if self._is_silent(peer) and abs(self._peers.silent_since(peer) - began) <= AT_ONCE
        )
        if not self._are_many(len(hosts)):
            seen = self._seen.get(host)
            return seen[1] if seen is not None and seen[0] == began else None
        first = min(self._peers.silent_since(peer) for peer in hosts)
        return MassFailure(hosts, len(self._known.peers), after(first, self._known.settings.mass_failure_grace))

    def _is_silent(self, host: HostId) -> bool:
        """Whether nothing is heard of it; one that answers pings when it is unreachable lives."""
        if self._known.live(host):
            return self._peers.first_ping_at(host) is not None
        return not self._known.lives(host)

    def _are_many(self, count: int) -> bool:
        return count >= 2 and 2 * count > len(self._known.peers)

    def _is_over(self, mass: MassFailure) -> bool:
        return self._known.now >= mass.until or self._reach_is_proven()

    def _reach_is_proven(self) -> bool:
        """Whether this host's own network and storage are well, as far as it can tell without the silent."""
        return self._isolation.connected_to_something(self._known.now) and not self._known.lapsed()

    def _stood_still(self, host: HostId) -> bool:
        """Whether every record that the host ever had has been seen unchanged for a whole window."""
        known = self._known
        watches = [known.watches[host, name] for name in known.datastores]
        return all(
            watch.first_seen is not None and watch.lease_is_over(watch.first_seen, known.settings.window)
            for watch in watches
            if watch.incarnation is not None
        )

    # -- a cold start ---------------------------------------------------------------------------------------------

    def heard(self, beat: Heartbeat) -> None:
        """Another agent says for how much longer the site is starting: it has been there for longer, or has heard more."""
        if not self.is_starting:
            return
        self._came.setdefault(beat.sender, self._known.now)
        if beat.starting_ms is not None:
            left = Duration(beat.starting_ms * MILLISECOND)
            self._starting_at_most = min(self.starting_until, after(self._known.now, left))

    @property
    def starting_until(self) -> Instant:
        """Until when hosts that have not come back are waited for."""
        grace = after(self._known.started, self._known.settings.startup_grace)
        return grace if self._starting_at_most is None else min(grace, self._starting_at_most)

    @property
    def is_starting(self) -> bool:
        """Whether the site is starting, as far as this agent knows."""
        return self._known.now < self.starting_until

    @property
    def starting_ms(self) -> int | None:
        """For how much longer, for the others."""
        if self._cannot_tell and self._known.now < after(self._known.started, self._known.settings.startup_grace):
            return None
        return max(0, self.starting_until - self._known.now) // MILLISECOND

    def _is_back(self, host: HostId) -> bool:
        """Whether a host's agent or keeper has shown life since this agent started. A ping is answered long before."""
        known = self._known
        return host in known.beats or any(known.watches[host, name].changed_at is not None for name in known.datastores)

    def _is_awaited(self, host: HostId) -> bool:
        return self.is_starting and host != self._known.me and not self._is_back(host)

    def _comes_up_within(self, host: HostId, home: DatastoreName) -> int:
        """For how much longer a host that has just come back may take until a VM of this home can be started there."""
        came, known = self._came.get(host), self._known
        if came is None or host in kept_empty(known) or (not why_unusable(known, host) and home in known.leases_of(host)):
            return 0
        return came + COMES_UP - known.now

    def _missing(self) -> list[HostId]:
        return [host for host in self._known.peers if not self._is_back(host)]

    def _look_whether_it_starts(self, responsible: bool) -> None:
        if self._told_of_start and not self.is_starting:
            self._told_of_start = False
            missing = self._missing()
            why = f"{self._names(missing)} did not come back in time" if missing else "every host is back"
            self._out.note("startup-over", relay=True, why=why)
        if not self.is_starting:
            self._starting_at_most = self.starting_until  # Whatever the grace is set to from now on.
            return
        before, missing = self._known.predecessors_list, self._missing()
        for host in self._known.peers:
            if host not in missing:
                self._came.setdefault(host, self._known.now)
        self._cannot_tell = bool(missing) and before is not None and before.boot_id == self._known.config.boot_id
        if not missing or self._cannot_tell:
            self._starting_at_most = self._known.now
            self._look_whether_it_starts(responsible)
        elif responsible and not self._told_of_start:
            self._told_of_start = True
            left = self._left(self.starting_until)
            self._out.note("startup-grace", relay=True, hosts=self._names(missing), left=left)

    # -- turns, and what people see -------------------------------------------------------------------------------

    def look(self, responsible: bool) -> None:
        """Judge anew, and tell of what begins or is over. `responsible`: for any datastore, so that it matters here."""
        self.planned.look()
        self._look_whether_it_starts(responsible)
        self.asks = self._are_many(sum(map(self._missed_lately, self._peers.in_question)))
        self._newest = self._find_newest()
        mass = self._newest if responsible else None
        if mass is not None and self._told_of is None:
            self._told_of = mass
            good = self._reach_is_proven()
            so = "its own network and storage are well, so nothing waits for them" if good else self._begin(mass.until)
            self._out.note("mass-failure", host=self._known.me, relay=True, hosts=self._text(mass), so=so)
        elif mass is None and self._told_of is not None:
            why = "they are back" if self._known.now < self._told_of.until else "the grace is over"
            self._told_of = None
            self._out.note("mass-failure-over", host=self._known.me, relay=True, why=why)

    def _missed_lately(self, host: HostId) -> bool:
        """Whether a host may be one of many that have just begun to be silent, or whose grace is not over."""
        if self._peers.first_ping_at(host) is None or not self._is_silent(host):
            return False
        longest = self._known.settings.mass_failure_grace + self._known.settings.unreachable_after
        return self._known.now - self._peers.silent_since(host) < longest

    def _find_newest(self) -> MassFailure | None:
        lately = [host for host in self._known.silent if self._might_be_one(host)]
        found = {host: mass for host in lately if (mass := self.mass_failure(host)) is not None}
        self._seen = {host: (self._peers.silent_since(host), mass) for host, mass in found.items()}
        left = (mass for mass in found.values() if mass.until > self._known.now)
        return max(left, key=lambda mass: mass.until, default=None)

    def _might_be_one(self, host: HostId) -> bool:
        if self._known.lives(host) or self._known.verdict(host) is Verdict.UNKNOWN or self._is_awaited(host):
            return False
        return self._known.now - self._peers.silent_since(host) < self._known.settings.mass_failure_grace

    def problems(self) -> list[str]:
        """What everybody who looks at the status is to know at once."""
        found = self.planned.problems()
        if self.is_starting and (missing := self._missing()):
            found.append(
                f"the site is starting, and not back yet: {self._names(missing)}; what ran there is started elsewhere in "
                f"{self._left(self.starting_until)}"
            )
        mass = self._newest
        if mass is not None and not self._is_over(mass):
            found.append(f"{self._text(mass)}, which may be this host's or the network's fault: {self._begin(mass.until)}")
        elif mass is not None:
            found.append(f"{self._text(mass)}; this host's own network and storage are well: restarts are not held back")
        return found

    def _text(self, mass: MassFailure) -> str:
        return (
            f"{len(mass.hosts)} of {mass.others} other hosts fell silent within {in_seconds(AT_ONCE):g} s "
            f"({self._names(list(mass.hosts))})"
        )

    def _begin(self, until: Instant) -> str:
        return f"restarts begin in {self._left(until)} unless they come back"

    def _left(self, until: Instant) -> str:
        return f"{max(0.0, in_seconds(Duration(until - self._known.now))):.0f} s"

    def _names(self, hosts: list[HostId]) -> str:
        return ", ".join(sorted(self._known.name(host) for host in hosts))

    def next_deadline(self) -> Instant | None:
        """When time alone ends a grace."""
        due = [self.starting_until] if self.is_starting else []
        mass, planned = self._newest, self.planned.next_deadline()
        due += [t for t in (mass.until if mass is not None else None, planned) if t is not None]
        return min(due, default=None)
