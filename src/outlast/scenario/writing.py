"""A scenario as the text of a file: what `--shrink` finds and what the generator makes, to be read and kept by people.

`read(write(scenario))` is the same scenario. What has its default is left out, so that a file says only what matters.
"""

from typing import Any

import msgspec
import tomlkit
from tomlkit.items import InlineTable, Table

from outlast.model.settings import is_length
from outlast.model.units import duration_text, size_text
from outlast.scenario.model import Expectation, Scenario, Step
from outlast.scenario.reading import END
from outlast.scenario.words import ANY, CLAIMS, SCENARIO, TABLES, VERBS, Key, Kind


def write(scenario: Scenario) -> str:
    """The text of a scenario's file."""
    document = tomlkit.document()
    for name, value in _differing(scenario, SCENARIO).items():
        document.add(name, tomlkit.item(value))
    if scenario.settings:
        settings = tomlkit.table()
        for name, value in scenario.settings.items():
            settings.add(name, duration_text(value) if is_length(name) else value)
        document.add("settings", settings)
    for table, keys in TABLES.items():
        _add(document, table, [_differing(spec, keys) for spec in getattr(scenario, table)])
    _add(document, "steps", [_step(step) for step in scenario.steps])
    _add(document, "expect", [_expectation(each) for each in scenario.expect])
    return tomlkit.dumps(document)


def _add(document: tomlkit.TOMLDocument, name: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    tables = tomlkit.aot()
    for row in rows:
        table: Table = tomlkit.table()
        for key, value in row.items():
            table.add(key, _inline(value) if isinstance(value, dict) else value)
        tables.append(table)
    document.add(name, tables)


def _inline(values: dict[str, Any]) -> InlineTable:
    table = tomlkit.inline_table()
    table.update(values)
    return table


def _differing(spec: msgspec.Struct, keys: tuple[Key, ...]) -> dict[str, Any]:
    """The keys of a table that are not as they would be if nothing was said."""
    fields = {field.name: field for field in msgspec.structs.fields(type(spec))}
    row: dict[str, Any] = {}
    for key in keys:
        value, field = getattr(spec, key.attribute), fields[key.attribute]
        default = field.default_factory() if callable(field.default_factory) else field.default
        if value != default:
            row[key.name] = _written(key.kind, value)
    return row


def _step(step: Step) -> dict[str, Any]:
    kinds = {key.name: key.kind for key in VERBS[step.do].keys}
    keys = {name: _written(kinds[name], value) for name, value in step.keys.items()}
    return {"at": duration_text(step.at), "do": step.do, **keys}


def _expectation(expectation: Expectation) -> dict[str, Any]:
    at = END if expectation.at is None else duration_text(expectation.at)
    return {"at": at, **{name: _written(CLAIMS[name].kind, value) for name, value in expectation.claims.items()}}


def _written(kind: Kind, value: Any) -> Any:
    match kind:
        case Kind.DURATION | Kind.SPAN:
            return duration_text(value)
        case Kind.BOUND:
            return "unknown" if value is None else duration_text(value)
        case Kind.SIZE:
            return size_text(value)
        case Kind.HOSTS | Kind.VMS | Kind.DATASTORES | Kind.TEXTS:
            return list(value)
        case Kind.GROUPS:
            return [list(group) for group in value]
        case Kind.HOSTS_BY_VM:
            return {vm: ANY if hosts == (ANY,) else list(hosts) for vm, hosts in value.items()}
        case Kind.COUNT_BY_VM:
            return {vm: least if least == most else [least, most] for vm, (least, most) in value.items()}
        case Kind.DURATION_BY_VM:
            return {vm: duration_text(length) for vm, length in value.items()}
        case _:
            return value
