"""Mount a tree and serve it until it is unmounted or the process is told to stop.

One mount is one process: pyfuse3 holds one session. A mount is ready once the kernel has had an
answer from it, and is over only when everything written through it is stored.
"""

import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import pyfuse3
import trio

from backgate.fs.changes import Operations
from backgate.fs.control import controlled
from backgate.fs.forgetting import Forgetting
from backgate.fs.handles import Handles
from backgate.fs.inodes import Inodes
from backgate.fs.mountpoint import (
    SUBTYPE,
    absolute,
    allows_other_users,
    check_mountpoint,
    check_system,
    mounted_at,
    unmount,
)
from backgate.fs.notify import notify
from backgate.fs.nurseries import open_nursery
from backgate.fs.outdated import Outdated
from backgate.fs.replies import Replies
from backgate.fs.running import describe
from backgate.fs.session import Backing, Session
from backgate.fs.tree import Tree
from backgate.fs.unmasked import mount_unmasked
from backgate.gateway.errors import BackgateError, UsageError
from backgate.gateway.source import Data

NO_OPTION = re.compile(r"[^A-Za-z0-9_.:/@+=-]")  # what would end or change a mount option
REASON_MAX = 1000  # bytes of what libfuse says

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """How to mount."""

    target: str  # what messages and the table of mounts call it
    is_read_only: bool = False  # by the kernel's own flag
    allow_other: bool = False  # let users other than this one in
    writeback: bool = False  # the kernel merges small writes; only where one mount writes
    runtime: Path | None = None  # where the control socket goes; None: no control
    backing: Backing = field(default_factory=Backing)


async def serve(
    tree: Tree, mountpoint: str, options: MountOptions, *, ready: Callable[[], None]
) -> None:
    """Mount `tree`, call `ready` once the mount answers, and return when it is over.

    SIGTERM and SIGINT store what was written and unmount; so does the control socket's `stop`.

    Raises `UsageError` and `BackgateError` when it cannot be mounted; the message says how to mend
    it.
    """
    mountpoint = absolute(mountpoint)
    check_system()
    if options.allow_other and not allows_other_users():
        raise UsageError(
            "allow_other needs a line `user_allow_other` in /etc/fuse.conf, or root: "
            "write it there, or mount without"
        )
    await trio.to_thread.run_sync(check_mountpoint, mountpoint)
    replies = Replies()
    inodes = Inodes(tree, await tree.root())
    handles = Handles(inodes, replies, _push)
    forgetting = Forgetting(inodes, pyfuse3.invalidate_entry, lambda: replies.holds_directories)
    operations = Operations(inodes, handles, replies, forgetting)
    operations.enable_writeback_cache = options.writeback
    operations.enable_acl = getattr(tree, "is_mirror", False)  # the kernel heeds them
    operations.is_read_only = options.is_read_only
    session = Session(mountpoint, operations, inodes, handles, options.backing)
    with _mounted(operations, mountpoint, options):
        # Threads that call into the session have ended when it is closed.
        async with handles.kept(), open_nursery() as nursery:
            nursery.start_soon(forgetting.run)
            nursery.start_soon(Outdated(inodes, _outdate, options.backing.changed).run)
            control = _control(session, mountpoint, options)
            await session.serve(control, partial(_tell, options, ready))
            nursery.cancel_scope.cancel()


def _push(number: int, offset: int, data: Data) -> None:
    # pyfuse3 takes any buffer, whatever its annotation says.
    pyfuse3.notify_store(number, offset, cast(bytes, data))


def _outdate(number: int) -> None:
    pyfuse3.invalidate_inode(number, attr_only=True)


def _tell(options: MountOptions, ready: Callable[[], None]) -> None:
    log.info("%s is mounted", options.target)
    notify(f"READY=1\nSTATUS={options.target} is mounted")
    ready()


def _control(
    session: Session, mountpoint: str, options: MountOptions
) -> AbstractAsyncContextManager[None]:
    if options.runtime is None:
        return nullcontext()
    return controlled(describe(options.runtime, mountpoint, options.target), session.verbs)


@contextmanager
def _mounted(operations: Operations, mountpoint: str, options: MountOptions) -> Iterator[None]:
    """Have the kernel mount, and unmount in the end whatever happens."""
    device = _mount_for_acls(mountpoint, options) if operations.enable_acl else None
    with _said_on_stderr() as said:
        try:
            through = mountpoint if device is None else f"/dev/fd/{device}"
            pyfuse3.init(operations, through, _kernel_options(options))
        except RuntimeError as error:
            reason = said() or str(error)
            if device is not None:
                unmount(mountpoint, lazy=True)
            raise BackgateError(f"{mountpoint}: cannot be mounted: {reason}") from error
    try:
        yield
    finally:
        is_mounted = mounted_at(mountpoint) is not None
        if is_mounted and device is not None:  # libfuse does not know where
            unmount(mountpoint, lazy=True)
        pyfuse3.close(unmount=is_mounted)


def _mount_for_acls(mountpoint: str, options: MountOptions) -> int | None:
    """Mount so that default ACLs are heeded as they should, where that can be had."""
    return mount_unmasked(
        mountpoint,
        _name(options),
        is_read_only=options.is_read_only,
        allow_other=options.allow_other,
    )


def _name(options: MountOptions) -> str:
    return NO_OPTION.sub("_", options.target)


def _kernel_options(options: MountOptions) -> set[str]:
    chosen = {
        f"fsname={_name(options)}",
        f"subtype={SUBTYPE}",
        "default_permissions",
        "nosuid",
        "nodev",
    }
    if options.is_read_only:
        chosen.add("ro")
    if options.allow_other:
        chosen.add("allow_other")
    return chosen


@contextmanager
def _said_on_stderr() -> Iterator[Callable[[], str]]:
    """Catch what libfuse and fusermount3 print, which is the only place where they say why."""
    with tempfile.TemporaryFile() as caught:
        stderr = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield lambda: os.pread(caught.fileno(), REASON_MAX, 0).decode(errors="replace").strip()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
