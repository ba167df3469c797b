"""Believing a register, or not: the newest epoch as the I/O helper read it, opened and checked against where it lay."""

from outlast.codec import records
from outlast.codec.frames import FrameError
from outlast.drivers.datastore.wire import Newest
from outlast.model.records import RegisterRecord


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
