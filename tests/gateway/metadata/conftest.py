"""A store in memory, and metadata caches over it."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest
import trio
from servers.postgresql import PostgreSQL

from backgate.gateway.metadata import sessions
from backgate.gateway.metadata.cache import Metadata, open_metadata
from backgate.gateway.metadata.listener import Listener
from backgate.gateway.metadata.place import Shared
from backgate.gateway.providers.memory import Memory
from backgate.gateway.store import ObjectStore
from backgate.gateway.units import SECOND_NS

T = TypeVar("T")
OpenCache = Callable[..., AbstractAsyncContextManager[Metadata]]


@pytest.fixture
def memory() -> Memory:
    return Memory("memory:metadata")


@pytest.fixture
def store(memory: Memory) -> ObjectStore:
    return ObjectStore(memory, patience=3600.0)


@pytest.fixture(
    params=["file", pytest.param("postgresql", marks=[pytest.mark.live, pytest.mark.slow])]
)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path | Shared:
    """Where the index is: whatever holds for one in a file holds for one in a database."""
    if request.param == "file":
        return tmp_path
    server: PostgreSQL = request.getfixturevalue("postgresql_server")
    monkeypatch.setattr(sessions, "threads", SimpleNamespace(call=_here))
    monkeypatch.setattr(Listener, "wait", _hear_nothing)
    return Shared(server.server(), "memory")


async def _here(function: Callable[[], T], _limiter: trio.CapacityLimiter, _limit: float) -> T:
    """Call `function` on trio's thread: its clock would jump while it waits for another."""
    return function()


async def _hear_nothing(_listener: Listener, seconds: float) -> None:
    await trio.sleep(seconds)


@pytest.fixture
def open_cache(store: ObjectStore, place: Path | Shared) -> OpenCache:
    """Open the cache of `store`; not crawling, and on trio's clock, unless a test asks for it."""
    defaults = {"writers": "exclusive", "max_age": 60.0, "crawls": False, "now_ns": trio_time_ns}
    return lambda **settings: open_metadata(store, place, **{**defaults, **settings})


def trio_time_ns() -> int:
    return int(trio.current_time() * SECOND_NS)
