"""The other hosts as this agent hears them: network heartbeats out and in, pings, and a verdict of each.

Pings start at the first missed heartbeat (one and a half intervals of silence), so that by the time a host is
unreachable the answer, or its absence, is there: the claim's "previously sent ping message".
"""

from collections.abc import Iterator

import msgspec

from outlast.model.effects import Ping, Send
from outlast.model.events import PingNotSent
from outlast.model.ids import BootId, DatastoreName, HostId
from outlast.model.messages import Heartbeat
from outlast.model.time import NEVER, Instant, after
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.observation import Freshness
from outlast.protocol.verdict import (
    DatastoreFact,
    Facts,
    Rule,
    Verdict,
    answer_ages,
    answers_ping,
    booted_by,
    judge,
    sentence,
)


class _Silence(msgspec.Struct):
    """The pings of one host's present silence."""

    first_ping: Instant | None = None
    next_ping: Instant = Instant(0)
    answered: Instant | None = None
    unsent_at: Instant | None = None
    problem: str = ""


_HEARD = _Silence()


class Peers:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._silences = {host: _Silence() for host in knowledge.peers}
        self._boots: dict[HostId, BootId] = {}
        self.beat_due = knowledge.now
        """When our next heartbeat is to go out."""
        self._oldest_beat: Instant | None = None
        self.in_question = list(knowledge.peers)
        """The hosts whose verdict rests on more than that they are heard."""
        self._look_at_all = True
        self._sequence = 0

    @property
    def _first_miss(self) -> int:
        return 3 * self._known.settings.heartbeat_interval // 2

    def beat_is_due(self) -> bool:
        """Whether it is time for our own heartbeat."""
        return self._known.now >= self.beat_due

    def beat_soon(self) -> None:
        """What we say has changed in a way that others wait for."""
        self.beat_due = self._known.now

    def send_beat(self, beat: Heartbeat) -> None:
        """Send our heartbeat to every other host."""
        self._sequence += 1
        self.beat_due = after(self._known.now, self._known.settings.heartbeat_interval)
        numbered = msgspec.structs.replace(beat, sequence=self._sequence)
        for host in self._known.peers:
            self._out.put(Send(host, numbered))

    def heard(self, beat: Heartbeat) -> None:
        """A network heartbeat of another host. An older boot's is worth nothing."""
        before = self._known.beats.get(beat.sender)
        self._look_at_all = self._look_at_all or before is None or before.beat.lapsed != beat.lapsed
        self._known.take_beat(beat)
        if self._boots.get(beat.sender) not in (None, beat.boot_id):
            self._out.note("host-rebooted", host=beat.sender)
            self._known.flapping.booted(beat.sender, before is not None and before.beat.leaving, self._known.now)
        self._boots[beat.sender] = beat.boot_id
        if self._silences[beat.sender] != _HEARD:
            self._silences[beat.sender] = _Silence()

    def ping_answered(self, host: HostId) -> None:
        """A host answered a ping."""
        if host in self._silences:
            self._silences[host].answered = self._known.now

    def ping_not_sent(self, event: PingNotSent) -> None:
        """No silence can be told from it: neither a verdict nor a proof (rule 6) may rest on a ping that never went out."""
        silence = self._silences.get(event.host) if event.host is not None else None
        if silence is not None:
            silence.first_ping = None
            silence.unsent_at, silence.problem = self._known.now, event.problem

    def problem(self, host: HostId) -> str:
        """Why a host could not be pinged lately, or an empty string."""
        silence, settings = self._silences[host], self._known.settings
        lately = silence.unsent_at is not None and self._known.now - silence.unsent_at < settings.unreachable_after
        return silence.problem if lately else ""

    def tick(self) -> None:
        """Ping the silent, and judge everybody whose verdict may have changed.

        A host that is heard, and was before, is the first row of the table (`verdict.py`) still, which needs no other fact:
        until its next heartbeat is missed or says something new, it is not even looked at.
        """
        beats, judgements = self._known.beats, self._known.judgements
        missed, oldest = self._known.now - self._first_miss, self._oldest_beat
        everybody = self._look_at_all or oldest is None or oldest <= missed
        hosts, self._look_at_all = (self._known.peers if everybody else self.in_question), False
        oldest, self.in_question = (None if everybody else oldest), []
        for host in hosts:
            seen = beats.get(host)
            if seen is not None and seen.at > missed:
                heard = Verdict.STORAGE_LOST if seen.beat.lapsed else Verdict.CONNECTED
                if judgements[host].verdict is heard:
                    oldest = seen.at if oldest is None else min(oldest, seen.at)
                    continue
            self.in_question.append(host)
            self._ping_if_silent(host)
            self._judge(host)
        self._oldest_beat = oldest

    def missed(self) -> bool:
        """Whether a host that was heard has missed a heartbeat, so that it has to be looked at."""
        if self._known.now < self.miss_due:
            return False
        asked = set(self.in_question)
        heard = [self._known.beats[host].at for host in self._known.peers if host not in asked]
        self._oldest_beat = min(heard, default=None)
        return self._known.now >= self.miss_due

    @property
    def miss_due(self) -> Instant:
        """Before then nobody who was heard can have missed a heartbeat."""
        return NEVER if self._oldest_beat is None else Instant(self._oldest_beat + self._first_miss)

    def silent_since(self, host: HostId) -> Instant:
        """When a host was heard last; of one that never was, when this agent started."""
        seen = self._known.beats.get(host)
        return seen.at if seen is not None else self._known.started

    def _first_ping_due(self, host: HostId) -> Instant:
        return Instant(self.silent_since(host) + self._first_miss)

    def _ping_if_silent(self, host: HostId) -> None:
        now, silence = self._known.now, self._silences[host]
        if now < self._first_ping_due(host) or now < silence.next_ping:
            return
        if silence.first_ping is None:
            silence.first_ping = now
        silence.next_ping = after(now, self._known.settings.heartbeat_interval)
        self._out.put(Ping(host, self._known.members[host].address))

    def first_ping_at(self, host: HostId) -> Instant | None:
        """When the pings of a host's present silence began; None while it is heard, or cannot be pinged."""
        return self._silences[host].first_ping

    def seen_since(self, host: HostId, then: Instant) -> bool:
        """Whether a host has shown any sign of life since: a heartbeat, a ping's answer, a record that changed."""
        known, seen = self._known, self._known.beats.get(host)
        answered = self._silences[host].answered
        signs = [known.watches[host, name].changed_at for name in known.datastores]
        signs += [seen.at if seen is not None else None, answered]
        return any(sign is not None and sign > then for sign in signs)

    def answers(self, host: HostId) -> bool:
        """Whether a host answered a ping lately, or might have, had one been sent (rule 6 asks)."""
        return bool(self.problem(host)) or answers_ping(self.facts(host), self._known.settings, self._known.now)

    def facts(self, host: HostId) -> Facts:
        """Everything that is known of one host now. A judgement's own facts are those of when it was last in question."""
        known, silence = self._known, self._silences[host]
        seen = known.beats.get(host)
        listed = known.power_on.get(host)
        bare = Facts(
            watched_since=known.started,
            heartbeat_at=seen.at if seen is not None else None,
            first_ping_at=silence.first_ping,
            ping_answer_at=silence.answered,
            lapsed=seen.beat.lapsed if seen is not None else (),
            listed_isolated=listed is not None and listed.isolated,
            said_off=off.kind if (off := known.powered_off.get(host)) is not None else None,
        )
        answered = bool(self.problem(host)) or answers_ping(bare, known.settings, known.now)
        facts = tuple(self._datastore_fact(host, name, answered) for name in known.associated(host))
        return msgspec.structs.replace(bare, datastores=facts)

    def _datastore_fact(self, host: HostId, datastore: DatastoreName, answered: bool) -> DatastoreFact:
        known = self._known
        watch = known.watches[host, datastore]
        over = watch.first_seen is not None and watch.lease_is_over(watch.first_seen, known.settings.window)
        ended = watch.record is not None and watch.record.ended
        freshness = watch.freshness(known.now, known.settings.datastore_stale_after)
        proven = over and known.holds_lease(datastore) and known.expiry_may_prove(host, datastore, answered)
        return DatastoreFact(
            datastore=datastore,
            freshness=freshness,
            changed_at=watch.changed_at,
            agent_works=watch.agent_works(known.now, known.settings.window),
            proven=proven or (ended and freshness is not Freshness.FRESH),
        )

    def _judge(self, host: HostId) -> None:
        before = self._known.judgements[host]
        judgement = judge(before, self.facts(host), self._known.settings, self._known.now)
        self._known.judgements[host] = judgement
        if judgement.verdict is not before.verdict:
            self._known.verdict_changed()
            if judgement.verdict is Verdict.CONNECTED:
                self._known.flapping.back(host)
            elif judgement.verdict is Verdict.DEAD:
                seen = self._known.beats.get(host)
                self._known.flapping.died(host, seen is not None and seen.beat.leaving, self._known.now)
            self._out.note(
                "verdict",
                host=host,
                verdict=judgement.verdict,
                before=before.verdict,
                rule=judgement.rule,
                because=sentence(judgement.rule),
            )

    def next_deadline(self) -> Instant | None:
        """The next ping or verdict that time alone brings, but for what `missed` tells."""
        due: list[Instant] = []
        for host in self.in_question:
            due += [max(self._first_ping_due(host), self._silences[host].next_ping)]
            due += [t for t in self._turns(host) if t > self._known.now]
        return min(due, default=None)

    def _turns(self, host: HostId) -> Iterator[Instant]:
        """When the facts about a host change by time alone, past and to come."""
        settings, silence = self._known.settings, self._silences[host]
        yield after(self.silent_since(host), settings.unreachable_after)
        if silence.first_ping is not None:
            yield after(silence.first_ping, settings.ping_timeout)
        if silence.answered is not None:
            yield answer_ages(silence.answered, settings)
        judgement = self._known.judgements[host]
        if judgement.rule is Rule.PING_ANSWERED_AGAIN:
            yield booted_by(judgement, settings)
        if silence.unsent_at is not None:
            yield after(silence.unsent_at, settings.unreachable_after)
        # Of all of them: whether we are outnumbered goes by every record, a verdict by those that are associated.
        for datastore in self._known.datastores:
            yield from self._known.watches[host, datastore].turns(settings.datastore_stale_after, settings.window)
