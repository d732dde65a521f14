"""Crashes at moments that nobody chose, forty in each of six tools, and in the recovery from them.

No byte is lost whose close, fsync or publishing rename had returned; no object is half of a file;
nothing is seen before what was published before it; nothing hidden or begun is left in the store.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from servers.seaweedfs import SeaweedFS
from support.crashing import PASSWORD, WRITERS, Writer, free
from support.gateway import Gateway, gateway

from backgate.gateway.records import HIDDEN

pytestmark = [pytest.mark.soak, pytest.mark.live, pytest.mark.mounted, pytest.mark.timeout(7200)]

ROUNDS = 40  # of each writer
IN_RECOVERY = 0.4  # of the rounds, another crash while the first is being taken up


class Crashes:
    """One gateway that is killed again and again, and the bucket behind it."""

    def __init__(self, made: Gateway, server: SeaweedFS, bucket: str, seed: int) -> None:
        self.made, self._client, self._bucket = made, server.client(), bucket
        self._url = server.endpoint_url
        self.generator = random.Random(seed)

    def configure(self) -> None:
        """Choose how the next round writes."""
        choose = self.generator.choice
        self.made.configure(
            {
                "url": f"s3://{self._bucket}",
                "provider": "seaweedfs",
                "endpoint_url": self._url,
                "durability": choose(["store", "journal"]),
                "spool": choose(["24 MiB", "4 GiB"]),
            }
        )

    def keys(self, prefix: str = "") -> list[str]:
        pages = self._client.get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self._bucket, Prefix=prefix)
        return [item["Key"] for page in found for item in page.get("Contents", [])]

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Return all objects below `prefix`, by the rest of their keys, but for markers."""
        keys = [key for key in self.keys(prefix) if not key.endswith("/")]
        get = self._client.get_object
        return {
            key.removeprefix(prefix): get(Bucket=self._bucket, Key=key)["Body"].read()
            for key in keys
        }

    def clear(self, prefix: str) -> None:
        for key in sorted(self.keys(prefix), reverse=True):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def discard_all(self) -> None:
        """Drop what no tool was told is safe, so that rounds do not meet."""
        listed = self.made.json("spool", "list", "store")
        assert isinstance(listed, list)
        for name in {f"repository/{one['key']}" for one in listed}:
            self.made.run("spool", "discard", "store", name, "--yes")
        self.made.run("spool", "wait", "store")

    def uploads(self) -> Any:
        return self._client.list_multipart_uploads(Bucket=self._bucket).get("Uploads", [])

    def crash(self, writer: Writer) -> None:
        """Let the tool write for a while, and kill the gateway under it."""
        command = writer.command
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | PASSWORD, start_new_session=True,
        ) as tool:  # fmt: skip
            time.sleep(self.generator.uniform(0.05, writer.longest))  # the moment that nobody chose
            self.made.kill()
            try:
                output, _ = tool.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(tool.pid, signal.SIGKILL)
                output, _ = tool.communicate()
        writer.heard(output)

    def recover(self) -> None:
        """Mount again, sometimes dying in it again, until all that waits is stored."""
        while self.generator.random() < IN_RECOVERY:
            if self.generator.random() < 0.5:
                self.made.mount()
                time.sleep(self.generator.uniform(0, 0.3))
            else:
                self.made.begin_mount()
                time.sleep(self.generator.uniform(0.3, 1.2))
            self.made.kill()
        self.made.mount()
        self.made.run("spool", "wait", "store")


@pytest.fixture
def crashes(
    tmp_path: Path, seaweedfs_server: SeaweedFS, request: pytest.FixtureRequest
) -> Iterator[Crashes]:
    bucket = seaweedfs_server.bucket(f"soak{abs(hash(request.node.name)) % 10**12}")
    seed = int(os.environ.get("BACKGATE_SEED", random.randrange(1 << 32)))
    print(f"seed {seed}")
    with gateway(tmp_path / "gateway", {}, seaweedfs_server.environment()) as made:
        yield Crashes(made, seaweedfs_server, bucket, seed)


@pytest.mark.parametrize("tool", WRITERS)
def test_nothing_acknowledged_is_lost_in_many_crashes(
    crashes: Crashes, tool: str, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    crashes.configure()
    crashes.made.mount()
    acknowledged = 0
    for round_ in range(ROUNDS):
        top = f"{tool}-{round_}"
        directory = crashes.made.repository / top
        directory.mkdir()
        writer = WRITERS[tool](directory, scratch, crashes.generator.getrandbits(32))

        crashes.crash(writer)
        writer.check_order({key.removeprefix(f"{top}/") for key in crashes.keys(f"{top}/")})
        crashes.configure()
        crashes.recover()

        found = crashes.objects(f"{top}/")
        acknowledged += writer.check(found)
        crashes.discard_all()
        assert not crashes.uploads()
        assert not [key for key in crashes.keys(HIDDEN) if not key.endswith("/")]
        crashes.clear(f"{top}/")
        free(scratch)
    print(f"{ROUNDS} crashes, {acknowledged} acknowledged files found whole")
    crashes.made.umount()
