"""The rules are those that docs/validation.md shows, and a tier is the worst of them."""

import ast
import re
from pathlib import Path

import pytest

from backgate.gateway.validation import (
    conditions,
    consistency,
    deeds,
    filling,
    listing,
    load,
    names,
    uploads,
)
from backgate.gateway.validation.grading import FAILED, RULES, graded, tier_of
from backgate.gateway.validation.programme import STEPS
from backgate.gateway.validation.report import Finding, Seen

DOCS = Path(__file__).parents[3] / "docs" / "validation.md"
MEASURES = (conditions, consistency, deeds, filling, listing, load, names, uploads)
WORDS = {None: "not usable", 1: "1", 2: "2", 3: "3"}


def found(tier: int | None) -> Finding:
    return Finding("x", "y", "", tier, "")  # type: ignore[arg-type]


def test_the_documentation_shows_every_rule_and_no_other() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]*) \|$", DOCS.read_text(), re.M)

    shown = {(row[0], row[1]): (row[2], row[3]) for row in rows[1:]}

    rules = {
        (subject, outcome): (WORDS[grade.tier], grade.remedy)
        for subject, outcomes in RULES.items()
        for outcome, grade in outcomes.items()
    }
    assert {key: value for key, value in shown.items() if key[0] != "---"} == rules


def test_every_measure_may_fail() -> None:
    for subject, _ in STEPS:
        assert FAILED in RULES[subject]


@pytest.mark.parametrize("module", MEASURES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_outcome_of_a_measure_has_a_rule(module: object) -> None:
    """Whatever text a measure gives as an outcome is one that the rules know."""
    known = {outcome for outcomes in RULES.values() for outcome in outcomes}
    tree = ast.parse(Path(str(module.__file__)).read_text())  # type: ignore[attr-defined]
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Seen"
    ]
    texts = {
        inner.value
        for call in calls
        for inner in ast.walk(call.args[1])
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
    }

    assert calls
    assert texts <= known


def test_the_worst_finding_is_the_tier() -> None:
    assert tier_of([]) == 1
    assert tier_of([found(1), found(2), found(1)]) == 2
    assert tier_of([found(3), found(2)]) == 3
    assert tier_of([found(3), found(None), found(1)]) is None


def test_a_weakness_says_what_is_done_about_it_unless_nothing_can_be() -> None:
    for subject, outcomes in RULES.items():
        for outcome in outcomes:
            finding = graded(Seen(subject, outcome))
            assert bool(finding.remedy) == (finding.tier in (2, 3)) or outcome == "limited"
