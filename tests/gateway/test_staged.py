"""Tests of `gateway/staged.py`."""

import pytest

from backgate.gateway.staged import StagedNames


@pytest.mark.parametrize(
    "key",
    [
        "data/5d/5d0f-tmp-1234",
        "config.tmp",
        "deep/er/x.tmp.0af3",
        "film.partial",
        "film.a1b2c3.partial",
        "index.lock",
        "dir/.name.AbC12x",
        "dir/.~tmp~/name",
        ".git/objects/ab/tmp_obj_AbC12x",
        "catalogue.db-journal",
        ".git/objects/pack/.tmp-4711-pack-0af3.idx",
    ],
)
def test_temporary_names_of_known_tools_are_staged(key: str) -> None:
    assert StagedNames().matches(key)


@pytest.mark.parametrize(
    "key",
    [
        "data/5d/5d0f",
        "x.tmp/inside",
        "a-tmp-",
        "name.AbC12x",
        ".name.AbC12",
        "tmp/name",
        "x.parts",
        "tmp_x",
        "the-journal",
    ],
)
def test_other_names_are_not(key: str) -> None:
    assert not StagedNames().matches(key)


def test_an_administrator_can_add_patterns() -> None:
    staged = StagedNames(["*.dat", "incoming/*"])

    assert staged.matches("dump/vm.vma.dat")
    assert staged.matches("a/incoming/x")
    assert not staged.matches("a/incoming/x/y")
    assert staged.matches("x.tmp")
