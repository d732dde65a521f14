"""`gateway/heap.py`: threads do not hoard memory."""

import subprocess
import sys

import pytest

HOARD = """
import threading
from pathlib import Path
from backgate.gateway.heap import share_one_heap
if {shares}:
    share_one_heap()
kept = []
def work():
    small = [bytes(1000) for _ in range(100)]
    for _ in range(4):
        bytes(range(256)) * (16 * 4096)  # 16 MiB, gone at once
    kept.append(small)
    done.wait()
done = threading.Barrier(9)
threads = [threading.Thread(target=work) for _ in range(8)]
for one in threads:
    one.start()
done.wait()
status = Path("/proc/self/status").read_text()
print(int(status.partition("VmRSS:")[2].split()[0]) // 1024)
"""


def resident(*, shares: bool) -> int:
    """Return the MiB resident after eight threads have each let go of 16 MiB, four times."""
    code = HOARD.format(shares=shares)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return int(result.stdout)


@pytest.mark.slow
def test_memory_that_a_thread_let_go_serves_the_others() -> None:
    assert resident(shares=True) < 100
