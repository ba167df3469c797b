"""Whose a disk is: what a start writes down, beside its VM's register, about each disk that it writes to."""

import hashlib

import msgspec

from outlast.model.ids import DatastoreName, DiskId, Epoch, HostId, Nonce, VmId, VmName

MOST_SHOWN = 400


class Disk(msgspec.Struct, frozen=True, order=True):
    """One file on a datastore. `path` is relative to the datastore's root, which hosts may have mounted anywhere."""

    datastore: DatastoreName
    path: str

    @property
    def id(self) -> DiskId:
        """The name of its claims' directory: 32 hexadecimal digits."""
        return DiskId(hashlib.blake2b(self.path.encode(errors="surrogateescape"), digest_size=16).hexdigest())

    @property
    def shown(self) -> str:
        """The path for people; of a very long one the end, so that it fits into a record."""
        return self.path if len(self.path) <= MOST_SHOWN else f"...{self.path[-MOST_SHOWN:]}"


class Claimant(msgspec.Struct, frozen=True):
    """A VM that has claimed a disk, and where its register is."""

    vm: VmId
    name: VmName
    home: DatastoreName


class DiskClaim(msgspec.Struct, frozen=True, kw_only=True):
    """One numbered claim of a disk; the last one counts, and is worth what `protocol/disk_claims.py` says.

    `path` is for people. `host` and `nonce` tell whose link made it.
    """

    disk: DiskId
    path: str
    number: Epoch
    claimant: Claimant
    host: HostId
    nonce: Nonce
