"""What the filter of system calls keeps from a worker that has the gateway's own identity."""

import subprocess
import sys

import pytest

# Each asks for something that does no harm, of the process that started it.
ATTEMPTS = """
import ctypes, os, resource, signal, socket, sys, threading
from backgate.fs.parser.seccomp import allow_only_parsing

libc = ctypes.CDLL(None, use_errno=True)
gateway, (one, other) = os.getppid(), socket.socketpair()
tgkill = {"x86_64": 234, "aarch64": 131}[os.uname().machine]
assert len(sys.argv) == 1 or allow_only_parsing(libc)
found = {
    "signal": libc.syscall(tgkill, gateway, gateway, 0),
    "limit": libc.prlimit(gateway, resource.RLIMIT_CORE, None, (ctypes.c_uint64 * 2)()),
    "own": libc.fcntl(one.fileno(), 8, gateway),
    "own by ioctl": libc.ioctl(one.fileno(), 0x8901, ctypes.byref(ctypes.c_int(gateway))),
    "choose a signal": libc.fcntl(one.fileno(), 10, signal.SIGKILL),
    "its own limit": libc.prlimit(0, resource.RLIMIT_CORE, None, (ctypes.c_uint64 * 2)()),
}
one.setblocking(False)
one.dup().close()
open(os.devnull).close()
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
thread = threading.Thread(target=list)
thread.start()
thread.join()
print(*(name for name, answer in found.items() if answer == 0), sep=",")
"""


@pytest.mark.slow
def test_a_worker_may_neither_signal_nor_limit_its_gateway() -> None:
    def may(*confined: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", ATTEMPTS, *confined], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert may() == "signal,limit,own,own by ioctl,choose a signal,its own limit"
    assert may("confined") == "its own limit"
