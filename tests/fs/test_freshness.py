"""Tests of how old what a repository's tree tells may be, and how long the kernel may keep it."""

from pathlib import Path
from typing import Literal

import msgspec
import pytest
from support.writing import CONFIG, memory, opened

from backgate.fs.attributes import absent, lifetime

SHARED = msgspec.structs.replace(CONFIG, writers="shared")


async def test_a_directory_is_listed_once_for_each_who_lists_it(tmp_path: Path) -> None:
    provider = memory()
    provider.put("file", b"content")
    async with opened(tmp_path, provider, SHARED, max_age=0) as repository:
        root = await repository.tree.root()
        for listed in (repository.tree.children, repository.tree.names):
            provider.requests.clear()
            page = await listed(root)

            assert len(page.entries) == 1
            assert [verb for verb, _ in provider.requests].count("page") == 1


@pytest.mark.parametrize("writers", ["exclusive", "shared"])
async def test_the_kernel_keeps_no_absence_that_another_gateway_may_end(
    tmp_path: Path, writers: Literal["exclusive", "shared"]
) -> None:
    config = msgspec.structs.replace(CONFIG, writers=writers)
    async with opened(tmp_path, memory(), config) as repository:
        seconds = absent(repository.tree).entry_timeout

        assert bool(seconds) == (writers == "exclusive")
        assert lifetime(repository.tree) > 0
