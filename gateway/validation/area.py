"""The throw-away prefix that a validation works in, and how nothing of it is left behind.

What was written is remembered by name, so that cleaning up needs no listing; one is made
afterwards, to see that nothing is left. A run that was killed has left its record, by which the
next one tells that nobody needs its objects any more.
"""

import json
import os
import socket
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import trio

from backgate.gateway.errors import NotFound, StoreError
from backgate.gateway.units import KIB
from backgate.gateway.validation.asking import Asker

ROOT = "backgate-validation/"  # below the repository's prefix
RECORD = "run.json"
RECORD_MAX = 4 * KIB  # bytes
ABANDONED = 86_400.0  # seconds after which a run on another machine counts as dead
PAGES_OF = (1000, 100, 10)  # keys; smaller where larger pages do not come
DELETES_AT_ONCE = 4


@dataclass(slots=True)
class Area:
    """One run's prefix."""

    asker: Asker
    root: str  # where the prefixes of all runs are
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    _keys: set[str] = field(default_factory=set)  # that may exist
    _filled: range = range(0)
    _fan_out: int = 1
    _uploads: dict[str, str] = field(default_factory=dict)  # upload -> its key

    @property
    def prefix(self) -> str:
        return f"{self.root}{self.name}/"

    def key(self, name: str) -> str:
        """Return the key for `name` here, which will be deleted whatever happens."""
        key = self.prefix + name
        self._keys.add(key)
        return key

    def forget(self, key: str) -> None:
        """Drop a key that the store has refused: there is nothing to delete, nor to look for."""
        self._keys.discard(key)

    def fill(self, count: int, fan_out: int) -> None:
        """Take `count` keys below `listed`, `fan_out` to a directory; they too will be deleted."""
        self._filled, self._fan_out = range(count), fan_out

    @property
    def listed(self) -> str:
        """The prefix of what a listing is measured with."""
        return f"{self.prefix}listed/"

    @property
    def filled(self) -> Iterator[str]:
        """The keys that `fill` took, ascending; not kept, since they may be many."""
        for number in self._filled:
            yield f"{self.listed}d{number // self._fan_out:05}/object-{number:07}"

    def began(self, key: str, upload: str) -> str:
        """Remember an upload, which will be aborted, and return it."""
        self._uploads[upload] = key
        return upload

    async def open(self) -> None:
        """Leave the record by which a later run knows whose prefix this is."""
        record = {"host": socket.gethostname(), "started": time.time(), **_process(os.getpid())}
        key, body = self.prefix + RECORD, json.dumps(record).encode()
        await self.asker.surely("put", partial(self.asker.provider.put, key, body))

    async def clean(self) -> list[str]:
        """Delete everything, and return what could not be; the record goes last."""
        await self.asker.settle()
        for upload, key in (await self._pending()).items():
            abort = partial(self.asker.provider.abort_upload, key, upload)
            with suppress(StoreError):  # committed ones are gone
                await self.asker.surely("abort_upload", abort)
        record = self.prefix + RECORD
        left = await delete_all(self.asker, self.filled)
        left += await delete_all(self.asker, sorted(self._keys))
        left += await self._remainder(record)
        left += await delete_all(self.asker, [record])
        return sorted(set(left))

    async def _pending(self) -> dict[str, str]:
        """Return the uploads that we know of, and those whose beginning was cancelled."""
        ask = partial(self.asker.provider.uploads, self.prefix)
        try:
            told = await self.asker.surely("uploads", ask)
        except StoreError:
            return self._uploads
        return self._uploads | {one.upload: one.key for one in told}

    async def _remainder(self, record: str) -> list[str]:
        """Delete what is listed all the same: names that the store has changed."""
        try:
            found = [key for key in await keys_below(self.asker, self.prefix) if key != record]
        except StoreError:
            return []  # all that we know of was deleted by name
        return await delete_all(self.asker, found)


async def remove_leftovers(asker: Asker, root: str) -> tuple[int, list[str]]:
    """Delete what dead runs have left below `root`.

    Returns how many runs that were, and the names of those that are still alive.
    """
    keys = await keys_below(asker, root)
    uploads = await asker.surely("uploads", partial(asker.provider.uploads, root))
    runs = {_run_of(key, root) for key in [*keys, *(one.key for one in uploads)]}
    alive = [run for run in sorted(runs) if await _is_alive(asker, f"{root}{run}/{RECORD}")]
    dead = runs - set(alive)
    for one in uploads:
        if _run_of(one.key, root) in dead:
            abort = partial(asker.provider.abort_upload, one.key, one.upload)
            await asker.surely("abort_upload", abort)
    theirs = [key for key in keys if _run_of(key, root) in dead]
    await delete_all(asker, sorted(theirs, key=lambda key: key.endswith(f"/{RECORD}")))
    return len(dead), alive


async def keys_below(asker: Asker, prefix: str) -> list[str]:
    """Return every key below `prefix`, by smaller pages where larger ones do not come.

    Raises `StoreError` when no size does.
    """
    found: list[str] = []
    token: str | None = None
    sizes = list(PAGES_OF)
    while True:
        ask = partial(asker.provider.page, prefix, token=token, limit=sizes[0])
        if len(sizes) > 1:
            answer = await asker.once("page", ask)
            if answer.value is None:
                del sizes[0]
                continue
            page = answer.value
        else:
            page = await asker.surely("page", ask)
        found += [info.key for info in page.objects]
        if page.token is None:
            return found
        if page.token == token:
            raise StoreError(f"{asker.provider.name}: page {prefix!r}: the same page again")
        token = page.token


async def delete_all(asker: Asker, keys: Iterable[str]) -> list[str]:
    """Delete `keys`, in batches, and return those that could not be."""
    size = asker.provider.abilities.limits.delete_max
    left = iter(keys)
    failed: list[str] = []
    while batches := [batch for _ in range(DELETES_AT_ONCE) if (batch := list(islice(left, size)))]:
        async with trio.open_nursery() as nursery:
            for batch in batches:
                nursery.start_soon(_delete, asker, batch, failed)
    return failed


async def _delete(asker: Asker, keys: list[str], failed: list[str]) -> None:
    failed += await asker.delete(keys)


def _run_of(key: str, root: str) -> str:
    return key.removeprefix(root).partition("/")[0]


async def _is_alive(asker: Asker, record: str) -> bool:
    """True when the run that left `record` may still be at work."""
    try:
        read = partial(asker.provider.get, record, 0, RECORD_MAX)
        found = json.loads(await asker.surely("get", read))
        if found["host"] == socket.gethostname():
            return _process(int(found["pid"])) == {"pid": found["pid"], "born": found["born"]}
        return time.time() - float(found["started"]) < ABANDONED
    except (NotFound, ValueError, KeyError, TypeError):
        return False  # it is written first and deleted last


def _process(pid: int) -> dict[str, int]:
    """Tell a process of this machine from all others, later ones of the same number included."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            born = int(file.read().rpartition(b")")[2].split()[19])  # proc(5): field 22
    except (OSError, IndexError, ValueError):
        return {}
    return {"pid": pid, "born": born}
