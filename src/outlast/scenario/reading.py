"""A scenario file, read: every word of it is known and every name is declared, or all that is wrong is told at once.

    text -> tables (tomllib) -> values (`words`, `values`) -> Scenario -> what hangs together -> what is not built yet

A problem has the line where it stands (`lines`). Nothing is guessed, and nothing that was written is left out.
"""

import tomllib
from pathlib import Path
from typing import Any

from outlast.model.errors import UsageError
from outlast.model.ids import DatastoreName
from outlast.model.rules import Rule
from outlast.model.settings import Settings, parse_setting, problems
from outlast.model.time import Duration
from outlast.scenario.lines import Lines
from outlast.scenario.lines import Path as Place
from outlast.scenario.model import DatastoreSpec, Expectation, HostSpec, Scenario, Step, VmSpec
from outlast.scenario.sense import nonsense
from outlast.scenario.values import Names, convert, duration, nearest
from outlast.scenario.words import CLAIMS, SCENARIO, TABLES, VERBS, Key, Verb

END = "end"
_TOP = ("settings", *TABLES, "steps", "expect")
_SPECS: dict[str, Any] = {"datastores": DatastoreSpec, "hosts": HostSpec, "vms": VmSpec, "rules": Rule}


def read_file(path: Path) -> Scenario:
    """The scenario in a file. Raises UsageError that lists every problem with its line."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise UsageError(f"there is no scenario file {path}", "correct its name") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "check the file and its mode") from None
    return read(text, str(path))


def files_in(path: Path) -> list[Path]:
    """The file; of a directory, all its .toml files. Raises UsageError."""
    if not path.is_dir():
        return [path]
    files = sorted(path.rglob("*.toml"))
    if not files:
        raise UsageError(f"there is no .toml file in {path}", "name a scenario, or a directory of scenarios")
    return files


def read(text: str, path: str = "scenario") -> Scenario:
    """The scenario in a text. Raises UsageError."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}", "correct that place; nothing was run") from None
    reader = _Reader(content, Lines(text))
    scenario = reader.scenario(path)
    if scenario is not None and not reader.problems:
        reader.problems += nonsense(scenario)
    if scenario is None or reader.problems:
        found = sorted({(reader.lines.of(place), sentence) for place, sentence in reader.problems})
        listed = "\n".join(f"  {path}:{line}: {sentence}" for line, sentence in found)
        raise UsageError(f"{path} cannot be played:\n{listed}", "correct it; nothing was run")
    return scenario


class _Reader:
    """Collects problems while it reads; each has the place where it stands and a sentence."""

    def __init__(self, content: dict[str, Any], lines: Lines) -> None:
        self._content = content
        self.lines = lines
        self.problems: list[tuple[Place, str]] = []
        self._names = Names(self._declared("hosts"), self._declared("vms"), self._declared("datastores"))

    def scenario(self, path: str) -> Scenario | None:
        """The whole of it; None if something that it cannot be without is missing or wrong."""
        known = (*(key.name for key in SCENARIO), *_TOP)
        for word in self._content:
            if word not in known:
                self._problem((word,), f"{word} is not a key or table of a scenario: {nearest(word, known)}")
        top = self._keys({k: v for k, v in self._content.items() if k not in _TOP and k in known}, SCENARIO, ())
        for name in ("datastores", "hosts"):
            if not self._content.get(name):
                self._problem((), f"[[{name}]] is missing: a scenario has one or more")
        parts: dict[str, Any] = {name: tuple(self._specs(name)) for name in TABLES}
        settings = self._settings()
        steps, expect = tuple(self._steps()), tuple(self._expectations())
        if self.problems:
            return None
        return Scenario(**top, **parts, settings=settings, steps=steps, expect=expect, path=path)

    def _problem(self, place: Place, sentence: str) -> None:
        self.problems.append((place, sentence))

    # -- tables ---------------------------------------------------------------------------------------------------

    def _tables(self, name: str) -> list[tuple[int, dict[str, Any]]]:
        """The tables of an array of tables, numbered."""
        found = self._content.get(name, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            return []
        return list(enumerate(found))

    def _declared(self, table: str) -> tuple[str, ...]:
        found = self._content.get(table, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            self._problem((table,), f"{table} must be written as [[{table}]], once for each")
        names = [each.get("name") for _, each in self._tables(table)]
        for i, name in enumerate(names):
            if name in names[:i]:
                self._problem((table, i, "name"), f'name is "{name}", which another of the [[{table}]] has already')
        return tuple(name for name in names if isinstance(name, str))

    def _keys(self, found: dict[str, Any], keys: tuple[Key, ...], place: Place, whose: str = "") -> dict[str, Any]:
        """The values of a table's keys by their attribute; what is absent or wrong is left out."""
        by_name = {key.name: key for key in keys}
        values: dict[str, Any] = {}
        for name, value in found.items():
            key = by_name.get(name)
            if key is None:
                owner = whose or (f"[[{place[0]}]]" if place else "a scenario")
                self._problem((*place, name), f"{name} is not a key of {owner}: {nearest(name, by_name)}")
                continue
            try:
                values[key.attribute] = convert(key, value, self._names)
            except ValueError as error:
                self._problem((*place, name), f"{name} {error}")
        for key in keys:
            if key.required and key.name not in found:
                self._problem(place, f"{key.name} is missing: it must be {key.kind}")
        return values

    def _specs(self, table: str) -> list[Any]:
        specs = []
        for i, found in self._tables(table):
            before = len(self.problems)
            values = self._keys(found, TABLES[table], (table, i))
            if table == "vms" and "datastore" not in found:
                if len(self._names.datastores) == 1:
                    values["datastore"] = DatastoreName(self._names.datastores[0])
                else:
                    self._problem((table, i), "datastore is missing: with several datastores a VM must name its own")
            if len(self.problems) == before:
                specs.append(_SPECS[table](**values))
        return specs

    # -- settings -------------------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        found = self._content.get("settings", {})
        if not isinstance(found, dict):
            self._problem(("settings",), "settings must be a table: write it as [settings]")
            return {}
        values: dict[str, Any] = {}
        for name, value in found.items():
            try:
                values[name] = parse_setting(name, value)
            except ValueError as error:
                self._problem(("settings", name), f"{name} {error}")
        if len(values) == len(found):
            for sentence in problems(Settings(**values)):
                mentioned = next((name for name in values if name in sentence), None)
                self._problem(("settings", mentioned) if mentioned else ("settings",), sentence)
        return values

    # -- what happens, and what must be true ----------------------------------------------------------------------

    def _time(self, found: dict[str, Any], place: Place) -> Duration | None:
        if "at" not in found:
            self._problem(place, "at is missing: when is it?")
            return None
        try:
            return duration(found["at"])
        except ValueError as error:
            self._problem((*place, "at"), f"at {error}")
            return None

    def _steps(self) -> list[Step]:
        steps = []
        self._only_tables("steps")
        for i, found in self._tables("steps"):
            place: Place = ("steps", i)
            at = self._time(found, place)
            verb = self._verb(found.get("do"), place)
            if verb is None:
                continue
            rest = {key: value for key, value in found.items() if key not in ("at", "do")}
            values = self._keys(rest, verb.keys, place, f"the verb {verb.name}")
            self._fitting_value(values, place)
            named = sum(key in rest for key in verb.one_of)
            if named > 1 or (verb.one_of and named == 0 and not verb.may_be_bare):
                self._problem(place, f"{verb.name} needs one of {' and '.join(verb.one_of)}, and not both")
            if at is not None:
                steps.append(Step(at=at, do=verb.name, keys=values, line=self.lines.of(place)))
        return steps

    def _fitting_value(self, values: dict[str, Any], place: Place) -> None:
        """What a setting is set to must be a value of that setting; whether it fits to the others is Outlast's to say."""
        if "setting" in values and "value" in values:
            try:
                parse_setting(values["setting"], values["value"])
            except ValueError as error:
                self._problem((*place, "value"), f"value of {values['setting']} {error}")

    def _verb(self, word: object, place: Place) -> Verb | None:
        if isinstance(word, str) and word in VERBS:
            return VERBS[word]
        if word is None:
            self._problem(place, "do is missing: what happens then?")
        else:
            self._problem((*place, "do"), f"{word!r} is not a verb: {nearest(str(word), VERBS)}")
        return None

    def _expectations(self) -> list[Expectation]:
        expectations = []
        self._only_tables("expect")
        for i, found in self._tables("expect"):
            place: Place = ("expect", i)
            at = None if found.get("at") == END else self._time(found, place)
            rest = {key: value for key, value in found.items() if key != "at"}
            claims = self._keys(rest, tuple(CLAIMS.values()), place)
            if not rest:
                self._problem(place, "nothing is expected here: without a claim it says nothing")
            expectations.append(Expectation(at=at, claims=claims, line=self.lines.of(place)))
        return expectations

    def _only_tables(self, name: str) -> None:
        found = self._content.get(name, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            self._problem((name,), f"{name} must be written as [[{name}]], once for each")
