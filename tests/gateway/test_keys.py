import pytest
from hypothesis import given
from hypothesis import strategies as st

from backgate.gateway.errors import InvalidKey
from backgate.gateway.keys import (
    NAME_MAX,
    Component,
    component_of,
    key_of,
    name_beside,
    name_of,
    new_key,
    parent_of,
    path_of,
)
from backgate.gateway.provider import Abilities, Limits

NARROW = Abilities(limits=Limits(key_max=64))
ODD = ["", ".", "..", "%", "%=", "~", "%=~", "%2E", "\0", "\n", "\udc80", "\ud83d", "é", "😀", "a"]
components = st.lists(st.sampled_from(ODD) | st.text(max_size=3), max_size=5).map("".join)
anything = components.map(lambda text: text.replace("/", ""))
long_ones = st.builds(
    lambda text, times: (text or "x") * times, anything, st.integers(60, 400)
).filter(lambda text: len(name_of(text)) > 20 and name_of(text).startswith("%=~"))


@pytest.mark.slow
@given(st.lists(anything, min_size=1, max_size=6).map("/".join))
def test_any_key_becomes_a_path_and_the_same_key_again(key: str) -> None:
    path = path_of(key)

    assert key_of(path) == key


@pytest.mark.slow
@given(st.text())
def test_any_text_that_is_short_enough_becomes_a_path_and_the_same_key_again(key: str) -> None:
    path = path_of(key)

    if not any(component_of(name).is_abbreviated for name in path):
        assert key_of(path) == key


@pytest.mark.slow
@given(anything | long_ones)
def test_every_component_has_a_name_that_posix_takes(component: str) -> None:
    for name in (name_of(component), name_beside(component)):
        encoded = name.encode()

        assert 0 < len(encoded) <= NAME_MAX
        assert name not in (".", "..")
        assert b"/" not in encoded
        assert b"\0" not in encoded


@pytest.mark.slow
@given(anything | long_ones)
def test_a_name_beside_a_directory_is_told_from_the_directory(component: str) -> None:
    beside = name_beside(component)

    found = component_of(beside)

    assert beside != name_of(component)
    assert found.is_beside
    assert component.startswith(found.text)
    assert found.is_abbreviated or found.text == component


@pytest.mark.slow
@given(anything, anything)
def test_no_two_components_share_a_name(one: str, other: str) -> None:
    names = [name_of(one), name_beside(one), name_of(other), name_beside(other)]

    assert len(set(names)) == (2 if one == other else 4)


@pytest.mark.slow
@given(long_ones)
def test_a_long_component_keeps_its_readable_beginning(component: str) -> None:
    found = component_of(name_of(component))

    assert found.is_abbreviated
    assert not found.is_beside
    assert component.startswith(found.text)


@pytest.mark.slow
@given(components.map(lambda text: "%=" + text))
def test_a_marked_name_means_one_thing_or_nothing(name: str) -> None:
    try:
        found = component_of(name)
    except InvalidKey:
        return

    if not found.is_abbreviated:
        assert name == (name_beside(found.text) if found.is_beside else name_of(found.text))


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a/b", ["a", "b"]),
        ("a//b", ["a", "%=", "b"]),
        ("/x", ["%=", "x"]),
        ("a/", ["a", "%="]),
        ("./..", ["%=%2E", "%=%2E%2E"]),
        ("%=a", ["%=%25=a"]),
        ("%a", ["%a"]),
        ("~a", ["~a"]),
        ("a\0b", ["%=a%00b"]),
        ("line\nbreak", ["line\nbreak"]),
    ],
)
def test_keys_are_shown_as_documented(key: str, path: list[str]) -> None:
    assert path_of(key) == path
    assert key_of(path) == key


def test_a_component_of_300_bytes_is_abbreviated() -> None:
    name = name_of("n" * 300)

    assert len(name) <= NAME_MAX
    assert name.startswith("%=~nnn")


def test_an_object_beside_a_directory_is_shown_with_the_mark() -> None:
    assert name_beside("a") == "%=a"
    assert component_of("%=a") == Component("a", is_beside=True)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\0", "x" * 256, "%=%41", "%=%FF", "%=%=a"]
)
def test_a_name_that_shows_no_key_is_refused(name: str) -> None:
    with pytest.raises(InvalidKey, match=r"not a"):
        component_of(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"caf\xe9", "UTF-8"),
        (b"%=", "empty"),
        (b"%=a", "stand for keys that exist"),
        (b"%=%41", "canonical"),
        (b"n" * 100, "1 to 64 bytes"),
    ],
)
def test_a_new_name_that_cannot_be_a_key_is_refused_with_the_reason(
    name: bytes, reason: str
) -> None:
    with pytest.raises(InvalidKey, match=reason):
        new_key("dir/", name, NARROW)


def test_a_new_name_becomes_the_key_that_shows_it() -> None:
    assert new_key("dir/", "é".encode(), NARROW) == "dir/é"
    assert new_key("dir/", b"%=%2E", NARROW) == "dir/."


def test_the_parent_of_a_key_is_its_directory() -> None:
    assert parent_of("a/b") == "a/"
    assert parent_of("a/") == "a/"
    assert parent_of("a") == ""
