"""The contract of a contender: something that shows a bucket as a directory."""

import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.machine import peak_memory

READY_WITHIN = 60.0  # seconds
ENDED_WITHIN = 120.0  # seconds
LOOK_EVERY = 0.005  # seconds between two looks whether it is mounted


@dataclass(slots=True)
class Mounted:
    """A mount that answers."""

    root: Path  # where the bucket's objects are
    pid: int
    begun: float  # when its command was started, on the monotonic clock
    peak: int = 0  # bytes resident at most; known when it has ended


class Server(Protocol):
    """An S3 server, as contenders need it."""

    @property
    def endpoint_url(self) -> str: ...
    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    def environment(self) -> dict[str, str]: ...


class Contender(ABC):
    """One program with one set of options."""

    name: str
    options: str  # what it was told, for the report
    stores_on_close = True  # a file is in the store when its close has returned

    def __init__(self, home: Path) -> None:
        self.home = home  # its caches and its mount point live here
        self.mountpoint = home / "mnt"
        self.mountpoint.mkdir(parents=True)

    def forget(self) -> None:
        """Remove every cache, so that the next mount is cold."""
        shutil.rmtree(self.home / "cache", ignore_errors=True)

    def settled(self) -> None:  # noqa: B027
        """Return once nothing goes on behind the mount."""

    @contextmanager
    @abstractmethod
    def mounted(self, bucket: str) -> Iterator[Mounted]:
        """Mount `bucket` while the context is open."""


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], mountpoint: Path, log: Path
) -> Iterator[Mounted]:
    """Run a command that mounts and stays; ready when its root can be listed."""
    begun = time.monotonic()
    with log.open("ab") as file:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    mounted = Mounted(mountpoint, process.pid, begun)
    try:
        _wait_until_ready(process, mountpoint, log)
        yield mounted
        mounted.peak = peak_memory(process.pid)
    finally:
        subprocess.run(["fusermount3", "-uzq", str(mountpoint)], check=False)
        process.terminate()
        try:
            process.wait(ENDED_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], mountpoint: Path, log: Path) -> None:
    until = time.monotonic() + READY_WITHIN
    while time.monotonic() < until and process.poll() is None:
        if os.path.ismount(mountpoint):
            os.stat(mountpoint)
            return
        time.sleep(LOOK_EVERY)
    raise RuntimeError(f"{process.args!r} did not mount: {log.read_text()[-2000:]}")
