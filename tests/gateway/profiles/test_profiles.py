"""Profiles: the ones that come along are right, and wrong ones say where."""

import tomllib
from dataclasses import asdict

import msgspec
import pytest

from backgate.gateway.endpoints import provider_at
from backgate.gateway.errors import ConfigError
from backgate.gateway.profiles import Profile, built_in, parse, profile, profiles
from backgate.gateway.provider import Abilities, KeyRules


@pytest.mark.parametrize("name", profiles())
def test_each_profile_is_whole_and_says_where_its_facts_are_from(name: str) -> None:
    found = profile(name)

    assert found.title
    assert found.facts
    assert all(fact.fact and fact.source for fact in found.facts)
    assert isinstance(found.abilities(), Abilities)


@pytest.mark.parametrize("name", profiles())
def test_whatever_a_profile_says_has_a_source(name: str) -> None:
    found = profile(name)
    said = tomllib.loads(built_in(name)).keys() - {"title", "summary", "scheme", "facts"}
    known = set(Profile.__struct_fields__)

    about = {key.partition(".")[0] for fact in found.facts for key in fact.about}

    assert about <= known, "a fact about a key that there is not"
    assert said | {"tier"} <= about


@pytest.mark.parametrize("name", [one for one in profiles() if profile(one).scheme == "s3"])
def test_a_profile_knows_its_own_addresses(name: str) -> None:
    found = profile(name)
    for template in filter(None, (found.endpoint, *found.other_endpoints)):
        url = template.format(region="some-1", account="acme")

        assert provider_at(url) == name, url


def test_a_region_of_a_provider_is_one_that_its_own_list_has() -> None:
    for name in profiles():
        found = profile(name)
        assert not found.region or not found.regions or found.region in found.regions, name


def test_what_a_profile_leaves_out_is_the_safe_choice() -> None:
    abilities = parse('title = "x"', "x.toml").abilities()

    assert not abilities.conditional_put
    assert not abilities.lists_in_order
    assert not abilities.forgets_prefixes


def test_limits_and_key_rules_reach_the_abilities() -> None:
    text = 'title = "x"\nlimits = { part_count = 1000 }\nkeys = { reserved = [".x"] }'

    abilities = parse(text, "x.toml").abilities()

    assert abilities.limits.part_count == 1000
    assert abilities.keys == KeyRules(reserved=(".x",))


def test_a_key_that_an_unencoded_listing_cannot_tell_is_refused() -> None:
    text = 'title = "x"\nlist_url_encode = false\nkeys = { refused = "!" }'

    abilities = parse(text, "x.toml").abilities()

    assert all(abilities.fault(f"a{each}b") for each in "!\n\r\x01\uffff")
    assert abilities.fault("a b&c<é") is None
    assert parse('title = "x"', "x.toml").abilities().fault("a\nb") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('title = "x"\nteir = 1', "teir"),
        ('title = "x"\ntier = 4', "tier"),
        ('title = "x"\nlimits = { part_cuont = 1 }', "limits: unknown key 'part_cuont'"),
        ('title = "x"\nkeys = { component_max = "a" }', "int"),
        ('title = "x"\nlimits = { part_max = "5 GiBs" }', "'5 GiBs' is not a size"),
        ('title = "x"\nrate = { lists = 5 }', "rate: unknown key 'lists'"),
        ('title = "x"\nconditional_put = true', "conditional_put"),
        ("title = ", "x.toml"),
        ("", "title"),
    ],
)
def test_a_wrong_profile_names_the_key(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(text, "x.toml")


@pytest.mark.parametrize(
    ("rules", "key", "is_fine"),
    [
        ({}, "a//../b\\\0" + "c" * 300, True),
        ({"component_max": 3}, "abc/def/", True),
        ({"component_max": 3}, "abc/éé", False),
        ({"dot_components": False}, "a/..b/...", True),
        ({"dot_components": False}, "a/..", False),
        ({"dot_components": False}, "./a", False),
        ({"empty_components": False}, "a/b/", True),
        ({"empty_components": False}, "a//", False),
        ({"empty_components": False}, "/a", False),
        ({"refused": "\\"}, "a\\b", False),
        ({"reserved": (".x",)}, "a/.x", True),
        ({"reserved": (".x",)}, ".x/a", False),
    ],
)
def test_key_rules_say_what_cannot_be_kept(
    rules: dict[str, object], key: str, is_fine: bool
) -> None:
    found = msgspec.convert(asdict(KeyRules()) | rules, KeyRules)

    assert (found.fault(key) is None) == is_fine
