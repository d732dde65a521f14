"""What a repository shows: the index's objects and directories, and the spool's files in their
place.
"""

import errno
import stat
import time
from collections.abc import Mapping, Sequence

import trio
from cachetools import LRUCache, RRCache
from msgspec.structs import replace

from backgate.fs.known_names import KnownNames
from backgate.fs.name_pages import NamePages
from backgate.fs.repository_pages import Found, cursor_of, is_hidden, key_in, merged, place_of
from backgate.fs.tree import FEW, Children, Entry, Names
from backgate.gateway.attributes import (
    SYMLINK_MAX,
    Attributes,
    default_attributes,
)
from backgate.gateway.errors import Damaged, FileError, InvalidKey, NotFound, StoreError
from backgate.gateway.keys import component_of, parent_of
from backgate.gateway.metadata.rows import Known, Subdirectory
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.records import HIDDEN
from backgate.gateway.repository import Repository
from backgate.gateway.shelf import Shelf
from backgate.gateway.spooled import SpooledFile
from backgate.gateway.xattrs import NONE, xattrs_of

PAGE = 1000  # entries
EXECUTABLE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
MARKER_PATIENCE = 2.0  # seconds; mode and times of a directory are not worth more
KEPT = 110_000  # entries that are kept for who lists again; some 35 MB
TOUCHED = 10_000  # directories whose time is newer than what is stored; about 2 MB
TARGETS = 10_000  # symlinks whose target is remembered; about 2 MB


class Entries:
    """Finds names and makes entries of them; what is on the spool's `shelf` goes first.

    The node of an entry is the key of its object, or the prefix of its directory.
    """

    def __init__(self, repository: Repository, shelf: Shelf) -> None:
        self._metadata, self._shelf = repository.metadata, shelf
        self._hasty = repository.metadata.patient(MARKER_PATIENCE)
        self._sources = repository.source
        self._is_mirror = repository.config.kind == "mirror"
        self._asks_store = self._is_mirror or repository.config.attributes == "stored"
        self._targets: LRUCache[tuple[str, str], bytes] = LRUCache(TARGETS)
        self._root_attributes: Attributes | None = None
        self._started_ns = time.time_ns()  # the time of directories that have none
        self._touched: LRUCache[str, int] = LRUCache(TOUCHED)  # prefix -> ns, newer than any set
        self._touches = 0
        # Pages as they were made, each for one state of the index. Any of them gives way: of a
        # directory that is too large for all to be kept, who lists it again still finds many.
        self._pages: RRCache[tuple[str, bytes | None, int], Children]
        self._pages = RRCache(KEPT, getsizeof=lambda page: 1 + len(page.entries))
        self._name_pages = NamePages()
        self._known = KnownNames(repository)

    async def root(self) -> Entry:
        """Return the top directory."""
        await trio.lowlevel.checkpoint()
        return self.directory(b"", Subdirectory("", self._root_attributes))

    def set_root(self, attributes: Attributes) -> None:
        """Give the top directory attributes, until the repository is closed: it has no object."""
        self._root_attributes = attributes

    def touch(self, prefix: str) -> None:
        """Note that a name in the directory `prefix` came or went: that is its time now.

        Not in the index: it would cost one more change of it for each file.
        """
        self._touched[prefix] = time.time_ns()
        self._touches += 1

    def untouch(self, prefix: str) -> None:
        """Note that the directory's attributes were set, with the time that it has."""
        self._touched.pop(prefix, None)
        self._touches += 1

    def moved(self, source: str, target: str) -> None:
        """Note that the directory `source`, and all below it, is `target` now."""
        times = {key: at_ns for key, at_ns in self._touched.items() if key.startswith(source)}
        self.untouch(target)
        for key, at_ns in times.items():
            del self._touched[key]
            self._touched[target + key.removeprefix(source)] = at_ns

    async def xattrs(self, entry: Entry) -> Mapping[bytes, bytes]:
        """Return the extended attributes of a file or directory."""
        attributes = await self._attributes_of(entry) if entry.has_xattrs else None
        return xattrs_of(attributes.xattrs) if attributes is not None else NONE

    async def find(self, prefix: str, name: bytes, *, is_expected: bool = True) -> Found | None:
        """Return what `name` in the directory `prefix` is; None when there surely is nothing.

        Who expects nothing is told what was seen a moment ago, if nothing came since.
        """
        text = decoded(name)
        if prefix + text == HIDDEN[:-1]:
            return None
        try:
            component = component_of(text)
        except InvalidKey:
            return None  # no key is shown under this name
        key, is_key = prefix + component.text, not (component.is_beside or component.is_abbreviated)
        if is_key:
            spooled = self._shelf.get(key)
            if spooled is not None:
                return spooled
            if not is_expected and self._known.is_absent(key):
                return None
        generation = self._metadata.generation
        try:
            found = await self._metadata.look_up_name(prefix, text)
        except NotFound:
            if is_key:
                self._known.keep_absent(key, generation)
            return None
        if isinstance(found, Known):
            return self._shelf.get(found.info.key) or found
        return found

    async def child(self, prefix: str, name: bytes) -> Entry:
        """Return the entry `name` of the directory `prefix`, its attributes settled."""
        known = self._known.directory(prefix, name)
        if known is not None and self._shelf.get(known.prefix[:-1]) is None:
            return self.directory(name, known)
        generation = self._metadata.generation
        found = await self.find(prefix, name)
        if found is None:
            raise FileError(errno.ENOENT, name)
        if not isinstance(found, Subdirectory):
            return await self.entry(name, found)
        settled = await self._settled(found)
        self._known.keep_directory(prefix, name, generation, settled)
        return self.directory(name, settled)

    async def entry(self, name: bytes, found: Found) -> Entry:
        """Return the entry of what was found under `name`, its attributes settled."""
        if isinstance(found, Known):
            known = await self._settled_object(found)
            return await self._with_target(self.file(name, known), known.info)
        if isinstance(found, Subdirectory):
            return self.directory(name, await self._settled(found))
        return self.spooled(name, found)

    async def children(self, prefix: str, cursor: bytes | None) -> Children:
        """Return a page of the directory `prefix`.

        Its entries are in the order of their keys, those of the spool at the place of theirs:
        whatever is stored while somebody lists is shown once.
        """
        after, place = place_of(cursor)
        spooled = self._shelf.children(prefix)
        if cursor is None:  # an old listing is listed again, and one that is not whole waited for
            await self._metadata.children(prefix, None, 1)
        generation = self._metadata.generation
        page_key = prefix, cursor, generation + self._touches
        if not spooled and page_key in self._pages:
            return self._pages[page_key]
        known, place = await self._metadata.children(prefix, place or prefix, PAGE)
        page: Sequence[tuple[str, Found]] = known
        last = key_in(page[-1][1]) if page else after
        if spooled:
            page = merged(page, prefix, spooled, (after, None if place is None else last))
        entries = [self._listed(name, found) for name, found in page if not is_hidden(found)]
        following = cursor_of(last, place)
        children = Children(entries, following)
        if not spooled and page_key[2] == self._metadata.generation + self._touches:
            self._pages[page_key] = children
        return children

    async def names(self, prefix: str, cursor: bytes | None) -> Names:
        """Return a page as `children` does, with but the names of most files."""
        if self._shelf.children(prefix):
            page = await self.children(prefix, cursor)
            return Names(page.entries, page.cursor)
        if cursor is None:
            await self._metadata.children(prefix, None, 1)
        generation = self._metadata.generation + self._touches
        kept = self._name_pages.get(generation, prefix, cursor)
        if kept is not None:
            return kept
        told = await self._names(prefix, cursor)
        if generation == self._metadata.generation + self._touches:
            self._name_pages.put(generation, prefix, cursor, told)
        return told

    async def _names(self, prefix: str, cursor: bytes | None) -> Names:
        _, place = place_of(cursor)
        at = place or prefix  # from the start, where that was just listed
        known, place = await self._metadata.names(prefix, at, PAGE if cursor else FEW)
        entries = [
            one if isinstance(one, bytes) else self._listed(*one)
            for one in known
            if isinstance(one, bytes) or not is_hidden(one[1])
        ]
        last = known[-1] if known else b""
        key = prefix + last.decode() if isinstance(last, bytes) else key_in(last[1])
        return Names(entries, cursor_of(key, place))

    async def shown(self, key: str) -> tuple[ObjectInfo, Attributes]:
        """Return the object `key` and the attributes that stat(2) tells of it."""
        known = await self._settled_object(await self._metadata.look_up(key))
        return known.info, self.attributes(known)

    def attributes(self, known: Known) -> Attributes:
        """Return what stat(2) tells of an object."""
        found = known.attributes or default_attributes(known.info)
        if stat.S_ISDIR(found.mode):  # bytes under a key that ends in a slash are no directory
            return replace(found, mode=stat.S_IFREG | stat.S_IMODE(found.mode) & ~EXECUTABLE)
        if found.is_special and not self._is_mirror:
            return replace(found, mode=stat.S_IFREG | stat.S_IMODE(found.mode))
        return found

    def file(self, name: bytes, known: Known) -> Entry:
        """Return the entry of an object."""
        info = known.info
        return self._made(name, info.key, self.attributes(known), info.size)

    def spooled(self, name: bytes, file: SpooledFile) -> Entry:
        """Return the entry of a file as it is in the spool."""
        return self._made(name, file.key or "", file.attributes, file.size)

    def directory(self, name: bytes, found: Subdirectory) -> Entry:
        """Return the entry of a directory; one without attributes is the gateway's user's."""
        marker = ObjectInfo(found.prefix or "/", 0, self._started_ns, "")
        attributes = found.attributes or default_attributes(marker)
        touched_ns = self._touched.get(found.prefix)
        if touched_ns is not None:
            ctime_ns = max(touched_ns, attributes.ctime_ns or 0)
            attributes = replace(attributes, mtime_ns=touched_ns, ctime_ns=ctime_ns)
        return self._made(name, found.prefix, attributes, 0)

    def linked(self, info: ObjectInfo, target: bytes) -> None:
        """Remember the target of a symlink that was just stored."""
        self._targets[info.key, info.etag] = target

    def _listed(self, name: str, found: Found) -> Entry:
        """Return an entry for a listing, for which the store is not asked."""
        raw = name.encode("utf-8", "surrogateescape")
        if isinstance(found, Subdirectory):
            entry = self.directory(raw, found)
            return entry if found.attributes is not None else replace(entry, is_settled=False)
        if isinstance(found, SpooledFile):
            return self.spooled(raw, found)
        info, attributes = found.info, self.attributes(found)
        is_settled, target = found.is_settled or not self._is_doubtful(info), None
        if stat.S_ISLNK(attributes.mode):
            target = self._targets.get((info.key, info.etag))
            is_settled = target is not None
        return self._made(
            raw, info.key, attributes, info.size, is_settled=is_settled, target=target
        )

    async def _settled(self, found: Subdirectory) -> Subdirectory:
        """Return a directory with what its marker says of it; a store away delays nobody."""
        if found.attributes is not None:
            return found
        try:
            marker = await self._hasty.settled(found.prefix)
        except StoreError:
            return found
        return Subdirectory(found.prefix, marker.attributes)

    async def _attributes_of(self, entry: Entry) -> Attributes | None:
        key: str = entry.node
        if not entry.is_directory:
            spooled = self._shelf.get(key)
            if spooled is not None:
                return spooled.attributes
            return (await self._metadata.settled(key)).attributes
        if not key:
            return self._root_attributes
        found = await self.find(parent_of(key[:-1]), entry.name)
        return (await self._settled(found)).attributes if isinstance(found, Subdirectory) else None

    async def _settled_object(self, found: Known) -> Known:
        """Return an object with what it says of itself, where that may matter."""
        if found.is_settled or not self._is_doubtful(found.info):
            return found
        return await self._metadata.settled(found.info.key)

    def _is_doubtful(self, info: ObjectInfo) -> bool:
        """True when the object's own metadata may say what matters: a symlink, or as configured."""
        return self._asks_store or 0 < info.size <= SYMLINK_MAX

    async def _with_target(self, entry: Entry, info: ObjectInfo) -> Entry:
        if not entry.is_symlink:
            return entry
        target = self._targets.get((info.key, info.etag))
        if target is None:
            target = bytes(await self._sources(info).read_at(0, SYMLINK_MAX))
            if not target or b"\0" in target:
                raise Damaged(info.key, 0, "it says that it is a symlink, and holds no target")
            self.linked(info, target)
        return replace(entry, target=target)

    def _made(
        self,
        name: bytes,
        key: str,
        attributes: Attributes,
        size: int,
        *,
        is_settled: bool = True,
        target: bytes | None = None,
    ) -> Entry:
        return Entry(
            name=name,
            mode=attributes.mode,
            size=size,
            uid=attributes.uid,
            gid=attributes.gid,
            mtime_ns=attributes.mtime_ns,
            atime_ns=attributes.atime_ns,
            ctime_ns=attributes.ctime_ns,
            nlink=1,  # of a directory too: subdirectories are not counted, and find(1) knows that
            rdev=attributes.rdev,
            target=target,
            has_xattrs=self._is_mirror and bool(attributes.xattrs),
            node=key,
            is_settled=is_settled,
        )


def decoded(name: bytes) -> str:
    """Return a name as keys have it; `FileError` (EILSEQ) when it is not UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise FileError(
            errno.EILSEQ, name, "a key of an object is UTF-8, and this is not"
        ) from None


def prefix_of(directory: Entry) -> str:
    """Return the prefix of a directory; `FileError` (ENOTDIR) when it is none."""
    if not directory.is_directory:
        raise FileError(errno.ENOTDIR, directory.name)
    prefix: str = directory.node
    return prefix


def key_of(file: Entry) -> str:
    """Return the key of a file; `FileError` (EISDIR) when it is a directory."""
    if file.is_directory:
        raise FileError(errno.EISDIR, file.name)
    key: str = file.node
    return key
