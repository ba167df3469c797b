"""How the guest of a VM is, in the words of a screen and of an explanation."""

from __future__ import annotations

import msgspec

from outlast.model.policy import VmPolicy
from outlast.model.records import GuestWord
from outlast.model.settings import Settings
from outlast.model.status import VmStatus
from outlast.protocol.policy_text import guest_note, guest_sentences

WEB = VmStatus(
    name="web",
    uuid="u",
    host="a",
    state="running",
    protected=True,
    home="ds",
    epoch=0,
    lease_age_s=0.1,
    memory_mib=1,
    note="",
    policy=VmPolicy(guest_monitoring="on"),
)


def said(**changes: object) -> str:
    return " ".join(guest_sentences(msgspec.structs.replace(WEB, **changes), Settings()))


def test_nothing_is_said_of_a_guest_that_nobody_watches() -> None:
    assert said(policy=VmPolicy()) == ""
    assert guest_note(None) == ""


def test_what_is_watched_for_and_how_it_is() -> None:
    assert "at most 3 times an hour, if it does not answer for 30s and does nothing for 120s" in said()
    assert "is the QEMU guest agent installed in it?" in said()
    assert said(guest="answers").endswith("Its guest agent answers.")
    assert said(guest="silent", guest_resets=1).endswith("does not answer. It was reset once within the last hour.")
    assert "virsh reset" in said(guest="failed", guest_resets=3)


def test_a_screen_of_all_vms_tells_of_those_that_are_not_well() -> None:
    assert guest_note(GuestWord("answers")) == ""
    assert guest_note(GuestWord("silent")) == "its guest does not answer"
    assert guest_note(GuestWord("failed", why="it was reset 3 times")) == "its guest has failed: it was reset 3 times"
