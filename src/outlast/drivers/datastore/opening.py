"""Believing a register, or not: the newest epoch as the I/O helper read it, opened and checked against where it lay."""

from outlast.codec import records
from outlast.codec.frames import FrameError
from outlast.drivers.datastore.wire import Newest
from outlast.model.claims import Disk, DiskClaim
from outlast.model.records import RegisterRecord


def open_claim(newest: Newest, disk: Disk, key: bytes) -> DiskClaim | None:
    """The last claim of a disk, None if it has none yet. Raises FrameError: it cannot be read, or is not to be believed."""
    if newest.problem:
        raise FrameError(newest.problem)
    if newest.epoch is None:
        return None
    claim = records.open_claim(newest.data, key)
    if (claim.disk, claim.number) != (disk.id, newest.epoch):
        raise FrameError(f"claim {newest.epoch} of {disk.path} holds one of {claim.path}")
    return claim


def open_newest(newest: Newest, subject: str, key: bytes) -> tuple[RegisterRecord | None, str]:
    """The record of a register's newest epoch (None: it has none yet), or why it is not believed."""
    if newest.problem:
        return None, newest.problem
    if newest.epoch is None:
        return None, ""
    try:
        record = records.open_register(newest.data, key)
    except FrameError as error:
        return None, f"epoch {newest.epoch} of the register {subject} is not believed: {error}"
    if (record.subject, record.epoch) != (subject, newest.epoch):
        return None, f"epoch {newest.epoch} of the register {subject} holds the record of {record.subject}"
    return record, ""
