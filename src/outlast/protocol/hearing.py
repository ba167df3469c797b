"""What other hosts say, taken to the part of this agent that it is for."""

from typing import TYPE_CHECKING

from outlast.model.events import Received
from outlast.model.ids import HostId
from outlast.model.messages import (
    CommandAnswer,
    CommandRequest,
    CopyDropped,
    CopyReport,
    CopyWanted,
    CopyWhole,
    EventNotice,
    GivenUp,
    GiveUp,
    Heartbeat,
    ListChanged,
    MigrateOrder,
    OperatorWord,
    OrderReport,
    RestartOrder,
    RetryAnswer,
    RetryRequest,
    SettingsNotice,
    SettingsWanted,
    TakenOver,
    VmMeant,
    WhichVm,
    WordReport,
)
from outlast.protocol.news import in_heartbeat

if TYPE_CHECKING:
    from outlast.protocol.agent import AgentMachine


def hear(agent: "AgentMachine", event: Received) -> bool:
    """Take what another host says to the part that it is for. Returns whether it is news (`news.py`)."""
    news = agent.isolation.isolated or agent.isolation.silent(agent.known.now)
    agent.isolation.heard_peer(agent.known.now)
    match event.message:
        case Heartbeat():
            return _heartbeat(agent, event.sender, event.message) or news
        case RestartOrder():
            agent.desk.ordered(event.sender, event.message)
        case OrderReport():
            agent.recovery.reported(event.sender, event.message)
            agent.mover.reported(event.sender, event.message)
        case OperatorWord():
            agent.operator.word_came(event.sender, event.message)
        case WordReport():
            agent.operator.reported(event.sender, event.message)
        case MigrateOrder() | CopyWanted() | CopyWhole() | CopyDropped() | CopyReport():
            agent.migrating.received(event.sender, event.message)
        case TakenOver():
            agent.lost.told(event.sender, event.message)
        case GiveUp():
            agent.giving_up.asked(event.sender, event.message)
        case GivenUp():
            agent.recovery.loss.answered(event.sender, event.message)
        case SettingsWanted():
            agent.settings.wanted_by(event.sender)
            return news
        case ListChanged():
            agent.follower.changed(event.message.datastore)
            return news
        case SettingsNotice():
            agent.settings.take(event.message.record)
        case CommandRequest():
            agent.commands.requested(event.sender, event.message)
        case CommandAnswer():
            agent.commands.answered(event.message)
        case WhichVm():
            agent.commands.which(event.sender, event.message)
        case VmMeant():
            agent.commands.around.answered(event.sender, event.message)
        case RetryRequest():
            agent.retrying.requested(event.sender, event.message)
        case RetryAnswer():
            agent.retrying.answered(event.sender, event.message)
        case EventNotice(kind=kind, host=host, vm=vm, text=text):
            # The runtime writes it to the event log; it decides nothing.
            if vm is not None and kind == "vm-crashed":
                agent.known.troubles[vm] = text
            if host is not None and kind in ("fence-confirmed", "fence-failed"):
                agent.fencing.told(host, kind == "fence-confirmed", f"{agent.known.name(event.sender)}: {text}")
            return news
    return True


def _heartbeat(agent: "AgentMachine", sender: HostId, beat: Heartbeat) -> bool:
    known, election = agent.known, agent.election
    news = in_heartbeat(beat, known.beats.get(sender)) or sender in agent.peers.in_question or election.primary is None
    before = (election.primary, election.term)
    agent.peers.heard(beat)
    election.heard(beat, agent.rank, known.now)
    agent.doubt.heard(beat)
    agent.watch.list_announced(sender, beat.power_on_sequence)
    agent.lost.heard(sender, beat.frozen)
    agent.settings.heard(sender, beat.settings)
    return news or (election.primary, election.term) != before
