"""Files that exist before they are needed, so that a full datastore cannot block a takeover or a re-assertion.

A register's new epoch is a file that is written, made durable, and then linked (`registers.py`). The link of a helper that
was killed may land minutes later, when its storage is back. So what it once wrote, it must mean for ever: whoever wrote a
second record into the same file would have the late link put that record under the first one's epoch, where nobody believes
it, and nobody could ever link past it. A file's name tells how far it is, and each step is one rename:

    making-TOKEN   its first write is not confirmed; a killed helper's zeros may still land in it
    TOKEN          whole, and written by nobody: whoever renames it, has it
    used-TOKEN     had by one process, for one record and one link

Nobody ever writes a `making-` or `used-` file of somebody else, alive or not. Of two that want the same spare (a helper and
its hung predecessor, or two machines with one host id) one rename wins, and the other finds nothing under that name; tokens
are random and never come back, so a rename that lands late finds nothing either.

What was left behind only takes space. A name with a second link may go at once: the record stays under its epoch. A name
that is the only one may go too, as far as the registers are concerned: a late link of it finds no file, which is the same
as a link that was never sent. But it might be a twin's that is about to be linked, so it stays for `LEFT_ALONE_S`.
"""

import contextlib
import errno
import os
import re
import secrets
import time

from outlast.drivers.datastore import blocks

SPARES = 16
"""As many links can be made on a full datastore by each of a host's two helpers before space is needed again."""
LEFT_ALONE_S = 600.0
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_READY = re.compile(r"[0-9a-f]{16}")


class SpareFiles:
    """The spare files of one role (keeper or agent) of one host, in a directory of their own."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._ready: list[str] = []

    def fill(self) -> None:
        """Make what is missing, as far as there is space. Raises OSError for anything else."""
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            if not self._ready:
                self._find()
            while len(self._ready) < SPARES:
                self._ready.append(self._make())
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise

    def take(self, data: bytes) -> str:
        """A durable file with this content, which nobody else has or will ever write. Raises OSError."""
        while self._ready:
            path = self._name("used-")
            try:
                os.rename(self._ready.pop(), path)
            except FileNotFoundError:
                continue  # Somebody else had it first.
            if os.stat(path).st_nlink == 1:
                return self._written(path, data, create=False)
            # Somebody links spares without taking them first. The name is all that may go.
            _unlink(path)
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        return self._written(self._name("used-"), data, create=True)

    def _written(self, path: str, data: bytes, *, create: bool) -> str:
        try:
            blocks.write(path, data, create=create)
        except OSError:
            _unlink(path)
            raise
        return path

    def _find(self) -> None:
        """What earlier helpers left: whole spares are as good as new, and of the rest the old is removed."""
        for name in sorted(os.listdir(self._directory)):
            path = f"{self._directory}/{name}"
            if not _READY.fullmatch(name):
                _remove_leftover(path)
            elif len(self._ready) < SPARES:
                self._ready.append(path)

    def _make(self) -> str:
        making = self._written(self._name("making-"), bytes(blocks.BLOCK), create=True)
        path = self._name("")
        os.rename(making, path)
        return path

    def _name(self, prefix: str) -> str:
        return f"{self._directory}/{prefix}{secrets.token_hex(8)}"


def _remove_leftover(path: str) -> None:
    with contextlib.suppress(OSError):
        found = os.stat(path)
        # A rename moves ctime and a write mtime; a clock that is off only removes early what may be removed.
        if found.st_nlink > 1 or time.time() - max(found.st_mtime, found.st_ctime) > LEFT_ALONE_S:
            os.unlink(path)


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
