"""What may be spent on keys of encrypted volumes: time, and more memory than for anything else.

A key is made costly on purpose. A default one of LUKS2 wants as much memory as the whole worker may
use, and several passphrases take longer than a request may: both are granted for keys alone.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from backgate.fs.volumes.limits import raised
from backgate.gateway.errors import Damaged

MEMORY_MAX = 1 << 30  # bytes; cryptsetup(8) takes no more unless it is told to
AROUND = 64 << 20  # bytes that go with it: stacks of threads
CPU = 120  # seconds of one derivation that are not counted as the request's
PATIENCE = 45.0  # seconds for all the derivations with one passphrase


class Patience:
    """Time for deriving keys; `Damaged` once there is none left."""

    def __init__(self, passphrases: int) -> None:
        self._left = PATIENCE * passphrases

    @contextmanager
    def spent(self) -> Iterator[None]:
        if self._left <= 0:
            raise Damaged(
                "encrypted volume", None, "trying every passphrase on every key takes too long"
            )
        begun = time.monotonic()
        try:
            yield
        finally:
            self._left -= time.monotonic() - begun


@contextmanager
def costly(memory: int = 0) -> Iterator[None]:
    """Let this process use `memory` bytes and some CPU time more, as far as it may, for now."""
    try:
        with raised(memory=memory + AROUND, cpu=CPU):
            yield
    except MemoryError as error:
        raise Damaged(
            "encrypted volume", None, f"{memory >> 20} MiB for a key are not free"
        ) from error
