r"""How a record lies on a datastore: a header, the content, nothing else believed.

    offset  size  what
    0       8     magic "OUTLAST\0"
    8       4     kind: what it is a record of ("beat", "regi", "list", "sett", "defi", "inca")
    12      2     format version
    14      2     zero
    16      4     length of the content
    20      4     CRC-32 of the content: tells a torn write
    24      16    keyed BLAKE2b over bytes 0 to 23 and the content: tells a foreign or forged one
    40            the content (MessagePack, or a domain's XML); zeros up to a multiple of 4096

Opening tells apart what a reader must treat differently in words, though never in trust: nothing there yet, torn, from
another format version (a newer Outlast), and sealed with another key (another fault domain).
"""

import hashlib
import struct
import zlib

MAGIC = b"OUTLAST\0"
VERSION = 1
BLOCK = 4096
_HEADER = struct.Struct(">8s4sHHII")
_MAC_BYTES = 16
HEADER_BYTES = _HEADER.size + _MAC_BYTES


class FrameError(Exception):
    """A record that is not to be believed; the text is a sentence's end: "it is torn ..."."""


def seal(kind: bytes, content: bytes, key: bytes) -> bytes:
    """The record, padded with zeros to whole blocks of 4096 bytes. `kind`: four bytes."""
    header = _HEADER.pack(MAGIC, kind, VERSION, 0, len(content), zlib.crc32(content))
    frame = header + _mac(header, content, key) + content
    return frame + bytes(-len(frame) % BLOCK)


def open_frame(kind: bytes, raw: bytes, key: bytes) -> bytes:
    """The content of a record. Raises FrameError, and nothing else, whatever the bytes are."""
    if not raw.strip(b"\0"):
        raise FrameError("it is empty")
    if len(raw) < HEADER_BYTES:
        raise FrameError(f"it is cut short after {len(raw)} bytes")
    magic, found_kind, version, _, length, crc = _HEADER.unpack_from(raw)
    if magic != MAGIC:
        raise FrameError("it is not a record of Outlast")
    if version != VERSION:
        raise FrameError(
            f"it has format version {version}, and this Outlast reads version {VERSION}: run the same release on all hosts"
        )
    if found_kind != kind:
        raise FrameError(f"it is a record of another kind ({found_kind!r} instead of {kind!r})")
    content = raw[HEADER_BYTES : HEADER_BYTES + length]
    if len(content) != length or zlib.crc32(content) != crc:
        raise FrameError("it is torn: its checksum does not match")
    if raw[_HEADER.size : HEADER_BYTES] != _mac(raw[: _HEADER.size], content, key):
        raise FrameError("it was sealed with another cluster key: another fault domain, or a host with an old key file")
    return content


def _mac(header: bytes, content: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(header + content, key=key, digest_size=_MAC_BYTES).digest()
