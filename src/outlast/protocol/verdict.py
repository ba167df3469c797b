"""What is the matter with a host: the state table of design.md section 4, as a pure function over facts with times.

The primary's verdict decides; every agent keeps one of every host all the same, so that a new primary starts with warm
evidence. A verdict may be wrong. It decides only how soon a VM runs again; that it never runs twice rests on the register
and on proof alone.

    network heartbeat          ping           datastore heartbeat    verdict
    heard                                                            connected, or storage lost if it says so
    silent                     under way                             unreachable
    silent                     answered       fresh                  partitioned, or agent down
    silent                     answered       stale everywhere       unresponsive
    silent                     answered       not fresh, and it was  unreachable for `unreachable_after`: it may be booting
                                              dead till now
    silent                     no answer                             presumed dead
    silent                     no answer      fresh                  isolated if its list says so, else partitioned
    silent                     no answer      stale everywhere       dead, once proof is at hand on one of them
    silent                     said to be off by its fence device,
                               or by an operator                     dead

A record that is fresh only because it was written before the silence began is no sign of life: the pings mark when that
was. So a host that lost its power is presumed dead at once, and not taken for partitioned until its record is stale.
"""

import enum

import msgspec

from outlast.model.ids import DatastoreName
from outlast.model.records import ProofKind
from outlast.model.settings import Settings
from outlast.model.time import Duration, Instant, after, in_seconds
from outlast.protocol.observation import Freshness


class Verdict(enum.StrEnum):
    """The words of design.md section 1."""

    UNKNOWN = "unknown"
    CONNECTED = "connected"
    STORAGE_LOST = "storage-lost"
    UNREACHABLE = "unreachable"
    PRESUMED_DEAD = "presumed-dead"
    PARTITIONED = "partitioned"
    ISOLATED = "isolated"
    AGENT_DOWN = "agent-down"
    UNRESPONSIVE = "unresponsive"
    DEAD = "dead"


SUSPECT = frozenset({Verdict.PRESUMED_DEAD, Verdict.DEAD, Verdict.UNRESPONSIVE})
"""Verdicts of a host whose VMs need somebody: their cases are open, and wait for proof as long as there is none."""


class Rule(enum.StrEnum):
    """Which row of the table gave the verdict."""

    NO_FACTS_YET = "no-facts-yet"
    HEARTBEAT_HEARD = "heartbeat-heard"
    REPORTS_LAPSED_LEASE = "reports-lapsed-lease"
    HEARTBEAT_MISSED = "heartbeat-missed"
    PING_UNANSWERED = "ping-unanswered"
    PING_ANSWERED_RECORD_FRESH = "ping-answered-record-fresh"
    PING_ANSWERED_NO_PROGRESS = "ping-answered-no-progress"
    PING_ANSWERED_RECORD_STALE = "ping-answered-record-stale"
    RECORD_FRESH = "record-fresh"
    LISTED_ISOLATED = "listed-isolated"
    PROOF_AT_HAND = "proof-at-hand"
    DEVICE_SAYS_OFF = "device-says-off"
    OPERATOR_SAYS_OFF = "operator-says-off"
    PING_ANSWERED_AGAIN = "ping-answered-again"


class DatastoreFact(msgspec.Struct, frozen=True):
    """What one associated datastore says about the host; `proven`: its lease there is over, or it ended otherwise."""

    datastore: DatastoreName
    freshness: Freshness
    changed_at: Instant | None
    agent_works: bool
    proven: bool


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known about one host now. All instants are the observer's; None: never.

    `said_off`: by whom, and nothing has been seen of the host since.
    """

    watched_since: Instant
    heartbeat_at: Instant | None
    first_ping_at: Instant | None
    ping_answer_at: Instant | None
    lapsed: tuple[DatastoreName, ...] = ()
    datastores: tuple[DatastoreFact, ...] = ()
    listed_isolated: bool = False
    said_off: ProofKind | None = None


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict, since when, by which rule, on which facts."""

    verdict: Verdict
    rule: Rule
    since: Instant
    facts: Facts


def first_judgement(now: Instant) -> Judgement:
    """Of a host about which nothing is known yet."""
    facts = Facts(watched_since=now, heartbeat_at=None, first_ping_at=None, ping_answer_at=None)
    return Judgement(verdict=Verdict.UNKNOWN, rule=Rule.NO_FACTS_YET, since=now, facts=facts)


def judge(before: Judgement, facts: Facts, settings: Settings, now: Instant) -> Judgement:
    """The table at the top, for one host. `since` is kept while the verdict stays the same."""
    verdict, rule = _row(before, facts, settings, now)
    since = before.since if verdict is before.verdict else now
    return Judgement(verdict=verdict, rule=rule, since=since, facts=facts)


def _row(before: Judgement, facts: Facts, settings: Settings, now: Instant) -> tuple[Verdict, Rule]:
    heard_from = facts.heartbeat_at if facts.heartbeat_at is not None else facts.watched_since
    if now - heard_from < settings.unreachable_after:
        if facts.heartbeat_at is None:
            return Verdict.UNKNOWN, Rule.NO_FACTS_YET
        if facts.lapsed:
            return Verdict.STORAGE_LOST, Rule.REPORTS_LAPSED_LEASE
        return Verdict.CONNECTED, Rule.HEARTBEAT_HEARD
    if facts.said_off is not None:
        by_device = facts.said_off is ProofKind.POWER_FENCED
        return Verdict.DEAD, Rule.DEVICE_SAYS_OFF if by_device else Rule.OPERATOR_SAYS_OFF
    fresh = any(_shows_life(fact, facts) for fact in facts.datastores)
    stale = bool(facts.datastores) and all(fact.freshness is Freshness.STALE for fact in facts.datastores)
    if answers_ping(facts, settings, now):
        if not fresh and _may_be_booting(before, settings, now):
            return Verdict.UNREACHABLE, Rule.PING_ANSWERED_AGAIN
        return _row_answering(facts, fresh, stale)
    if facts.first_ping_at is None or now - facts.first_ping_at < settings.ping_timeout:
        return Verdict.UNREACHABLE, Rule.HEARTBEAT_MISSED
    if fresh:
        if facts.listed_isolated:
            return Verdict.ISOLATED, Rule.LISTED_ISOLATED
        return Verdict.PARTITIONED, Rule.RECORD_FRESH
    readable = [fact for fact in facts.datastores if fact.freshness is not Freshness.UNKNOWN]
    silent = readable and all(fact.proven or fact.freshness is Freshness.STALE for fact in readable)
    # Where a lease's end is no proof, that VM's own case waits; it must not hold up those that are homed elsewhere.
    if silent and any(fact.proven for fact in readable):
        return Verdict.DEAD, Rule.PROOF_AT_HAND
    return Verdict.PRESUMED_DEAD, Rule.PING_UNANSWERED


def _shows_life(fact: DatastoreFact, facts: Facts) -> bool:
    """Fresh, and changed since the silence began: what was written before it tells nothing about a silent host."""
    if fact.freshness is not Freshness.FRESH or fact.changed_at is None:
        return False
    return facts.first_ping_at is None or fact.changed_at >= facts.first_ping_at


def _may_be_booting(before: Judgement, settings: Settings, now: Instant) -> bool:
    """A host answers ping before its keeper writes and its agent speaks: who was dead till now gets the time for that."""
    if before.rule is Rule.PING_ANSWERED_AGAIN:
        return now < booted_by(before, settings)
    return before.verdict in (Verdict.PRESUMED_DEAD, Verdict.DEAD)


def booted_by(judgement: Judgement, settings: Settings) -> Instant:
    """When a host that answered ping again has to be heard of otherwise, too."""
    return after(judgement.since, settings.unreachable_after)


def _row_answering(facts: Facts, fresh: bool, stale: bool) -> tuple[Verdict, Rule]:
    if fresh:
        if any(fact.agent_works for fact in facts.datastores):
            return Verdict.PARTITIONED, Rule.PING_ANSWERED_RECORD_FRESH
        return Verdict.AGENT_DOWN, Rule.PING_ANSWERED_NO_PROGRESS
    if stale:
        return Verdict.UNRESPONSIVE, Rule.PING_ANSWERED_RECORD_STALE
    return Verdict.UNREACHABLE, Rule.HEARTBEAT_MISSED


def answers_ping(facts: Facts, settings: Settings, now: Instant) -> bool:
    """Whether a ping was answered lately: within `ping_timeout` and one interval, in this silence."""
    if facts.ping_answer_at is None:
        return False
    return now < answer_ages(facts.ping_answer_at, settings)


def answer_ages(answered: Instant, settings: Settings) -> Instant:
    """When an answer to a ping ceases to tell anything."""
    return after(answered, Duration(settings.ping_timeout + settings.heartbeat_interval))


_TEXT = {
    Rule.NO_FACTS_YET: "nothing has been heard of it yet",
    Rule.HEARTBEAT_HEARD: "its network heartbeats arrive",
    Rule.REPORTS_LAPSED_LEASE: "its network heartbeats say that a lease of its has lapsed",
    Rule.HEARTBEAT_MISSED: "no network heartbeat arrives; pings are under way",
    Rule.PING_UNANSWERED: "no network heartbeat arrives and no ping is answered",
    Rule.PING_ANSWERED_RECORD_FRESH: "no heartbeat arrives, but it answers ping and its record on storage changes",
    Rule.PING_ANSWERED_NO_PROGRESS: "it answers ping and its keeper renews its record, but its agent makes no progress",
    Rule.PING_ANSWERED_RECORD_STALE: "it answers ping, but its record is stale on every associated datastore",
    Rule.RECORD_FRESH: "it is silent on the network, but its record on storage changes: it lives",
    Rule.LISTED_ISOLATED: "its record on storage changes, and its power-on list says that it is isolated",
    Rule.DEVICE_SAYS_OFF: "its fence device was asked for its state, and says that it is off",
    Rule.OPERATOR_SAYS_OFF: "an operator has confirmed that it is off",
    Rule.PING_ANSWERED_AGAIN: "it was taken for dead, and answers ping again: it may be booting",
    Rule.PROOF_AT_HAND: "it is silent on every channel, and its lease is provably over on every associated datastore",
}


def sentence(rule: Rule) -> str:
    """The rule in words."""
    return _TEXT[rule]


def explain(judgement: Judgement, now: Instant) -> list[str]:
    """The evidence behind a verdict, in sentences, with ages."""
    facts = judgement.facts
    lines = [f"Verdict: {judgement.verdict}, for {_age(judgement.since, now)}, because {sentence(judgement.rule)}."]
    lines.append(
        "No network heartbeat of it was ever heard."
        if facts.heartbeat_at is None
        else f"Its last network heartbeat arrived {_age(facts.heartbeat_at, now)} ago."
    )
    if facts.first_ping_at is not None:
        answer = "none was answered" if facts.ping_answer_at is None else ""
        answer = answer or f"the last answer came {_age(Instant(facts.ping_answer_at or 0), now)} ago"
        lines.append(f"It has been pinged for {_age(facts.first_ping_at, now)}; {answer}.")
    for fact in facts.datastores:
        changed = "no change seen yet" if fact.changed_at is None else f"last changed {_age(fact.changed_at, now)} ago"
        proof = "; its lease there is proven to be over" if fact.proven else ""
        lines.append(f"Its record on {fact.datastore} is {fact.freshness} ({changed}){proof}.")
    return lines


def _age(then: Instant, now: Instant) -> str:
    return f"{in_seconds(Duration(now - then)):.1f} s"
