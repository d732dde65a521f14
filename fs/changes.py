"""The kernel's orders that change a tree; in one that cannot be changed they are EROFS."""

import errno
import os
import stat
import time
from typing import cast

import pyfuse3
from msgspec.structs import replace

from backgate.fs import acl
from backgate.fs.attributes import attributes, lifetime
from backgate.fs.inodes import Directory, Inode
from backgate.fs.operations import OVERTAKEN, Reading
from backgate.fs.replies import NAME_MAX, answered
from backgate.fs.tree import Changes, Entry, Tree, WritableFile, WritableTree, is_writable
from backgate.gateway.errors import FileError

PERMISSIONS = 0o7777
NAMESPACES = (b"user.", b"trusted.", b"security.")  # of extended attributes, xattr(7)
ACLS = (acl.ACCESS, acl.DEFAULT)
SET_ID = stat.S_ISUID | stat.S_ISGID


class Operations(Reading):
    """All that the kernel may ask of a mount."""

    is_closing = False  # no more changes are begun; what was begun is finished

    @answered
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        known = self._inodes[inode]
        tree, entry = await self._shown(known)
        changes = _changes(attr, fields, entry)
        if changes.size is not None:
            await self._handles.expect_changes(known)
        return attributes(inode, await self._change(known, tree, entry, changes), lifetime(tree))

    @answered
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        directory, tree, above = await self._place(parent_inode, name)
        entry, file = await self._create(tree, above, name, mode, flags, ctx)
        inode = self._inodes.learned(directory, tree, entry)
        number = self._handles.opened_for_writing(inode, file, appends=self._appends(flags))
        told = attributes(inode.number, entry, lifetime(tree))
        return pyfuse3.FileInfo(fh=number, keep_cache=False), told

    @answered
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        directory, tree, above = await self._place(parent_inode, name)
        if not stat.S_ISREG(mode):
            mode = await _permitted(tree, above, mode, ctx)
            node = await tree.make_node(
                above, name, mode=mode, rdev=rdev, uid=ctx.uid, gid=_group(above, ctx)
            )
            return self._told(directory, tree, node)
        entry, file = await self._create(tree, above, name, mode, os.O_EXCL, ctx)
        try:
            await file.flush()
        finally:
            await file.release()
        return self._told(directory, tree, entry)

    @answered
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        directory, tree, above = await self._place(parent_inode, name)
        mode = await _permitted(tree, above, mode & PERMISSIONS, ctx) | above.mode & stat.S_ISGID
        entry = await tree.make_directory(
            above, name, mode=mode, uid=ctx.uid, gid=_group(above, ctx)
        )
        return self._told(directory, tree, entry)

    @answered
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        directory, tree, above = await self._place(parent_inode, name)
        entry = await tree.make_symlink(above, name, target, uid=ctx.uid, gid=_group(above, ctx))
        return self._told(directory, tree, entry)

    @answered
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        directory, tree, above = await self._place(new_parent_inode, new_name)
        known = self._inodes[inode]
        if known.tree is not tree:
            raise FileError(errno.EXDEV, new_name)
        copy = await tree.link(await self._inodes.entry(known), above, new_name)
        return self._told(directory, tree, copy)

    @answered
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        directory, tree, above = await self._place(parent_inode, name)
        await tree.unlink(above, name)
        self._inodes.removed(directory, name)

    @answered
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        directory, tree, above = await self._place(parent_inode, name)
        await tree.remove_directory(above, name)
        self._inodes.removed(directory, name)

    @answered
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        old, tree, above = await self._place(parent_inode_old, name_old)
        new, new_tree, new_above = await self._place(parent_inode_new, name_new)
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise FileError(errno.EINVAL, name_new)
        if new_tree is not tree:
            raise FileError(errno.EXDEV, name_new)
        no_replace = bool(flags & pyfuse3.RENAME_NOREPLACE)
        await tree.rename(above, name_old, new_above, name_new, no_replace=no_replace)
        self._inodes.renamed(old, name_old, new, name_new)

    @answered
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        await self._handles.write(fh, off, buf)
        return len(buf)

    @answered
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        await self._set_xattr(inode, name, value)

    @answered
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._set_xattr(inode, name, None)

    async def _change(self, known: Inode, tree: Tree, entry: Entry, changes: Changes) -> Entry:
        if known.file is not None:
            known.entry = entry = await known.file.change(changes)
        elif known.is_nameless:
            known.entry = entry = _without_a_name(entry, changes)
        else:
            entry = await self._changeable(tree, known).change(entry, changes)
            if tree is known.tree:
                known.entry = entry
        if isinstance(known, Directory):
            known.inside = None  # what is made in it takes after it as it is now
        if known.opened is not None:
            known.opened.version += 1
        return entry

    async def _set_xattr(self, number: int, name: bytes, value: bytes | None) -> None:
        if not self._has_xattrs:
            raise pyfuse3.FUSEError(errno.ENOSYS)
        if name not in ACLS and not name.startswith(NAMESPACES):
            raise FileError(errno.EOPNOTSUPP, name, "no attribute is named so")
        if name in NAMESPACES:
            raise FileError(errno.EINVAL, name)
        known = self._inodes[number]
        tree, entry = await self._shown(known)
        if not self._changeable(tree, known).is_mirror:
            raise pyfuse3.FUSEError(errno.EOPNOTSUPP)
        await self._change(known, tree, entry, Changes(xattrs={name: value}))

    async def _open_for_writing(self, inode: Inode, flags: int) -> pyfuse3.FileInfo:
        tree = self._changeable(inode.tree, inode)
        truncate = bool(flags & os.O_TRUNC)
        if inode.is_nameless and inode.file is None:
            raise FileError(errno.ESTALE, inode.name)
        await self._handles.expect_changes(inode)
        place = inode.place
        file = await tree.open_for_writing(await self._inodes.entry(inode), truncate=truncate)
        if inode.place != place:
            await file.release()
            raise FileError(errno.ESTALE, inode.name, OVERTAKEN)
        keep = inode.is_as_cached()
        number = self._handles.opened_for_writing(inode, file, appends=self._appends(flags))
        return pyfuse3.FileInfo(fh=number, keep_cache=keep and not truncate)

    def _appends(self, flags: int) -> bool:
        """True when each write goes to the end, wherever the kernel believed that to be.

        Writes that the kernel kept back come in any order, and it owns the size: then its offsets
        hold.
        """
        return bool(flags & os.O_APPEND) and not self.enable_writeback_cache

    async def _create(
        self,
        tree: WritableTree,
        above: Entry,
        name: bytes,
        mode: int,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[Entry, WritableFile]:
        """Create and open a file; one that somebody else made meanwhile is opened."""
        entry, file = await tree.create(
            above,
            name,
            mode=await _permitted(tree, above, mode & PERMISSIONS, ctx),
            uid=ctx.uid,
            gid=_group(above, ctx),
            exclusive=bool(flags & os.O_EXCL),
        )
        if flags & os.O_TRUNC and entry.size:
            try:
                entry = await file.change(Changes(size=0))
            except BaseException:
                await file.release()
                raise
        return entry, file

    async def _place(self, number: int, name: bytes) -> tuple[Directory, WritableTree, Entry]:
        """Return the directory `number`, and where in its tree `name` is to be changed."""
        directory = self._inodes.directory(number)
        tree, above = await self._inodes.inside(directory)
        if len(name) > NAME_MAX:
            raise FileError(errno.ENAMETOOLONG, name)
        return directory, self._changeable(tree, directory), above

    def _changeable(self, tree: Tree, inode: Inode) -> WritableTree:
        if tree.is_immutable or not is_writable(tree) or self.is_closing:
            raise FileError(errno.EROFS, inode.name)
        return cast(WritableTree, tree)


def _group(directory: Entry, ctx: pyfuse3.RequestContext) -> int:
    """Return the group of what is created in `directory`: the creator's, or the inherited one."""
    return directory.gid if directory.mode & stat.S_ISGID else ctx.gid


async def _permitted(
    tree: WritableTree, above: Entry, mode: int, ctx: pyfuse3.RequestContext
) -> int:
    """Return `mode` less the umask, which a default ACL takes the place of.

    The kernel may have taken it off before (`unmasked.py`): then this changes nothing.
    """
    if tree.is_mirror and acl.DEFAULT in await tree.xattrs(above):
        return mode
    return mode & ~ctx.umask


def _changes(attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields, entry: Entry) -> Changes:
    mode = attr.st_mode & PERMISSIONS if fields.update_mode else None
    if mode is None and (fields.update_uid or fields.update_gid):
        mode = _without_set_id(entry)
    return Changes(
        mode=mode,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        atime_ns=attr.st_atime_ns if fields.update_atime else None,
        size=attr.st_size if fields.update_size else None,
    )


def _without_a_name(entry: Entry, changes: Changes) -> Entry:
    """Return the entry of what was removed, as `changes` leave it; no store keeps them any more.

    The kernel sends times of it too, and would tell the next `syncfs` of an error. Raises ESTALE
    for what its tree would be needed for.
    """
    if changes.size is not None or changes.xattrs:
        raise FileError(errno.ESTALE, entry.name)
    mode = entry.mode if changes.mode is None else stat.S_IFMT(entry.mode) | changes.mode
    return replace(
        entry,
        mode=mode,
        uid=entry.uid if changes.uid is None else changes.uid,
        gid=entry.gid if changes.gid is None else changes.gid,
        mtime_ns=entry.mtime_ns if changes.mtime_ns is None else changes.mtime_ns,
        atime_ns=entry.atime_ns if changes.atime_ns is None else changes.atime_ns,
        ctime_ns=time.time_ns(),
    )


def _without_set_id(entry: Entry) -> int | None:
    """Return the permissions without set-id bits, which chown(2) takes away; None without any.

    A set-group bit of what the group cannot execute means something else, and stays.
    """
    lost = SET_ID if entry.mode & stat.S_IXGRP else stat.S_ISUID
    if not entry.is_file or not entry.mode & lost:
        return None
    return entry.mode & PERMISSIONS & ~lost
