"""How a safety rule is switched off for a while, and on again: the rules themselves are in `mutants.py`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

_Patch = tuple[Any, str, Any]


class Mutant(msgspec.Struct, frozen=True):
    """One rule switched off. `rule`: its number in design.md section 2; `what`: what is done wrong, as a sentence."""

    name: str
    rule: int
    what: str
    ordeal: str
    patches: tuple[_Patch, ...]


MUTANTS: dict[str, Mutant] = {}


def mutant(
    rule: int, what: str, ordeal: str, *targets: tuple[Any, str]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function, named as the mutant, that takes the place of each target (of a class or a module)."""

    def add(replacement: Callable[..., Any]) -> Callable[..., Any]:
        name = replacement.__name__.strip("_").replace("_", "-")
        patches = tuple((owner, attribute, replacement) for owner, attribute in targets)
        MUTANTS[name] = Mutant(name, rule, what, ordeal, patches)
        return replacement

    return add


def also(name: str, owner: Any, attribute: str, replacement: Any) -> None:
    """A mutant that needs one more method replaced."""
    before = MUTANTS[name]
    MUTANTS[name] = msgspec.structs.replace(before, patches=(*before.patches, (owner, attribute, replacement)))


@contextlib.contextmanager
def broken(name: str) -> Iterator[None]:
    """With one rule switched off. Raises KeyError for a name that is none."""
    patches = MUTANTS[name].patches
    saved = [(owner, attribute, owner.__dict__[attribute]) for owner, attribute, _ in patches]
    for owner, attribute, replacement in patches:
        setattr(owner, attribute, replacement)
    try:
        yield
    finally:
        for owner, attribute, original in saved:
            setattr(owner, attribute, original)
