"""Which rules hold: a contradiction is found when it is written, named, and the least is dropped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning_values import member, rule

from outlast.model.rules import Rule, problem
from outlast.protocol.planning.rulebook import contradiction, resolve

HOSTS = (member("h1", rack="a"), member("h2", rack="a"), member("h3", rack="b"))


def dropped(*rules: Rule) -> list[tuple[Rule, tuple[Rule, ...]]]:
    return [(each.rule, each.against) for each in resolve(rules, HOSTS).dropped]


def test_rules_that_agree_all_hold() -> None:
    rules = (
        rule("keep-apart", "a", "b", "c"),
        rule("keep-together", "a", "d"),
        rule("run-on", "d", hosts={"h1": 2, "h2": 1}),
        rule("avoid", "b", hosts={"h3": 1}, required=False),
    )
    book = resolve(rules, HOSTS)
    assert (book.rules, book.dropped) == (rules, ())


def test_required_before_preferred() -> None:
    required, preferred = rule("keep-apart", "a", "b"), rule("keep-together", "a", "b", required=False)
    assert dropped(required, preferred) == [(preferred, (required,))]
    assert dropped(preferred, required) == [(preferred, (required,))]


def test_later_before_earlier() -> None:
    earlier, later = rule("run-on", "a", hosts={"h1": 1}), rule("run-on", "a", hosts={"h2": 1})
    assert dropped(earlier, later) == [(earlier, (later,))]


def test_together_reaches_over_rules_that_share_a_vm() -> None:
    rules = (rule("keep-apart", "a", "c"), rule("keep-together", "a", "b"), rule("keep-together", "b", "c"))
    assert dropped(*rules) == [(rules[0], (rules[1], rules[2]))]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ((rule("run-on", "a", hosts={"h1": 1}), rule("avoid", "a", hosts={"h1": 1})), "no host is left for a"),
        ((rule("avoid", "a", hosts={"h1": 1, "h2": 1, "h3": 1}),), "no host is left for a"),
        (
            (
                rule("keep-together", "a", "b"),
                rule("run-on", "a", hosts={"h1": 1}),
                rule("run-on", "b", hosts={"h2": 1, "h3": 1}),
            ),
            "no host is left for a and b",
        ),
        ((rule("keep-apart", "a", "b", "c", "d"),), "would need 4 hosts of their own"),
        ((rule("keep-apart", "a", "b", "c", by="rack"),), "would need 3 values of the label rack"),
        (
            (rule("keep-apart", "a", "b", "c"), rule("run-on", "a", "b", "c", hosts={"h1": 1, "h2": 1})),
            "would need 3 hosts of their own",
        ),
    ],
)
def test_every_contradiction_is_told(rules: tuple[Rule, ...], words: str) -> None:
    assert words in contradiction(rules, HOSTS)
    book = resolve(rules, HOSTS)
    assert len(book.dropped) == 1
    assert words in str(book.dropped[0])
    assert book.dropped[0].rule == rules[0]


def test_rules_that_do_not_matter_are_not_named() -> None:
    clash = rule("run-on", "a", hosts={"h1": 1}), rule("run-on", "a", hosts={"h2": 1})
    bystander = rule("keep-apart", "x", "y")
    assert dropped(clash[0], bystander, clash[1]) == [(clash[0], (clash[1],))]


@given(st.permutations([rule("run-on", "a", hosts={f"h{i}": 1}, required=i % 2 == 0) for i in (1, 2, 3)]))
def test_what_is_kept_never_contradicts_itself(rules: list[Rule]) -> None:
    book = resolve(rules, HOSTS)
    assert contradiction(book.rules, HOSTS) == ""
    assert len(book.rules) + len(book.dropped) == len(rules)
    assert all(contradiction([*each.against, each.rule], HOSTS) for each in book.dropped)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (rule("run-on", "a"), "must name hosts"),
        (rule("keep-apart", "a"), "needs two VMs or more"),
        (rule("keep-apart", "a", "b", hosts={"h1": 1}), "leave hosts out"),
        (rule("avoid", "a", hosts={"h1": 1}, failback=True), "failback"),
        (rule("keep-together", "a", "b", by="rack"), "label"),
    ],
)
def test_what_a_rule_cannot_say(wrong: Rule, words: str) -> None:
    assert words in problem(wrong)
