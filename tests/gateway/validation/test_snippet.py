"""The profile that a validation prints is one that the configuration takes."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backgate.gateway.config import read_configuration
from backgate.gateway.profiles import Profile, profile, profiles
from backgate.gateway.validation.grading import graded
from backgate.gateway.validation.report import Seen
from backgate.gateway.validation.snippet import snippet

DAY = "2026-11-22"


def read(text: str, folder: Path) -> Profile:
    path = folder / "backgate.toml"
    repository = '[repository.a]\nurl = "s3://b"\nprovider = "mine"\n'
    path.write_text(f"{text}\n{repository}", encoding="utf-8")
    found = read_configuration(path).repositories["a"].profile
    assert found is not None
    return found


def printed(base: Profile, *seen: Seen) -> str:
    return snippet("mine", base, 2, seen, [graded(one) for one in seen], DAY)


@pytest.mark.parametrize("name", sorted(profiles()))
def test_a_profile_reads_back_as_it_was(name: str, tmp_path: Path) -> None:
    base = profile(name)

    found = read(printed(base), tmp_path)

    assert found.abilities() == base.abilities()
    assert (found.endpoint, found.price, found.limits) == (base.endpoint, base.price, base.limits)
    assert (found.title, found.tier) == (f"{base.title}, measured", 2)


def test_what_was_measured_is_in_it(tmp_path: Path) -> None:
    seen = [
        Seen("conditional put", "enforced", "", {"conditional_put": "enforced"}),
        Seen("conditional commit", "ignored", "", {"conditional_put": "ignored"}),
        Seen("order", "other", "", {"lists_in_order": False}),
        Seen("pages by delimiter", "time out", "of 1000", {"list_delimiter_scans": True}),
        Seen("list after write", "late", "", {"list_consistency": "eventual", "list_grace": 3.0}),
        Seen("metadata", "little", "", {"limits.metadata_max": 512}),
        Seen("request rate", "few", "", {"rate.get": 50.0}),
    ]

    found = read(printed(profile("aws"), *seen), tmp_path)

    abilities = found.abilities()
    assert found.conditional_put == "ignored"
    assert not abilities.lists_in_order
    assert abilities.listing.delimiter_scans
    assert abilities.listing.grace == 3.0
    assert abilities.limits.metadata_max == 512
    assert abilities.rates.get == 50.0
    assert [fact.confidence for fact in found.facts] == ["test"] * 6
    assert all(DAY in fact.source for fact in found.facts)
    assert found.facts[2].about == ["list_delimiter_scans"]


def test_names_that_were_kept_are_refused_no_more(tmp_path: Path) -> None:
    base = profile("generic")
    assert base.abilities().keys.fault("a\\b") is not None
    rules = {
        "keys.component_max": None,
        "keys.refused": "?#",
        "keys.dot_components": True,
        "keys.empty_components": True,
    }

    keys = (
        read(printed(base, Seen("special keys", "refused", "", rules)), tmp_path).abilities().keys
    )

    assert keys.fault("a\\b") is None
    assert keys.fault("c" * 300) is None
    assert keys.fault("d/../x") is None
    assert keys.fault("a?b") is not None


@pytest.mark.slow
@settings(max_examples=30)
@given(detail=st.text(), refused=st.text(st.characters(exclude_categories=()), max_size=50))
def test_any_words_of_a_store_are_toml(
    tmp_path_factory: pytest.TempPathFactory, detail: str, refused: str
) -> None:
    seen = Seen("special keys", "refused", detail, {"keys.refused": refused})

    found = read(printed(Profile(title="x"), seen), tmp_path_factory.getbasetemp())

    assert found.facts[0].fact == f"special keys: refused: {detail}".removesuffix(": ")
    assert found.keys["refused"] == refused.encode("utf-8", "replace").decode()
