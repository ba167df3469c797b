"""Registers on a directory: one winner, no way back, and room for the next epoch also when the datastore is full."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.drivers.datastore import blocks, registers
from outlast.drivers.datastore.registers import KEEP, epochs, link_next, read_last
from outlast.drivers.datastore.spares import SPARES, SpareFiles


def block(text: str) -> bytes:
    return text.encode().ljust(blocks.BLOCK, b"\0")


@pytest.fixture
def spares(tmp_path: Path) -> SpareFiles:
    made = SpareFiles(str(tmp_path / "spare"))
    made.fill()
    return made


def test_an_epoch_is_won_once(tmp_path: Path, spares: SpareFiles) -> None:
    register = str(tmp_path / "owner")
    assert read_last(register).epoch is None
    assert link_next(register, 0, block("a"), spares).outcome == "won"
    lost = link_next(register, 0, block("b"), spares)
    assert (lost.outcome, lost.problem) == ("lost", "epoch 0 exists already")
    assert link_next(register, 1, block("b"), spares).outcome == "won"
    newest = read_last(register)
    assert (newest.epoch, newest.data) == (1, block("b"))


def test_of_many_at_once_exactly_one_wins(tmp_path: Path) -> None:
    register = str(tmp_path / "owner")
    gate = threading.Barrier(8)
    for epoch in range(20):
        outcomes: list[str] = []

        def race(number: int, epoch: int = epoch, outcomes: list[str] = outcomes) -> None:
            own = SpareFiles(str(tmp_path / f"spare{number}"))
            gate.wait()
            outcomes.append(link_next(register, epoch, block(f"{number}"), own).outcome)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["lost"] * 7 + ["won"]


def test_a_win_without_its_predecessor_does_not_count(tmp_path: Path, spares: SpareFiles) -> None:
    register = str(tmp_path / "owner")
    assert link_next(register, 0, block("a"), spares).outcome == "won"
    assert link_next(register, 7, block("a"), spares).problem == "epoch 6 does not exist any more"


def test_a_pruned_name_cannot_be_used_again(tmp_path: Path, spares: SpareFiles) -> None:
    register = str(tmp_path / "owner")
    for epoch in range(3 * KEEP):
        assert link_next(register, epoch, block(f"{epoch}"), spares).outcome == "won"
    left = epochs(register)
    assert left[0] == 0, "epoch 0 is never pruned"
    assert left[1:] == list(range(2 * KEEP, 3 * KEEP))
    # Its predecessor, epoch 0, exists for ever; what exists above it tells.
    assert link_next(register, 1, block("late"), spares).outcome == "lost"
    assert link_next(register, 2 * KEEP - 1, block("late"), spares).outcome == "lost"
    assert read_last(register).data == block(f"{3 * KEEP - 1}")


def test_a_lost_answer_is_found_out_by_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS: the link was made, its answer was lost, and the repeated call says that the name exists."""
    register, spares = str(tmp_path / "owner"), SpareFiles(str(tmp_path / "spare"))
    real = os.link

    def answer_lost(source: str, target: str) -> None:
        real(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", answer_lost)
    assert link_next(register, 0, block("mine"), spares).outcome == "won"


def test_an_error_before_the_link_was_made_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register, spares = str(tmp_path / "owner"), SpareFiles(str(tmp_path / "spare"))

    def fails(source: str, target: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", fails)
    assert link_next(register, 0, block("mine"), spares).outcome == "unknown"


def test_spares_that_an_earlier_helper_linked_are_not_written_over(tmp_path: Path) -> None:
    """It died after its link: the spare's name still leads to the epoch's content."""
    register, spares = tmp_path / "owner", SpareFiles(str(tmp_path / "spare"))
    spares.fill()
    register.mkdir()
    for spare in (tmp_path / "spare").iterdir():
        spare.write_bytes(block("won by the dead"))
        os.link(spare, register / registers.epoch_name(0))
        break
    again = SpareFiles(str(tmp_path / "spare"))
    again.fill()
    assert link_next(str(register), 1, block("next"), again).outcome == "won"
    assert (register / registers.epoch_name(0)).read_bytes() == block("won by the dead")


@pytest.fixture
def small_store(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_datastore_has_room_for_the_next_epochs(small_store: Path) -> None:
    spares = SpareFiles(str(small_store / "spare"))
    register = str(small_store / "owner")
    spares.fill()
    assert link_next(register, 0, block("a"), spares).outcome == "won"
    spares.fill()
    with pytest.raises(OSError, match="No space"):
        (small_store / "filler").write_bytes(bytes(2 << 20))
    for epoch in range(1, 1 + SPARES):
        spares.fill()
        assert link_next(register, epoch, block(f"{epoch}"), spares).outcome == "won", f"epoch {epoch}"
    assert read_last(register).epoch == SPARES


def test_on_a_full_datastore_without_spares_a_registers_own_history_makes_room(
    small_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spares = SpareFiles(str(small_store / "spare"))
    register = str(small_store / "owner")
    for epoch in range(KEEP):
        assert link_next(register, epoch, block(f"{epoch}"), spares).outcome == "won"
    monkeypatch.setattr(SpareFiles, "fill", lambda _: None)
    none = SpareFiles(str(small_store / "spare"))
    with pytest.raises(OSError, match="No space"):
        (small_store / "filler").write_bytes(bytes(2 << 20))
    assert link_next(register, KEEP, block("next"), none).outcome == "won"
    assert epochs(register) == [0, KEEP - 2, KEEP - 1, KEEP]
    with pytest.raises(OSError, match="No space"):
        (small_store / "filler too").write_bytes(bytes(2 << 20))
    lost = link_next(str(small_store / "another"), 0, block("first"), none)
    assert (lost.outcome, lost.problem) == ("lost", "nothing was written: No space left on device")


def test_a_name_that_finds_no_room_is_tried_again_and_then_lost(
    tmp_path: Path, spares: SpareFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory may need a block of its own for another name, also when the record has its spare file."""
    register, tried = str(tmp_path / "owner"), []
    for epoch in range(5):
        link_next(register, epoch, block(f"{epoch}"), spares)

    def full(source: str, target: str) -> None:
        tried.append(target)
        raise OSError(errno.EDQUOT, "Disk quota exceeded", target)

    monkeypatch.setattr(os, "link", full)
    ended = link_next(register, 5, block("5"), spares)
    assert (ended.outcome, ended.problem) == ("lost", "nothing was written: Disk quota exceeded")
    assert len(tried) == 2
    assert epochs(register) == [0, 3, 4]
