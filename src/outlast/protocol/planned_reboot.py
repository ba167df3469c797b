"""Hosts that went down for a planned reboot and keep their VMs (`host_shutdown_policy = "freeze"`): what is held back.

Such a host says so on its power-on list before its first guest ends (`departure`). Every agent reads that list, so it
outlives every primary. It holds back restarts and nothing else: it is no proof and takes none away.

    the host                                               what it ran
    is going down, or has ended in good order              waits for it, `freeze_timeout` at most
    has booted again                                       waits until VMs can be started there, BACK_WITHIN at most; it is
                                                           the best place for them then
    is dead, and its keeper has not said its last word     is restarted elsewhere as always: its power has failed
    is off, as a fence device or an operator says          likewise
    has not come back within `freeze_timeout`              likewise
    lives on, and takes its word back                      likewise

What is held back is what such an end leaves: a release because the host goes down, a keeper's last word, and the next
boot. What a lease's end proves is never held: who ended in good order has no lease that runs out. An operator who asks
for a VM (`outlast vm start`, `outlast vm retry`) gets it at once, elsewhere.

How long it is gone is counted by each agent, from the last sign of life; one that has just started begins anew.
"""

import msgspec

from outlast.model.ids import BootId, DatastoreName, HostId
from outlast.model.records import ProofKind, Reason, RegisterRecord
from outlast.model.time import SECOND, Duration, Instant, after, in_seconds
from outlast.protocol.domain_snapshot import why_refused
from outlast.protocol.knowledge import Knowledge, Outbox
from outlast.protocol.verdict import Verdict

BACK_WITHIN = Duration(60 * SECOND)
"""From a host's next boot until VMs can be started there."""
_HELD = frozenset({ProofKind.RENOUNCED, ProofKind.CLEAN_SHUTDOWN, ProofKind.REBOOTED})


class _Word(msgspec.Struct):
    """What a host said in that boot; `back_at`: when a later boot of it was seen first. `over`: why it holds nothing."""

    boot: BootId
    back_at: Instant | None = None
    over: str = ""


class PlannedReboots:
    """See the top of this file."""

    def __init__(self, knowledge: Knowledge, outbox: Outbox) -> None:
        self._known = knowledge
        self._out = outbox
        self._words: dict[HostId, _Word] = {}

    def look(self) -> None:
        """Learn who keeps its VMs, and who does not any more."""
        known = self._known
        for host, content in known.power_on.items():
            word = self._words.get(host)
            if content.departs == "freeze" and (word is None or word.boot != content.boot_id):
                self._words[host] = _Word(content.boot_id)
                length = f"{in_seconds(known.settings.freeze_timeout):g} s"
                self._out.note("planned-reboot", host=host, length=length)
            elif content.departs != "freeze" and word is not None and word.boot == content.boot_id:
                del self._words[host]
        for host, word in list(self._words.items()):
            if word.back_at is None and known.boot_of(host) not in (None, word.boot):
                word.back_at = known.now
            if word.back_at is not None and known.now - word.back_at >= BACK_WITHIN:
                del self._words[host]
            elif not word.over and (over := self._over(host, word)):
                word.over = over
                self._out.note("planned-reboot-over", host=host, why=over)

    def _over(self, host: HostId, word: _Word) -> str:
        """Why it holds nothing back any more. Once so, it stays so in that boot: half of its VMs may run elsewhere."""
        known = self._known
        if word.back_at is not None:
            return ""
        if host in known.powered_off:
            return "it is off for good, as a fence device or an operator says"
        if known.verdict(host) is Verdict.DEAD and not self._has_ended(host):
            return "it is dead, and did not go down in good order"
        return "" if self._left(host) > 0 else "it has not come back in time"

    def _has_ended(self, host: HostId) -> bool:
        """Whether its keeper has said its last word on every datastore where it ever was."""
        watches = [self._known.watches[host, name] for name in self._known.datastores]
        return all(watch.record is not None and watch.record.ended for watch in watches if watch.incarnation is not None)

    def _left(self, host: HostId) -> int:
        """For how much longer it is waited for."""
        known = self._known
        if host == known.me or known.live(host):
            return known.settings.freeze_timeout
        seen = known.beats.get(host)
        signs = [known.watches[host, name].changed_at for name in known.datastores] + [seen.at if seen else None]
        last = max((sign for sign in signs if sign is not None), default=known.started)
        return after(last, known.settings.freeze_timeout) - known.now

    def why_held(self, last: RegisterRecord, kind: ProofKind, home: DatastoreName) -> str:
        """Why a VM is left to its owner although there is proof; empty if it is not."""
        known, word = self._known, self._words.get(last.owner)
        if word is None or word.over or kind not in _HELD:
            return ""
        if kind is ProofKind.RENOUNCED and last.reason is not Reason.HOST_SHUTDOWN:
            return ""
        name = known.name(last.owner)
        if word.back_at is None:
            return f"held: {name} keeps it over a planned reboot; {self._ends(last.owner)}"
        if last.owner == known.me or why_refused(known, last.owner) or home not in known.leases_of(last.owner):
            left = after(word.back_at, BACK_WITHIN) - known.now
            return f"held: {name} is back from its planned reboot, and is given {-(-left // SECOND)} s to take it itself"
        return ""

    def _ends(self, host: HostId) -> str:
        minutes = -(-self._left(host) // (60 * SECOND))
        confirm = f"`outlast fence confirm {self._known.name(host)}`"
        return f"started elsewhere in {minutes} min, or when {confirm} says that it is off"

    def problems(self) -> list[str]:
        """What everybody who looks at the status is to know at once."""
        waited_for = [host for host, word in self._words.items() if word.back_at is None and not word.over]
        return [
            f"{self._known.name(host)} is down for a planned reboot and keeps its VMs: they are {self._ends(host)}"
            for host in waited_for
            if host != self._known.me and not self._known.live(host)
        ]

    def next_deadline(self) -> Instant | None:
        """When time alone ends a wait."""
        now, due = self._known.now, list[Instant]()
        for host, word in self._words.items():
            if word.back_at is not None:
                due.append(after(word.back_at, BACK_WITHIN))
            elif not word.over:
                due.append(after(now, Duration(max(SECOND, self._left(host)))))
        return min(due, default=None)
