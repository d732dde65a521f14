"""An `ObjectStore` as a `Provider`: what blocking tests see is what the gateway sees, faults waited
out.
"""

import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import trio
from trio.testing import MockClock

from backgate.gateway.provider import (
    NO_METADATA,
    Body,
    ObjectInfo,
    Page,
    PendingUpload,
    Provider,
)
from backgate.gateway.store import ObjectStore

PATIENCE = 600.0  # seconds of a clock that jumps
IDLE = 0.02  # seconds of doing nothing before it jumps; threads may be at work meanwhile

T = TypeVar("T")


@contextmanager
def waited_out(provider: Provider) -> Iterator[Provider]:
    """Provide `provider` as an `ObjectStore` shows it; its pauses take no time."""
    started, ended = threading.Event(), trio.Event()
    tokens: list[trio.lowlevel.TrioToken] = []

    async def main() -> None:
        tokens.append(trio.lowlevel.current_trio_token())
        started.set()
        await ended.wait()

    clock = MockClock(autojump_threshold=IDLE)
    thread = threading.Thread(target=partial(trio.run, main, clock=clock), name="store")
    thread.start()
    started.wait()
    try:
        yield _Blocking(provider, ObjectStore(provider, patience=PATIENCE), tokens[0])
    finally:
        trio.from_thread.run_sync(ended.set, trio_token=tokens[0])
        thread.join()


class _Blocking(Provider):
    def __init__(
        self, provider: Provider, store: ObjectStore, token: trio.lowlevel.TrioToken
    ) -> None:
        self.name, self.abilities = provider.name, provider.abilities
        self._store, self._token = store, token

    def _run(self, call: Callable[[], Awaitable[T]]) -> T:
        return trio.from_thread.run(call, trio_token=self._token)

    def check(self) -> None:
        self._run(self._store.check)

    def head(self, key: str) -> ObjectInfo:
        return self._run(partial(self._store.head, key))

    def get(self, key: str, start: int, stop: int, etag: str | None = None) -> bytes:
        return self._run(partial(self._store.get, key, start, stop, etag))

    def put(
        self,
        key: str,
        body: Body,
        metadata: Mapping[str, str] = NO_METADATA,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        return self._run(partial(self._store.put, key, body, metadata, if_absent=if_absent))

    def copy(
        self, source: str, target: str, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        return self._run(partial(self._store.copy, source, target, metadata))

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        return self._run(partial(self._store.delete, keys))

    def delete_version(self, key: str, etag: str) -> None:
        if not self.abilities.conditional_delete:
            super().delete_version(key, etag)
        for error in self._run(partial(self._store.delete, [key], None, {key: etag})).values():
            raise error

    def page(
        self,
        prefix: str = "",
        delimiter: str = "",
        *,
        after: str = "",
        token: str | None = None,
        limit: int = 1000,
    ) -> Page:
        ask = partial(self._store.page, prefix, delimiter, after=after, token=token, limit=limit)
        return self._run(ask)

    def begin_upload(self, key: str, metadata: Mapping[str, str] = NO_METADATA) -> str:
        return self._run(partial(self._store.begin_upload, key, metadata))

    def put_part(self, key: str, upload: str, number: int, body: Body) -> str:
        return self._run(partial(self._store.put_part, key, upload, number, body))

    def copy_part(
        self,
        key: str,
        upload: str,
        number: int,
        source: str,
        start: int,
        stop: int,
        etag: str | None = None,
    ) -> str:
        ask = partial(self._store.copy_part, key, upload, number, source, start, stop, etag)
        return self._run(ask)

    def commit_upload(
        self, key: str, upload: str, parts: Sequence[tuple[int, str]], *, if_absent: bool = False
    ) -> ObjectInfo:
        ask = partial(self._store.commit_upload, key, upload, parts, if_absent=if_absent)
        return self._run(ask)

    def abort_upload(self, key: str, upload: str) -> None:
        self._run(partial(self._store.abort_upload, key, upload))

    def uploads(self, prefix: str = "") -> Sequence[PendingUpload]:
        return self._run(partial(self._store.uploads, prefix))

    def close(self) -> None:
        self._run(self._store.aclose)
