"""Open the disks of a repository: the images of each, and what a merge has moved among them."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

import trio

from backgate.fs.disk import Disk, Member
from backgate.fs.disks.chain import Chain
from backgate.fs.disks.chunks import Chunks
from backgate.fs.disks.vhd_directory import VhdDirectory, open_directory
from backgate.fs.disks.vhd_file import FixedVhd, VhdFile, open_file
from backgate.fs.formats.xen_orchestra.kept import Kept
from backgate.fs.formats.xen_orchestra.layout import ALIAS
from backgate.fs.formats.xen_orchestra.links import About, Finder, Link, Links, target_of
from backgate.fs.formats.xen_orchestra.merges import StatesByDirectory
from backgate.fs.formats.xen_orchestra.remote import Remote
from backgate.fs.formats.xen_orchestra.tables import Share, Tables
from backgate.gateway.errors import Damaged, NotFound, StoreError
from backgate.gateway.provider import ObjectInfo
from backgate.gateway.units import MIB, size_to_text

AHEAD_MAX = 40  # images opened before it is known that they belong to the chain
AHEAD_TABLES = 16 * MIB  # bytes of their tables that are kept
AT_ONCE = 16  # images opened together, of all disks
Image = VhdDirectory | VhdFile | FixedVhd


class Chains:
    """Opens the disks of one repository."""

    def __init__(self, remote: Remote, chunks: Chunks, tables: Tables) -> None:
        self._remote, self._chunks, self.tables = remote, chunks, tables
        self._turns = trio.CapacityLimiter(AT_ONCE)

    async def open(
        self,
        key: str,
        announced: ObjectInfo,
        known: Iterable[str],
        states: StatesByDirectory,
        share: Share,
    ) -> Disk:
        """Open the disk whose youngest image is `key`, of the backup that `announced` stands for.

        `known` are keys that may be older images of it: opened at once, where a chain of many
        would be walked link by link. `states` are the merges known of. Raises `Damaged` when an
        image is missing or does not fit, `StoreError`.
        """
        kept = Kept(self._remote, key, announced)
        return await _Opening(self, self._remote, key, kept, share).disk(known, states)

    async def image(self, kept: Kept, key: str) -> Link[Image]:
        """Open the image that has the key `key`; `NotFound`, `Replaced`, `Damaged`."""
        async with self._turns:
            image = await self._opened(kept, key)
        header = None if isinstance(image, FixedVhd) else image.header
        return Link(key, About.of(image.where, image.footer, header), image)

    async def _opened(self, kept: Kept, key: str) -> Image:
        if key.endswith(ALIAS):
            alias = await kept.info(key)
            return await open_directory(kept, self._chunks, await target_of(self._remote, alias))
        try:
            info = await kept.info(key)
        except NotFound:  # as old releases wrote them, without an alias
            return await open_directory(kept, self._chunks, key)
        if self._remote.opener is not None:
            raise Damaged(key, None, "a VHD file in an encrypted repository: only directories are")
        return await open_file(key, kept.source(info), may_be_fixed=False)


class _Opening:
    """One disk: its images as they are found, and found again."""

    def __init__(self, chains: Chains, remote: Remote, key: str, kept: Kept, share: Share) -> None:
        self._chains, self._remote, self._key = chains, remote, key
        self._kept, self._share = kept, share
        self._ahead: dict[str, Link[Image]] = {}

    async def disk(self, known: Iterable[str], states: StatesByDirectory) -> Disk:
        """Return the disk."""

        async def resolve(missing: str) -> Sequence[Member]:
            await self._remote.look_again(missing)
            return _members(await self._found(states, is_listing=True))

        await self._open_ahead(known)
        found = await self._found(states)
        images = [link.image for link in found.links]
        allocated = min(images[0].size, sum(image.allocated for image in images))
        kind = "vhd directory" if isinstance(images[0], VhdDirectory) else "vhd"
        notes = {
            "image": kind,
            "chain": str(len(images)),
            "allocated": f"{size_to_text(allocated)} at most",
        }
        files = [image.stored for image in images if isinstance(image, VhdFile)]
        if len(files) == len(images):  # of the objects of a directory nobody has the sum
            notes["stored"] = size_to_text(sum(files))
        return Chain(_members(found), resolve, allocated, notes)

    async def image(self, key: str, anew: bool) -> Link[Image]:
        """See `Finder.image`."""
        if anew:  # what was opened ahead may have been changed since
            self._ahead.clear()
        link = self._ahead.pop(key, None)
        return link or await self._chains.image(self._kept, key)

    def weigh(self, links: Sequence[Link[Image]]) -> None:
        """See `Finder.weigh`."""
        kept = sum(_table(link) for link in links)
        if not self._share.hold(self._key, kept):
            self._share.hold(self._key, 0)
            raise Damaged(links[-1].key, None, f"tables of {kept} bytes for one disk are refused")

    async def _found(self, states: StatesByDirectory, *, is_listing: bool = False) -> Links[Image]:
        finder = Finder(self._remote, self.image, self.weigh)
        found = await finder.links(self._key, states, is_listing=is_listing)
        self._ahead.clear()
        self._kept.follow([link.key for link in found.links])
        return found

    async def _open_ahead(self, known: Iterable[str]) -> None:
        """Open the disk's own image, and if it needs others, those that may be these."""
        with suppress(Damaged, StoreError):  # told of when the walk comes to it
            self._ahead[self._key] = await self._chains.image(self._kept, self._key)
        youngest = self._ahead.get(self._key)
        if youngest is None or youngest.about.parent_name is None:
            return
        directory = self._key.rpartition("/")[0]
        older = sorted(one for one in known if one < self._key and _directory(one) == directory)
        held = 0

        async def open_one(key: str) -> None:
            nonlocal held
            with suppress(Damaged, StoreError):  # told of when the walk comes to it, if it does
                link = await self._chains.image(self._kept, key)
                held += _table(link)
                if held <= AHEAD_TABLES:
                    self._ahead[key] = link

        async with trio.open_nursery() as nursery:
            for one in older[-AHEAD_MAX:]:
                nursery.start_soon(open_one, one)


def _directory(key: str) -> str:
    return key.rpartition("/")[0]


def _table(link: Link[Image]) -> int:
    return link.image.kept if isinstance(link.image, VhdDirectory) else 0


def _members(found: Links[Image]) -> list[Member]:
    """Return the images; those whose blocks are being moved look for them where they go."""
    directory = _directory(found.links[0].key)
    places = {
        link.name: number
        for number, link in enumerate(found.links)
        if _directory(link.key) == directory
    }
    images = [link.image for link in found.links]
    for merge in found.merges:
        oldest = images[places[merge.oldest]] if merge.oldest in places else None
        for name in found.names(merge):
            image = images[places[name]] if name in places else None
            if (
                name != merge.oldest
                and isinstance(image, VhdDirectory)
                and isinstance(oldest, VhdDirectory)
            ):
                images[places[name]] = image.merging_into(oldest)
    return list(images)
