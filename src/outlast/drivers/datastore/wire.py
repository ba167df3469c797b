"""What is said between a process and its I/O helper, one helper per datastore: requests with bytes, answers with bytes.

The helper knows directories, names and blocks, and nothing of what the blocks mean; sealing, opening and deciding is the
business of those who ask. Each message is a length (4 bytes, big endian) and MessagePack.
"""

import struct
from typing import Generic, TypeVar

import msgspec

_LENGTH = struct.Struct(">I")
MAX_MESSAGE = 64 << 20


class Renew(msgspec.Struct, frozen=True, tag=True):
    """Rewrite one block in place, after checking that nobody else wrote there since our last write."""

    path: str
    data: bytes


class ReadBlocks(msgspec.Struct, frozen=True, tag=True):
    """Read the first block of each of these files."""

    paths: tuple[str, ...]


class ReadLast(msgspec.Struct, frozen=True, tag=True):
    """Read the newest epoch of each of these registers (directories)."""

    directories: tuple[str, ...]


class LinkNext(msgspec.Struct, frozen=True, tag=True):
    """Create exactly this epoch of a register, exclusively."""

    directory: str
    epoch: int
    data: bytes


class WriteSlot(msgspec.Struct, frozen=True, tag=True):
    """Write one of the two slots of a slotted file: the one that `sequence` falls on."""

    path: str
    sequence: int
    data: bytes


class ReadSlots(msgspec.Struct, frozen=True, tag=True):
    """Read both slots of each of these files."""

    paths: tuple[str, ...]


class Survey(msgspec.Struct, frozen=True, tag=True):
    """Say what the datastore is and how it does."""


Op = Renew | ReadBlocks | ReadLast | LinkNext | WriteSlot | ReadSlots | Survey


class Request(msgspec.Struct, frozen=True):
    """Answered by an `Answer` with the same number, in order."""

    number: int
    op: Op


class Raw(msgspec.Struct, frozen=True):
    """What one read found. `data` None with an empty `problem`: there is no such file."""

    data: bytes | None
    problem: str = ""


class Newest(msgspec.Struct, frozen=True):
    """The newest epoch of a register. `epoch` None with an empty `problem`: it has none yet."""

    epoch: int | None
    data: bytes
    problem: str = ""


class Blocks(msgspec.Struct, frozen=True, tag=True):
    """Answers `ReadBlocks`, in its order."""

    found: tuple[Raw, ...]


class Lasts(msgspec.Struct, frozen=True, tag=True):
    """Answers `ReadLast`, in its order."""

    found: tuple[Newest, ...]


UNREADABLE = b"?"
"""Stands for a slot that could not be read: no frame, and no hole either."""


class Slots(msgspec.Struct, frozen=True, tag=True):
    """Answers `ReadSlots`, in its order: the slots of each file; none if there is no such file.

    One that was never written is missing, or all zeros if the other one lies behind it; see also `UNREADABLE`.
    """

    found: tuple[tuple[bytes, ...], ...]


class Done(msgspec.Struct, frozen=True, tag=True):
    """Answers `Renew` and `WriteSlot`. `foreign`: our place held a block that we did not write."""

    ok: bool
    problem: str = ""
    foreign: bool = False


class LinkEnded(msgspec.Struct, frozen=True, tag=True):
    """Answers `LinkNext`. `outcome`: won, lost, unknown."""

    outcome: str
    problem: str = ""


class Surveyed(msgspec.Struct, frozen=True, tag=True):
    """Answers `Survey`."""

    filesystem: str
    device: str
    free_bytes: int
    read_only: bool
    uncached: bool


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Answers anything: it could not be done; a link's outcome is then unknown."""

    problem: str


Result = Blocks | Lasts | Slots | Done | LinkEnded | Surveyed | Failed


class Answer(msgspec.Struct, frozen=True):
    """The answer to `Request.number`."""

    number: int
    result: Result


_encode = msgspec.msgpack.Encoder().encode


def pack(message: Request | Answer) -> bytes:
    """The message with its length before it."""
    body = _encode(message)
    return _LENGTH.pack(len(body)) + body


_Message = TypeVar("_Message", Request, Answer)


class Inbox(Generic[_Message]):
    """Cuts a stream of bytes into messages."""

    def __init__(self, type_: type[_Message]) -> None:
        self._decoder: msgspec.msgpack.Decoder[_Message] = msgspec.msgpack.Decoder(type_)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[_Message]:
        """The messages that are complete now. Raises msgspec.DecodeError or ValueError: the stream is then worthless."""
        self._buffer += data
        found: list[_Message] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_MESSAGE:
                raise ValueError(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            found.append(self._decoder.decode(bytes(self._buffer[_LENGTH.size : end])))
            del self._buffer[:end]
        return found
