"""Spare files: one taker each, never written twice, whatever a killed helper's calls still do when its storage is back."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from outlast.drivers.datastore import blocks, spares
from outlast.drivers.datastore.registers import link_next, read_last
from outlast.drivers.datastore.spares import SPARES, SpareFiles


def block(text: str) -> bytes:
    return text.encode().ljust(blocks.BLOCK, b"\0")


def filled(tmp_path: Path) -> SpareFiles:
    made = SpareFiles(str(tmp_path / "spare"))
    made.fill()
    return made


def test_a_killed_helpers_late_link_still_means_what_it_wrote(tmp_path: Path) -> None:
    """It hung in link() for VM 1 and was killed; its successor links as often as there are spares; then the link lands."""
    first = tmp_path / "vm1"
    first.mkdir()
    written = filled(tmp_path).take(block("vm1"))
    successor = filled(tmp_path)
    for epoch in range(SPARES + 1):
        assert link_next(str(tmp_path / "vm2"), epoch, block(f"vm2 {epoch}"), successor).outcome == "won"
    os.link(written, first / "0000000000")
    assert read_last(str(first)).data == block("vm1")
    assert read_last(str(tmp_path / "vm2")).data == block(f"vm2 {SPARES}")


def test_of_two_machines_with_one_host_id_only_one_gets_a_spare(tmp_path: Path) -> None:
    filled(tmp_path)
    taken: list[tuple[str, bytes]] = []
    gate = threading.Barrier(4)

    def take(number: int) -> None:
        own = filled(tmp_path)
        gate.wait()
        for turn in range(SPARES):
            data = block(f"{number} {turn}")
            taken.append((own.take(data), data))

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({path for path, _ in taken}) == 4 * SPARES
    assert all(Path(path).read_bytes() == data for path, data in taken)


def test_a_spare_whose_first_write_was_not_confirmed_is_used_by_nobody(tmp_path: Path) -> None:
    """The zeros of a killed helper may still land in it, over whatever record it was given."""
    (tmp_path / "spare").mkdir()
    unconfirmed = tmp_path / "spare" / "making-0123456789abcdef"
    unconfirmed.write_bytes(b"")
    own = filled(tmp_path)
    assert unconfirmed not in {Path(own.take(block("x"))) for _ in range(SPARES + 1)}
    assert unconfirmed.read_bytes() == b""


def test_what_was_left_behind_is_removed_when_nobody_can_need_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hung, linked = filled(tmp_path).take(block("hung")), filled(tmp_path).take(block("linked"))
    os.link(linked, tmp_path / "0000000000")
    filled(tmp_path)
    assert Path(hung).exists(), "it may be about to be linked"
    assert not Path(linked).exists()
    assert (tmp_path / "0000000000").read_bytes() == block("linked")
    monkeypatch.setattr(spares, "LEFT_ALONE_S", -1.0)
    filled(tmp_path)
    assert not Path(hung).exists()


def test_a_spare_that_somebody_removed_behind_its_link_leaves_the_outcome_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link was made and its answer lost; a twin tidied up; the repeated call finds no such file."""
    own, real = filled(tmp_path), os.link

    def repeated(source: str, target: str) -> None:
        real(source, target)
        os.unlink(source)
        real(source, f"{target}-again")

    monkeypatch.setattr(os, "link", repeated)
    assert link_next(str(tmp_path / "vm1"), 0, block("vm1"), own).outcome == "unknown"
