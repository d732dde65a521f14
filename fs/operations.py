"""The kernel's questions, answered from a tree: names, attributes, directories, bytes.

Changes are in `changes.py`. Nothing here hops to a thread, so what is cached is answered at once.
"""

import errno
import os
from collections.abc import Mapping, Sequence
from typing import cast

import pyfuse3

from backgate.fs.attributes import absent, attributes, lifetime, told_by
from backgate.fs.forgetting import Forgetting
from backgate.fs.handles import Handles
from backgate.fs.inodes import Directory, Inode, Inodes
from backgate.fs.lookers import Lookers
from backgate.fs.replies import NAME_MAX, Replies, answered
from backgate.fs.telling import KERNEL_NAME_MAX, Telling, can_be_bare
from backgate.fs.tree import Entry, Space, Tree, WritableTree, is_writable, keeps_xattrs
from backgate.gateway.errors import FileError, NotFound

STATFS_BLOCK = 4096  # bytes
FILES_MAX = 2**32  # what statfs says: no limit that a tool should mind
OVERTAKEN = "its name went meanwhile; the kernel looks again what the path leads to"


class Reading(pyfuse3.Operations):
    """Answers that change nothing."""

    supports_dot_lookup = False
    enable_acl = False
    is_read_only = False  # for the kernel too: nothing can be open for writing

    def __init__(
        self, inodes: Inodes, handles: Handles, replies: Replies, forgetting: Forgetting
    ) -> None:
        super().__init__()
        self.replies = replies
        self._inodes, self._handles, self._forgetting = inodes, handles, forgetting
        self._lookers, self._telling = Lookers(are_all=not can_be_bare()), Telling(inodes)
        # ENOSYS ends all questions about xattrs for the whole mount, and with them the one that the
        # kernel asks before every write; so only where there are none at all.
        self._has_xattrs = keeps_xattrs(inodes.root.tree)

    async def leave_kernel_alone(self) -> None:
        """Return once nothing calls into the kernel but to answer it: before the session ends.

        Who calls may wait for pages or directories that are locked until we answered somebody else.
        """
        await self._handles.stop_pushing()
        await self._forgetting.stop()

    @answered
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        directory = self._inodes.directory(parent_inode)
        tree, entry = await self._inodes.inside(directory)
        if len(name) > (NAME_MAX if is_writable(tree) else KERNEL_NAME_MAX):
            raise FileError(errno.ENAMETOOLONG, name)
        try:
            found = await tree.child(entry, name)
        except NotFound:
            return absent(tree)
        except FileError as error:
            if error.errno != errno.ENOENT:
                raise
            return absent(tree)
        if not found.is_directory:
            self._lookers.looked(parent_inode, ctx.pid)
        return self._told(directory, tree, found)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for number, lookups in inode_list:
            self._inodes.forget(number, lookups)

    @answered
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        tree, entry = await self._shown(self._inodes[inode])
        return attributes(inode, entry, lifetime(tree))

    @answered
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        entry = await self._inodes.entry(self._inodes[inode])
        if entry.target is None:
            raise FileError(errno.EINVAL, entry.name)
        return entry.target

    @answered
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        known = self._inodes[inode]
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            return await self._open_for_writing(known, flags)
        place = known.place
        number = await self._handles.open_for_reading(known)
        if known.place != place:
            await self._handles.release(number)
            raise FileError(errno.ESTALE, known.name, OVERTAKEN)
        keep = known.tree.is_immutable or known.file is not None or known.is_as_cached()
        return pyfuse3.FileInfo(fh=number, keep_cache=keep)

    @answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        # pyfuse3 takes any buffer, whatever its annotation says; a memoryview spares a copy.
        return cast(bytes, await self._handles.read(fh, off, size))

    @answered
    async def release(self, fh: int) -> None:
        await self._handles.release(fh)

    @answered
    async def flush(self, fh: int) -> None:
        if self.is_read_only:
            raise pyfuse3.FUSEError(errno.ENOSYS)  # and the kernel asks at no other close
        await self._handles.flush(fh)

    @answered
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._handles.synchronize(fh)

    @answered
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        await self._forgetting.make_room()
        return self._handles.open_directory(self._inodes.directory(inode), self._lookers, ctx.pid)

    @answered
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        handle = self._handles.directory(fh)
        if start_id == 0:
            handle.rewind()
        tree, _ = await self._inodes.inside(handle.directory)
        await self._telling.tell(handle, tree, start_id, token)

    @answered
    async def releasedir(self, fh: int) -> None:
        self._handles.release_directory(fh)

    @answered
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        tree, entry = await self._inodes.inside(self._handles.directory(fh).directory)
        if is_writable(tree):
            await cast(WritableTree, tree).synchronize(entry)

    @answered
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        tree = self._inodes.root.tree
        space: Space = await tree.space() if hasattr(tree, "space") else Space(0, 0)
        told = pyfuse3.StatvfsData()
        told.f_bsize = told.f_frsize = STATFS_BLOCK
        told.f_blocks = space.total // STATFS_BLOCK
        told.f_bfree = told.f_bavail = space.free // STATFS_BLOCK
        told.f_files = told.f_ffree = told.f_favail = FILES_MAX
        told.f_namemax = NAME_MAX
        return told

    @answered
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        xattrs = await self._xattrs(inode)
        if name not in xattrs:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        return xattrs[name]

    @answered
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return list(await self._xattrs(inode))

    async def _xattrs(self, number: int) -> Mapping[bytes, bytes]:
        if not self._has_xattrs:
            raise pyfuse3.FUSEError(errno.ENOSYS)
        inode = self._inodes[number]
        entry = inode.entry
        if entry.junction is not None and isinstance(inode, Directory):
            tree, entry = await self._inodes.inside(inode)
        elif not keeps_xattrs(inode.tree):
            return {}  # asked before every write
        elif not inode.tree.is_immutable:
            tree, entry = await self._shown(inode)
        else:
            tree = inode.tree
        return await tree.xattrs(entry) if entry.has_xattrs else {}

    async def _shown(self, inode: Inode) -> tuple[Tree, Entry]:
        """Return what stat(2) should show of `inode` now, and the tree that says it.

        A directory that goes on in a tree that changes is what that tree says of its root.
        """
        entry = await self._inodes.entry(inode)
        tree = told_by(inode.tree, entry)
        return tree, entry if tree is inode.tree else (await tree.root()).named(entry.name)

    async def _open_for_writing(self, inode: Inode, flags: int) -> pyfuse3.FileInfo:
        raise FileError(errno.EROFS, inode.name)

    def _told(self, directory: Directory, tree: Tree, entry: Entry) -> pyfuse3.EntryAttributes:
        inode = self._inodes.learned(directory, tree, entry)
        shown = inode.file.entry if inode.file is not None else entry
        return attributes(inode.number, shown, lifetime(told_by(tree, entry)))
