"""What stands in a scenario file, turned into the values of `model`, one `Kind` at a time.

Every function raises ValueError with the rest of a sentence that begins with the key's name.
"""

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from outlast.model.settings import Settings
from outlast.model.time import Duration
from outlast.model.units import parse_duration, parse_size
from outlast.scenario.words import ANY, GUESTS, STATES, VERDICTS, Key, Kind

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_READY = re.compile(r"powered-on|guest-heartbeat|delay:(.+)")


class Names(msgspec.Struct, frozen=True):
    """The names that a scenario declares, in its order."""

    hosts: tuple[str, ...]
    vms: tuple[str, ...]
    datastores: tuple[str, ...]


def nearest(word: str, known: Iterable[str]) -> str:
    """The rest of a sentence about an unknown word: the nearest known one, or all of them."""
    words = list(known)
    near = difflib.get_close_matches(word, words, 1, 0.5)
    if near:
        return f"did you mean {near[0]}?"
    return f"known are {', '.join(words)}" if words else "there are none"


def convert(key: Key, value: object, names: Names) -> Any:
    """The value of a key, checked. Raises ValueError."""
    match key.kind:
        case Kind.CHOICE:
            return _word(value, key.words, "is not one of its words")
        case Kind.HOST | Kind.HOSTS | Kind.GROUPS | Kind.PREFERENCES | Kind.HOSTS_BY_VM | Kind.VERDICT_BY_HOST:
            return _about_hosts(key.kind, value, names)
        case Kind.VM:
            return _word(value, names.vms, "is not a VM of this scenario")
        case Kind.VMS:
            return _list(value, key.kind, lambda each: _word(each, names.vms, "is not a VM of this scenario"))
        case Kind.DATASTORE:
            return _word(value, names.datastores, _NO_DATASTORE)
        case Kind.DATASTORES:
            return _list(value, key.kind, lambda each: _word(each, names.datastores, _NO_DATASTORE))
        case Kind.STATE_BY_VM:
            return _by(value, key.kind, names.vms, "VM", lambda each: _word(each, STATES, "is not a state"))
        case Kind.GUEST_BY_VM:
            return _by(value, key.kind, names.vms, "VM", lambda each: _word(each, GUESTS, "is not how a guest can be"))
        case Kind.COUNT_BY_VM:
            return _by(value, key.kind, names.vms, "VM", _count)
        case Kind.DURATION_BY_VM:
            return _by(value, key.kind, names.vms, "VM", duration)
        case _:
            return _SIMPLE[key.kind](value)


_NO_DATASTORE = "is not a datastore of this scenario"
_NO_HOST = "is not a host of this scenario"


def _about_hosts(kind: Kind, value: object, names: Names) -> Any:
    def host(each: object) -> str:
        return _word(each, names.hosts, _NO_HOST)

    match kind:
        case Kind.HOST:
            return host(value)
        case Kind.HOSTS:
            return _list([value] if isinstance(value, str) else value, kind, host)
        case Kind.GROUPS:
            return _groups(value, host)
        case Kind.PREFERENCES:
            if isinstance(value, dict):
                return _by(value, kind, names.hosts, "host", _integer)
            return dict.fromkeys(_list(value, kind, host), 1)
        case Kind.VERDICT_BY_HOST:
            return _by(value, kind, names.hosts, "host", lambda each: _word(each, VERDICTS, "is not a verdict"))

    def where(each: object) -> tuple[str, ...]:
        return (ANY,) if each == ANY else _list([each] if isinstance(each, str) else each, Kind.HOSTS, host)

    return _by(value, kind, names.vms, "VM", where)


def _word(value: object, known: Iterable[str], otherwise: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is {value!r}, which {otherwise}")
    words = tuple(known)
    if value not in words:
        raise ValueError(f'is "{value}", which {otherwise}: {nearest(value, words)}')
    return value


def _wrong(value: object, kind: Kind) -> ValueError:
    return ValueError(f"is {value!r}, but must be {kind}")


def _list(value: object, kind: Kind, item: Callable[[object], str]) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _wrong(value, kind)
    found = tuple(item(each) for each in value)
    if len(set(found)) != len(found):
        raise ValueError("names one of them twice")
    return found


def _by(value: object, kind: Kind, known: tuple[str, ...], what: str, item: Callable[[object], Any]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(value, kind)
    found = {}
    for name, each in value.items():
        if name not in known:
            raise ValueError(f'names "{name}", which is not a {what} of this scenario: {nearest(name, known)}')
        try:
            found[name] = item(each)
        except ValueError as error:
            raise ValueError(f"of {name} {error}") from None
    return found


def _groups(value: object, host: Callable[[object], str]) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, list) or len(value) < 2:
        raise _wrong(value, Kind.GROUPS)
    groups = tuple(_list(group, Kind.GROUPS, host) for group in value)
    flat = [name for group in groups for name in group]
    if len(set(flat)) != len(flat) or not all(groups):
        raise ValueError("must have a host or more in each group, and each host in one group alone")
    return groups


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(value, Kind.TEXT)
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value == ANY:
        raise ValueError(f"is {value!r}: a name has up to 63 letters, digits, '.', '-' or '_', and is not \"{ANY}\"")
    return value


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value, Kind.BOOL)
    return value


def _number(value: object, kind: Kind, least: int | None, most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(value, kind)
    if (least is not None and value < least) or (most is not None and value > most):
        raise _wrong(value, kind)
    return value


def _integer(value: object) -> int:
    return _number(value, Kind.INTEGER, None)


def _cores(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise _wrong(value, Kind.CORES)
    return float(value)


def duration(value: object) -> Duration:
    """A length of time that is not negative. Raises ValueError."""
    if isinstance(value, str) and value.strip().startswith("-"):
        raise ValueError(f'is "{value}": a time must not be negative')
    try:
        found = parse_duration(value)
    except (ValueError, OverflowError):
        raise _wrong(value, Kind.DURATION) from None
    if found < 0:
        raise ValueError(f"is {value!r}: a time must not be negative")
    return found


def _span(value: object) -> int:
    if isinstance(value, str) and value.strip().startswith("-"):
        return -duration(value.strip()[1:])
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        return -duration(-value)
    return duration(value)


def _bound(value: object) -> Duration | None:
    return None if value == "unknown" else duration(value)


def _size(value: object) -> int:
    found = parse_size(value)
    if found == 0:
        raise ValueError("is nothing at all")
    return found


def _ready(value: object) -> str:
    match = _READY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _wrong(value, Kind.READY)
    if match[1] is not None:
        duration(match[1])
    return match[0]


def _labels(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise _wrong(value, Kind.LABELS)
    return dict(value)


def _setting(value: object) -> str:
    return _word(value, Settings.__struct_fields__, "is not a setting")


def _count(value: object) -> tuple[int, int]:
    if isinstance(value, list):
        if len(value) != 2:
            raise _wrong(value, Kind.COUNT_BY_VM)
        least, most = (_number(each, Kind.COUNT_BY_VM, 0) for each in value)
        if least > most:
            raise ValueError(f"is {value!r}: the first number must not be the larger one")
        return least, most
    exactly = _number(value, Kind.COUNT_BY_VM, 0)
    return exactly, exactly


_SIMPLE: dict[Kind, Callable[[object], Any]] = {
    Kind.TEXT: _text,
    Kind.NAME: _name,
    Kind.BOOL: _bool,
    Kind.INTEGER: _integer,
    Kind.COUNT: lambda value: _number(value, Kind.COUNT, 1),
    Kind.TIMES: lambda value: _number(value, Kind.TIMES, -1),
    Kind.PERCENT: lambda value: _number(value, Kind.PERCENT, 0, 100),
    Kind.CORES: _cores,
    Kind.SIZE: _size,
    Kind.DURATION: duration,
    Kind.SPAN: _span,
    Kind.BOUND: _bound,
    Kind.READY: _ready,
    Kind.LABELS: _labels,
    Kind.TEXTS: lambda value: _list(value, Kind.TEXTS, _text),
    Kind.ANYTHING: lambda value: value,
    Kind.SETTING: _setting,
}
