"""Registers on a POSIX directory: numbered files, each made once, exclusively, by `link()` (safety rule 1).

A register is a directory; its epochs are files `0000000000`, `0000000001`, ... A new one is written to a spare file first,
made durable, and then linked to the epoch's name: exactly one linker wins, also on NFS, where the answer to a link may be
lost (then the spare's link count, or the content found under the name, tells who won).

Two checks make a win count. The predecessor, opened afresh, must exist: who compares-and-swaps from an epoch that was
pruned long ago finds its successor's name free. And no higher epoch may exist: epoch 0 is never pruned, so it is a
predecessor that proves nothing. Pruning keeps the newest and removes oldest first, so a pruned name always has a higher
one above it. A file that does not count stays: it is old, and the next winner prunes it.

Spare files are made ahead of time (`spares.py`), so that a full datastore cannot block a takeover or a re-assertion. Each
link uses one up for good; they are made anew behind a link and not before it, which would be on the way of a failover.
"""

import contextlib
import errno
import os
import re

from outlast.drivers.datastore import blocks
from outlast.drivers.datastore.spares import NO_SPACE, SpareFiles
from outlast.drivers.datastore.wire import LinkEnded, Newest

KEEP = 16
KEEP_WHEN_FULL = 2
"""The newest, which the next one needs as its predecessor, and the one before it, which proves that one."""
_EPOCH = re.compile(r"\d{10}")


def epoch_name(epoch: int) -> str:
    """The file name of an epoch."""
    return f"{epoch:010d}"


def epochs(directory: str) -> list[int]:
    """The epochs that exist, ascending; empty if there is no such register. Raises OSError."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(int(name) for name in names if _EPOCH.fullmatch(name))


def read_last(directory: str) -> Newest:
    """The newest epoch and its bytes. A listing may be old: names above it are tried too. Raises OSError."""
    for _ in range(3):
        known = epochs(directory)
        if not known:
            return Newest(None, b"")
        newest = known[-1]
        try:
            data = blocks.read(f"{directory}/{epoch_name(newest)}")
            while True:
                try:
                    data = blocks.read(f"{directory}/{epoch_name(newest + 1)}")
                except FileNotFoundError:
                    return Newest(newest, data)
                newest += 1
        except FileNotFoundError:
            continue
    return Newest(None, b"", f"{directory} changes faster than it can be read")


class _NoSpaceError(OSError):
    """There was no room, neither for the record nor for its name; nothing was linked."""


def link_next(directory: str, epoch: int, data: bytes, spares: SpareFiles) -> LinkEnded:
    """Create exactly `epoch`. Errors before the link are a loss that changed nothing; after it, the outcome is unknown.

    On a full datastore the register's own history makes room for its future, once: a takeover is worth more than epochs
    that nobody reads.
    """
    for attempt in (1, 2):
        try:
            return _link(directory, epoch, data, spares)
        except _NoSpaceError as error:
            problem = f"nothing was written: {error.strerror}"
            if attempt == 1:
                with contextlib.suppress(OSError):
                    _prune(directory, epochs(directory), KEEP_WHEN_FULL)
    return LinkEnded("lost", problem)


def _link(directory: str, epoch: int, data: bytes, spares: SpareFiles) -> LinkEnded:
    """One try of `link_next`. Raises _NoSpaceError."""
    target = f"{directory}/{epoch_name(epoch)}"
    try:
        if epoch == 0:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        spare = spares.take(data)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise _NoSpaceError(*error.args) from None
        return LinkEnded("lost", f"nothing was written: {error.strerror}")
    try:
        try:
            os.link(spare, target)
        except FileExistsError:
            if blocks.read(target, len(data)) != data:
                return LinkEnded("lost", f"epoch {epoch} exists already")
        except FileNotFoundError:
            # The register is missing, or our spare is: then somebody removed it, perhaps behind a link that was made.
            os.stat(spare)
            return LinkEnded("lost", f"the register {directory} does not exist")
        except OSError as error:
            if os.stat(spare).st_nlink != 2:
                if error.errno in NO_SPACE and not os.path.lexists(target):
                    raise _NoSpaceError(*error.args) from None
                return LinkEnded("unknown", str(error.strerror))
        return _counts(directory, epoch, target)
    except _NoSpaceError:
        raise
    except OSError as error:
        return LinkEnded("unknown", str(error.strerror))
    finally:
        with contextlib.suppress(OSError):
            os.unlink(spare)
            spares.fill()


def _counts(directory: str, epoch: int, target: str) -> LinkEnded:
    """Whether a link that succeeded is a win; see the top of this file. Raises OSError."""
    _sync_directory(directory)
    known = epochs(directory)
    if epoch > 0:
        try:
            blocks.read(f"{directory}/{epoch_name(epoch - 1)}")
        except FileNotFoundError:
            return LinkEnded("lost", f"epoch {epoch - 1} does not exist any more")
    if known[-1] > epoch:
        return LinkEnded("lost", f"epoch {known[-1]} exists already")
    _prune(directory, known, KEEP)
    return LinkEnded("won")


def _sync_directory(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems (FUSE) cannot sync a directory; there the link itself is synchronous.
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _prune(directory: str, known: list[int], keep: int) -> None:
    """Remove all but the newest `keep` epochs and epoch 0, oldest first."""
    for epoch in known[:-keep]:
        if epoch > 0:
            with contextlib.suppress(OSError):
                os.unlink(f"{directory}/{epoch_name(epoch)}")
