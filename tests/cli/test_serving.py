"""What a mount's process tells its kernel of changes in the store."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from backgate.cli.serving import _changed
from backgate.gateway.config import RepositoryConfig
from backgate.gateway.places import Places
from backgate.gateway.providers.memory import Memory, _named
from backgate.gateway.repository import Repository, open_repository


@pytest.fixture
def memory() -> Memory:
    return _named.setdefault("serving", Memory("memory:serving"))


@pytest.fixture
async def repository(tmp_path: Path, memory: Memory) -> AsyncIterator[Repository]:
    config = RepositoryConfig(name="serving", url="memory:serving")
    places = Places(tmp_path / "cache", tmp_path / "spool", tmp_path / "run")
    async with open_repository(config, places, None, writable=False, crawls=False) as opened:
        await opened.metadata.complete()
        yield opened


@pytest.mark.parametrize(
    ("view", "top", "paths"),
    [
        ("all", "", [[b"repository", b"web", b"new"]]),
        ("repository", "", [[b"web", b"new"]]),
        ("all", "repository/web", [[b"new"]]),
        ("all", "repository/other", []),
        ("all", "backups/restic", []),
        ("backups", "", []),
    ],
)
async def test_an_object_that_was_found_is_told_as_a_path_below_the_mount(
    repository: Repository,
    memory: Memory,
    autojump_clock: trio.testing.MockClock,
    view: str,
    top: str,
    paths: list[list[bytes]],
) -> None:
    memory.delete(["web/new"])
    await repository.metadata.refresh()
    await repository.metadata.stored(memory.put("web/own", b"1"), None)
    changed = _changed(repository, view, top)  # type: ignore[arg-type]
    memory.put("web/new", b"1")
    await repository.metadata.refresh()

    assert await changed() == paths


async def test_what_the_mount_changed_itself_is_not_told(
    repository: Repository, memory: Memory, autojump_clock: trio.testing.MockClock
) -> None:
    changed = _changed(repository, "all", "")
    await repository.metadata.stored(memory.put("web/own", b"1"), None)

    assert await changed() == []
