"""A directory as a datastore: what it refuses to be, how records are rewritten, and what a reader meets meanwhile."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from outlast.drivers.datastore import blocks
from outlast.drivers.datastore.identity import identity_path, initialise, problem_with
from outlast.drivers.datastore.posix import SLOT_BYTES, PosixDatastore
from outlast.drivers.datastore.wire import (
    Blocks,
    Done,
    Failed,
    LinkEnded,
    LinkNext,
    ReadBlocks,
    ReadSlots,
    Renew,
    Slots,
    Survey,
    Surveyed,
    WriteSlot,
)
from outlast.model.errors import OutlastError

PLACE = "hosts/h1/heartbeat"


def block(text: str) -> bytes:
    return text.encode().ljust(blocks.BLOCK, b"\0")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "ds1"
    place.mkdir()
    initialise(place, "ds1", "dom")
    return place


def opened(root: Path, name: str = "ds1", domain: str = "dom") -> PosixDatastore:
    return PosixDatastore(str(root), name, domain, "h1", "keeper")


# -- what is no datastore ---------------------------------------------------------------------------------------------


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    assert problem_with(str(tmp_path / "no"), "ds1", "dom").endswith("does not exist: create and mount it")
    with pytest.raises(OutlastError, match="mount the shared storage there first"):
        initialise(tmp_path / "no", "ds1", "dom")


def test_an_unmounted_mount_point_is_never_made_a_datastore(tmp_path: Path) -> None:
    result = opened(tmp_path).do(Renew(PLACE, block("beat")))
    assert isinstance(result, Failed)
    assert "it is not mounted, or not a datastore yet" in result.problem
    assert f"outlast datastore init {tmp_path} --name ds1 --domain dom" in result.problem
    assert list(tmp_path.iterdir()) == []


def test_another_fault_domain_or_name(root: Path) -> None:
    wrong = opened(root, domain="other").do(Survey())
    assert wrong == Failed(f"{root} belongs to the fault domain dom, not to other: mount the right one")
    wrong = opened(root, name="ds2").do(Survey())
    assert wrong == Failed(f"{root} is the datastore ds1, not ds2: correct its name or path in the settings")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read"),
        (b"{}", "cannot be read"),
        (b'{"format": 2, "datastore": "ds1", "domain": "dom", "uuid": ""}', "run the same release on all hosts"),
    ],
)
def test_an_identity_that_is_damaged_or_newer(root: Path, content: bytes, words: str) -> None:
    Path(identity_path(str(root))).write_bytes(content)
    assert words in problem_with(str(root), "ds1", "dom")


def test_making_it_again_changes_nothing(root: Path) -> None:
    before = Path(identity_path(str(root))).read_bytes()
    initialise(root, "ds1", "dom")
    with pytest.raises(OutlastError, match="belongs to the fault domain dom"):
        initialise(root, "ds1", "other")
    assert Path(identity_path(str(root))).read_bytes() == before


def test_a_read_only_datastore_says_so(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting read-only needs root")
    opened(root).do(Renew(PLACE, block("beat")))
    subprocess.run(["mount", "--bind", str(root), str(root)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(root)], check=True)
        survey = opened(root).do(Survey())
        assert isinstance(survey, Surveyed)
        assert survey.read_only
        written = opened(root).do(Renew(PLACE, block("beat")))
        assert isinstance(written, Failed)
        assert "Read-only file system" in written.problem
        assert isinstance(opened(root).do(ReadBlocks((PLACE,))), Blocks)
    finally:
        subprocess.run(["umount", str(root)], check=True)


def test_a_datastore_that_is_unmounted_while_it_is_used(root: Path, tmp_path: Path) -> None:
    store = opened(root)
    assert store.do(Renew(PLACE, block("beat"))) == Done(True)
    root.rename(tmp_path / "elsewhere")
    root.mkdir()
    assert isinstance(store.do(Renew(PLACE, block("beat 2"))), Failed)
    assert isinstance(store.do(Renew(PLACE, block("beat 2"))), Failed)
    assert list(root.iterdir()) == [], "nothing is written below a bare mount point"


# -- heartbeats -------------------------------------------------------------------------------------------------------


def test_renewals_rewrite_one_block(root: Path) -> None:
    store = opened(root)
    for number in range(3):
        assert store.do(Renew(PLACE, block(f"beat {number}"))) == Done(True)
    found = opened(root).do(ReadBlocks((PLACE, "hosts/h2/heartbeat")))
    assert isinstance(found, Blocks)
    assert found.found[0].data == block("beat 2")
    assert (found.found[1].data, found.found[1].problem) == (None, "")


def test_a_clone_that_writes_in_our_place_is_noticed(root: Path) -> None:
    """Safety rule 9."""
    ours, clone = opened(root), opened(root)
    ours.do(Renew(PLACE, block("ours")))
    clone.do(Renew(PLACE, block("the clone's")))
    result = ours.do(Renew(PLACE, block("ours 2")))
    assert isinstance(result, Done)
    assert result.foreign
    found = clone.do(ReadBlocks((PLACE,)))
    assert isinstance(found, Blocks)
    assert found.found[0].data == block("the clone's"), "what was found is not written over before people were told"


def test_a_write_that_failed_and_landed_is_no_clone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, real = opened(root), blocks.write
    assert store.do(Renew(PLACE, block("beat 1"))) == Done(True)

    def lands_and_fails(path: str, data: bytes, offset: int = 0, *, create: bool = False) -> None:
        real(path, data, offset, create=create)
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(blocks, "write", lands_and_fails)
    assert isinstance(store.do(Renew(PLACE, block("beat 2"))), Failed)
    assert isinstance(store.do(Renew(PLACE, block("beat 3"))), Failed)
    monkeypatch.setattr(blocks, "write", real)
    assert store.do(Renew(PLACE, block("beat 4"))) == Done(True)
    # The storage puts two of them in the wrong order.
    blocks.write(f"{root}/.outlast/dom/{PLACE}", block("beat 2"))
    assert store.do(Renew(PLACE, block("beat 5"))) == Done(True)


def test_before_a_first_write_is_confirmed_nothing_is_compared(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed helper's write may land at any time until then."""
    place, real = f"{root}/.outlast/dom/{PLACE}", blocks.write
    opened(root).do(Renew(PLACE, block("the dead one's")))
    store = opened(root)

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error", place)

    monkeypatch.setattr(blocks, "write", fails)
    assert isinstance(store.do(Renew(PLACE, block("beat 1"))), Failed)
    monkeypatch.setattr(blocks, "write", real)
    blocks.write(place, block("the dead one's last"))
    assert store.do(Renew(PLACE, block("beat 2"))) == Done(True)


# -- lists ------------------------------------------------------------------------------------------------------------


def test_a_list_is_never_missing_while_it_is_rewritten(root: Path) -> None:
    store, path = opened(root), "hosts/h1/power-on"
    for sequence in range(4):
        assert store.do(WriteSlot(path, sequence, block(f"list {sequence}"))) == Done(True)
        found = store.do(ReadSlots((path,)))
        assert isinstance(found, Slots)
        whole = {slot.rstrip(b"\0") for slot in found.found[0]}
        assert f"list {sequence}".encode() in whole
        assert sequence == 0 or f"list {sequence - 1}".encode() in whole


def test_a_list_that_is_too_long_is_refused(root: Path) -> None:
    result = opened(root).do(WriteSlot("protected", 0, bytes(SLOT_BYTES + blocks.BLOCK)))
    assert isinstance(result, Done)
    assert not result.ok
    assert "are possible" in result.problem


def test_errors_name_what_they_are_about(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(root)
    store.do(Renew(PLACE, block("beat")))

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error", f"{root}/.outlast/dom/{PLACE}")

    monkeypatch.setattr(blocks, "write", fails)
    result = store.do(Renew(PLACE, block("beat 2")))
    assert result == Failed("ds1: .outlast/dom/hosts/h1/heartbeat: Input/output error")


def test_links_go_through_the_helper(root: Path) -> None:
    store = opened(root)
    assert store.do(LinkNext("vms/v/owner", 0, block("first"))) == LinkEnded("won")
    assert store.do(LinkNext("vms/v/owner", 0, block("second"))) == LinkEnded("lost", "epoch 0 exists already")
