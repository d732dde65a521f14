"""Nothing in the key space can break a listing: each key is told once, and is found by its name."""

import tempfile
import unicodedata
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from backgate.gateway.metadata.cache import Metadata, open_metadata
from backgate.gateway.metadata.rows import Known
from backgate.gateway.provider import Abilities, Listing
from backgate.gateway.providers.memory import Memory
from backgate.gateway.store import ObjectStore

LONGEST = 1024  # bytes of a key

ODD = [
    "a//b",
    "/",
    "//",
    "/leading",
    "trailing/",
    "both",
    "both/inner",
    "both/",
    "\x01control\x1f",
    "new\nline",
    "tab\tand\r",
    "nul\0inside",
    "\x7f",
    unicodedata.normalize("NFC", "é/Å/ﬁ"),
    unicodedata.normalize("NFD", "é/Å/ﬁ"),
    unicodedata.normalize("NFKC", "ﬁ"),
    "\U0010ffff",
    "\uffff\U0001f600",
    "%2F/%=/%",
    ".",
    "..",
    "./..",
    "x" * LONGEST,
    "é" * (LONGEST // 2),
    "d/" * (LONGEST // 2),
]

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
components = st.sampled_from(["", ".", "..", "a", "a-", "é", "é", "\0", "\n", "%=", "x" * 300])
keys = st.lists(components | texts, min_size=1, max_size=5).map("/".join).filter(bool)
orders = st.sampled_from(["sure", "claimed", "none"])


def abilities(order: str) -> Abilities:
    return Abilities(lists_in_order=order != "none", listing=Listing(order_is_sure=order == "sure"))


async def walked(metadata: Metadata, prefix: str = "") -> list[str]:
    """Return every key that is found by going through directories, by each file's own name."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page, cursor = await metadata.children(prefix, cursor, 3)
        for name, one in page:
            again = await metadata.look_up_name(prefix, name)
            if isinstance(one, Known):
                assert isinstance(again, Known)
                assert again.info.key == one.info.key
                found.append(one.info.key)
            else:
                assert not isinstance(again, Known)
                assert again.prefix == one.prefix
                found += await walked(metadata, one.prefix)
        if cursor is None:
            return found


async def check(held: set[str], order: str, size: int, directory: Path) -> None:
    memory = Memory("memory:odd", abilities(order))
    for key in held:
        memory.put(key, b"1")
    page = memory.page
    memory.page = lambda *args, limit=1000, **rest: page(*args, limit=min(limit, size), **rest)  # type: ignore[method-assign]
    async with open_metadata(
        ObjectStore(memory), directory, writers="exclusive", max_age=60, crawls=False
    ) as metadata:
        by_level = await walked(metadata)
        await metadata.refresh()
        await metadata.refresh()
        flat = [info.key for info in await metadata.below("")]
        again = await walked(metadata)

    assert flat == sorted(held)
    assert sorted(by_level) == sorted(again) == sorted(held)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["sure", "claimed", "none"])
def test_known_oddities_are_listed_and_found(tmp_path: Path, order: str) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)

    trio.run(check, set(ODD), order, 4, tmp_path, clock=clock)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.sets(keys, max_size=25), orders, st.integers(1, 7))
def test_any_keys_are_listed_and_found(held: set[str], order: str, size: int) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    with tempfile.TemporaryDirectory() as directory:
        trio.run(check, held, order, size, Path(directory), clock=clock)
