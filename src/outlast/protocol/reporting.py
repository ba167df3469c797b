"""The agent's view for people: what it takes for true, and why. Reads the machine, changes nothing.

`snapshot` is one screen (`outlast status`); `explain_*` are the sentences behind one line of it (`outlast explain`).
"""

import msgspec

from outlast.model.ids import DatastoreName, HostId, VmId
from outlast.model.messages import Heartbeat
from outlast.model.planning import Outlook
from outlast.model.records import AsideVm, PoweredVm
from outlast.model.settings import Settings, setting_text
from outlast.model.status import (
    DatastoreStatus,
    DomainStatus,
    HostStatus,
    KeptEmpty,
    PauseStatus,
    SettingsView,
    VmStatus,
)
from outlast.model.time import Instant, in_seconds
from outlast.protocol.agent import AgentMachine
from outlast.protocol.copying_view import migration_of
from outlast.protocol.host_condition import condition_problems, health_of, in_maintenance, kept_empty
from outlast.protocol.knowledge import LIVES
from outlast.protocol.observation import Freshness
from outlast.protocol.policy_text import failed_guests, guest_note, guest_sentences, policy_sentences
from outlast.protocol.restart import Stage
from outlast.protocol.verdict import SUSPECT, Verdict, explain

CLOCK_TOLERANCE_S = 5


def _written(settings: Settings) -> dict[str, str]:
    return {name: setting_text(name, value) for name, value in msgspec.structs.asdict(settings).items()}


class Reporter:
    """Reads one agent machine at the moment `now`."""

    def __init__(self, machine: AgentMachine, now: Instant) -> None:
        self._machine = machine
        self._known = machine.known
        self._now = now

    def _age_s(self, then: Instant | None) -> float | None:
        return None if then is None else round(in_seconds(self._now - then), 1)

    # -- one screen -----------------------------------------------------------------------------------------------

    def snapshot(self, version: str, dropped: dict[str, int]) -> DomainStatus:
        """The whole domain as this agent sees it."""
        hosts = tuple(self._host(host) for host in self._known.members)
        return DomainStatus(
            domain=self._known.config.domain,
            seen_from=self._known.name(self._known.me),
            version=version,
            primary=self._known.name(self._machine.election.primary) if self._machine.election.primary else "",
            term=self._machine.election.term,
            isolated=self._machine.isolation.isolated,
            paused=self._paused(),
            settings_version=self._known.mark.version,
            hosts=hosts,
            datastores=tuple(self._datastore(name) for name in self._known.datastores),
            vms=self._vms(),
            outlook=self._outlook(),
            problems=tuple(self._problems(hosts)),
            dropped_datagrams=dropped,
        )

    def _paused(self) -> PauseStatus | None:
        pause = self._known.pause
        return PauseStatus(by=pause.by, at_ms=pause.at_ms, reason=pause.reason) if pause is not None else None

    def settings(self) -> SettingsView:
        """What `outlast settings` shows."""
        known, record = self._known, self._known.record
        used, file = _written(known.settings), _written(known.config.settings)
        versions = {known.name(known.me): known.mark.version if known.keeper is not None else None}
        versions |= {
            known.name(h): seen.beat.settings.version if known.live(h) else None for h, seen in known.beats.items()
        }
        return SettingsView(
            version=known.mark.version,
            by=record.by if record is not None else "",
            at_ms=record.at_ms if record is not None else 0,
            paused=self._paused(),
            settings=used,
            defaults=_written(Settings()),
            hosts={known.name(host): versions.get(known.name(host)) for host in known.members},
            file_differs={name: value for name, value in file.items() if value != used[name]} if record is not None else {},
        )

    def _outlook(self) -> Outlook | None:
        """What the domain can lose now: our own finding, or what the primary says."""
        beat = self._primarys_beat()
        return self._machine.capacity.outlook if self._machine.election.am_primary else beat.outlook if beat else None

    def _primarys_beat(self) -> Heartbeat | None:
        """What another primary said last, if it can be heard."""
        primary = self._machine.election.primary
        seen = self._known.beats.get(primary) if primary is not None else None
        return seen.beat if seen is not None and self._known.live(seen.beat.sender) else None

    def _host(self, host: HostId) -> HostStatus:
        known = self._known
        here = host == known.me
        seen = known.beats.get(host)
        verdict, age_s, verdict_by, reason = self._verdict(host)
        capacity = known.capacity if here or seen is None else seen.beat.capacity
        listed = known.power_on.get(host)
        record = next((known.watches[host, d].record for d in known.datastores if known.watches[host, d].record), None)
        enforcement = str(record.enforcement) if record is not None else ""
        fenced = self._machine.fencing.outcomes.get(host)
        drained, health = in_maintenance(known).get(host), health_of(known, host)
        emptying = next((each for each in self._machine.emptying() if each.host == host), None)
        lapsed = known.lapsed() if here else seen.beat.lapsed if seen is not None else ()
        return HostStatus(
            name=known.name(host),
            id=host,
            address=known.members[host].address,
            verdict=verdict,
            verdict_age_s=age_s,
            verdict_by=verdict_by,
            reason=reason,
            primary=host == self._machine.election.primary,
            here=here,
            isolated=self._machine.isolation.isolated if here else listed is not None and listed.isolated,
            hypervisor_up=known.hypervisor_up if here else seen.beat.hypervisor_up if seen is not None else None,
            enforcement=enforcement,
            memory_mib=capacity.memory_mib,
            free_memory_mib=capacity.free_memory_mib,
            vms=self._vms_of(host),
            heartbeat_age_s=0.0 if here else self._age_s(seen.at if seen is not None else None),
            lapsed=tuple(lapsed),
            fencing=tuple(level.agent for level in known.config.fencing.get(host, ())),
            fence_result=fenced.text if fenced is not None else "",
            fence_result_ok=fenced.ok if fenced is not None else None,
            fence_result_age_s=self._age_s(fenced.at) if fenced is not None else None,
            maintenance=KeptEmpty(by=drained.by, at_ms=drained.at_ms, reason=drained.reason)
            if drained is not None
            else None,
            health=health.level,
            health_reason=health.reason,
            kept_empty=kept_empty(known).get(host, ""),
            emptying=emptying.text if emptying is not None else "",
            emptying_settled=emptying is not None and emptying.settled,
        )

    def _vms_of(self, host: HostId) -> int:
        """How many VMs run there. A host that has died is still the last one to list what runs elsewhere by now."""
        listed = self._known.power_on.get(host)
        lines = listed.vms if listed is not None else ()
        return sum(line.state != "ending" and self._known.lister(line.vm) == host for line in lines)

    def _verdict(self, host: HostId) -> tuple[str, float | None, str, str]:
        """Verdict, age, by whom, why: the primary's as it told us, or our own."""
        known, primary = self._known, self._machine.election.primary
        if host == known.me:
            if self._machine.isolation.isolated:
                return "isolated", self._age_s(self._machine.isolation.since), known.name(host), "it hears nobody"
            return "connected", None, known.name(host), "this host"
        if primary is not None and primary not in (known.me, host) and known.live(primary):
            for note in known.beats[primary].beat.verdicts:
                if note.host == host:
                    return note.verdict, round(note.age_ms / 1000, 1), known.name(primary), note.reason
        judgement = known.judgements[host]
        said = explain(judgement, self._now)[0]
        return (
            judgement.verdict,
            self._age_s(judgement.since),
            known.name(known.me),
            said.partition("because ")[2].rstrip("."),
        )

    def _datastore(self, name: DatastoreName) -> DatastoreStatus:
        known = self._known
        member, reach, lease = known.datastores[name], known.reach.get(name), known.lease(name)
        score = next((s.score for s in known.scores(known.me) if s.datastore == name), None)
        holder = self._machine.responsibility.holder(name)
        held = holder is not None and holder.state == "owned"
        bounded = member.in_flight_bound is not None and member.in_flight_bound <= known.settings.lease_margin
        return DatastoreStatus(
            name=name,
            path=member.path,
            reachable=reach is not None and reach.reachable,
            filesystem=reach.filesystem if reach is not None else "",
            device=reach.device if reach is not None else "",
            free_bytes=reach.free_bytes if reach is not None else 0,
            score=score,
            heartbeats_of=tuple(known.name(host) for host in known.members if name in known.associated(host)),
            responsible=known.name(holder.owner) if holder is not None and held else "",
            responsible_epoch=holder.epoch if holder is not None and held else None,
            lease_held=lease is not None and lease.held,
            lease_term=lease.term if lease is not None else 0,
            lease_left_s=None
            if lease is None or not lease.held
            else round(max(0.0, in_seconds(lease.deadline - self._now)), 1),
            expiry_is_proof=bounded or member.accept_in_flight_risk,
            risk_accepted=not bounded and member.accept_in_flight_risk,
            problem=(reach.problem if reach is not None else "") or (lease.problem if lease is not None else ""),
            writes=lease.writes if lease is not None else None,
        )

    def _vms(self) -> tuple[VmStatus, ...]:
        best: dict[str, VmStatus] = {}
        for host, content in self._known.power_on.items():
            for line in content.vms:
                status = self._vm(host, line)
                old = best.get(line.vm)
                # A VM that was restarted stands on its dead host's last list as well: the one that lives is meant.
                if old is None or (status.epoch or 0) > (old.epoch or 0):
                    best[line.vm] = status
        for case in self._machine.recovery.cases.values():
            old = best.get(case.vm)
            if case.stage is not Stage.SETTLED and (old is None or old.state not in ("running", "starting")):
                note = case.why if case.in_doubt else f"{case.stage}: {case.why}"
                best[case.vm] = VmStatus(
                    name=case.name,
                    uuid=case.vm,
                    host=old.host if old is not None else "",
                    state="waiting" if case.in_doubt or case.stage is Stage.WAITING else "restarting",
                    protected=True,
                    home=case.home,
                    epoch=case.last.epoch if case.last is not None else None,
                    lease_age_s=None,
                    memory_mib=case.needs.memory_mib,
                    note=note,
                    policy=case.policy,
                )
        for uuid, aside in self._known.aside.items():
            if aside.wanted == "stopped":
                best[uuid] = self._stopped(aside, best.get(uuid))
        self._add_left_alone(best)
        return tuple(sorted(best.values(), key=lambda vm: vm.name))

    def _add_left_alone(self, best: dict[str, VmStatus]) -> None:
        """VMs that are off and stay so until somebody asks for them: given up, or never restarted automatically."""
        responsible = self._machine.responsibility
        for home in responsible.held_datastores():
            for entry in responsible.protection(home).vms.values():
                old = best.get(entry.vm)
                if entry.vm in self._machine.recovery.cases or (old is not None and old.state not in ("lost", "unknown")):
                    continue
                if entry.attempts.failed:
                    state, note = "failed", f"{entry.attempts.problem}; `outlast vm retry {entry.name}` tries it once more"
                elif entry.policy.priority == "disabled":
                    state, note = "stopped", "its priority is disabled: it is not restarted automatically"
                else:
                    continue
                best[entry.vm] = VmStatus(
                    name=entry.name,
                    uuid=entry.vm,
                    host="",
                    state=state,
                    protected=True,
                    home=home,
                    epoch=old.epoch if old is not None else entry.attempts.counted,
                    lease_age_s=None,
                    memory_mib=entry.memory_mib,
                    note=note,
                    policy=entry.policy,
                )

    def _stopped(self, aside: AsideVm, runs: VmStatus | None) -> VmStatus:
        """A VM that is to be off, and perhaps is not yet."""
        note, entry = f"{aside.by} wants it stopped", aside.entry
        if runs is not None and runs.state in ("running", "frozen", "starting", "ending"):
            return msgspec.structs.replace(runs, note=runs.note or note, protected=False)
        return VmStatus(
            name=entry.name,
            uuid=entry.vm,
            host="",
            state="stopped",
            protected=False,
            home=self._known.protected[entry.vm][0],
            epoch=aside.epoch if aside.epoch is not None and aside.epoch >= 0 else None,
            lease_age_s=None,
            memory_mib=entry.memory_mib,
            note=note,
            policy=entry.policy,
        )

    def _vm(self, host: HostId, line: PoweredVm) -> VmStatus:
        state, note = line.state, line.note
        verdict = self._known.verdict(host)
        if verdict in SUSPECT:
            state, note = "lost", note or f"its host is {verdict}"
        elif host != self._known.me and verdict not in LIVES:
            state, note = "unknown", note or f"its host is {verdict}"
        elif state == "ending":
            note = note or "killed, and not gone yet: it runs nowhere else before that"
        return VmStatus(
            name=line.name,
            uuid=line.vm,
            host=self._known.name(host),
            state=state,
            protected=line.protected,
            home=line.home or "",
            epoch=line.epoch,
            lease_age_s=self._lease_age_s(host, line.home),
            memory_mib=line.memory_mib,
            note=note or guest_note(line.guest),
            policy=line.policy,
            migration=migration_of(self._machine, line.vm, host),
            guest=line.guest.state if line.guest is not None else "",
            guest_resets=len(line.guest.resets) if line.guest is not None else 0,
        )

    def _lease_age_s(self, host: HostId, home: DatastoreName | None) -> float | None:
        if home is None or home not in self._known.datastores:
            return None
        return self._age_s(self._known.watches[host, home].changed_at)

    def _clock_problems(self) -> list[str]:
        """Hosts whose wall clock is far from ours. No decision rests on it, but every log that people read does."""
        found: list[str] = []
        for host in self._known.peers:
            ahead_s = next((s for name in self._known.datastores if (s := self._ahead_s(host, name)) is not None), 0)
            if abs(ahead_s) > CLOCK_TOLERANCE_S:
                way = "ahead of" if ahead_s > 0 else "behind"
                name = self._known.name(host)
                found.append(
                    f"the clock of {name} is {abs(ahead_s)} s {way} this host's: set the wrong one (chronyc makestep)"
                )
        return found

    def _ahead_s(self, host: HostId, datastore: DatastoreName) -> int | None:
        """By how much a host's record is newer than our own in the same read; both were written a moment ago."""
        theirs, ours = self._known.watches[host, datastore], self._known.watches[self._known.me, datastore]
        within = self._known.settings.datastore_stale_after
        if theirs.record is None or ours.record is None:
            return None
        if theirs.freshness(self._now, within) is not Freshness.FRESH:
            return None
        return theirs.record.wall_clock_s - ours.record.wall_clock_s

    def _problems(self, hosts: tuple[HostStatus, ...]) -> list[str]:
        known = self._known
        found: list[str] = []
        if known.pause is not None:
            found.append(f"{known.pause.sentence}; nothing is restarted until `outlast resume`")
        if self._machine.election.primary is None:
            found.append("there is no primary: nothing would be restarted now")
        found += self._machine.doubt.problems()
        found += self._machine.recovery.loss.problems()
        found += self._machine.pace.problems()
        if known.keeper is None:
            found.append("the keeper of this host does not answer: systemctl status outlast-keeper")
        if not known.hypervisor_up:
            found.append(f"libvirt of this host does not answer: {known.hypervisor_problem}")
        found += self._clock_problems()
        found += condition_problems(known)
        found += failed_guests(known)
        outlook = self._outlook()
        if outlook is not None and outlook.short:
            found.append(f"too little is set aside for failures: {outlook.short}")
        found += [str(dropped) for dropped in known.rulebook.dropped]
        for host in known.peers:
            if problem := self._machine.peers.problem(host):
                found.append(f"{known.name(host)} cannot be pinged, so no death of it can be told: {problem}")
        for name in known.datastores:
            reach, lease = known.reach.get(name), known.lease(name)
            if reach is not None and not reach.reachable:
                found.append(f"this host does not reach {name}: {reach.problem}")
            elif known.keeper is not None and lease is not None and not lease.held:
                found.append(f"this host holds no lease on {name}: {lease.problem or 'not confirmed yet'}")
        found += [f"{host.name} is {host.verdict}: {host.reason}" for host in hosts if host.verdict not in ("connected",)]
        for (host, name), watch in known.watches.items():
            if watch.problem and watch.last_read is not None:
                found.append(f"the record of {known.name(host)} on {name}: {watch.problem}")
        return found

    # -- the sentences behind it ----------------------------------------------------------------------------------

    def explain_host(self, name: str) -> list[str] | None:
        """Evidence and rule behind a host's verdict; None if there is no such host."""
        host = next((h for h in self._known.members if name in (self._known.name(h), h)), None)
        if host is None:
            return None
        status = self._host(host)
        age = "" if status.verdict_age_s is None else f" for {status.verdict_age_s:.1f} s"
        lines = [f"{status.name} is {status.verdict}{age} according to {status.verdict_by}: {status.reason}."]
        if host == self._known.me:
            lines += self._explain_self()
        else:
            lines.append(f"What {self._known.name(self._known.me)} knows of it itself:")
            lines += self._explain_verdict(host)
        lines += self._explain_fencing(host, status)
        lines.append("Its heartbeat datastores, by accessibility score:")
        lines += [f"  {scored.datastore}: {scored.why}." for scored in self._known.scores(host)]
        listed = self._known.power_on.get(host)
        if listed is not None:
            names = ", ".join(f"{vm.name} ({vm.state})" for vm in listed.vms) or "nothing"
            lines.append(f"Its power-on list names: {names}.")
        return lines

    def _explain_fencing(self, host: HostId, status: HostStatus) -> list[str]:
        if not status.fencing:
            return ["It has no fence device."]
        lines = [f"Its fence devices, in order: {', '.join(status.fencing)}."]
        if host != self._known.me and self._known.verdict(host) in SUSPECT:
            lines.append(f"Seen from here {self._machine.fencing.why(host)}.")
        if status.fence_result:
            lines.append(f"They last answered {status.fence_result_age_s:.1f} s ago: {status.fence_result}.")
        return lines

    def _explain_verdict(self, host: HostId) -> list[str]:
        judgement = self._known.judgements[host]
        return explain(msgspec.structs.replace(judgement, facts=self._machine.peers.facts(host)), self._now)

    def _explain_self(self) -> list[str]:
        lines: list[str] = []
        for name in self._known.datastores:
            lease = self._known.lease(name)
            if lease is None:
                lines.append(f"Nothing is known of its lease on {name}: its keeper does not answer.")
            elif lease.held:
                lines.append(f"It holds its lease on {name}, term {lease.term}, incarnation {lease.incarnation}.")
            else:
                lines.append(f"It holds no lease on {name}: {lease.problem or 'no heartbeat was confirmed yet'}.")
        return lines

    def explain_datastore(self, name: str) -> list[str] | None:
        """What is known of a datastore, and its score for each host; None if there is no such datastore."""
        if name not in self._known.datastores:
            return None
        status = self._datastore(DatastoreName(name))
        lines = [
            f"{name} is the directory {status.path} ({status.filesystem or 'unknown'} on {status.device or 'unknown'})."
        ]
        lines.append(
            f"This host {'reaches' if status.reachable else 'does not reach'} it"
            + (f": {status.problem}." if status.problem else ".")
        )
        for host in self._known.members:
            for scored in self._known.scores(host):
                if scored.datastore == name:
                    lines.append(f"For {self._known.name(host)}: {scored.why}.")
        lines.append(
            f"Responsible for its VMs: {status.responsible} (epoch {status.responsible_epoch})."
            if status.responsible
            else "Nobody is responsible for its VMs now."
        )
        lines += self._machine.pace.explain(DatastoreName(name))
        proof = "is" if status.expiry_is_proof else "is not"
        lines.append(f"An expired lease {proof} proof here (in_flight_bound, accept_in_flight_risk).")
        return lines

    def _responsible_for(self, home: str) -> str:
        """The other host that is responsible for a datastore; empty if there is none."""
        status = self._datastore(DatastoreName(home)) if home in self._known.datastores else None
        return status.responsible if status is not None and status.responsible != self._known.name(self._known.me) else ""

    def explain_vm(self, name: str) -> list[str] | None:
        """Where a VM stands and why; None if nobody here knows it."""
        status = next((vm for vm in self._vms() if name in (vm.name, vm.uuid)), None)
        if status is None:
            return None
        where = f"on {status.host}" if status.host else "nowhere"
        lines = [f"{status.name} ({status.uuid}) is {status.state} {where}."]
        if status.home:
            lines.append(f"Its home is {status.home}; its register stands at epoch {status.epoch}.")
        lines.append(
            "It is protected: it is restarted when its host dies, is isolated with a response that ends it, or it crashes."
            if status.protected
            else f"It is not protected{': ' + status.note if status.note else ' (its metadata says so)'}."
        )
        if status.protected and status.policy is not None:
            lines += policy_sentences(status.policy, self._known.settings)
            lines += guest_sentences(status, self._known.settings)
        if status.note and status.state in ("failed", "stopped"):
            lines.append(f"{status.note[0].upper()}{status.note[1:]}.")
        if status.lease_age_s is not None:
            lines.append(f"Its owner's lease on {status.home} was last seen renewed {status.lease_age_s:.1f} s ago.")
        case = next((c for c in self._machine.recovery.cases.values() if status.uuid == c.vm), None)
        if case is not None:
            lines.append(f"Its restart is {case.stage} for {in_seconds(self._now - case.since):.1f} s: {case.why}.")
            if case.stage is Stage.WAITING:
                left_s = max(0.0, in_seconds(case.deadline - self._now))
                lines.append(f"It is tried again in {left_s:.1f} s, or as soon as a host that it lacked has room.")
        elif status.state == "lost" and (holder := self._responsible_for(status.home)):
            lines.append(f"Ask {holder}, which is responsible for {status.home}, how far its restart is.")
        lines += self._explain_placement(VmId(status.uuid))
        host = next((h for h in self._known.members if self._known.name(h) == status.host), None)
        if host is not None and self._known.verdict(host) is not Verdict.CONNECTED:
            lines += self._explain_verdict(host)
        return lines

    def _explain_placement(self, vm: VmId) -> list[str]:
        explanation = self._machine.recovery.placement.explained.get(vm)
        if explanation is None:
            return []
        where = f"it went to {explanation.host}" if explanation.host is not None else "no host could take it"
        lines = [f"When it was last restarted, {where}:"]
        for each in explanation.considered:
            lines.append(f"  {each.host}{' (chosen)' if each.chosen else ''}: {each.why}.")
        return lines
