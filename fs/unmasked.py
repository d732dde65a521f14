"""Mount so that the kernel leaves the umask to us.

What is made in a directory with a default ACL takes that in place of the umask (umask(2)). The
kernel takes the umask off before a file system in user space hears of the mode, unless that was
mounted with a flag for which libfuse has no word. So who may mount by himself does, and hands
libfuse the open device, for which it has one.
"""

import ctypes
import logging
import os
import stat

from backgate.fs.mountpoint import SUBTYPE, may_mount

MS_RDONLY = 0x1  # mount(2)
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_POSIXACL = 0x10000  # fs/fuse/inode.c: "Handle umasking inside the fuse code"
DEVICE = "/dev/fuse"

log = logging.getLogger(__name__)


def mount_unmasked(
    mountpoint: str, source: str, *, is_read_only: bool, allow_other: bool
) -> int | None:
    """Mount, and return the device that requests come from; None where that must be left to others.

    `source` is what the table of mounts will call it.
    """
    if not may_mount():
        return None
    device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    options = [
        f"fd={device}",
        f"rootmode={stat.S_IFMT(os.stat(mountpoint).st_mode):o}",
        f"user_id={os.getuid()}",
        f"group_id={os.getgid()}",
        "default_permissions",
        *(["allow_other"] if allow_other else []),
    ]
    flags = MS_NOSUID | MS_NODEV | MS_POSIXACL | (MS_RDONLY if is_read_only else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    where, data = os.fsencode(mountpoint), ",".join(options).encode()
    if libc.mount(source.encode(), where, f"fuse.{SUBTYPE}".encode(), ctypes.c_ulong(flags), data):
        log.debug("%s: not mounted directly: %s", mountpoint, os.strerror(ctypes.get_errno()))
        os.close(device)
        return None
    return device
