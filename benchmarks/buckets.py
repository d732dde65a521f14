"""What lies in a bucket, asked beside whoever shows it: a benchmark trusts no contender's word."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from servers.seaweedfs import SeaweedFS

STORED_WITHIN = 600.0  # seconds
LOOK_EVERY = 0.1  # seconds between two looks into the bucket
THREADS = 16
BATCH = 1000  # keys of one DeleteObjects


class Bucket:
    """One bucket of the server."""

    def __init__(self, server: SeaweedFS, name: str) -> None:
        self.name, self._server = server.bucket(name), server

    def sizes(self) -> dict[str, int]:
        """Return the size of each object, by key, without those that stand for directories."""
        with self._client() as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
            found = [one for page in pages for one in page.get("Contents", [])]
        return {one["Key"]: one["Size"] for one in found if not one["Key"].endswith("/")}

    def missing(self, expected: Mapping[str, int]) -> int:
        """Return how many of the objects are not there in the size that is expected of them."""
        found = self.sizes()
        return sum(found.get(key) != size for key, size in expected.items())

    def wait_until_stored(self, expected: Mapping[str, int]) -> None:
        """Return once all these objects are there; raises `RuntimeError` if they never are."""
        until = time.monotonic() + STORED_WITHIN
        while self.missing(expected) and time.monotonic() < until:
            time.sleep(LOOK_EVERY)
        self.check(expected)

    def check(self, expected: Mapping[str, int]) -> None:
        """Raise `RuntimeError` unless all these objects are there."""
        if missing := self.missing(expected):
            raise RuntimeError(f"{missing} of {len(expected)} files are not in the bucket")

    def fill(self, contents: Mapping[str, bytes]) -> None:
        """Put many small objects."""
        with self._client() as client, ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(lambda one: self._put(client, *one), contents.items()))

    def empty(self) -> None:
        """Remove all objects, and what is left of their directories."""
        keys = [{"Key": key} for key in self.sizes()]
        with self._client() as client:
            for first in range(0, len(keys), BATCH):
                batch = {"Objects": keys[first : first + BATCH]}
                client.delete_objects(Bucket=self.name, Delete=batch)
        self._server.empty(self.name)

    def remove(self) -> None:
        """Remove the bucket with all that is in it: only so the server gives back the room."""
        self.empty()
        with self._client() as client:
            client.delete_bucket(Bucket=self.name)

    def _put(self, client: Any, key: str, body: bytes) -> None:
        client.put_object(Bucket=self.name, Key=key, Body=body)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        client = self._server.client()
        try:
            yield client
        finally:
            client.close()


def files_below(root: Path) -> dict[str, int]:
    """Return the size of each file below a directory, by the key that it has in its bucket."""
    return {
        str(path.relative_to(root)): path.stat().st_size
        for path in root.rglob("*")
        if path.is_file()
    }
