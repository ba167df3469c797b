"""Datagrams between agents: sealed with the cluster key, counted, never replayed into believing.

    offset  size  what
    0       4     magic "OLD1"
    4       4     key id (`keys.key_id`)
    8       8     session number of the sender: rises with each start of its agent
    16      8     random part of the session
    24      8     counter, from 1, rising within the session
    32            ChaCha20-Poly1305 of {sender, to, message}; the 32 bytes before it are authenticated too

Each session has a key of its own, derived from the cluster key and bytes 8 to 23, so that no nonce (the counter) is ever
used twice under one key, whatever clocks and random sources do. A receiver keeps, per sender, the newest session and a
window of 128 counters in it: older sessions, repeated counters and counters that fell out of the window are dropped.
Opening never raises; what is dropped is counted under the reason.
"""

import collections
import hmac
import struct

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from outlast.codec.keys import derive, key_id
from outlast.model.ids import HostId
from outlast.model.messages import Message

MAGIC = b"OLD1"
MAX_BYTES = 65_000
_HEADER = struct.Struct(">4s4sQ8sQ")
_WINDOW = 128
_CACHED_KEYS = 256


class _Body(msgspec.Struct, frozen=True, array_like=True):
    sender: HostId
    to: HostId
    message: Message


class _Peer(msgspec.Struct):
    """What has been accepted of one sender: its newest session, the highest counter, a bit per counter below it."""

    session: tuple[int, bytes] = (0, b"")
    highest: int = 0
    seen: int = 0

    def accept(self, session: tuple[int, bytes], counter: int) -> str:
        """Why the datagram is dropped, or an empty string; then it is marked as seen."""
        if session < self.session:
            return "old session"
        if session > self.session:
            self.session, self.highest, self.seen = session, counter, 1
            return ""
        if counter > self.highest:
            self.seen = (self.seen << min(counter - self.highest, _WINDOW) | 1) & ((1 << _WINDOW) - 1)
            self.highest = counter
            return ""
        behind = self.highest - counter
        if behind >= _WINDOW:
            return "too old"
        if self.seen >> behind & 1:
            return "replayed"
        self.seen |= 1 << behind
        return ""


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(12, "big")


class Sealer:
    """Makes the datagrams of one agent session."""

    def __init__(self, cluster_key: bytes, me: HostId, session_number: int, session_random: bytes) -> None:
        """`session_number` must be higher than that of every earlier session of this host; `session_random`: 8 bytes."""
        self._me = me
        self._key_id = key_id(cluster_key)
        self._session = (session_number, session_random)
        salt = session_number.to_bytes(8, "big") + session_random
        self._cipher = ChaCha20Poly1305(derive(cluster_key, "datagrams", salt))
        self._counter = 0
        self._encode = msgspec.msgpack.Encoder().encode

    def seal(self, to: HostId, message: Message) -> bytes:
        """One datagram to `to`."""
        self._counter += 1
        header = _HEADER.pack(MAGIC, self._key_id, *self._session, self._counter)
        return header + self._cipher.encrypt(_nonce(self._counter), self._encode(_Body(self._me, to, message)), header)


class Opener:
    """Opens what arrives at one host. `dropped` counts what was not believed, by reason."""

    def __init__(self, cluster_key: bytes, me: HostId, members: frozenset[HostId]) -> None:
        self._cluster_key = cluster_key
        self._key_id = key_id(cluster_key)
        self._me = me
        self._members = members
        self._ciphers: dict[bytes, ChaCha20Poly1305] = {}
        self._peers: dict[HostId, _Peer] = {}
        self._decoder = msgspec.msgpack.Decoder(_Body)
        self.dropped: collections.Counter[str] = collections.Counter()

    def open(self, datagram: bytes) -> tuple[HostId, Message] | None:
        """Sender and message of an authentic, new datagram to this host; None for anything else."""
        opened = self._open(datagram)
        if isinstance(opened, str):
            self.dropped[opened] += 1
            return None
        return opened

    def _open(self, datagram: bytes) -> tuple[HostId, Message] | str:
        if len(datagram) < _HEADER.size or not datagram.startswith(MAGIC):
            return "not of Outlast"
        header = datagram[: _HEADER.size]
        _, found_key, number, random, counter = _HEADER.unpack(header)
        if not hmac.compare_digest(found_key, self._key_id):
            return "another key"
        try:
            plain = self._cipher(header[8:24]).decrypt(_nonce(counter), datagram[_HEADER.size :], header)
            body = self._decoder.decode(plain)
        except InvalidTag:
            return "not authentic"
        except msgspec.DecodeError:
            return "not understood"
        if body.to != self._me or body.sender not in self._members or body.sender == self._me:
            return "not a member"
        refusal = self._peers.setdefault(body.sender, _Peer()).accept((number, random), counter)
        return refusal or (body.sender, body.message)

    def _cipher(self, salt: bytes) -> ChaCha20Poly1305:
        cipher = self._ciphers.get(salt)
        if cipher is None:
            if len(self._ciphers) >= _CACHED_KEYS:
                self._ciphers.clear()
            cipher = self._ciphers[salt] = ChaCha20Poly1305(derive(self._cluster_key, "datagrams", salt))
        return cipher
