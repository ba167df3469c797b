"""docs/compared.md is true of the project: what it shows is there, and what it calls not built is what is not built."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compared.md").read_text()
PRODUCTS = ["Proxmox VE", "Pacemaker", "vSphere HA", "Outlast"]


@dataclass(frozen=True)
class Row:
    product: str
    does: str
    source: str


@dataclass(frozen=True)
class Feature:
    title: str
    rows: list[Row]
    shown: dict[str, list[str]]
    """Scenario file -> words that it must contain."""
    not_built: str | None


def features() -> list[Feature]:
    """A section is a feature; the sections that only hold others begin with `## `, and have no table of products."""
    return [_feature(*section) for section in re.findall(r"^### ([^\n]+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)]


def _feature(title: str, text: str) -> Feature:
    lines = [re.split(r" ?\| ?", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    shown = _paragraph(text, "Shown by") or ""
    return Feature(
        title,
        [Row(*line) for line in lines[2:]],
        {path: _quoted(words) for path, words in re.findall(r"`(scenarios/[^`]+)` \(([^)]*)\)", shown)},
        _paragraph(text, "Not built"),
    )


def _paragraph(text: str, name: str) -> str | None:
    found = re.search(rf"^{name}: (.+?)(?=\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return found and found[1]


def _quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def words_of(value: Any) -> Iterator[str]:
    """Each key and each text in a scenario file, at any depth; not its title and its story."""
    if isinstance(value, dict):
        for key, inside in value.items():
            yield key
            if key not in ("title", "story"):
                yield from words_of(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from words_of(inside)
    elif isinstance(value, str):
        yield value


FEATURES = features()
each_feature = pytest.mark.parametrize("feature", FEATURES, ids=[feature.title for feature in FEATURES])


def test_the_page_is_read_as_a_whole() -> None:
    assert len(FEATURES) == PAGE.count("\n### ") >= 25
    assert len({feature.title for feature in FEATURES}) == len(FEATURES)
    assert sum(len(feature.shown) for feature in FEATURES) == PAGE.count("`scenarios/")


@each_feature
def test_every_product_is_named(feature: Feature) -> None:
    assert [row.product for row in feature.rows] == PRODUCTS
    assert all(row.does for row in feature.rows)


@each_feature
def test_what_others_do_has_a_source_or_is_not_known(feature: Feature) -> None:
    for row in feature.rows[:-1]:
        unknown = row.does.startswith(("Unknown", "None documented", "Not documented"))
        assert re.search(r"\[[a-z]", row.source) or (unknown and row.source == "-"), row


def test_every_source_is_listed_with_title_and_address_and_used() -> None:
    sources = " ".join(row.source for feature in FEATURES for row in feature.rows)
    used = set(re.findall(r"\[([a-z0-9-]+)\](?!\()", sources))
    titles = dict(re.findall(r"^\| \[([a-z0-9-]+)\] \| (.+) \|$", PAGE, re.MULTILINE))
    addresses = dict(re.findall(r"^\[([a-z0-9-]+)\]: (https?://\S+)$", PAGE, re.MULTILINE))
    assert used == titles.keys() == addresses.keys()


def test_pages_of_the_project_that_are_named_are_there() -> None:
    for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / path).exists(), path


@each_feature
def test_it_is_shown_by_a_scenario_or_is_not_built(feature: Feature) -> None:
    assert feature.shown or feature.not_built


@each_feature
def test_each_scenario_is_there_and_says_what_it_is_named_for(feature: Feature) -> None:
    for path, words in feature.shown.items():
        content = tomllib.loads((ROOT / path).read_text())
        assert content["expect"], path
        assert words, f"{path} is named without a word that it shows"
        assert set(words) <= set(words_of(content)), path


def test_no_word_of_the_scenario_language_is_called_not_built() -> None:
    for feature in FEATURES:
        assert not _quoted(feature.not_built or ""), feature.title
