"""Giving a command to the fault domain from this host, and saying what came of it."""

import getpass
import os
from pathlib import Path

import rich_click as click

from outlast.interfaces.local_agent import ask
from outlast.interfaces.output import show_json
from outlast.model.commands import Command, Outcome
from outlast.model.errors import OutlastError
from outlast.runtime.control import ControlRequest

COMMAND_TIMEOUT_S = 20.0
"""Longer than a machine keeps a command (`protocol/command_desk.py`), which then says itself that nobody carried it out."""


def give(path: Path, command: Command, *, as_json: bool) -> Outcome:
    """Give a command, and show its outcome. Raises OutlastError if it was refused, or if nobody carried it out."""
    reply = ask(path, ControlRequest("command", command=command, by=_who()), COMMAND_TIMEOUT_S)
    outcome = reply.outcome
    if outcome is None:
        raise OutlastError("the agent gave no outcome", "restart it after an upgrade")
    if as_json:
        show_json(outcome)
    if not outcome.ok:
        remedy = "try it again; `outlast status` says what is wrong" if outcome.try_again else "nothing was changed"
        raise OutlastError("\n".join(outcome.sentences), remedy)
    if not as_json:
        for change in outcome.changes:
            click.echo(f"{change.name}: {change.old} -> {change.new}")
        for sentence in outcome.sentences:
            click.echo(sentence)
    return outcome


def _who() -> str:
    """The login name of whoever runs this; sudo's user behind root."""
    user = os.environ.get("SUDO_USER", "")
    try:
        return user or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
