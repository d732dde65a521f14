"""A store in memory, and metadata caches over it."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

from backgate.gateway.metadata.cache import Metadata, open_metadata
from backgate.gateway.providers.memory import Memory
from backgate.gateway.store import ObjectStore
from backgate.gateway.units import SECOND_NS

OpenCache = Callable[..., AbstractAsyncContextManager[Metadata]]


@pytest.fixture
def memory() -> Memory:
    return Memory("memory:metadata")


@pytest.fixture
def store(memory: Memory) -> ObjectStore:
    return ObjectStore(memory, patience=3600.0)


@pytest.fixture
def open_cache(store: ObjectStore, tmp_path: Path) -> OpenCache:
    """Open the cache of `store`; not crawling, and on trio's clock, unless a test asks for it."""
    defaults = {"writers": "exclusive", "max_age": 60.0, "crawls": False, "now_ns": trio_time_ns}
    return lambda **settings: open_metadata(store, tmp_path, **{**defaults, **settings})


def trio_time_ns() -> int:
    return int(trio.current_time() * SECOND_NS)
