"""Find the images of one disk: from what the backup's metadata names to the one without a parent.

By key only: an alias leads to a VHD directory, a header names the parent beside the alias. Nothing
is listed unless an image is missing and a merge might explain it.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from backgate.fs.disk import Disk, Member
from backgate.fs.disks.chain import Chain
from backgate.fs.disks.chunks import Chunks
from backgate.fs.disks.keys import BadPath, beside
from backgate.fs.disks.vhd_directory import VhdDirectory, open_directory
from backgate.fs.disks.vhd_file import FixedVhd, VhdFile, open_file
from backgate.fs.disks.vhd_format import DIFFERENCING
from backgate.fs.formats.xen_orchestra.layout import ALIAS
from backgate.fs.formats.xen_orchestra.merges import (
    Merge,
    Merges,
    StatesByDirectory,
    state_key,
)
from backgate.fs.formats.xen_orchestra.remote import Remote
from backgate.gateway.errors import Damaged, NotFound, Replaced, StoreError
from backgate.gateway.units import KIB, MIB, size_to_text

CHAIN_MAX = 1000  # images of one disk
AHEAD_MAX = 40  # images opened before it is known that they belong to the chain
AHEAD_AT_ONCE = 8
MISSES_MAX = 32  # objects that may turn out missing, or others, while the images are found
TABLES_MAX = 256 * MIB  # bytes of the tables of one disk's images; each is kept whole
ALIAS_MAX = 4 * KIB  # bytes of an alias, encrypted; Xen Orchestra takes 1024
Image = VhdDirectory | VhdFile | FixedVhd


@dataclass(frozen=True, slots=True)
class _Link:
    key: str  # of the file, alias or directory
    image: Image

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]


class Chains:
    """Opens the disks of one repository."""

    def __init__(self, remote: Remote, chunks: Chunks) -> None:
        self._remote, self._chunks = remote, chunks

    async def open(self, key: str, known: Iterable[str], states: StatesByDirectory) -> Disk:
        """Open the disk whose youngest image is `key`.

        `known` are keys that may be older images of it: opened at once, where a chain of many
        would be walked link by link. `states` are the merges known of. Raises `Damaged` when an
        image is missing or does not fit, `StoreError`.
        """

        async def resolve(missing: str) -> Sequence[Member]:
            await self._remote.look_again(missing)
            found = await self._links(key, {}, states, is_listing=True)
            watch.follow(found)
            return found.merging()

        found = await self._links(key, await self._opened_ahead(key, known), states)
        watch = _Watch(self._remote, key, found)
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
        return Chain(found.merging(), resolve, allocated, notes, watch.is_current)

    async def _opened_ahead(self, key: str, known: Iterable[str]) -> dict[str, Image]:
        """Return those of the images beside `key` that could be opened, the youngest of them."""
        directory = key.rpartition("/")[0]
        older = sorted(one for one in known if one <= key and one.rpartition("/")[0] == directory)
        found: dict[str, Image] = {}
        turns = trio.CapacityLimiter(AHEAD_AT_ONCE)

        async def open_one(image: str) -> None:
            with suppress(Damaged, StoreError):  # told of when the walk comes to it, if it does
                async with turns:
                    found[image] = await self._image(image)

        async with trio.open_nursery() as nursery:
            for image in older[-AHEAD_MAX:]:
                nursery.start_soon(open_one, image)
        return found

    async def _links(
        self,
        key: str,
        opened: dict[str, Image],
        states: StatesByDirectory,
        *,
        is_listing: bool = False,
    ) -> "_Links":
        """Return the images of `key`; with `is_listing`, after a look for merges that are new."""
        directory, _, name = key.rpartition("/")
        merges = Merges(self._remote, directory, states.get(directory, ()))
        if is_listing:
            await merges.list_all()
        missed: set[str] = set()
        while True:
            try:
                found = await self._walk(key, opened, merges)
                break
            except (NotFound, Replaced) as error:
                opened, missing = {}, error.key or key
                is_known = missing in missed or len(missed) == MISSES_MAX
                missed.add(missing)
                if not is_known:  # it may be another, or somewhere else, since we were told of it
                    await self._remote.look_again(missing)
                if not await merges.list_all() and is_known:
                    text = f"it is missing, and without it the disk is not whole: {error}"
                    raise Damaged(missing, None, text) from None
        if any(merge.is_end_of(name) for merge in found.merges):
            text = "its backup was deleted, and younger ones are being merged into its disk"
            raise Damaged(key, None, text)
        return found

    async def _walk(self, key: str, opened: dict[str, Image], merges: Merges) -> "_Links":
        links: list[_Link] = []
        seen: set[str] = set()
        kept = 0
        while True:
            key = await self._standing(key, merges)
            if key in seen or len(seen) == CHAIN_MAX:
                raise Damaged(key, None, "the images of this disk form a loop, or are too many")
            seen.add(key)
            links.append(_Link(key, opened.get(key) or await self._image(key)))
            await merges.look_at(key)
            image = links[-1].image
            kept += image.kept if isinstance(image, VhdDirectory) else 0
            if kept > TABLES_MAX:
                raise Damaged(key, None, f"tables of {kept} bytes for one disk are refused")
            if isinstance(image, FixedVhd) or image.footer.kind != DIFFERENCING:
                break
            try:
                key = beside(key, image.header.parent_name, self._remote.where)
            except BadPath as error:
                raise Damaged(image.where, None, f"its parent: {error}") from None
        found = _Links(links, await merges.known())
        found.require_fit()
        return found

    async def _standing(self, key: str, merges: Merges) -> str:
        """Return the key of the image that has all of what `key` names."""
        directory, _, name = key.rpartition("/")
        for merge in await merges.known():
            if merge.is_into(name) and merge.oldest != name:
                oldest = f"{directory}/{merge.oldest}"
                if await _is_there(self._remote, oldest) and (
                    merge.names or not await _is_there(self._remote, key)
                ):
                    return oldest
        return key

    async def _image(self, key: str) -> Image:
        if key.endswith(ALIAS):
            return await self._directory(await self._target(key))
        try:
            info = await self._remote.info(key)
        except NotFound:
            return await self._directory(key)  # as old releases wrote them, without an alias
        if self._remote.opener is not None:
            raise Damaged(key, None, "a VHD file in an encrypted repository: only directories are")
        return await open_file(key, self._remote.source(info), may_be_fixed=False)

    async def _directory(self, key: str) -> VhdDirectory:
        return await open_directory(self._remote, self._chunks, key)

    async def _target(self, alias: str) -> str:
        """Return the key of the VHD directory that an alias leads to."""
        content = await self._remote.read(await self._remote.info(alias), ALIAS_MAX)
        try:
            target = beside(alias, bytes(content).decode().strip(), self._remote.where)
        except (BadPath, UnicodeDecodeError) as error:
            raise Damaged(alias, None, f"an alias that leads nowhere: {error}") from None
        if target.endswith(ALIAS):
            raise Damaged(alias, None, "an alias of an alias")
        return target


class _Watch:
    """Tells whether the images of the disk `key` are still those that were found."""

    def __init__(self, remote: Remote, key: str, found: "_Links") -> None:
        self._remote, self._key, self._found = remote, key, found

    def follow(self, found: "_Links") -> None:
        """Watch other images from now on."""
        self._found = found

    async def is_current(self) -> bool:
        """False when `key` is gone, or a merge goes on that was not known of; `StoreError`."""
        known = {merge.oldest for merge in self._found.merges}
        links = [link for link in self._found.links if link.name not in known]
        if not known and not await _is_there(self._remote, self._key):
            return False
        for link in links:
            with suppress(NotFound):
                await self._remote.info(state_key(link.key))
                return False
        return True


async def _is_there(remote: Remote, key: str) -> bool:
    for one in (key, f"{key}/header"):
        with suppress(NotFound):
            await remote.info(one)
            return True
    return False


@dataclass(frozen=True, slots=True)
class _Links:
    """The images of a disk, the youngest first, and the merges among them."""

    links: Sequence[_Link]
    merges: Sequence[Merge]

    def require_fit(self) -> None:
        """Raise `Damaged` unless each image was made on top of the next."""
        pending = {name for merge in self.merges for name in self._names(merge)}
        for child, parent in zip(self.links, self.links[1:], strict=False):
            if {child.name, parent.name} & pending:
                continue  # the merge changes the parent's identity before the child is gone
            image = child.image
            if isinstance(image, FixedVhd) or image.header.parent_uuid != parent.image.footer.uuid:
                raise Damaged(child.key, None, f"it was not made on top of {parent.name}")

    def merging(self) -> list[Member]:
        """Return the images; those whose blocks are being moved look for them where they go."""
        directory = self.links[0].key.rpartition("/")[0]
        places = {
            link.name: number
            for number, link in enumerate(self.links)
            if link.key.rpartition("/")[0] == directory
        }
        images = [link.image for link in self.links]
        for merge in self.merges:
            oldest = images[places[merge.oldest]] if merge.oldest in places else None
            for name in self._names(merge):
                image = images[places[name]] if name in places else None
                if (
                    name != merge.oldest
                    and isinstance(image, VhdDirectory)
                    and isinstance(oldest, VhdDirectory)
                ):
                    images[places[name]] = image.merging_into(oldest)
        return list(images)

    def _names(self, merge: Merge) -> Sequence[str]:
        """Return the images that a merge concerns; the child of the oldest where none are named."""
        if merge.names:
            return merge.names
        names = [link.name for link in self.links]
        if merge.oldest not in names:
            return ()
        at = names.index(merge.oldest)
        return names[max(0, at - 1) : at + 1]
