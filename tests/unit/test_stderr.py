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
def test_a_file_is_appended_to_and_lines_end(tmp_path: Path, length: int) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    Stderr(descriptor).write("y" * length + "\n")
    first, second = path.read_text().splitlines()
    assert first == "before"
    assert second == "y" * min(length, MOST_BYTES - 1)
    assert path.read_text().endswith("\n")
    os.close(descriptor)


def test_no_descriptor_at_all() -> None:
    Stderr(987654).write("to nobody\n")
