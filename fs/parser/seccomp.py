"""A filter of system calls (seccomp(2)) that leaves a Python process what parsing needs.

No new socket, program or process, and nothing opened but for reading; no signal to others and no
limits of theirs, for a gateway that is not root shares its identity with us. Threads are let in,
which the derivation of a key (Argon2) needs. What is not on the list answers ENOSYS, as an older
kernel would.
"""

import ctypes
import errno
import os
import struct

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO

# BPF: load a word of the call's description, compare, answer.
LOAD, EQUAL, ANY_BIT, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
NUMBER_AT, MACHINE_AT, ARGUMENTS_AT = 0, 4, 16
CLONE_THREAD = 0x10000  # the flag of a clone(2) that makes a thread, not a process
COMMANDS = {
    "fcntl": (0, 1, 2, 3, 4, 1030),  # descriptors and their flags; never whom a socket signals
    "ioctl": (0x5401, 0x5421, 0x5450, 0x5451),  # TCGETS, FIONBIO, FIONCLEX, FIOCLEX
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# Numbers of the calls by machine, with AUDIT_ARCH and the number from which on they are another
# ABI's (x32).
_X86_64 = {
    "read": 0, "write": 1, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8,
    "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
    "rt_sigreturn": 15, "ioctl": 16, "pread64": 17, "readv": 19, "writev": 20, "access": 21,
    "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32, "nanosleep": 35, "getpid": 39,
    "sendto": 44, "recvfrom": 45, "sendmsg": 46, "recvmsg": 47, "shutdown": 48, "getsockname": 51,
    "getsockopt": 55, "exit": 60, "uname": 63, "fcntl": 72, "getcwd": 79, "readlink": 89,
    "getrlimit": 97, "getrusage": 98, "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104,
    "geteuid": 107, "getegid": 108, "getppid": 110, "sigaltstack": 131, "gettid": 186,
    "futex": 202, "sched_getaffinity": 204, "getdents64": 217, "clock_gettime": 228,
    "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "tgkill": 234, "openat": 257,
    "newfstatat": 262, "readlinkat": 267, "faccessat": 269, "set_robust_list": 273,
    "prlimit64": 302, "getrandom": 318, "membarrier": 324, "statx": 332, "rseq": 334,
    "clone": 56, "faccessat2": 439,
}  # fmt: skip
_AARCH64 = {
    "getcwd": 17, "dup": 23, "fcntl": 25, "ioctl": 29, "faccessat": 48, "openat": 56, "close": 57,
    "getdents64": 61, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66,
    "pread64": 67, "ppoll": 73, "readlinkat": 78, "newfstatat": 79, "fstat": 80, "exit": 93,
    "exit_group": 94, "futex": 98, "set_robust_list": 99, "nanosleep": 101, "clock_gettime": 113,
    "clock_getres": 114, "clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124,
    "tgkill": 131, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135,
    "rt_sigreturn": 139, "times": 153, "uname": 160, "getrlimit": 163, "getrusage": 165,
    "getpid": 172, "getppid": 173, "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177,
    "gettid": 178, "sysinfo": 179, "getsockname": 204, "sendto": 206, "recvfrom": 207,
    "getsockopt": 209, "shutdown": 210, "sendmsg": 211, "recvmsg": 212, "brk": 214, "munmap": 215,
    "mremap": 216, "mmap": 222, "mprotect": 226, "madvise": 233, "prlimit64": 261,
    "getrandom": 278, "membarrier": 283, "statx": 291, "rseq": 293, "clone": 220,
    "faccessat2": 439,
}  # fmt: skip
_MACHINES = {
    "x86_64": (0xC000003E, 0x40000000, _X86_64),
    "aarch64": (0xC00000B7, 0xFFFFFFFF, _AARCH64),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def allow_only_parsing(libc: ctypes.CDLL) -> bool:
    """Install the filter; False where this machine or kernel has none."""
    machine = _MACHINES.get(os.uname().machine)
    if machine is None:
        return False
    code = b"".join(_filter(*machine))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    done: int = libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)
    return done == 0


def _filter(architecture: int, other_abi: int, calls: dict[str, int]) -> list[bytes]:
    """Return the program: the right machine, what is listed, files to read, and threads."""
    refuse = _step(RETURN, REFUSE | errno.ENOSYS)
    ours = {"tgkill": (os.getpid(),), "prlimit64": (0, os.getpid())}
    special = {calls[name] for name in ("openat", "clone", *COMMANDS, *ours)}
    listed = sorted(set(calls.values()) - special)
    program = [
        _step(LOAD, MACHINE_AT),
        _step(EQUAL, architecture, 1, 0),
        refuse,
        _step(LOAD, NUMBER_AT),
        _step(AT_LEAST, other_abi, 0, 1),
        refuse,
        _step(EQUAL, calls["openat"], 0, 4),
        _step(LOAD, ARGUMENTS_AT + 2 * 8),  # the flags
        _step(ANY_BIT, WRITING, 0, 1),
        _step(RETURN, REFUSE | errno.EPERM),
        _step(RETURN, ALLOW),
        _step(EQUAL, calls["clone"], 0, 4),
        _step(LOAD, ARGUMENTS_AT),  # the flags
        _step(ANY_BIT, CLONE_THREAD, 1, 0),
        _step(RETURN, REFUSE | errno.EPERM),
        _step(RETURN, ALLOW),
    ]
    for name, allowed in COMMANDS.items():
        program += _only(calls[name], 1, allowed)
    for name, allowed in ours.items():
        program += _only(calls[name], 0, allowed)
    for left, number in zip(range(len(listed), 0, -1), listed, strict=True):
        program.append(_step(EQUAL, number, left, 0))
    return [*program, refuse, _step(RETURN, ALLOW)]


def _only(number: int, argument: int, allowed: tuple[int, ...]) -> list[bytes]:
    """Return the part that lets a call in with these values of an argument alone."""
    count = len(allowed)
    over = range(count, 0, -1)  # the other values, and the refusal
    return [
        _step(EQUAL, number, 0, count + 3),
        _step(LOAD, ARGUMENTS_AT + argument * 8),
        *(_step(EQUAL, value, left) for left, value in zip(over, allowed, strict=True)),
        _step(RETURN, REFUSE | errno.EPERM),
        _step(RETURN, ALLOW),
    ]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value & 0xFFFFFFFF)
