"""The cluster key and what is derived from it.

An operator makes one secret of 32 bytes (64 hexadecimal digits) for the fault domain and copies it to its hosts. Nothing
uses it directly: datagrams and datastore records have keys of their own (HKDF-SHA256, RFC 5869), so that a flaw in the
use of one tells nothing about the other. The key id is public; it tells "another key" from "damaged".
"""

import hashlib

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32


def parse_key(text: str) -> bytes:
    """The 32 bytes of a key file's text. Raises ValueError with a sentence."""
    digits = text.strip()
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        raise ValueError("the cluster key must be hexadecimal digits only") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"the cluster key must have {2 * KEY_BYTES} hexadecimal digits, not {len(digits)}")
    return key


def derive(cluster_key: bytes, purpose: str, salt: bytes = b"") -> bytes:
    """The 32-byte key for one purpose ("datagrams", "datastore")."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt or None, info=f"outlast {purpose}".encode()).derive(
        cluster_key
    )


def key_id(cluster_key: bytes) -> bytes:
    """Four bytes that name a key without telling it."""
    return hashlib.blake2b(cluster_key, digest_size=4, person=b"outlast key id").digest()
