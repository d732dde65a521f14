"""The writable view of a repository: its objects as files, and what the spool holds in their place.

Names are decoded as UTF-8, strictly: keys are UTF-8, and a name that is not would come back as
another one. A file that is open for writing, or staged, is seen by every reader as it is in the
spool. Who changes what a name means claims it first, and looks at it then.
"""

import errno
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import trio

from backgate.fs.repository_attributes import changed, new_attributes
from backgate.fs.repository_entries import Entries, decoded, key_of, prefix_of
from backgate.fs.repository_file import Parts, RepositoryFile
from backgate.fs.repository_pages import Found
from backgate.fs.tree import Changes, Children, Entry, Names, Space
from backgate.gateway.attribute_changes import AttributeChanges
from backgate.gateway.attributes import SYMLINK_MAX, Attributes
from backgate.gateway.errors import FileError, InvalidKey, NotFound
from backgate.gateway.keys import MARK, NAME_MAX, new_key
from backgate.gateway.metadata.rows import Known, Subdirectory
from backgate.gateway.namespace import Name, Namespace
from backgate.gateway.records import HIDDEN
from backgate.gateway.repository import Repository
from backgate.gateway.source import Source
from backgate.gateway.spooled import SpooledFile
from backgate.gateway.units import TIB
from backgate.gateway.xattrs import NONE, text_of

CAPACITY = 1024 * TIB  # bytes that statfs shows where nothing is configured
FRESH = {  # seconds that the kernel may keep what it was told
    "exclusive": 10.0,  # for only we can change it
    "shared": 1.0,
}
FRESH_AT_ONCE = 0.0  # seconds, where other gateways tell us what they change


class RepositoryTree:
    """A repository as a `WritableTree`."""

    is_immutable = False

    def __init__(self, repository: Repository) -> None:
        if repository.spool is None:
            raise ValueError("a repository without a spool cannot be written to")
        config = repository.config
        self.fresh_for = FRESH_AT_ONCE if config.metadata else FRESH[config.writers]
        if config.writers == "shared":
            self.fresh_for = min(self.fresh_for, config.max_age)
        # Of what others make the kernel must not say that it is not there once we have listed it.
        self.absent_for = self.fresh_for if config.writers == "exclusive" else 0.0
        self._capacity = config.capacity
        self._store, self._metadata = repository.store, repository.metadata
        self._spool = repository.spool
        self.is_mirror = config.kind == "mirror"
        self._names = Namespace(self._spool)
        self._entries = Entries(repository, self._spool.shelf)
        self._attributes = AttributeChanges(
            self._spool, self._names, self._entries.shown, with_objects=self.is_mirror
        )
        self._parts = Parts(self._spool, self._entries, self._attributes)

    async def root(self) -> Entry:
        return await self._entries.root()

    async def child(self, directory: Entry, name: bytes) -> Entry:
        return await self._entries.child(prefix_of(directory), name)

    async def children(self, directory: Entry, cursor: bytes | None = None) -> Children:
        return await self._entries.children(prefix_of(directory), cursor)

    async def names(self, directory: Entry, cursor: bytes | None = None) -> Names:
        return await self._entries.names(prefix_of(directory), cursor)

    @asynccontextmanager
    async def open(self, file: Entry) -> AsyncIterator[Source]:
        key = key_of(file)
        spooled = self._spool.writing(key)
        if spooled is None:
            known = await self._metadata.look_up(key)
            with self._names.opened(known.info) as source:
                yield source
            return
        opened = RepositoryFile(self._parts, self._spool.hold(spooled), file.name)
        try:
            yield opened
        finally:
            with trio.CancelScope(shield=True):
                await opened.release()

    async def xattrs(self, entry: Entry) -> Mapping[bytes, bytes]:
        await trio.lowlevel.checkpoint()
        return await self._entries.xattrs(entry)

    async def create(
        self, directory: Entry, name: bytes, *, mode: int, uid: int, gid: int, exclusive: bool
    ) -> tuple[Entry, RepositoryFile]:
        key = self._new_key(directory, name)
        above = await self._entries.xattrs(directory)
        async with self._spool.claims.claim(key, key + "/"):
            found = await self._entries.find(prefix_of(directory), name, is_expected=False)
            if found is None or (exclusive and self._may_be_gone(found, Known)):
                attributes = new_attributes(stat.S_IFREG | mode, uid, gid, above)
                spooled = await self._names.create(key, attributes, exclusive=exclusive)
                file = RepositoryFile(self._parts, self._spool.hold(spooled), name)
                self._entries.touch(prefix_of(directory))
            elif exclusive:
                raise FileError(errno.EEXIST, name)
            else:
                file = await self._open(await self._entries.entry(name, found))
        return file.entry, file

    async def open_for_writing(self, file: Entry, *, truncate: bool) -> RepositoryFile:
        key = key_of(file)
        async with self._spool.claims.claim(key):
            opened = await self._open(file)
        try:
            if truncate:
                await opened.change(Changes(size=0))
        except BaseException:
            with trio.CancelScope(shield=True):
                await opened.release()
            raise
        return opened

    async def make_directory(
        self, directory: Entry, name: bytes, *, mode: int, uid: int, gid: int
    ) -> Entry:
        key = self._new_key(directory, name)
        above = await self._entries.xattrs(directory)
        attributes = new_attributes(stat.S_IFDIR | mode, uid, gid, above)
        async with self._spool.claims.claim(key, key + "/"):
            is_known = await self._expect_absent(directory, name, Subdirectory)
            await self._names.make_directory(key + "/", attributes, is_known=is_known)
        self._entries.untouch(key + "/")
        self._entries.touch(prefix_of(directory))
        return self._entries.directory(name, Subdirectory(key + "/", attributes))

    async def make_symlink(
        self, directory: Entry, name: bytes, target: bytes, *, uid: int, gid: int
    ) -> Entry:
        if not 0 < len(target) <= SYMLINK_MAX:
            raise FileError(errno.ENAMETOOLONG if target else errno.ENOENT, name)
        attributes = new_attributes(stat.S_IFLNK | 0o777, uid, gid, NONE)
        known = await self._put(directory, name, target, attributes)
        self._entries.linked(known.info, target)
        return await self._entries.entry(name, known)

    async def make_node(
        self, directory: Entry, name: bytes, *, mode: int, rdev: int, uid: int, gid: int
    ) -> Entry:
        if not self.is_mirror:
            raise FileError(errno.EPERM, name, "only a repository of kind mirror keeps it")
        above = await self._entries.xattrs(directory)
        attributes = new_attributes(mode, uid, gid, above, rdev)
        return await self._entries.entry(name, await self._put(directory, name, b"", attributes))

    async def link(self, file: Entry, directory: Entry, name: bytes) -> Entry:
        if not self.is_mirror:
            raise FileError(errno.EPERM, name, "only a repository of kind mirror copies for it")
        source, key = key_of(file), self._new_key(directory, name)
        await self._spool.settled()
        async with self._spool.claims.claim(source, key, key + "/"):
            await self._expect_absent(directory, name, Known)
            spooled = self._spool.writing(source)
            if spooled is not None:
                await self._spool.publish(spooled, source)
            known = await self._names.link(source, key)
        self._entries.touch(prefix_of(directory))
        return await self._entries.entry(name, known)

    async def remove_directory(self, directory: Entry, name: bytes) -> None:
        await self._spool.settled()
        key = await self._key_below(directory, name)
        async with self._spool.claims.claim(key, key + "/"):
            found = await self._existing(directory, name)
            if not isinstance(found, Subdirectory):
                raise FileError(errno.ENOTDIR, name)
            await self._names.remove_directory(found.prefix)
        self._entries.touch(prefix_of(directory))

    async def unlink(self, directory: Entry, name: bytes) -> None:
        await self._spool.settled()
        key = await self._key_below(directory, name)
        async with self._spool.claims.claim(key):
            found = await self._existing(directory, name)
            if isinstance(found, Subdirectory):
                raise FileError(errno.EISDIR, name)
            await self._names.remove(await self._name(found))
        self._entries.touch(prefix_of(directory))

    async def rename(
        self,
        directory: Entry,
        name: bytes,
        new_directory: Entry,
        new_name: bytes,
        *,
        no_replace: bool = False,
    ) -> None:
        key, new = await self._key_below(directory, name), self._new_key(new_directory, new_name)
        if key == new:
            await self._existing(directory, name)
            return
        await self._spool.settled(but=key)
        async with self._spool.claims.claim(key, key + "/", new, new + "/"):
            source = await self._existing(directory, name)
            target = await self._entries.find(prefix_of(new_directory), new_name)
            if target is not None and no_replace:
                raise FileError(errno.EEXIST, new_name)
            if isinstance(source, Subdirectory):
                await self._rename_directory(source, new + "/", target, new_name)
            elif isinstance(target, Subdirectory):
                raise FileError(errno.EISDIR, new_name)
            else:
                replaced = await self._name(target) if target else Name(new, None, None)
                await self._names.rename(await self._name(source), replaced, no_replace=no_replace)
        self._entries.touch(prefix_of(directory))
        self._entries.touch(prefix_of(new_directory))

    async def change(self, entry: Entry, changes: Changes) -> Entry:
        if entry.is_directory:
            return await self._change_directory(entry, changes)
        if changes.size is not None:
            file = await self.open_for_writing(entry, truncate=False)
            try:
                await file.change(changes)
                await file.flush()
                return file.entry
            finally:
                await file.release()
        found = await self._attributes.of_object(entry.node, partial(changed, changes=changes))
        return await self._entries.entry(entry.name, found)

    async def synchronize(self, directory: Entry) -> None:
        self._spool.end_epoch()
        await self._spool.journal.synchronize()

    async def space(self) -> Space:
        total = self._capacity or CAPACITY
        used = (await self._metadata.status()).bytes if self._capacity else 0
        return Space(total, max(0, total - used))

    async def _open(self, file: Entry) -> RepositoryFile:
        key = key_of(file)
        spooled = self._spool.writing(key)
        if spooled is None:
            known = await (self._metadata.settled if self.is_mirror else self._metadata.look_up)(
                key
            )
            spooled = self._spool.open(known.info, self._entries.attributes(known))
        else:
            self._spool.hold(spooled)
        return RepositoryFile(self._parts, spooled, file.name)

    async def _change_directory(self, entry: Entry, changes: Changes) -> Entry:
        if changes.size is not None:
            raise FileError(errno.EISDIR, entry.name)
        prefix = prefix_of(entry)
        now = Attributes(
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime_ns=entry.mtime_ns,
            atime_ns=entry.atime_ns,
            ctime_ns=entry.ctime_ns,
            xattrs=text_of(await self._entries.xattrs(entry)),
        )
        attributes = changed(now, changes)
        if prefix:
            await self._attributes.of_directory(prefix, attributes)
        else:
            self._entries.set_root(attributes)
        self._entries.untouch(prefix)
        return self._entries.directory(entry.name, Subdirectory(prefix, attributes))

    async def _rename_directory(
        self, source: Subdirectory, target_prefix: str, target: Found | None, name: bytes
    ) -> None:
        if target is not None and not isinstance(target, Subdirectory):
            raise FileError(errno.ENOTDIR, name)
        if target_prefix.startswith(source.prefix):
            raise FileError(errno.EINVAL, name, "a directory cannot be moved into itself")
        if target is not None and not self._names.may_be_gone(target):
            await self._names.expect_empty(target_prefix)
        await self._names.rename_directory(source.prefix, target_prefix)
        self._entries.moved(source.prefix, target_prefix)

    async def _name(self, found: Found) -> Name:
        """Return what the spool and the store have of a file, now that its name is claimed."""
        if isinstance(found, Known):
            return Name(found.info.key, self._spool.writing(found.info.key), found)
        assert isinstance(found, SpooledFile)
        assert found.key is not None
        if found.is_new:
            return Name(found.key, found, None)
        try:
            return Name(found.key, found, await self._metadata.look_up(found.key))
        except NotFound:
            return Name(found.key, found, None)

    async def _existing(self, directory: Entry, name: bytes) -> Found:
        found = await self._entries.find(prefix_of(directory), name)
        if found is None:
            raise FileError(errno.ENOENT, name)
        return found

    async def _put(
        self, directory: Entry, name: bytes, body: bytes, attributes: Attributes
    ) -> Known:
        """Store what is made as a small object of its own."""
        key = self._new_key(directory, name)
        async with self._spool.claims.claim(key, key + "/"):
            await self._expect_absent(directory, name, Known)
            info = await self._names.put(key, body, attributes)
        self._entries.touch(prefix_of(directory))
        return Known(info, attributes, is_settled=True)

    async def _expect_absent(self, directory: Entry, name: bytes, kind: type[Found]) -> bool:
        """True when the index has something of that `kind` which another gateway may have removed.

        Raises `FileError` (EEXIST) for all else that is there.
        """
        found = await self._entries.find(prefix_of(directory), name)
        if found is not None and not self._may_be_gone(found, kind):
            raise FileError(errno.EEXIST, name)
        return found is not None

    def _may_be_gone(self, found: Found, kind: type[Found]) -> bool:
        return isinstance(found, kind) and self._names.may_be_gone(found)

    def _new_key(self, directory: Entry, name: bytes) -> str:
        """Return the key for a new name; `FileError` when no object can have it."""
        text, prefix = decoded(name), prefix_of(directory)
        if len(name) > NAME_MAX:
            raise FileError(errno.ENAMETOOLONG, name)
        if prefix + text == HIDDEN[:-1]:
            raise FileError(errno.EPERM, name, "this name is the gateway's own")
        try:
            return new_key(prefix, name, self._store.abilities)
        except InvalidKey as error:
            too_long = len((prefix + text).encode()) >= self._store.abilities.limits.key_max
            code = errno.ENAMETOOLONG if too_long else errno.EINVAL
            raise FileError(code, name, str(error)) from error

    async def _key_below(self, directory: Entry, name: bytes) -> str:
        """Return the key that a name stands for, if anything has it."""
        prefix, text = prefix_of(directory), decoded(name)
        if not text.startswith(MARK):
            return prefix + text
        found = await self._existing(directory, name)
        if isinstance(found, Subdirectory):
            return found.prefix[:-1]
        return found.info.key if isinstance(found, Known) else found.key or prefix + text
