"""This host goes down in good order: what it says before its guests end, and when whoever stops them may begin.

Whoever shuts the host down asks first (`outlast host going-down`, before libvirt-guests), and waits for the answer. What is
done meanwhile is `host_shutdown_policy`:

    policy        the host says, on its power-on list    it may go down
    failover      it goes down                           when that is on storage
    freeze        it goes down, and keeps its VMs        when that is on storage, and others had the time to read it
    conditional   freeze for a reboot, else failover     likewise
    migrate       it goes down                           when it is empty; when what is there can go nowhere, as the primary
                                                         says; or after `shutdown_migrate_timeout`. What is left ends with
                                                         it, as with failover

Whatever it says, it gets no VMs from then on (`host_condition`): what was started there would end at once, and so would be
started again and again on the last host of a site. It says so *before* the first guest ends, and a list on which a VM is
missing is a later one: nobody who sees that a VM has ended there has missed it. What others make of a host that keeps its
VMs is in `planned_reboot`.

`migrate` is maintenance that ends by itself: the settings record has the host drained, so that it stays empty across
primaries and reboots, until it has booted again; then its VMs come back (`returning`).

Nothing here lets a VM start. An agent that does not answer holds no shutdown up for long: whoever asks gives up.
"""

from collections.abc import Callable

from outlast.model.commands import DrainHost
from outlast.model.events import CommandGiven, HostGoesDown
from outlast.model.messages import Emptying
from outlast.model.records import Departs
from outlast.model.time import LONG_AGO, SECOND, Duration, Instant, after
from outlast.protocol.host_condition import in_maintenance
from outlast.protocol.knowledge import Knowledge, Outbox

STORAGE_PATIENCE = Duration(5 * SECOND)
"""How long storage may take to have the word. Without it the host goes down all the same, and its VMs fail over."""
READ_WITHIN = Duration(SECOND)
"""How long others have to read that it keeps its VMs, before the first of them ends."""
ASK_AGAIN = Duration(15 * SECOND)
SETTLED_FOR = Duration(5 * SECOND)
"""How long nothing may have been on its way or planned until what is left is taken for what stays."""
LONGEST = Duration(1800 * SECOND)
"""A host that lives that long after it was let go is not going down at all."""
_MEANS = {"failover": "they are restarted elsewhere", "freeze": "it keeps them", "migrate": "they are moved away first"}


class Departure:
    """See the top of this file. `give`: an operator's command, given on this host. `emptying`: what the primary says.

    `hands_over`: whether a VM whose process has ended here is not released yet, or its copy has not said that it runs. An
    agent that ended then would cost it its memory.
    """

    def __init__(
        self,
        knowledge: Knowledge,
        outbox: Outbox,
        give: Callable[[CommandGiven], None],
        emptying: Callable[[], tuple[Emptying, ...]],
        hands_over: Callable[[], bool],
    ) -> None:
        self._known = knowledge
        self._out = outbox
        self._give = give
        self._emptying = emptying
        self._hands_over = hands_over
        self._event: HostGoesDown | None = None
        self._since = self._said_at = knowledge.now
        self._has_said = False
        self._empties = False
        self._asked_at = LONG_AGO
        self._asked = 0
        self._settled_since: Instant | None = None
        self.may_go = False
        """Whether its guests and services may be stopped now."""

    @property
    def why(self) -> str:
        """What is waited for, for whoever waits."""
        if self._event is None:
            return "this host is not going down"
        if self.may_go:
            return "it may go down"
        if not self._has_said:
            return "it says on storage that it goes down"
        text = next((each.text for each in self._emptying() if each.host == self._known.me), "")
        return f"its VMs are moved away: {text}" if text else "its VMs are moved away"

    def begin(self, event: HostGoesDown) -> None:
        """It is about to go down. Who asks again waits for the same end."""
        if self._event is not None:
            return
        known, policy = self._known, self._known.settings.host_shutdown_policy
        if policy == "conditional":
            policy = "freeze" if event.how == "reboot" else "failover"
        departs: Departs = "freeze" if policy == "freeze" else "failover"
        self._event, self._since, known.departs, self._empties = event, known.now, departs, policy == "migrate"
        self._out.note("host-goes-down", host=known.me, relay=True, how=event.how, policy=_MEANS[policy])

    def tick(self, *, has_said: bool) -> None:
        """Go on. `has_said`: what this host has to say of it can be read on storage."""
        known, event = self._known, self._event
        if event is None:
            return
        if self.may_go:
            if known.now - self._since >= LONGEST:
                self._event, known.departs, self.may_go, self._has_said = None, "", False, False
                self._out.note("host-stays-up", host=known.me, relay=True)
            return
        if not self._has_said:
            self._has_said = has_said or known.now - self._since >= STORAGE_PATIENCE
            self._said_at = known.now
        if not self._has_said or (known.departs == "freeze" and known.now - self._said_at < READ_WITHIN):
            return
        done = self._is_emptied(event) if self._empties else "everybody knows"
        if done:
            self.may_go, self._since = True, known.now
            self._out.note("host-may-go", host=known.me, relay=True, why=done)

    def _is_emptied(self, event: HostGoesDown) -> str:
        """Why it is waited for no longer; empty as long as it is."""
        known, now = self._known, self._known.now
        listed = known.power_on.get(known.me)
        if now - self._since >= known.settings.shutdown_migrate_timeout:
            return "not all of its VMs could be moved away in time; what is left ends with it, and is started elsewhere"
        if not any(line.state != "ending" for line in (listed.vms if listed is not None else ())):
            return "" if self._hands_over() else "it is empty"
        if known.me not in in_maintenance(known):
            if now - self._asked_at >= ASK_AGAIN:
                self._asked_at, self._asked = now, self._asked + 1
                number = -(known.config.first_sequence + self._asked)  # Those of operators are positive.
                why = f"it goes down ({event.how}), and its VMs come back with it"
                drain = DrainHost(known.me, why, known.config.boot_id)
                self._give(CommandGiven(number, f"the shutdown of {known.name(known.me)}", event.at_ms, drain))
            return ""
        mine = next((each for each in self._emptying() if each.host == known.me), None)
        if mine is None or not mine.settled:
            self._settled_since = None
        elif self._settled_since is None:
            self._settled_since = now
        elif now - self._settled_since >= SETTLED_FOR:
            return f"what is left stays, ends with it, and is started elsewhere if it can be: {mine.text}"
        return ""

    def next_deadline(self) -> Instant | None:
        """When time alone brings something."""
        if self._event is None:
            return None
        if self.may_go:
            return after(self._since, LONGEST)
        return after(self._known.now, Duration(SECOND // 10 if not self._empties else SECOND // 2))
