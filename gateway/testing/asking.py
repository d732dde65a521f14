"""Ask a provider for what tests of it look at."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from backgate.gateway.errors import (
    StoreError,
    Unreachable,
)
from backgate.gateway.provider import Page, Provider

ATTEMPTS = 10

T = TypeVar("T")


def keys_of(provider: Provider, prefix: str = "", **asked: Any) -> list[str]:
    """All keys below `prefix`, page by page."""
    return [info.key for page in pages_of(provider, prefix, **asked) for info in page.objects]


def pages_of(provider: Provider, prefix: str = "", delimiter: str = "", **asked: Any) -> list[Page]:
    pages: list[Page] = []
    token = None
    while not pages or token is not None:
        pages.append(provider.page(prefix, delimiter, token=token, **asked))
        token = pages[-1].token
        asked.pop("after", None)
        assert len(pages) < 1000
    return pages


def persistently(call: Callable[[], T]) -> T:
    """Return what `call` returns, asked again where the store says that this may help."""
    for _ in range(ATTEMPTS - 1):
        with suppress(Unreachable):
            return call()
    return call()


def fill(provider: Provider, keys: Iterable[str]) -> None:
    for key in keys:
        provider.put(key, key.encode())


def together(call: Callable[[int], object], count: int) -> list[object]:
    """Return what `count` threads got that all began at the same moment; errors as values."""
    start = threading.Barrier(count)

    def run(number: int) -> object:
        start.wait()
        try:
            return call(number)
        except StoreError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
