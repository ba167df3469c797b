"""What makes a directory a datastore: `.outlast/identity`, which an operator has made. An unmounted mount point has none.

It is JSON, for people to read. Nothing of Outlast ever makes it but `outlast datastore init`.
"""

import contextlib
import os
import uuid
from pathlib import Path

import msgspec

from outlast.model.errors import OutlastError
from outlast.model.ids import DatastoreName
from outlast.model.records import Identity

FORMAT = 1
DIRECTORY = ".outlast"


def identity_path(root: str) -> str:
    """Where a datastore's identity lies."""
    return f"{root}/{DIRECTORY}/identity"


def problem_with(root: str, name: str, domain: str) -> str:
    """Why the directory is not the datastore `name` of `domain`, or an empty string. Raises OSError other than ENOENT."""
    try:
        raw = Path(identity_path(root)).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.isdir(root):
            return f"the directory {root} does not exist: create and mount it"
        return (
            f"{root} has no identity: it is not mounted, or not a datastore yet "
            f"(mount it; or `outlast datastore init {root} --name {name} --domain {domain}` once, on one host)"
        )
    try:
        identity = msgspec.json.decode(raw, type=Identity)
    except msgspec.DecodeError as error:
        return f"the identity of {root} cannot be read ({error}): restore {identity_path(root)} from another host's mount"
    if identity.format != FORMAT:
        return f"{root} has format {identity.format}, and this Outlast knows {FORMAT}: run the same release on all hosts"
    if identity.domain != domain:
        return f"{root} belongs to the fault domain {identity.domain}, not to {domain}: mount the right one"
    if identity.datastore != name:
        return f"{root} is the datastore {identity.datastore}, not {name}: correct its name or path in the settings"
    return ""


def initialise(root: Path, name: str, domain: str) -> Identity:
    """Make a directory a datastore of a fault domain. Does nothing if it is that already. Raises OutlastError."""
    if not root.is_dir():
        raise OutlastError(f"there is no directory {root}", "mount the shared storage there first")
    path = Path(identity_path(str(root)))
    if path.exists():
        problem = problem_with(str(root), name, domain)
        if problem:
            raise OutlastError(problem, "nothing was changed")
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    identity = Identity(format=FORMAT, datastore=DatastoreName(name), domain=domain, uuid=str(uuid.uuid4()))
    temporary = path.with_name(f"identity.{identity.uuid}")
    try:
        for directory in (path.parent, path.parent / domain, path.parent / domain / "hosts", path.parent / domain / "vms"):
            directory.mkdir(mode=0o700, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(identity), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return initialise(root, name, domain)
    except OSError as error:
        raise OutlastError(
            f"{root} cannot be made a datastore: {error.strerror}", "make it writable for root on this host"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return identity
