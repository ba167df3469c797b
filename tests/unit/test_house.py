"""Style is a test: the size of files and functions, files that nobody uses, words that mean unfinished.

Which floor may import which is checked by import-linter (pyproject.toml); `make check` runs both.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
FILES = sorted(path for path in SOURCE.rglob("*.py") if path.stat().st_size)
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 500, 60
ENTRIES = {
    "outlast.interfaces.cli",
    "outlast.keeper.process",
    "outlast.keeper.hook",
    "outlast.drivers.datastore.helper",
    "outlast.lab.init",
    "outlast.lab.faultfs",
    "outlast.sim.exhaustive",
    "outlast.sim.random_runs",
    "outlast.sim.ordeals",
}
"""Started as programs of their own, and what drives the simulated world."""


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MOST_LINES
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "it does not say what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MOST_LINES_OF_A_FUNCTION, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_left_unfinished(path: Path) -> None:
    words = [word for word in ("TODO", "FIXME", "XXX", "NotImplementedError") if word in path.read_text()]
    assert words == []


def imported(path: Path) -> set[str]:
    """The modules that a file names in imports, and in strings (lazy command groups, `python -m`)."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("outlast."):
            found.add(node.value.partition(":")[0])
    return found


def test_every_file_is_used_by_the_product() -> None:
    used = {module for path in FILES for module in imported(path) if module != name_of(path)}
    unused = {name_of(p) for p in FILES if p.name != "__init__.py"} - used - ENTRIES
    assert unused == set(), "nobody imports these: delete them, or name them as an entry"
