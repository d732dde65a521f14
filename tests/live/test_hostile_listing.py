"""A store that does not survive its own listings: the crawl ends, and nobody sees half a directory.

Every listing of more than a hundred keys hangs, every seventh request is told to slow down, and the
gateway is killed three times on the way.
"""

import http.client
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from servers.faultproxy import FaultProxy, Rule, fault_proxy
from servers.seaweedfs import SeaweedFS
from support.gateway import Gateway, gateway

pytestmark = [pytest.mark.live, pytest.mark.mounted, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
MOST = 100  # keys that the store copes with
WATCHED = 20  # directories that are read all the while; they are listed ahead of the crawl
WRITERS = 16  # connections that fill it
KILLED_AT = (0.2, 0.5, 0.8)  # shares of the objects
MEMORY_MAX = 250 * 1024 * 1024  # bytes resident, the promise


@dataclass(frozen=True)
class Store:
    """What the gateway is to list."""

    table: dict[str, object]  # its configuration
    environment: dict[str, str]
    directories: int
    files: int  # in each

    @property
    def count(self) -> int:
        return self.directories * self.files


def weaken(proxy: FaultProxy, *, hang: float) -> None:
    """Hang on listings of many keys, for `hang` seconds, and refuse each seventh other request."""
    proxy.rules += [
        Rule(keys_above=MOST, delay=hang, is_refused=True),
        Rule(every=7, status=503, code="SlowDown"),
    ]


def fill(server: SeaweedFS, bucket: str, directories: int, files: int) -> None:
    """Put empty objects, by the server's own interface: some thousand in a second."""
    address = urlsplit(server.filer_url)

    def put(numbers: range) -> None:
        connection = http.client.HTTPConnection(address.hostname or "", address.port)
        for number in numbers:
            path = f"/buckets/{bucket}/tree/d{number // files:04}/f{number % files:04}"
            connection.request("PUT", path, body=b"1")
            answer = connection.getresponse()
            answer.read()
            assert answer.status in (200, 201), answer.status
        connection.close()

    count = directories * files
    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(put, [range(first, count, WRITERS) for first in range(WRITERS)]):
            pass


@contextmanager
def names_alone(directories: int, files: int) -> Iterator[str]:
    """Run a server of nothing but names, and give its URL."""
    command = [sys.executable, "-m", "benchmarks.listing_server", directories, files, 0]
    with subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


@contextmanager
def watched(made: Gateway, store: Store, seed: int) -> Iterator[list[str]]:
    """Read some directories again and again meanwhile; what was wrong with any is in the list."""
    wrong: list[str] = []
    is_over = threading.Event()
    some = random.Random(seed).sample(range(store.directories), WATCHED)

    def look() -> None:
        for number in cycle(some):
            if is_over.is_set():
                return
            with suppress(OSError):  # killed just then
                found = len(os.listdir(made.repository / "tree" / f"d{number:04}"))
                if found != store.files:
                    wrong.append(f"d{number:04} has {found} of {store.files} names")

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield wrong
    finally:
        is_over.set()
        made.kill()
        thread.join()


def told(made: Gateway) -> tuple[int, bool]:
    """Return how many keys the pass has been told, and whether it has ended."""
    path = next((made.home / "cache").rglob("index-*.sqlite"))
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        row = db.execute("SELECT crawl_objects, crawl_pass FROM state").fetchone()
    db.close()
    return int(row[0]), row[1] is None


def wait_for(what: Callable[[], bool], within: float) -> None:
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def crawl(made: Gateway, store: Store, within: float) -> None:
    for seed, share in enumerate(KILLED_AT):
        made.mount()
        with watched(made, store, seed) as wrong:
            wait_for(lambda share=share: told(made)[0] > share * store.count, within)  # type: ignore[misc]
        assert wrong == []
    made.mount()
    with suppress(OSError):
        os.listdir(made.repository / "tree")
    wait_for(lambda: told(made)[1], within)


def find(made: Gateway) -> list[str]:
    command = ["find", ".", "-type", "f"]
    found = subprocess.run(command, cwd=made.repository, capture_output=True, text=True, check=True)
    return sorted(line.removeprefix("./") for line in found.stdout.split())


def check(home: Path, store: Store, within: float) -> None:
    with gateway(home, store.table, store.environment) as made:
        crawl(made, store, within)
        keys, _ = told(made)
        found = find(made)
        status = made.json("cache", "status", "store")
        memory = made.resident()

    assert found == [
        f"tree/d{number // store.files:04}/f{number % store.files:04}"
        for number in range(store.count)
    ]
    assert keys < store.count + len(KILLED_AT) * MOST
    assert isinstance(status, dict)
    assert (status["is_complete"], status["objects"]) == (True, store.count)
    assert 50 <= status["page_size"] <= 200
    assert memory < MEMORY_MAX


@pytest.mark.timeout(900)
def test_a_store_that_hangs_and_refuses_is_listed_whole(
    tmp_path: Path, seaweedfs_server: SeaweedFS
) -> None:
    bucket = seaweedfs_server.bucket("hostile-listing")
    fill(seaweedfs_server, bucket, 100, 100)
    with fault_proxy(seaweedfs_server.endpoint_url) as proxy:
        weaken(proxy, hang=5.5)
        table = {
            "url": f"s3://{bucket}",
            "provider": "seaweedfs",
            "endpoint_url": proxy.url,
        }
        store = Store(table, seaweedfs_server.environment(), 100, 100)

        check(tmp_path / "gateway", store, within=120)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_million_objects_behind_such_a_store_are_listed_whole(tmp_path: Path) -> None:
    with names_alone(1000, 1000) as url, fault_proxy(url) as proxy:
        weaken(proxy, hang=float("inf"))
        table = {"url": "s3://many", "provider": "minio", "endpoint_url": proxy.url}
        environment = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        store = Store(table, environment, 1000, 1000)

        check(tmp_path / "gateway", store, within=3600)
