"""What the worker takes from itself before it looks at the first untrusted byte.

Limits of memory, files and processes; root's identity and capabilities; the network; and with a
filter of the kernel's (seccomp), every system call that a parser has no use for. What a kernel does
not offer is left out: each of these is a wall behind the others.
"""

import ctypes
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

from backgate.fs.parser.seccomp import allow_only_parsing
from backgate.fs.volumes import key_costs

MEMORY = 1 << 30  # bytes of address space; the largest reader of the suite needs a tenth of it
KEYS = key_costs.MEMORY_MAX + key_costs.AROUND  # bytes more, for that alone
FILES = 64  # open files; modules are still imported
NOBODY = 65534  # uid and gid of nobody
OOM_FIRST = "1000"  # proc(5): the most that a process can be preferred when memory has run out

CAPABILITIES = 0x20080522  # the version of capset(2) with 64 of them
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
CLONE_NEWIPC, CLONE_NEWNET = 0x08000000, 0x40000000


def confine(parent: int) -> None:
    """Give up what parsing does not need; end with `parent`, the process that started us."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the gateway is gone")
    with suppress(OSError):  # a system without memory ends us, and not the gateway
        Path("/proc/self/oom_score_adj").write_text(OOM_FIRST)
    libc.unshare(CLONE_NEWNET | CLONE_NEWIPC)  # an ordinary user may not; the filter sees to it
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for the gateway, which
        signal.signal(number, signal.SIG_IGN)  # may need us until it has unmounted
    _become_nobody(libc)
    _give_up_capabilities(libc)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _limit()
    allow_only_parsing(libc)


def _become_nobody(libc: ctypes.CDLL) -> None:
    """Leave root, if that is who we are; capabilities go with it."""
    if os.geteuid() != 0:
        return
    for become, who in (
        (os.setgroups, ([],)),
        (os.setresgid, (NOBODY, NOBODY, NOBODY)),
        (os.setresuid, (NOBODY, NOBODY, NOBODY)),
    ):
        with suppress(OSError):  # a container may have a root that may not, or no nobody
            become(*who)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of identity clears it


def _give_up_capabilities(libc: ctypes.CDLL) -> None:
    """Keep none, also not those that a service gives to a user who is not root."""
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    none = (ctypes.c_uint32 * 6)()  # twice: effective, permitted, inheritable
    libc.capset((ctypes.c_uint32 * 2)(CAPABILITIES, 0), none)


def _limit() -> None:
    for what, most, at_times in (
        (resource.RLIMIT_AS, MEMORY, MEMORY + KEYS),  # the larger while a key is derived
        (resource.RLIMIT_NOFILE, FILES, FILES),
        (resource.RLIMIT_FSIZE, 0, 0),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        _, hard = resource.getrlimit(what)
        if hard != resource.RLIM_INFINITY:
            most, at_times = min(most, hard), min(at_times, hard)
        resource.setrlimit(what, (most, at_times))
