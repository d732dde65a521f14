"""Tests of `gateway/profiles/statements.py`: what a profile states, and how sure that is."""

import json

import pytest
from msgspec import to_builtins

from backgate.gateway.profiles import parse, profile, profiles
from backgate.gateway.profiles.statements import statements

TEXT = """
title = "x"
limits = { part_count = 1000 }

[[facts]]
about = ["limits"]
fact = "as S3"
source = "everybody"
confidence = "unconfirmed"

[[facts]]
about = ["limits.part_count", "versioning"]
fact = "1000"
source = "a page"
confidence = "third party"

[[facts]]
about = ["versioning"]
fact = "none"
source = "a test"
confidence = "test"
"""


def test_a_statement_is_as_sure_as_the_best_that_is_said_of_it() -> None:
    found = {one.key: one for one in statements(parse(TEXT, "x.toml"))}

    assert (found["versioning"].support, found["versioning"].is_confirmed) == ("test", True)
    assert found["versioning"].sources == ("a page", "a test")
    assert found["region"].support == "assumed"
    assert not found["region"].is_confirmed


def test_what_was_tried_counts_more_than_what_is_written() -> None:
    fact = '[[facts]]\nabout = ["versioning"]\nfact = "x"\nsource = "x"\nconfidence = "{}"\n'
    text = 'title = "x"\n' + fact.format("documentation") + fact.format("test")

    found = {one.key: one for one in statements(parse(text, "x.toml"))}

    assert found["versioning"].support == "test"


def test_what_is_said_of_a_table_gives_way_to_what_is_said_of_a_key() -> None:
    found = {one.key: one for one in statements(parse(TEXT, "x.toml"))}

    assert found["limits.part_count"].value == 1000
    assert found["limits.part_count"].support == "third party"
    assert found["limits.part_max"].support == "unconfirmed"


@pytest.mark.parametrize("name", profiles())
def test_every_statement_can_be_told_to_a_program(name: str) -> None:
    found = statements(profile(name))

    assert len({one.key for one in found}) == len(found)
    assert json.dumps(to_builtins(found))
