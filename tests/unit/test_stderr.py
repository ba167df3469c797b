"""Standard error that nobody reads holds nobody up, whatever it is."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from outlast.drivers.stderr import MOST_BYTES, Stderr


def test_a_full_pipe_drops_lines_and_says_so_when_it_is_read_again() -> None:
    reader, writer = os.pipe()
    log = Stderr(writer)
    for number in range(2000):
        log.write(f"line {number} {'x' * 100}\n")
    os.set_blocking(reader, False)
    read = os.read(reader, 1 << 20)
    assert read.startswith(b"line 0 ")
    assert read.endswith(b"\n"), "no line is cut in two"
    log.write("after\n")
    said = os.read(reader, 1 << 20).decode().splitlines()
    assert said[0] == f"outlast: {2000 - read.count(b'line')} lines were dropped here: nobody read them"
    assert said[1] == "after"
    assert os.get_blocking(writer), "the descriptor is shared with others, and stays as it was"


def test_a_pipe_that_is_closed_ends_nobody() -> None:
    reader, writer = os.pipe()
    log = Stderr(writer)
    os.close(reader)
    log.write("to nobody\n")


def test_a_socket_as_journald_gives_it() -> None:
    near, far = socket.socketpair()
    log = Stderr(near.fileno())
    for _ in range(5000):
        log.write("x" * 99 + "\n")
    assert far.recv(100) == b"x" * 99 + b"\n"
    far.close()
    log.write("to nobody\n")


@pytest.mark.parametrize("length", [10, MOST_BYTES - 1, 3 * MOST_BYTES])
def test_in_a_file_nothing_is_written_over_and_lines_end(tmp_path: Path, length: int) -> None:
    """Others write to it through the same descriptor: a shell's redirection does not append."""
    path = tmp_path / "log"
    with path.open("wb", buffering=0) as file:
        file.write(b"before\n")
        Stderr(file.fileno()).write("y" * length + "\n")
        file.write(b"after\n")
    assert path.read_text().splitlines() == ["before", "y" * min(length, MOST_BYTES - 1), "after"]


def test_no_descriptor_at_all() -> None:
    Stderr(987654).write("to nobody\n")
