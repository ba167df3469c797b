"""The one error that the lab raises for whoever asked something of it: a sentence that names the thing and the remedy."""

from __future__ import annotations


class LabError(Exception):
    """What could not be done, and what to do about it. Never carries a traceback's text."""
