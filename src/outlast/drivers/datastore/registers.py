"""Registers on a POSIX directory: numbered files, each made once, exclusively, by `link()` (safety rule 1).

A register is a directory; its epochs are files `0000000000`, `0000000001`, ... A new one is written to a spare file first,
made durable, and then linked to the epoch's name: exactly one linker wins, also on NFS, where the answer to a link may be
lost (then the spare's link count, or the content found under the name, tells who won).

Two checks make a win count. The predecessor, opened afresh, must exist: who compares-and-swaps from an epoch that was
pruned long ago finds its successor's name free. And no higher epoch may exist: epoch 0 is never pruned, so it is a
predecessor that proves nothing. Pruning keeps the newest and removes oldest first, so a pruned name always has a higher
one above it. A file that does not count stays: it is old, and the next winner prunes it.

Spare files are made ahead of time, so that a full datastore cannot block a takeover or a re-assertion. Each link uses one
up for good; they are made anew behind a link and not before it, which would be on the way of a failover.
"""

import contextlib
import errno
import os
import re
import secrets

from outlast.drivers.datastore import blocks
from outlast.drivers.datastore.wire import LinkEnded, Newest

KEEP = 16
SPARES = 16
"""As many links can be made on a full datastore by each of a host's two helpers before space is needed again."""
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


class SpareFiles:
    """Files that exist before they are needed, in a directory of their own for each helper."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._ready: list[str] = []

    def fill(self) -> None:
        """Make what is missing, as far as there is space. Raises OSError for anything else."""
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            if not self._ready:
                # What an earlier helper of ours left is as good as new.
                self._ready = [f"{self._directory}/{name}" for name in sorted(os.listdir(self._directory))][:SPARES]
            while len(self._ready) < SPARES:
                path = f"{self._directory}/{secrets.token_hex(8)}"
                blocks.write(path, bytes(blocks.BLOCK), create=True)
                self._ready.append(path)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise

    def take(self, data: bytes) -> str:
        """A durable file with this content, under a name that nobody else uses. Raises OSError."""
        while self._ready:
            path = self._ready.pop()
            try:
                if os.stat(path).st_nlink == 1:
                    blocks.write(path, data)
                    return path
            except FileNotFoundError:
                continue
            # It was linked by a helper that did not live to tell: the name is all that may go.
            with contextlib.suppress(OSError):
                os.unlink(path)
        path = f"{self._directory}/{secrets.token_hex(8)}"
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        blocks.write(path, data, create=True)
        return path


def link_next(directory: str, epoch: int, data: bytes, spares: SpareFiles) -> LinkEnded:
    """Create exactly `epoch`. Errors before the link are a loss that changed nothing; after it, the outcome is unknown."""
    target = f"{directory}/{epoch_name(epoch)}"
    try:
        if epoch == 0:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        spare = spares.take(data)
    except OSError as error:
        return LinkEnded("lost", f"nothing was written: {error.strerror}")
    try:
        try:
            os.link(spare, target)
        except FileExistsError:
            if blocks.read(target, len(data)) != data:
                return LinkEnded("lost", f"epoch {epoch} exists already")
        except FileNotFoundError:
            return LinkEnded("lost", f"the register {directory} does not exist")
        except OSError as error:
            if os.stat(spare).st_nlink != 2:
                return LinkEnded("unknown", str(error.strerror))
        return _counts(directory, epoch, target)
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
    _prune(directory, known)
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


def _prune(directory: str, known: list[int]) -> None:
    for epoch in known[:-KEEP]:
        if epoch > 0:
            with contextlib.suppress(OSError):
                os.unlink(f"{directory}/{epoch_name(epoch)}")
