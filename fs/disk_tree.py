"""The tree of a backup that consists of disks: each as one file, and what lies on them as files.

`disks/<name>/disk.raw`, `disks/<name>/partitions/<n>-<label>/<files>`, and what a volume manager
makes of them all in `volumes/<name>/<files>`. Where no files can be shown there is `volume.raw`
with a `README.txt` that says why. Everything is found again by name, so entries outlive the parser
that told of them.
"""

import errno
import logging
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import trio
from cachetools import TTLCache
from msgspec.structs import replace

from backgate.fs.backup_disks import RAW, TRY_AGAIN, LostDisks, NamedDisk
from backgate.fs.disk_entries import Inside, entry_of, require_directory, shown_as
from backgate.fs.disk_layout import (
    DISK_RAW,
    DISKS,
    PARTITIONS,
    README,
    VOLUME_RAW,
    VOLUMES,
    DiskReport,
    Layout,
    Place,
    Report,
    VolumeReport,
    about_disk,
    about_volume,
    is_below_disks,
)
from backgate.fs.disk_remarks import Remarks, shown_place
from backgate.fs.format import Surroundings
from backgate.fs.nurseries import open_nursery
from backgate.fs.parser.file import ParsedFile
from backgate.fs.parser.messages import VOLUMES_MAX, Disk, Notes, VolumeFacts
from backgate.fs.parser.parser import Parser, Unparsed
from backgate.fs.tree import Children, Entry
from backgate.fs.volume import XATTR_MAX, XATTR_NAME_MAX
from backgate.gateway.errors import Damaged, FileError
from backgate.gateway.source import Bytes, Source
from backgate.gateway.units import MIB

DIRECTORY, FILE = stat.S_IFDIR | 0o555, stat.S_IFREG | 0o444
BLOCKS = 16 * MIB  # bytes of the disks that a backup in use keeps in memory

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_disks(
    disks: Sequence[NamedDisk],
    surroundings: Surroundings,
    *,
    where: str,
    passphrases: Sequence[bytes],
    is_single: bool = False,
) -> AsyncIterator["DiskTree"]:
    """Open `disks` as an immutable tree; a parser of what is on them starts when it is needed.

    `where` names the backup in messages. With `is_single` there is one disk, shown at the top.
    """

    async def sibling(number: int, name: str) -> Source | None:
        find = disks[number].sibling
        return None if find is None else await find(name)

    parser = Parser(
        where,
        [Disk(disk.name, disk.kind, number, disk.problem) for number, disk in enumerate(disks)],
        [disk.source for disk in disks],
        passphrases=passphrases,
        siblings=sibling,
        memory=min(BLOCKS, surroundings.memory_limit),
        places=surroundings.parsers,
    )
    async with open_nursery() as nursery:
        nursery.start_soon(parser.run)
        try:
            yield DiskTree(disks, parser, is_single=is_single)
        finally:
            nursery.cancel_scope.cancel()


class DiskTree:
    """The tree, a `RenewableTree`; `open_disks` makes one."""

    def __init__(self, disks: Sequence[NamedDisk], parser: Parser, *, is_single: bool) -> None:
        self._disks, self._parser, self._is_single = disks, parser, is_single
        self._layout: Layout | None = None
        self._roots: dict[Place, Inside] = {}  # of file systems that are open
        self._failed: TTLCache[Place, str] = TTLCache(VOLUMES_MAX, TRY_AGAIN)  # and why
        self._remarks = Remarks(parser.where)
        self._mtime_ns = max((disk.mtime_ns for disk in disks), default=0)
        self._lost = LostDisks(disks)
        self._has_failed = False  # `_failed` may have something, and takes long to say

    @property
    def is_immutable(self) -> bool:
        """True unless something could not be opened, of which more may be shown later."""
        return not self._lost and not (self._has_failed and self._failed)  # asked at every look

    async def is_outdated(self) -> bool:
        return self._parser.is_outdated or await self._lost.have_come()

    async def root(self) -> Entry:
        await trio.lowlevel.checkpoint()
        return self._directory(b"", ())

    async def child(self, directory: Entry, name: bytes) -> Entry:
        await trio.lowlevel.checkpoint()
        require_directory(directory)
        inside = await self._inside(directory)
        if inside is not None:
            number, _ = await self._volume(inside.place)
            node = await self._parser.child(number, inside.node.handle, name)
            if node.inode and stat.S_ISDIR(node.mode) and node.inode in inside.below:
                where = f"{self._parser.where}: {shown_place(inside.place)}"
                raise Damaged(where, None, f"the directory {name!r} contains itself")
            return entry_of(inside, node)
        for entry in await self._entries(directory.node):
            if entry.name == name:
                root = await self._inside(entry) if entry.is_directory else None
                return entry if root is None else shown_as(root, is_settled=True).named(name)
        raise FileError(errno.ENOENT, name)

    async def children(self, directory: Entry, cursor: bytes | None = None) -> Children:
        await trio.lowlevel.checkpoint()
        require_directory(directory)
        inside = await self._inside(directory)
        if inside is None:
            return Children(await self._entries(directory.node), None)
        number, _ = await self._volume(inside.place)
        page = await self._parser.children(number, inside.node.handle, cursor)
        return Children([entry_of(inside, node) for node in page.nodes], page.cursor)

    @asynccontextmanager
    async def open(self, file: Entry) -> AsyncIterator[Source]:
        await trio.lowlevel.checkpoint()
        if not file.is_file:
            raise FileError(errno.EISDIR if file.is_directory else errno.EINVAL, file.name)
        yield await self._source(file)

    async def xattrs(self, entry: Entry) -> Mapping[bytes, bytes]:
        await trio.lowlevel.checkpoint()
        if not isinstance(entry.node, Inside) or not entry.has_xattrs:
            return {}
        number, _ = await self._volume(entry.node.place)
        found = await self._parser.xattrs(number, entry.node.node.handle)
        for name, value in found.items():
            if len(value) > XATTR_MAX or len(name) > XATTR_NAME_MAX:
                self._remarks.too_long(entry.node, name)
        return found

    async def report(self) -> Report:
        """Return what there is on the disks; each file system is opened for it."""
        disks = []
        for number, disk in enumerate(self._disks):
            size, problem, notes = await self._disk_facts(number)
            notes = {"kind": disk.kind, **disk.notes, **notes}
            disks.append(DiskReport(disk.name, size, problem, notes))
        volumes = (await self._laid_out()).volumes.items()
        return Report(disks, [await self._report(place, *found) for place, found in volumes])

    # What is found where.

    async def _laid_out(self) -> Layout:
        if self._layout is None:
            volumes = (await self._parser.volumes()).volumes
            names = [disk.name.encode() for disk in self._disks]
            self._layout = Layout(names, volumes, is_single=self._is_single)
        return self._layout

    async def _volume(self, place: Place) -> tuple[int, VolumeFacts]:
        """Return number and facts of the volume at `place`; `FileError` when there is none."""
        found = (await self._laid_out()).volumes.get(place)
        if found is None:
            raise FileError(errno.ENOENT, b"/".join(place))
        return found

    async def _inside(self, directory: Entry) -> Inside | None:
        """Return the directory as one of a file system; None where it is none."""
        place = directory.node
        return place if isinstance(place, Inside) else await self._root_at(place)

    async def _root_at(self, place: Place) -> Inside | None:
        """Return the root of the file system at `place`; None: there is none that can be read."""
        if place in self._roots:
            return self._roots[place]
        if not is_below_disks(place) or place in self._failed:
            return None
        number, facts = (await self._laid_out()).volumes.get(place, (0, None))
        if facts is None or not facts.file_system:
            return None
        try:
            root = Inside(place, await self._parser.root(number))
            notes = await self._parser.facts(number)
        except Unparsed:
            raise  # no word about the file system
        except Damaged as error:
            log.warning("%s: shown as volume.raw only: %s", shown_place(place), error)
            self._failed[place], self._has_failed = error.reason, True
            return None
        if place not in self._roots:
            self._remarks.opened(place, facts, notes)
        self._roots[place] = root
        return root

    # What is no file of a file system.

    async def _entries(self, place: Place) -> list[Entry]:
        if is_below_disks(place):
            return await self._below_disks(place)
        number = self._disk_at(place)
        if number is not None:
            entries = [await self._disk_file(number, place), self._directory(PARTITIONS, place)]
            return [*entries, self._directory(VOLUMES, place)] if self._is_single else entries
        if place == (DISKS,):
            return [self._directory(disk.name.encode(), place) for disk in self._disks]
        return [self._directory(DISKS, place), self._directory(VOLUMES, place)]

    def _disk_at(self, place: Place) -> int | None:
        """Return the number of the disk whose directory is at `place`."""
        if self._is_single:
            return 0 if place == () else None
        names = [disk.name.encode() for disk in self._disks]
        is_disk = len(place) == 2 and place[1] in names
        return names.index(place[1]) if is_disk else None

    async def _below_disks(self, place: Place) -> list[Entry]:
        layout = await self._laid_out()
        entries = []
        for name in layout.names.get(place, ()):
            _, facts = layout.volumes.get((*place, name), (0, None))
            settled = facts is None or not facts.file_system
            entries.append(self._directory(name, place, is_settled=settled))
        if place in layout.volumes and not entries:
            _, facts = layout.volumes[place]
            if facts.size:
                entries.append(self._file(VOLUME_RAW, place, facts.size))
            entries.append(self._file(README, place, len(await self._readme(place))))
        return entries

    async def _disk_file(self, number: int, place: Place) -> Entry:
        """Return `disk.raw`, or where the disk cannot be read what says so."""
        size, problem, _ = await self._disk_facts(number)
        if problem:
            return self._file(README, place, len(await self._readme(place)))
        disk = self._disks[number]
        return replace(self._file(DISK_RAW, place, size, disk.mtime_ns), allocated=disk.allocated)

    async def _disk_facts(self, number: int) -> tuple[int, str, Notes]:
        """Return a disk's size, why it cannot be read at all, and what else is known."""
        disk = self._disks[number]
        if disk.kind == RAW or disk.problem:
            return disk.source.size, disk.problem, {}
        facts = (await self._parser.opened()).disks[number]
        if facts.problem:
            self._lost.add(number)
        return facts.size, facts.problem, facts.notes

    async def _readme(self, place: Place) -> bytes:
        number = self._disk_at(place)
        if number is not None:
            _, problem, _ = await self._disk_facts(number)
            return about_disk(self._disks[number].name, problem)
        _, facts = await self._volume(place)
        if await self._root_at(place) is not None:
            raise FileError(errno.ESTALE, README)  # it can be read by now
        return about_volume(facts, self._failed.get(place, ""))

    async def _source(self, file: Entry) -> Source:
        if isinstance(file.node, Inside):
            number, _ = await self._volume(file.node.place)
            return ParsedFile(self._parser, number, file.node.node.handle, file.size)
        place, name = file.node[:-1], file.node[-1]
        if name == README:
            return Bytes(await self._readme(place))
        if name == VOLUME_RAW:
            number, facts = await self._volume(place)
            return ParsedFile(self._parser, number, None, facts.size)
        number = self._disk_at(place) or 0
        if self._disks[number].kind == RAW:
            return self._disks[number].source
        return ParsedFile(self._parser, number, None, file.size)

    def _directory(self, name: bytes, place: Place, *, is_settled: bool = True) -> Entry:
        node = (*place, name) if name else place
        return Entry(
            name=name,
            mode=DIRECTORY,
            nlink=2,
            node=node,
            mtime_ns=self._mtime_ns,
            is_settled=is_settled,
        )

    def _file(self, name: bytes, place: Place, size: int, mtime_ns: int | None = None) -> Entry:
        time_ns = self._mtime_ns if mtime_ns is None else mtime_ns
        return Entry(name=name, mode=FILE, size=size, node=(*place, name), mtime_ns=time_ns)

    async def _report(self, place: Place, number: int, facts: VolumeFacts) -> VolumeReport:
        notes, problem = dict(facts.notes), facts.problem
        if facts.member_of:
            notes["member of"] = facts.member_of
        if facts.file_system:
            try:
                notes |= await self._parser.facts(number)
            except Damaged as error:
                problem = error.reason
        return VolumeReport(
            path=shown_place(place),
            disks=[self._disks[disk].name for disk in facts.disks],
            size=facts.size,
            kind=facts.kind,
            label=facts.label,
            file_system=facts.file_system,
            problem=problem,
            notes=notes,
        )
