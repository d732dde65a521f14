"""The end of a worker, also of one that the kernel does not let end."""

import ctypes
import os
import signal
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backgate.fs.parser.process import start_worker

REQUEST, ANSWER = struct.Struct("<IIQ"), struct.Struct("<IiQ")  # length, operation or error, number
INIT = struct.Struct("<IIIIHHIIHHI28x")


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A mount whose gateway takes requests and answers none, and the gateway's descriptor."""
    libc, device = ctypes.CDLL(None, use_errno=True), os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    assert libc.mount(b"silent", bytes(tmp_path), b"fuse", 0, options) == 0
    try:
        _, _, number = REQUEST.unpack_from(os.read(device, 1 << 20))
        hello = INIT.pack(7, 31, 4096, 0, 8, 8, 4096, 1, 1, 0, 0)
        os.write(device, ANSWER.pack(ANSWER.size + len(hello), 0, number) + hello)
        yield tmp_path, device
    finally:
        libc.umount2(bytes(tmp_path), 2)
        os.close(device)


@pytest.mark.mounted
@pytest.mark.slow
async def test_a_worker_that_waits_for_our_own_mount_does_not_keep_us(
    silent: tuple[Path, int],
) -> None:
    mount, device = silent
    worker = start_worker(("-c", f"import os; os.stat({str(mount / 'x')!r})"))
    _, operation, number = REQUEST.unpack_from(os.read(device, 1 << 20))
    assert operation == 1  # to look up a name: now the worker waits for us
    answered = threading.Event()

    def answer() -> None:
        answered.set()
        os.write(device, ANSWER.pack(ANSWER.size, -2, number))

    late = threading.Timer(10, answer)  # only for a gateway that would wait for ever
    late.start()
    worker.end()
    late.cancel()

    assert not answered.is_set()
    answer()
    assert worker._process.wait() == -signal.SIGKILL
