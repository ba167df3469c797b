"""An operator's word that a host is off (proof `operator_confirmed`), for when nothing else can tell.

The word is bound to what stood on the operator's screen: the incarnation of the host on each datastore, and the session and
sequence of its last record. An agent believes it only while that is still the last that anything shows of the
host, and forgets it at the first later sign of life (`fencing.look`). It proves nothing about a later boot.

    on the host of the operator   `marks` for the screen; `say` sends it to every host until it answers, for a while
    on each of them               `word_came`: believed or refused, and why

Every agent hears it, because any of them may be responsible for one of that host's VMs, now or a moment later.
"""

import msgspec

from outlast.model.effects import Send
from outlast.model.ids import HostId
from outlast.model.messages import OperatorWord, WordReport
from outlast.model.records import ProofKind, RecordMark
from outlast.model.time import SECOND, Duration, Instant, after
from outlast.protocol.knowledge import SETTLES, Knowledge, Outbox, PoweredOff
from outlast.protocol.verdict import SUSPECT

RESEND = Duration(SECOND // 2)
PATIENCE = Duration(8 * SECOND)


class _Pending(msgspec.Struct):
    word: OperatorWord
    until: Instant
    next_send: Instant
    silent: set[HostId]
    refusal: str = ""


class OperatorDesk:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._words = knowledge.config.first_sequence
        self._pending: _Pending | None = None
        self.answer: WordReport | None = None
        """What became of the last word that was said here; None while nobody has answered."""

    # -- where the operator is ------------------------------------------------------------------------------------

    def marks(self, host: HostId) -> tuple[RecordMark, ...]:
        """What this agent last saw of a host, on each datastore where it ever was."""
        found: list[RecordMark] = []
        for name in self._known.datastores:
            watch = self._known.watches[host, name]
            if watch.incarnation is not None:
                session, sequence = (watch.record.session, watch.record.sequence) if watch.record is not None else ("", 0)
                found.append(RecordMark(name, watch.incarnation, session, sequence))
        return tuple(found)

    def say(self, host: HostId, marks: tuple[RecordMark, ...]) -> None:
        """The operator has confirmed it: tell everybody else, until they answer."""
        self._words += 1
        self.answer = None
        word = OperatorWord(word=self._words, host=host, marks=marks)
        silent = {peer for peer in self._known.peers if peer != host}
        self._pending = _Pending(word, after(self._known.now, PATIENCE), self._known.now, silent)
        self._take(*self._judge(word))

    def tick(self) -> None:
        """Send what waits for its answer."""
        pending, now = self._pending, self._known.now
        if pending is None:
            return
        if now >= pending.until or not pending.silent:
            if self.answer is None:
                self.answer = WordReport(word=pending.word.word, accepted=False, detail=pending.refusal)
            self._pending = None
        elif now >= pending.next_send:
            pending.next_send = after(now, RESEND)
            for host in sorted(pending.silent):
                self._out.put(Send(host, pending.word))

    def _take(self, accepted: bool, detail: str) -> None:
        """One agent's answer: who believes it is enough; what the others say is told only if nobody does."""
        pending = self._pending
        if pending is None:
            return
        if not accepted:
            pending.refusal = pending.refusal or detail
        elif self.answer is None:
            self.answer = WordReport(word=pending.word.word, accepted=True, detail=detail)

    def reported(self, sender: HostId, report: WordReport) -> None:
        """Another agent has answered."""
        if self._pending is not None and self._pending.word.word == report.word:
            self._pending.silent.discard(sender)
            self._take(report.accepted, report.detail)

    def next_deadline(self) -> Instant | None:
        """When the word is sent again, or given up."""
        return min(self._pending.until, self._pending.next_send) if self._pending is not None else None

    # -- where it is judged ---------------------------------------------------------------------------------------

    def word_came(self, sender: HostId, word: OperatorWord) -> None:
        """An operator on another host says that a host is off. A repeated word is judged and answered again."""
        accepted, detail = self._judge(word)
        self._out.put(Send(sender, WordReport(word=word.word, accepted=accepted, detail=detail)))

    def _judge(self, word: OperatorWord) -> tuple[bool, str]:
        known, host = self._known, word.host
        if host not in known.members or host == known.me:
            return False, "that is this very host, which lives, or no host of this domain"
        name = known.name(host)
        if known.verdict(host) not in SUSPECT:
            return False, f"{name} is {known.verdict(host)}: nobody has to confirm anything"
        believed: list[RecordMark] = []
        for mark in word.marks:
            watch = known.watches.get((host, mark.datastore))
            if watch is None or watch.incarnation is None:
                continue
            record = watch.record
            now = (record.session, record.sequence) if record is not None else (mark.session, mark.sequence)
            if watch.incarnation != mark.incarnation or now != (mark.session, mark.sequence):
                return False, f"{name} has shown life on {mark.datastore} since: look again, and make sure that it is off"
            believed.append(mark)
        if not believed:
            return False, f"nothing that {name} ever wrote can be read: there is nothing that the word could be about"
        usable_at = after(known.now, SETTLES)
        old = known.powered_off.get(host)
        if old is None or old.kind is not ProofKind.OPERATOR_CONFIRMED:
            known.powered_off[host] = PoweredOff(ProofKind.OPERATOR_CONFIRMED, known.now, usable_at, tuple(believed))
            self._out.note("operator-confirmed", host=host, relay=True)
        return True, f"{name} is taken for off: its VMs are restarted elsewhere"
